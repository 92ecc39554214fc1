"""Authors' checkpoint files, read without trusting them.

A ``.pth`` is a pickle, and a pickle can run any program. It is read by torch's restricted reader,
which loads tensors and plain values and refuses every other name before it is called. The authors'
files also name a few harmless things beside their weights: parsed arguments and numpy numbers. These,
and no others, are replaced by ``Omitted``, which keeps nothing. What a file holds is decided by its
first bytes and its members, never by its ending.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from core.errors import CheckpointError

__all__ = ["Omitted", "read_official"]

Kind = Literal["archive", "arrays", "pickle"]

ZIP_START = b"PK\x03\x04"
STATES = ("model", "model_grd", "model_sat", "state_dict")
"""Entries that hold weights; all others are left out."""


class Omitted:
    """Replaces what conversion does not need: accepts any arguments and keeps none."""

    def __new__(cls, *args: object) -> Omitted:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        """Keep nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


OMITTED = (
    "argparse.Namespace",  # timm's and the authors' ``args``
    "numpy.core.multiarray.scalar",  # ``best_acc``, ``metric``, written with numpy 1
    "numpy._core.multiarray.scalar",  # the same, written with numpy 2
    "numpy.dtype",
)


def read_official(path: str | Path) -> dict[str, Any]:
    """Entries of an authors' ``.pth``, ``.pth.tar`` or ``.npz`` file; see ``core.models.pretrained``.

    Weights of a file written since PyTorch 1.6 are mapped into memory and read when they are used.

    Returns:
        What the file holds by name; tensors on the CPU, or arrays; ``Omitted`` for what is not
        needed.

    Raises:
        CheckpointError: the file is missing, cut off, of another kind, or names anything beyond
            tensors and plain values; nothing in it is run.

    """
    path = Path(path)
    kind = _kind(path)
    try:
        entries = _read_arrays(path) if kind == "arrays" else _read_tensors(path, kind == "archive")
    except Exception as error:  # a damaged or hostile pickle can make its reader fail in any way
        raise _refusal(path, error) from error
    return _checked(path, entries)


def _kind(path: Path) -> Kind:
    """Torch's archive, numpy's archive, or else a bare pickle, as PyTorch wrote before 1.6."""
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_START)) != ZIP_START:
                return "pickle"
        names = zipfile.ZipFile(path).namelist()
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path}: got no readable file, expected an authors' .pth, .pth.tar or "
            ".npz. Check the path."
        ) from error
    except zipfile.BadZipFile as error:
        raise _refusal(path, error) from error
    if any(name.endswith("data.pkl") for name in names):
        return "archive"
    if any(name.endswith(".npy") for name in names):
        return "arrays"
    raise CheckpointError(
        f"Checkpoint {path}: got an archive of {', '.join(names[:3]) or 'nothing'}, expected a "
        "checkpoint. Unpack it and give the file inside."
    )


def _read_arrays(path: Path) -> object:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_tensors(path: Path, is_mapped: bool) -> object:
    with _only_stand_ins():
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Allow the stand-ins beside torch's own list, and nothing that any package added to it."""
    others = torch.serialization.get_safe_globals()
    stand_ins = [(Omitted, name) for name in OMITTED]
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            yield
    finally:
        torch.serialization.add_safe_globals(others)


def _refusal(path: Path, error: Exception) -> CheckpointError:
    forbidden = re.search(r"GLOBAL (\S+)", str(error))
    if forbidden is not None:
        return CheckpointError(
            f"Checkpoint {path}: got a pickle that names {forbidden[1][:80]}, expected tensors and "
            "plain values; it was refused, and nothing in it was run. Get the authors' own file, "
            "or save the state_dict alone."
        )
    return CheckpointError(
        f"Checkpoint {path}: got a file that is cut off or no checkpoint, expected what torch.save "
        "or numpy.savez writes. Download it again, and unpack it if it is an archive."
    )


def _checked(path: Path, entries: object) -> dict[str, Any]:
    """Entries by name, whose weights are dense and real; names and shapes are checked later."""
    if not isinstance(entries, Mapping):
        raise CheckpointError(
            f"Checkpoint {path}: got a {type(entries).__name__}, expected a dictionary of weights. "
            "Use the authors' file as it is."
        )
    for part in (entries, *(entries[name] for name in STATES if name in entries)):
        for key, value in part.items() if isinstance(part, Mapping) else ():
            if not isinstance(key, str) or (isinstance(value, Tensor) and not _is_plain(value)):
                raise CheckpointError(
                    f"Checkpoint {path}: got an entry {str(key)[:80]!r} that is no named, dense "
                    "tensor, expected weights by name. Use the authors' file as it is."
                )
    return dict(entries)


def _is_plain(value: Tensor) -> bool:
    is_dense = value.layout is torch.strided and not value.is_quantized
    return is_dense and value.device.type == "cpu" and not value.is_complex()
