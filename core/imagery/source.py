"""The interface of aerial imagery for a gallery: ``ImagerySource``.

A source is one file or folder on this machine, in a local metric frame. A new kind of source is a
class with these methods in a file of its own, and its line in ``core.imagery.registry``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.arrays import UInt8Array
from core.geo import LocalFrame

__all__ = ["Bounds", "ImageryKind", "ImagerySource", "Reference", "TileReader", "stored_bytes"]


@dataclass(frozen=True)
class Bounds:
    """A box in metres of a local frame."""

    west_m: float
    south_m: float
    east_m: float
    north_m: float


@dataclass(frozen=True)
class Reference:
    """Where the imagery is stored, so that a gallery can find it.

    ``path``: the file or folder. ``copy_name``: the name of a copy inside a gallery folder; None if a
    copy of this one file would be incomplete, as for a VRT, which names other files.
    """

    path: Path
    copy_name: str | None


class TileReader(Protocol):
    """The part of a source that describes places: the extent of the imagery, and its pixels."""

    @property
    def bounds(self) -> Bounds:
        """A box around all imagery."""
        ...  # pragma: no cover

    def read_tile(
        self, east_m: float, north_m: float, side_m: float, pixels: int
    ) -> tuple[UInt8Array, float]:
        """A square of imagery, north up in the local frame.

        Args:
            east_m: centre, metres east of the frame's origin.
            north_m: centre, metres north of it.
            side_m: length of a side, metres.
            pixels: length of a side, pixels.

        Returns:
            (uint8 (pixels, pixels, 3) RGB, coverage): unseen pixels are black; the coverage is the
            share of seen pixels in [0, 1], and 0 for a square of one colour.

        Raises:
            RasterError: the imagery vanished or is damaged there.

        """
        ...  # pragma: no cover


class ImagerySource(TileReader, Protocol):
    """Opened aerial imagery in a local metric frame. Threads may share it."""

    @property
    def frame(self) -> LocalFrame:
        """The local frame; all methods take and return its metres."""
        ...  # pragma: no cover

    @property
    def gsd_m(self) -> float:
        """Approximate metres per pixel of the imagery."""
        ...  # pragma: no cover

    def overview(self, max_side: int) -> tuple[UInt8Array, tuple[float, float, float, float]]:
        """All imagery as one picture for a web map.

        Args:
            max_side: longest side of the result, pixels.

        Returns:
            (uint8 (H, W, 4) RGBA in web Mercator, unseen pixels transparent; (west, south, east,
            north) in degrees).

        Raises:
            RasterError: the imagery vanished or is damaged.

        """
        ...  # pragma: no cover

    def fingerprint(self) -> str:
        """A text that differs if the pixels may differ; before continuing, a build compares it."""
        ...  # pragma: no cover

    def reference(self) -> Reference:
        """Where the imagery is stored."""
        ...  # pragma: no cover


class ImageryKind(Protocol):
    """A kind of source, as the registry holds it: the class itself."""

    def accepts(self, path: Path) -> bool:
        """Whether a file or folder looks like this kind; fast, without decoding."""
        ...  # pragma: no cover

    def open(
        self, path: str | Path, frame: LocalFrame | None = None, is_known: bool = False
    ) -> ImagerySource:
        """Open a file or folder.

        Args:
            path: the file or folder.
            frame: the local frame; None: one that suits the imagery.
            is_known: it was opened before, so skip the check for an empty picture.

        Raises:
            RasterError: it is missing, unreadable, without a position, or empty.

        """
        ...  # pragma: no cover


def stored_bytes(path: Path) -> int | None:
    """The size of a file, or of all files below a folder; None if there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None
