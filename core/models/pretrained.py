"""The authors' checkpoints, as they are, into our two-branch models.

Six forms are known: SAIG on CVUSA or CVACT (``model``), SAIG on VIGOR (``model_grd`` and ``model_sat``,
with or without ``module.``, the GAP ones without ``backbone.``), SAIG on ImageNet (``state_dict`` with a
classifier and 14 x 14 positions), L2LTR (``model_grd`` and ``model_sat``), the bare tensors of each,
and Google's R50+ViT-B/16 archive. The authors' short forms ``grd`` and ``sat`` occur here alone.

Loading is strict: every tensor is mapped or named as dropped, every parameter is filled, and
nothing is changed unless all of it fits. Reading files is not done here (``core.checkpoints``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import CheckpointError
from core.models.google_vit import convert_google_vit, is_google_vit
from core.models.l2ltr import L2ltr
from core.models.layers import resize_positions
from core.models.saig import Saig
from core.models.two_branch import TwoBranch

__all__ = ["OfficialWeights", "load_official", "split_official"]

Tensors = dict[str, Tensor]

DROPPED_ENTRIES = frozenset(
    {
        "amp_scaler",
        "arch",
        "args",
        "best_acc",
        "epoch",
        "metric",
        "optimizer",
        "state_dict_ema",
        "version",
    }
)
CLASSIFIER = frozenset({"head.weight", "head.bias"})
IMAGENET_GRID = (14, 14)
LISTED = 20


@dataclass(frozen=True)
class OfficialWeights:
    """What a checkpoint holds.

    Attributes:
        form: "paired" (one state dict of both branches), "branches" (one each), "imagenet" or
            "google"; the last two are one backbone that starts both branches.
        ground: tensors of the ground branch, keys without ``module.`` and ``backbone.``.
        aerial: tensors of the aerial branch, likewise.
        dropped: entries and tensors that were left out on purpose, sorted.

    """

    form: str
    ground: Tensors
    aerial: Tensors
    dropped: tuple[str, ...]

    @property
    def is_initialisation(self) -> bool:
        """Whether this is a backbone to start from, without trained pooling."""
        return self.form in {"imagenet", "google"}


def load_official(model: TwoBranch, checkpoint: Mapping[str, Any]) -> OfficialWeights:
    """Fill a model with an authors' checkpoint; see the module's text for the forms.

    A backbone (ImageNet, Google) goes into both encoders, its positions resampled to each view,
    and leaves the pooling fresh. All other forms must fit tensor by tensor.

    Args:
        model: of the published shape and input sizes, its encoders ``Saig`` or ``L2ltr``.
        checkpoint: what ``torch.load`` or ``numpy.load`` gives.

    Returns:
        What was found, with the names of what was dropped.

    Raises:
        CheckpointError: an unknown form, or tensors that are missing, left over or of another
            shape; all of them are listed, and the model is unchanged.

    """
    weights = split_official(checkpoint)
    branches = (
        ("ground", model.ground_encoder, model.ground_pool, weights.ground),
        ("aerial", model.aerial_encoder, model.aerial_pool, weights.aerial),
    )
    faults: list[str] = []
    plans: list[tuple[nn.Module, Tensors]] = []
    for view, encoder, pool, tensors in branches:
        own, pooled = _encoder_tensors(encoder, tensors, weights), _pool_tensors(tensors)
        parts = [("encoder", encoder, own)]
        if pooled or not weights.is_initialisation:
            parts.append(("pooling", pool, pooled))
        for part, module, given in parts:
            faults += [f"{view} {part} {fault}" for fault in _faults(module, given)]
            plans.append((module, given))
    if faults:
        raise CheckpointError(_complaint(faults))
    for module, given in plans:
        module.load_state_dict(given)
    return weights


def split_official(checkpoint: Mapping[str, Any]) -> OfficialWeights:
    """Tell the forms apart and give the tensors of each branch by plain names.

    Raises:
        CheckpointError: the checkpoint has none of the known forms, or an unknown entry.

    """
    if is_google_vit(checkpoint):
        tensors, dropped = convert_google_vit(checkpoint)
        return OfficialWeights("google", tensors, dict(tensors), dropped)
    if isinstance(checkpoint.get("model_grd"), Mapping):
        return _split_branches(checkpoint)
    entry = next((e for e in ("model", "state_dict") if isinstance(checkpoint.get(e), Mapping)), "")
    state: Mapping[str, Any] = checkpoint[entry] if entry else checkpoint
    is_paired = any("model_grd." in key or "model_sat." in key for key in state)
    if not is_paired and not any(key.endswith("pos_embed") for key in state):
        found = ", ".join(sorted(checkpoint)[:LISTED]) or "nothing"
        raise CheckpointError(
            f"Checkpoint: got the entries {found}, expected an authors' file: model, model_grd "
            "with model_sat, state_dict, or Google's R50+ViT-B_16. Convert another file by hand."
        )
    dropped = _dropped_entries(checkpoint, {entry}) if entry else ()
    tensors = _plain(state)
    if is_paired:
        return _split_pair(tensors, dropped)
    classifier = CLASSIFIER & tensors.keys()
    backbone = {key: value for key, value in tensors.items() if key not in classifier}
    dropped = tuple(sorted({*dropped, *classifier}))
    return OfficialWeights("imagenet", backbone, dict(backbone), dropped)


def _split_branches(checkpoint: Mapping[str, Any]) -> OfficialWeights:
    dropped = _dropped_entries(checkpoint, {"model_grd", "model_sat"})
    if not isinstance(checkpoint.get("model_sat"), Mapping):
        raise CheckpointError(
            "Checkpoint: got model_grd alone, expected model_sat beside it. Use the whole file."
        )
    ground, aerial = _plain(checkpoint["model_grd"]), _plain(checkpoint["model_sat"])
    return OfficialWeights("branches", ground, aerial, dropped)


def _split_pair(tensors: Tensors, dropped: tuple[str, ...]) -> OfficialWeights:
    strays = sorted(k for k in tensors if not k.startswith(("model_grd.", "model_sat.")))
    if strays:
        raise CheckpointError(_complaint([f"has no place for {key}" for key in strays]))
    views = []
    for prefix in ("model_grd.", "model_sat."):
        views.append(_plain({k[len(prefix) :]: v for k, v in tensors.items() if k[:10] == prefix}))
    return OfficialWeights("paired", views[0], views[1], dropped)


def _dropped_entries(checkpoint: Mapping[str, Any], used: set[str]) -> tuple[str, ...]:
    others = checkpoint.keys() - used
    unknown = sorted(others - DROPPED_ENTRIES)
    if unknown:
        raise CheckpointError(_complaint([f"has no place for entry {key}" for key in unknown]))
    return tuple(sorted(others))


def _plain(state_dict: Mapping[str, Any]) -> Tensors:
    """Tensors by names without the wrapper's and the branch's levels."""
    plain: Tensors = {}
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"Checkpoint entry {key}: got a {type(value).__name__}, expected a tensor. "
                "Use the authors' file as it is."
            )
        plain[key.removeprefix("module.").removeprefix("backbone.")] = value
    return plain


def _pool_tensors(tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key.startswith("linear")}


def _encoder_tensors(encoder: nn.Module, tensors: Tensors, weights: OfficialWeights) -> Tensors:
    """Tensors of the encoder, a backbone's positions resampled to the encoder's table."""
    own = {key: value for key, value in tensors.items() if not key.startswith("linear")}
    if weights.form == "imagenet" and isinstance(encoder, Saig) and "pos_embed" in own:
        own["pos_embed"] = _saig_positions(own["pos_embed"], encoder)
    name = "transformer.embeddings.position_embeddings"
    if weights.form == "google" and isinstance(encoder, L2ltr) and name in own:
        own[name] = _vit_positions(own[name], encoder.grid(*encoder.config.image_size))
    return own


def _saig_positions(table: Tensor, encoder: Saig) -> Tensor:
    """Bicubic to the grid of the view, as SAIG does; for row positions the mean of each row."""
    if table.shape[1] != IMAGENET_GRID[0] * IMAGENET_GRID[1]:
        return table
    rows, columns = encoder.grid(*encoder.config.image_size)
    resized = resize_positions(table, IMAGENET_GRID, (rows, columns))
    if encoder.config.positions == "grid":
        return resized
    return resized.reshape(1, rows, columns, -1).mean(dim=2)


def _vit_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners to the grid of the view, as L2LTR does; the class token's kept.

    The authors call ``scipy.ndimage.zoom(order=1)``, which is the same to 3e-6.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    image = table[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    resized = F.interpolate(image, size=grid, mode="bilinear", align_corners=True)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def _faults(module: nn.Module, given: Tensors) -> Iterable[str]:
    """What keeps tensors from fitting a module, one clause each."""
    expected = module.state_dict()
    yield from (f"misses {key}" for key in expected if key not in given)
    yield from (f"has no place for {key}" for key in given if key not in expected)
    for key in expected.keys() & given.keys():
        got, wanted = tuple(given[key].shape), tuple(expected[key].shape)
        if got != wanted:
            yield f"{key}: got shape {got}, expected {wanted}"


def _complaint(faults: list[str]) -> str:
    listed = "; ".join(sorted(faults)[:LISTED])
    rest = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return (
        f"Checkpoint does not fit the model: {listed}{rest}. "
        "Build the model with the checkpoint's architecture, pooling and input sizes."
    )
