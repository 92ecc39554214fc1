"""A model folder: config.json, model.safetensors (float16, or as config says) and card.md.

``config.json`` holds ``format``, ``name`` and ``model`` (what ``build_model`` is given), and
whatever else belongs to the model: training record, metrics, calibration. Loading builds the model
by its name and refuses weights that do not fit it tensor by tensor. Nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from core.errors import CheckpointError, CoreError

if TYPE_CHECKING:
    from core.models.geossk import GeoSSK
    from core.models.two_branch import TwoBranch

__all__ = [
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "check_fit",
    "load_model",
    "load_state",
    "load_student",
    "load_teacher",
    "model_hash",
    "require_calibrated_for",
    "save_model",
]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "card.md"
FORMAT = 1

REMARKS = ("calibration", "metrics", "protocol", "source", "training", "weights_sha256")
"""Parts of the config that change no descriptor, and so not the model's hash either."""

StateDict = dict[str, torch.Tensor]


def save_model(
    folder: str | Path, model: torch.nn.Module, config: dict[str, Any], card: str
) -> None:
    """Write a model folder, in place of an older one in it.

    The config comes last and holds the weights' checksum, so a save that was interrupted is noticed
    on loading.

    Args:
        folder: made if missing.
        model: its state is stored, floating-point tensors as float16, or as float32 where the
            config's ``precision`` says so: an authors' weights are not rounded.
        config: JSON values with ``name`` and ``model``, as ``build_model(name, **model)`` takes
            them.
        card: Markdown for people: data, seeds, minutes, machine, command, metrics.

    Raises:
        CheckpointError: the config lacks ``name`` or ``model`` or is no JSON, or a weight is not
            finite as float16.

    """
    folder = Path(folder)
    if not isinstance(config.get("name"), str) or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"Model {folder}: got a config without 'name' or 'model', expected what build_model "
            "takes. Add them."
        )
    dtype = torch.float32 if config.get("precision") == "float32" else torch.float16
    tensors = {
        name: _stored(name, tensor, folder, dtype) for name, tensor in model.state_dict().items()
    }
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    full = {**config, "format": FORMAT, "weights_sha256": hashlib.sha256(content).hexdigest()}
    try:
        text = json.dumps(full, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Model {folder}: got a config that is no JSON ({error}), expected plain values."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, content)
    _replace(folder / CARD, card.encode())
    _replace(folder / CONFIG, text.encode())


def load_state(folder: str | Path) -> tuple[dict[str, Any], StateDict]:
    """Config and weights of a model folder.

    Returns:
        (config, tensors by name; floating-point ones as float32 on the CPU).

    Raises:
        CheckpointError: a file is missing, damaged, of another format, or not of one save.

    """
    folder = Path(folder)
    config = _read_config(folder)
    content = _read(folder, WEIGHTS)
    if hashlib.sha256(content).hexdigest() != config.get("weights_sha256"):
        raise CheckpointError(
            f"Model {folder}: got a {WEIGHTS} that is cut off or changed, expected the one "
            f"{CONFIG} vouches for. Copy or train the model again."
        )
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"Model {folder}: got a {WEIGHTS} that cannot be read ({str(error)[:80]}), expected "
            "safetensors. Copy or train the model again."
        ) from error
    return config, {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def load_model(folder: str | Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Build the model of a folder by its config and load its weights.

    Returns:
        (model on the CPU, in evaluation mode, float32; config).

    Raises:
        CheckpointError: as ``load_state``; or the config names no known model, or a tensor is
            missing, unknown or of another shape.

    """
    from core.models import build_from_config

    folder = Path(folder)
    config, state = load_state(folder)
    try:
        model: torch.nn.Module = build_from_config(config["name"], config["model"])
    except (CoreError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(
            f"Model {folder}: got a config that builds no model ({str(error)[:200]}), expected one "
            "written by train, distill or convert. Train the model again."
        ) from error
    check_fit(f"Model {folder}", model.state_dict(), state)
    model.load_state_dict(state)
    return model.eval(), config


def load_student(folder: str | Path) -> tuple[TwoBranch, dict[str, Any]]:
    """``load_model`` of a folder that must hold a two-branch student.

    Raises:
        CheckpointError: as ``load_model``, or another kind of model.

    """
    from core.models.two_branch import TwoBranch

    model, config = load_model(folder)
    if not isinstance(model, TwoBranch):
        raise _wrong_kind(folder, config, "a two-branch student")
    return model, config


def load_teacher(folder: str | Path) -> tuple[GeoSSK, dict[str, Any]]:
    """``load_model`` of a folder that must hold a GeoSSK teacher.

    Raises:
        CheckpointError: as ``load_model``, or another kind of model.

    """
    from core.models.geossk import GeoSSK

    model, config = load_model(folder)
    if not isinstance(model, GeoSSK):
        raise _wrong_kind(folder, config, "a GeoSSK teacher")
    return model, config


def require_calibrated_for(
    teacher: str | Path, config: dict[str, Any], student: str | Path
) -> None:
    """Refuse a teacher whose probabilities were fitted to the scores of another student.

    Args:
        teacher: its model folder.
        config: of the teacher; nothing is said of one that was never calibrated.
        student: model folder of the student that it is to re-rank for.

    Raises:
        CheckpointError: it was calibrated with other weights than the student's.

    """
    fitted = config.get("calibration", {}).get("student")
    if fitted is not None and fitted != model_hash(student):
        raise CheckpointError(
            f"Teacher {teacher}: got one calibrated with another student than {student}, expected one "
            f"of the two together. Run: python -m core calibrate {student} --teacher {teacher} "
            "--validation TOWNS; or leave the teacher out (--no-rerank; evaluate: --no-reranked)."
        )


def _wrong_kind(folder: str | Path, config: dict[str, Any], expected: str) -> CheckpointError:
    return CheckpointError(
        f"Model {folder}: got another kind of model, {config['name']}, expected {expected}. Check "
        "which of the two folders is the student."
    )


def check_fit(what: str, expected: StateDict, got: StateDict) -> None:
    """Refuse weights that are not exactly a model's.

    Args:
        what: the start of the message, "Model assets/models/student".
        expected: the model's own state.
        got: what was read.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape; the message names them.

    """
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or extra:
        parts = [f"{len(missing)} missing ({_some(missing)})"] if missing else []
        parts += [f"{len(extra)} unknown ({_some(extra)})"] if extra else []
        raise CheckpointError(
            f"{what}: got weights with tensors {' and '.join(parts)}, expected the "
            f"{len(expected)} of the model its config names. Use the folder as it was written."
        )
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            raise CheckpointError(
                f"{what}: got tensor {name!r} of shape {tuple(got[name].shape)}, expected "
                f"{tuple(tensor.shape)}. The config belongs to another size of the model."
            )


def model_hash(folder: str | Path) -> str:
    """SHA-256 of what decides a model's descriptors: its weights and config.

    The remarks in the config (``calibration``, ``metrics``, ``training``) do not count, so writing
    down how good a model is does not outdate its galleries.

    Raises:
        CheckpointError: a file is missing, or the config is no JSON.

    """
    folder = Path(folder)
    config = {key: value for key, value in _read_config(folder).items() if key not in REMARKS}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(hashlib.sha256(_read(folder, WEIGHTS)).digest())
    return digest.hexdigest()


def _stored(name: str, tensor: torch.Tensor, folder: Path, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"Model {folder}: got tensor {name!r} with values beyond {str(dtype)[6:]}, expected "
                "finite weights. The training diverged: lower its learning rate."
            )
    # A copy of its own: safetensors refuses tensors that share memory.
    return tensor.clone().contiguous()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read(folder, CONFIG))
    except ValueError as error:
        raise CheckpointError(
            f"Model {folder}: got a {CONFIG} that is no JSON, expected one written by train, "
            "distill or convert. Copy or train the model again."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(
            f"Model {folder}: got a {CONFIG} of another format, expected format {FORMAT}. "
            "Train or convert the model again with this version."
        )
    if not isinstance(config.get("name"), str) or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"Model {folder}: got a {CONFIG} without 'name' or 'model', expected both. "
            "Copy or train the model again."
        )
    return config


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Model {folder}: got no readable {name}, expected a folder with {CONFIG} and "
            f"{WEIGHTS}. Check the path."
        ) from error


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, path)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
