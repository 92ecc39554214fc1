"""From an authors' checkpoint to a model folder.

The tensors show most of it: the model, its pooling, and the number of patches of each view, which
gives the published size. They do not show whether the aerial view was polar, nor the data set. The
caller can give both. Without them the usual values of the published files are taken and noted as
assumed. What is given against the tensors is refused.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoints import CONFIG, save_model
from core.convert.official_files import read_official
from core.errors import CheckpointError, SettingError
from core.files import file_hash
from core.models import build_model
from core.models.pretrained import OfficialWeights, load_official, split_official
from core.models.two_branch import TwoBranch

__all__ = ["DATA_SETS", "Found", "Geometry", "Given", "convert_file", "found_in", "geometry_of"]

Size = tuple[int, int]

PATCH = 16
"""Pixels per position of every published model, either way."""
SAIG_BY_DEPTH = {11: "saig-s", 22: "saig-d"}
SAIG_POSITIONS = "pos_embed"
L2LTR_POSITIONS = "transformer.embeddings.position_embeddings"
GROUND_SIZES = {256: (128, 512), 800: (320, 640)}
AERIAL_SIZES = {256: (256, 256), 400: (320, 320)}
"""Published (height, width) in pixels of a view, by its number of positions."""


@dataclass(frozen=True)
class DataSet:
    """What the authors trained and tested on; named as in ``core.data.benchmarks``.

    Attributes:
        positions: of the ground and the aerial branch.
        panorama_height_deg: what a panorama shows from bottom to top, where its width is 360.
        protocol: queries, references and metrics, in one sentence.

    """

    positions: tuple[int, int]
    panorama_height_deg: float
    protocol: str


RECALL = "recall at 1, 5, 10 and 1 %"
DATA_SETS = {
    # 224 of 616 rows are left of a panorama 1232 px wide.
    "cvusa": DataSet((256, 256), 65.5, f"CVUSA: 8,884 test panoramas against their tiles; {RECALL}"),
    "cvact-val": DataSet((256, 256), 90.0, f"CVACT_val: 8,884 panoramas against their tiles; {RECALL}"),
    "vigor-same": DataSet(
        (800, 400), 180.0, f"VIGOR same-area: test panoramas against 90,618 tiles; {RECALL}, hit rate"
    ),
    "vigor-cross": DataSet(
        (800, 400),
        180.0,
        "VIGOR cross-area: New York and Seattle to learn, San Francisco and Chicago to be tested; "
        f"{RECALL}, hit rate",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the caller gives about a file; None takes it from the tensors, or the default.

    ``pooling`` is gap or smd, sizes are (height, width) in pixels, ``data_set`` is a key of
    ``DATA_SETS``.
    """

    pooling: str | None = None
    ground_size: Size | None = None
    aerial_size: Size | None = None
    polar: bool | None = None
    data_set: str | None = None


@dataclass(frozen=True)
class Found:
    """What the tensors show.

    Attributes:
        name: key of ``core.models.MODELS``.
        pooling: None for a backbone that brings no pooling and can take any.
        positions: of the ground and the aerial branch, a class token not counted; None for a
            backbone, whose positions are resampled to any size.

    """

    name: str
    pooling: str | None
    positions: tuple[int, int] | None


@dataclass(frozen=True)
class Geometry:
    """What ``build_model`` is given, the data set where known, and what of all this was assumed."""

    name: str
    pooling: str
    ground_size: Size
    aerial_size: Size
    polar: bool
    data_set: str | None
    assumed: tuple[str, ...]

    def model_config(self) -> dict[str, Any]:
        """Arguments of ``build_model`` beside the name."""
        return {
            "pooling": self.pooling,
            "ground_size": self.ground_size,
            "aerial_size": self.aerial_size,
            "polar": self.polar,
        }


def convert_file(file: str | Path, out: str | Path, given: Given | None = None) -> dict[str, Any]:
    """Write the model folder of an authors' checkpoint, whole or not at all.

    Weights are kept in float32, exactly as the file has them.

    Args:
        file: see ``core.models.pretrained`` for the forms; it is read, never run.
        out: model folder to write; must not exist, or be empty.
        given: what the file does not show; by default nothing.

    Returns:
        The config that was written.

    Raises:
        CheckpointError: the file cannot be used, or ``out`` is taken or cannot be written.
        SettingError: what is given contradicts the tensors, or is no valid setting.

    """
    file, out = Path(file), Path(out)
    _check_free(out)
    checkpoint = read_official(file)
    try:
        weights = split_official(checkpoint)
        geometry = geometry_of(found_in(weights), given or Given())
        weights = replace(weights, ground={}, aerial={})  # Google's arrays are large; no second set
        model = build_model(geometry.name, **geometry.model_config())
        load_official(model, checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"File {file}: {error}") from error
    _check_finite(file, model)
    config = _config(file, weights, geometry, model)
    return _write_whole(out, model, config, _card(config))


