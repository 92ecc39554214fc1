"""What a gallery needs of aerial imagery, whatever holds it: ``ImagerySource``.

A source is one file or folder on this machine, seen in a local metric frame. A new kind of source is
a class with these methods in a file of its own, and its line in ``core.imagery.registry``.
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
    """Where the imagery is stored, so that a gallery finds it again.

    ``path``: the file or folder. ``copy_name``: the name of a copy inside a gallery folder; None where
    a copy of this one file would lack something, such as the files that a VRT names.
    """

    path: Path
    copy_name: str | None


class TileReader(Protocol):
    """What describing places needs: how far the imagery reaches, and its pixels."""

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
            share of seen pixels in [0, 1], and 0 for a square of one single colour.

        Raises:
            RasterError: the imagery vanished or is damaged there.

        """
        ...  # pragma: no cover


class ImagerySource(TileReader, Protocol):
    """Opened aerial imagery in a local metric frame. Threads may share one."""

    @property
    def frame(self) -> LocalFrame:
        """The frame whose metres all methods take and return."""
        ...  # pragma: no cover

    @property
    def gsd_m(self) -> float:
        """Metres per pixel of the imagery itself, about."""
        ...  # pragma: no cover

    def overview(self, max_side: int) -> tuple[UInt8Array, tuple[float, float, float, float]]:
        """All imagery as one picture for a web map.

        Args:
            max_side: longest side of the result, pixels.

        Returns:
            (uint8 (H, W, 4) RGBA in web Mercator, transparent where nothing is seen; (west, south,
            east, north) in degrees).

        Raises:
            RasterError: the imagery vanished or is damaged.

        """
        ...  # pragma: no cover

    def fingerprint(self) -> str:
        """A text that differs whenever the pixels may differ; an unfinished build goes on by it."""
        ...  # pragma: no cover

    def reference(self) -> Reference:
        """Where the imagery is stored."""
        ...  # pragma: no cover


class ImageryKind(Protocol):
    """A kind of source, as the registry holds it: the class itself."""

    def accepts(self, path: Path) -> bool:
        """Whether a file or folder looks like this kind; cheap, nothing is decoded."""
        ...  # pragma: no cover

    def open(
        self, path: str | Path, frame: LocalFrame | None = None, is_known: bool = False
    ) -> ImagerySource:
        """Open a file or folder.

        Args:
            path: the file or folder.
            frame: the frame to see it in; None: one that suits the imagery.
            is_known: it was opened before, so a search for an empty picture is not needed.

        Raises:
            RasterError: it is missing, unreadable, without a position, or shows nothing.

        """
        ...  # pragma: no cover


def stored_bytes(path: Path) -> int | None:
    """The size of a file, or of all files below a folder; None where there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None
