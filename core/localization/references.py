"""References: the places of one area, described by one student.

There are two implementations: a gallery folder (``core.gallery.folder.Gallery``) and a rendered town
described in memory (``core.evaluation.towns.TownReferences``). Everything is in metres east and north
of one origin; only ``core.localization.localizer`` uses degrees.

R places, S viewpoints of each.
"""

from __future__ import annotations

from typing import Protocol

from core.arrays import Float64Array, UInt8Array
from core.localization.search import InnerProductIndex

__all__ = ["References"]


class References(Protocol):
    """Places to search, and the imagery around them. Read-only: threads may share an object."""

    @property
    def index(self) -> InnerProductIndex:
        """The descriptors of all viewpoints (R * S, D); the S rows of a place are adjacent."""
        ...  # pragma: no cover

    @property
    def centres_m(self) -> Float64Array:
        """Centres (R, 2) of the places."""
        ...  # pragma: no cover

    @property
    def viewpoints_m(self) -> Float64Array:
        """Viewpoints (S, 2) of a place, relative to its centre."""
        ...  # pragma: no cover

    @property
    def tile_side_m(self) -> float:
        """Side of a tile."""
        ...  # pragma: no cover

    @property
    def cell_area_m2(self) -> float:
        """Area of one grid cell."""
        ...  # pragma: no cover

    def tiles_at(self, points_m: Float64Array) -> UInt8Array:
        """Tiles (P, pixels, pixels, 3), north up, around points (P, 2), on whole pixels."""
        ...  # pragma: no cover

    def inside(self, points_m: Float64Array) -> Float64Array:
        """Points (..., 2), moved between the outermost places, where whole tiles can be cut."""
        ...  # pragma: no cover
