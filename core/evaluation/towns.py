"""A rendered town as references: described in memory, exactly as in a gallery of it.

``TownReferences`` cuts the same pixels, describes them in the same batches and rounds the descriptors to
the same 8 bits as ``gallery build``. So answers about a town equal the answers about its gallery.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.arrays import Float32Array, Float64Array, UInt8Array
from core.data.worlds import GRID_STEP_M, TILE_SIDE_M, Town
from core.gallery.build import GallerySettings, describe_places, plan_places
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery
from core.gallery.index import FLAT_8BIT, TileIndex, engine_of
from core.gallery.manifest import MANIFEST
from core.gallery.viewpoints import VIEWPOINTS, cell_viewpoints
from core.imagery.source import Bounds
from core.localization.references import References
from core.models.two_branch import TwoBranch

__all__ = ["GALLERY_PIXELS", "TownImagery", "TownReferences", "references_of"]

GALLERY_PIXELS = 256
"""Pixels of a gallery's tile; a town must be loaded with as many to give its gallery's answers."""


@dataclass(frozen=True)
class TownImagery:
    """A town's aerial picture in memory, in the town's own metric frame."""

    town: Town

    @property
    def bounds(self) -> Bounds:
        """The bounding box of the whole picture."""
        half = self.town.size_m / 2
        return Bounds(-half, -half, half, half)

    def read_tile(
        self, east_m: float, north_m: float, side_m: float, pixels: int
    ) -> tuple[UInt8Array, float]:
        """A square of the picture's own pixels, uint8 (pixels, pixels, 3), and its coverage.

        Black where it reaches beyond the picture, as in ``RasterSource.read_tile``.
        """
        half, pixel_m = self.town.size_m / 2, self.town.pixel_m
        left = round((east_m - side_m / 2 + half) / pixel_m)
        top = round((half - north_m - side_m / 2) / pixel_m)
        seen = self.town.mosaic[max(top, 0) : top + pixels, max(left, 0) : left + pixels]
        if seen.shape[:2] == (pixels, pixels):
            return seen, 1.0
        square = np.zeros((pixels, pixels, 3), np.uint8)
        down, right = max(-top, 0), max(-left, 0)
        square[down : down + seen.shape[0], right : right + seen.shape[1]] = seen
        return square, seen.shape[0] * seen.shape[1] / pixels**2


def _settings(town: Town, viewpoints: int) -> GallerySettings:
    """A gallery's geometry at the resolution of the town's picture."""
    pixels = round(TILE_SIDE_M / town.pixel_m)
    return GallerySettings(TILE_SIDE_M, pixels, GRID_STEP_M, viewpoints=viewpoints)


class TownReferences:
    """The places of a town, described by one student; see ``References``."""

    def __init__(
        self, town: Town, index: TileIndex, centres_m: Float64Array, viewpoints: int
    ) -> None:
        self.town = town
        self.index = index
        self.centres_m = centres_m
        self.settings = _settings(town, viewpoints)
        self._imagery = TownImagery(town)
        self._extent = centres_m.min(axis=0), centres_m.max(axis=0)

    @classmethod
    def describe(
        cls,
        town: Town,
        student: TwoBranch,
        viewpoints: int = VIEWPOINTS,
        device: str = "cpu",
        change: Callable[[UInt8Array], UInt8Array] | None = None,
    ) -> TownReferences:
        """Describe all places of a town.

        Args:
            town: with its picture; equal to a gallery of it if tiles have 256 pixels.
            student: in evaluation mode.
            viewpoints: S, of each place: 1, 4 or 9.
            device: where the student runs.
            change: applied to tiles uint8 (B, S, S, 3) before they are described.

        """
        settings = _settings(town, viewpoints)
        imagery, plain = TownImagery(town), tile_describer(student.eval(), device)

        def describe(tiles: UInt8Array) -> Float32Array:
            return plain(tiles if change is None else change(tiles))

        plan = plan_places(imagery, settings)
        chunks = [
            describe_places(imagery, plan, points, describe, settings).descriptors
            for points in plan.chunks()
        ]
        return cls(town, engine_of(FLAT_8BIT).build(chunks, FLAT_8BIT), plan.centres, viewpoints)

    @property
    def viewpoints_m(self) -> Float64Array:
        """Viewpoints (S, 2) of a place, metres east and north of its centre."""
        return cell_viewpoints(self.settings.viewpoints) * self.settings.step_m

    @property
    def tile_side_m(self) -> float:
        """Side of a tile in metres."""
        return self.settings.tile_side_m

    @property
    def cell_area_m2(self) -> float:
        """Area of one grid cell, square metres."""
        return self.settings.step_m**2

    def tiles_at(self, points_m: Float64Array) -> UInt8Array:
        """Tiles (P, pixels, pixels, 3) around points (P, 2), on whole pixels."""
        gsd_m = self.settings.gsd_m
        side_m, pixels = self.settings.tile_side_m, self.settings.tile_pixels
        snapped = np.round(points_m / gsd_m) * gsd_m
        return np.stack(
            [self._imagery.read_tile(east, north, side_m, pixels)[0] for east, north in snapped]
        )

    def inside(self, points_m: Float64Array) -> Float64Array:
        """Points (..., 2), moved to the nearest position between the outermost places."""
        return np.clip(points_m, *self._extent)


def references_of(
    folder: str | Path,
    town: Town,
    student: TwoBranch,
    student_hash: str,
    viewpoints: int = VIEWPOINTS,
    device: str = "cpu",
) -> References:
    """The references of a world folder: its own gallery if this student described it, else the town
    described in memory.

    Args:
        folder: of the world.
        town: the same, loaded with tiles of 256 pixels, as galleries have them.
        student: in evaluation mode.
        student_hash: ``core.checkpoints.model_hash`` of its folder.
        viewpoints: S, of each place.
        device: where the student runs.

    """
    if (Path(folder) / MANIFEST).is_file():
        gallery = Gallery.open(folder)
        manifest = gallery.manifest
        if (manifest.model_hash, manifest.viewpoints) == (student_hash, viewpoints):
            return gallery
    return TownReferences.describe(town, student, viewpoints, device)
