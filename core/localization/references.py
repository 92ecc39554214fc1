"""What is searched: the places of one area, described by one student.

A gallery folder is one implementation (``core.gallery.folder.Gallery``), a rendered town that is
described in memory another (``core.evaluation.towns.TownReferences``). Everything is in metres east and
north of one origin; degrees exist only at the border (``core.localization.localizer``).

R places, S viewpoints of each.
"""

from __future__ import annotations

from typing import Protocol

from core.arrays import Float64Array, UInt8Array
from core.localization.search import InnerProductIndex

__all__ = ["References"]


class References(Protocol):
    """Places to search, and the imagery around them. Read-only: threads may share one."""

    @property
    def index(self) -> InnerProductIndex:
        """The descriptors of all viewpoints (R * S, D), those of a place one after another."""
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
        """Area that one place of the grid stands for."""
        ...  # pragma: no cover

    def tiles_at(self, points_m: Float64Array) -> UInt8Array:
        """Tiles (P, pixels, pixels, 3), north up, around points (P, 2), on whole pixels."""
        ...  # pragma: no cover

    def inside(self, points_m: Float64Array) -> Float64Array:
        """Points (..., 2) moved to between the outermost places, where whole tiles can be cut."""
        ...  # pragma: no cover