def found_in(weights: OfficialWeights) -> Found:
    """Model, pooling and positions, from the names and shapes of the tensors alone.

    Raises:
        CheckpointError: the branches hold no published model, or not the same one.

    """
    name, ground = _architecture("ground", weights.ground)
    aerial_name, aerial = _architecture("aerial", weights.aerial)
    if name != aerial_name:
        raise CheckpointError(
            f"Checkpoint: got {name} for the ground and {aerial_name} for the aerial branch, "
            "expected one model. Use the authors' file as it is."
        )
    if name == "l2ltr":
        pooling: str | None = "cls"
    elif weights.is_initialisation:
        pooling = None
    else:
        mixes = any(key.startswith("linear") for key in (*weights.ground, *weights.aerial))
        pooling = "smd" if mixes else "gap"
    return Found(name, pooling, None if weights.is_initialisation else (ground, aerial))


def _architecture(view: str, tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Name and number of positions of one branch."""
    for key, extra in ((SAIG_POSITIONS, 0), (L2LTR_POSITIONS, 1)):
        if key in tensors:
            shape = tuple(tensors[key].shape)
            if len(shape) != 3:
                raise CheckpointError(
                    f"Checkpoint: got {key} of shape {shape} in the {view} branch, expected "
                    "(1, N, C). Use the authors' file as it is."
                )
            return "l2ltr" if extra else _saig_size(view, tensors), shape[1] - extra
    raise CheckpointError(
        f"Checkpoint: got a {view} branch without positions, expected {SAIG_POSITIONS} (SAIG) or "
        f"{L2LTR_POSITIONS} (L2LTR). Use the authors' file as it is."
    )


def _saig_size(view: str, tensors: Mapping[str, Tensor]) -> str:
    blocks = {match[1] for key in tensors if (match := re.match(r"blocks\.(\d+)\.", key))}
    if len(blocks) not in SAIG_BY_DEPTH:
        raise CheckpointError(
            f"Checkpoint: got {len(blocks)} blocks in the {view} branch, expected 11 (SAIG-S) or "
            "22 (SAIG-D). Use the authors' file as it is."
        )
    return SAIG_BY_DEPTH[len(blocks)]


def geometry_of(found: Found, given: Given) -> Geometry:
    """Settle sizes, polar view, pooling and data set.

    Raises:
        SettingError: what is given contradicts what was found, or is missing where no published
            file has such tensors.

    """
    pooling = given.pooling or found.pooling or "gap"
    if pooling != (found.pooling or pooling):
        raise SettingError(
            f"Pooling: got {pooling}, but the file's tensors are those of {found.pooling}. Leave "
            "--pooling out."
        )
    polar = _is_polar(found, given)
    ground_size, aerial_size = _ground_size(found, given), _aerial_size(found, given, polar)
    if polar and found.positions is not None:
        _check_positions("Ground size", ground_size, found.positions[1])
    data_set = _data_set(found, given)
    settled = {
        "pooling": found.pooling is not None,
        "ground_size": found.positions is not None,
        "aerial_size": found.positions is not None and not polar,
        "polar": found.positions is not None and found.positions[0] != found.positions[1],
        "data_set": data_set is None,
    }
    assumed = tuple(name for name in settled if not settled[name] and getattr(given, name) is None)
    return Geometry(found.name, pooling, ground_size, aerial_size, polar, data_set, assumed)


def _is_polar(found: Found, given: Given) -> bool:
    """L2LTR was published with polar views; SAIG, as far as its scripts show, without."""
    if found.positions is not None and found.positions[0] != found.positions[1]:
        if given.polar:
            raise SettingError(
                f"Polar: got --polar, but the file has {found.positions[0]} positions for the "
                f"ground and {found.positions[1]} for the aerial view, and a polar view is of the "
                "ground's size. Leave --polar out."
            )
        return False
    return found.name == "l2ltr" if given.polar is None else given.polar


def _ground_size(found: Found, given: Given) -> Size:
    if found.positions is None:
        return given.ground_size or GROUND_SIZES[256]
    count = found.positions[0]
    size = given.ground_size or GROUND_SIZES.get(count) or _unpublished("Ground size", count)
    return _check_positions("Ground size", size, count)


def _aerial_size(found: Found, given: Given, polar: bool) -> Size:
    """Size of a tile, square; any where the model is given a polar view of it."""
    if given.aerial_size is not None and given.aerial_size[0] != given.aerial_size[1]:
        raise SettingError(
            f"Aerial size: got {_text(given.aerial_size)}, expected a square tile. For an aerial view "
            "of the ground's size say --polar; it is made of square tiles."
        )
    if found.positions is None or polar:
        return given.aerial_size or AERIAL_SIZES[256]
    count = found.positions[1]
    size = given.aerial_size or AERIAL_SIZES.get(count) or _unpublished("Aerial size", count)
    return _check_positions("Aerial size", size, count)


def _check_positions(what: str, size: Size, count: int) -> Size:
    if size[0] * size[1] != count * PATCH**2:
        raise SettingError(
            f"{what}: got {_text(size)} px, but the file's {count} positions are {count} patches of "
            f"{PATCH} x {PATCH} px. Leave the size out, or name one of as many patches."
        )
    return size


def _unpublished(what: str, count: int) -> Size:
    option = "--" + what.lower().replace(" ", "-")
    raise SettingError(
        f"{what}: got a file with {count} positions, which no published size has. Say {option} "
        f"HEIGHTxWIDTH, {count} patches of {PATCH} x {PATCH} px."
    )


def _data_set(found: Found, given: Given) -> str | None:
    """The data set given, or the first with the file's positions; none for a backbone."""
    fitting = [name for name, known in DATA_SETS.items() if known.positions == found.positions]
    if given.data_set is None:
        return fitting[0] if fitting else None
    if given.data_set not in fitting:
        raise SettingError(
            f"Data set: got {given.data_set[:40]!r}, expected "
            f"{' or '.join(fitting) or 'none'}, which fits the file's tensors. Leave --data-set out."
        )
    return given.data_set


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _check_finite(file: Path, model: TwoBranch) -> None:
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"File {file}: got values in {name} that are not finite, expected trained weights. "
                "Download the file again."
            )


