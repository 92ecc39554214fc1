"""All kinds of aerial imagery that can be opened. A new kind adds its class to ``KINDS``."""

from __future__ import annotations

from pathlib import Path

from core.errors import RasterError
from core.geo import LocalFrame
from core.imagery.raster import RasterSource
from core.imagery.source import ImageryKind, ImagerySource

__all__ = ["KINDS", "open_imagery"]

KINDS: tuple[ImageryKind, ...] = (RasterSource,)
"""The first kind that accepts a path opens it. RasterSource comes last, because it accepts any file."""


def open_imagery(
    path: str | Path, frame: LocalFrame | None = None, is_known: bool = False
) -> ImagerySource:
    """Open a file or folder of aerial imagery, whatever its kind; see ``ImageryKind.open``.

    Raises:
        RasterError: no kind accepts the path, or it cannot be opened.

    """
    path = Path(path)
    for kind in KINDS:
        if kind.accepts(path):
            return kind.open(path, frame, is_known)
    raise RasterError(
        f"Source {path}: got a folder without aerial.tif, expected a raster or a world folder. "
        "Name the raster itself."
    )
