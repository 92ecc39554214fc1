"""Read the files of a data set: lists, .mat files, folders, pictures.

A split file comes from others: a name in it may not exist, or lead out of the data set's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.arrays import BoolArray, Int64Array, UInt8Array
from core.errors import DataError

__all__ = [
    "Source",
    "are_there",
    "checked_name",
    "checked_path",
    "class_folders",
    "read_image",
    "read_lines",
    "read_mat",
    "require_files",
    "whole_numbers",
]

PICTURE_ENDINGS = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Source:
    """The source of a data set, for its error messages.

    ``tree``: the required content of its folder. ``access``: a sentence on how to get it.
    """

    name: str
    tree: str
    access: str

    def missing(self, path: Path) -> DataError:
        """The error for a missing file or folder."""
        return DataError(
            f"{self.name}: got nothing at {path}, expected this tree: {self.tree}. {self.access}"
        )

    def damaged(self, where: str | Path, got: str, expected: str) -> DataError:
        """The error for a file with unexpected content."""
        return DataError(
            f"{self.name}: {where}: got {got}, expected {expected}. Use the file as published."
        )


def read_lines(source: Source, path: Path) -> list[tuple[str, str]]:
    """The lines of a text file, each with its place in words ("PATH, row 3").

    Raises:
        DataError: there is no such file, it is not UTF-8 text, or it is empty.

    """
    if not path.is_file():
        raise source.missing(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise source.damaged(path, f"no readable text ({error})", "a text file") from error
    if not text.strip():
        raise source.damaged(path, "an empty file", "one row per picture")
    return [(f"{path}, row {row}", line) for row, line in enumerate(text.rstrip().split("\n"), 1)]


def read_mat(source: Source, path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The named variables of a MATLAB file (version 7 or older) as ``scipy.io.loadmat`` returns them.

    Raises:
        DataError: there is no such file, it is not such a MATLAB file, or a variable is missing.

    """
    if not path.is_file():
        raise source.missing(path)
    from scipy import io as scipy_io  # the command line lists the benchmarks and must start fast

    try:
        variables: dict[str, Any] = scipy_io.loadmat(path, variable_names=list(names))
    except Exception as error:  # on a damaged file the reader may raise anything
        raise source.damaged(
            path, f"no readable .mat file ({type(error).__name__})", "a MATLAB file, version 5 to 7"
        ) from error
    absent = [name for name in names if name not in variables]
    if absent:
        raise source.damaged(path, f"no variable {absent[0]}", ", ".join(names))
    return variables


def whole_numbers(source: Source, where: str | Path, values: object) -> Int64Array:
    """Whole numbers (N,) out of a MATLAB array of any numeric type.

    Raises:
        DataError: a value is not a whole number.

    """
    array = np.asarray(values).ravel()
    is_number = array.dtype.kind in "iuf" and array.size > 0 and bool(np.isfinite(array).all())
    if not is_number or not np.array_equal(array, np.floor(array)):
        raise source.damaged(where, f"{array.size} values of {array.dtype}", "whole numbers")
    return array.astype(np.int64)


def checked_path(source: Source, where: str, text: str) -> str:
    """A relative path that stays beneath its root.

    Raises:
        DataError: it is empty, absolute, climbs with "..", names a drive, or is unprintable.

    """
    parts = _parts(text)
    if not parts[0] or ".." in parts or ":" in parts[0] or not text.isprintable():
        raise source.damaged(where, f"the path {text!r}", "a path inside the data set's folder")
    return text


def checked_name(source: Source, where: str, text: str) -> str:
    """A file name without any folder.

    Raises:
        DataError: it is not a single name.

    """
    if len(_parts(checked_path(source, where, text))) != 1:
        raise source.damaged(where, f"the name {text!r}", "a file name without a folder")
    return text


def _parts(text: str) -> list[str]:
    return text.replace("\\", "/").split("/")


def are_there(root: Path, files: Iterable[str]) -> BoolArray:
    """Whether each of the files exists beneath ``root``.

    Every folder is listed once: checking 180,000 files one by one takes minutes on a network disk.
    """
    listed: dict[str, frozenset[str]] = {}
    found = []
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder not in listed:
            listed[folder] = _names_in(root / folder)
        found.append(name in listed[folder])
    return np.asarray(found, dtype=np.bool_)


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def require_files(source: Source, root: Path, files: Sequence[str]) -> None:
    """Refuse a list with missing files.

    Raises:
        DataError: at least one file is missing; the message names the first.

    """
    absent = np.flatnonzero(~are_there(root, files))
    if len(absent) == len(files):
        raise source.missing(root / files[0])
    if len(absent):
        raise DataError(
            f"{source.name}: got {len(files) - len(absent)} of {len(files)} listed files, expected "
            f"all; the first missing is {root / files[absent[0]]}. Unpack the archive again."
        )


def class_folders(source: Source, folder: Path) -> dict[str, tuple[str, ...]]:
    """Pictures of each class folder, as paths relative to ``folder``; both sorted by name.

    Raises:
        DataError: there is no such folder, or no picture in it.

    """
    if not folder.is_dir():
        raise source.missing(folder)
    classes = {}
    for name in sorted(entry.name for entry in folder.iterdir() if entry.is_dir()):
        pictures = sorted(
            picture
            for picture in _names_in(folder / name)
            if Path(picture).suffix.lower() in PICTURE_ENDINGS and not picture.startswith(".")
        )
        if pictures and not name.startswith("."):
            classes[name] = tuple(f"{name}/{picture}" for picture in pictures)
    if not classes:
        raise source.missing(folder / "ID" / "picture.jpg")
    return classes


def read_image(path: Path) -> UInt8Array:
    """One JPEG or PNG picture as uint8 (H, W, 3) RGB.

    Raises:
        DataError: it is missing, damaged, or not a picture.

    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as picture:
            return np.array(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(
            f"Picture {path}: got nothing, expected a file. Unpack the archive again."
        ) from error
    except Exception as error:  # on a damaged picture the decoders may raise anything
        raise DataError(
            f"Picture {path}: got no readable picture ({type(error).__name__}), "
            "expected JPEG or PNG. Unpack the archive again."
        ) from error