def _config(
    file: Path, weights: OfficialWeights, geometry: Geometry, model: TwoBranch
) -> dict[str, Any]:
    known = DATA_SETS.get(geometry.data_set or "")
    encoder = model.ground_encoder
    return {
        "name": geometry.name,
        "model": geometry.model_config(),
        "precision": "float32",
        "normalisation": {"mean": encoder.mean, "std": encoder.std},
        "panorama_height_deg": known and known.panorama_height_deg,
        "protocol": {"data_set": geometry.data_set, "text": known and known.protocol},
        "source": {
            "file": file.name,
            "sha256": file_hash(file),
            "form": weights.form,
            "is_initialisation": weights.is_initialisation,
            "dropped": weights.dropped,
            "assumed": geometry.assumed,
        },
    }


def _card(config: Mapping[str, Any]) -> str:
    model, source, protocol = config["model"], config["source"], config["protocol"]
    if source["is_initialisation"]:
        purpose = (
            "A backbone to train from: its descriptors place nothing yet, and a pooling with "
            "weights of its own has random ones."
        )
    else:
        purpose = f"Trained by its authors; protocol: {protocol['text'] or 'not known'}."
    view = "the polar view of the tile" if model["polar"] else "the tile as it is"
    return (
        f"# {config['name']}, {model['pooling']}, converted\n\n{purpose}\n\n"
        f"- from `{source['file']}`, SHA-256 {source['sha256']}, weights unchanged in float32\n"
        f"- ground {_text(model['ground_size'])} px, tile {_text(model['aerial_size'])} px; the "
        f"aerial branch takes {view}\n"
        f"- left out of the file: {', '.join(source['dropped']) or 'nothing'}\n"
        f"- assumed, neither in the file nor given: {', '.join(source['assumed']) or 'nothing'}\n\n"
        f"{_caution(config)}"
        "Nothing was measured here. The weights are their authors', under the authors' licence.\n"
    )


def _caution(config: Mapping[str, Any]) -> str:
    """How this program's inputs differ from the authors'."""
    height = config["panorama_height_deg"]
    ground = (
        f"Its panoramas were {height:g} degrees high, this program's canvases are 90. "
        if height not in {None, 90.0}
        else ""
    )
    polar = (
        "Polar views are made here, the authors stored theirs. " if config["model"]["polar"] else ""
    )
    return ground + polar


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(
            f"Model {out}: got a path that is taken, expected a new folder. Name another --out, or "
            "move what is there."
        )


def _write_whole(out: Path, model: TwoBranch, config: dict[str, Any], card: str) -> dict[str, Any]:
    """Write beside and rename, so that a folder of that name is always a whole one."""
    out = out.resolve()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        save_model(part, model, config, card)
        written: dict[str, Any] = json.loads((part / CONFIG).read_bytes())
        part.rename(out)
    except OSError as error:
        raise CheckpointError(
            f"Model {out}: got a folder that cannot be written ({error.strerror}), expected room "
            "and permission. Name another --out."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return written
