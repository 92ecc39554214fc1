"""A gallery is a folder: places of aerial imagery, described by one model, ready to be searched.

    manifest.json    contents, origin, checksums
    tiles.parquet    GeoParquet: a row per tile with id, centre and footprint
    index.faiss      the descriptors, 8 bits per number, in the order of the tiles; the descriptors
                     of a tile's viewpoints are adjacent (another engine has other files)
    aerial.tif       the imagery, or the manifest's relative path to it

Only the index stores the descriptors, so no second copy can differ;
``gallery.index.reconstruct`` returns them. A tile's pixels are cut from the imagery when needed: its
window follows from its centre and the manifest's tile side.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet

from core.arrays import Float64Array, Int64Array, UInt8Array
from core.errors import GalleryError, SettingError
from core.files import file_hash
from core.gallery.build import BuildReport, GallerySettings, SkippedTile, build_gallery
from core.gallery.index import TileIndex, engine_of
from core.gallery.manifest import TILES, Manifest
from core.gallery.viewpoints import cell_viewpoints
from core.geo import LocalFrame
from core.imagery.registry import open_imagery
from core.imagery.source import ImagerySource, stored_bytes
from core.records import Place, SearchArea, Tile

__all__ = [
    "BuildReport",
    "Gallery",
    "GallerySettings",
    "Manifest",
    "SkippedTile",
    "build_gallery",
]

_COLUMNS = ["tile_id", "east_m", "north_m", "lat_deg", "lon_deg"]


def _column(table: Any, name: str) -> Float64Array:
    """A column as numbers, converted through a list: pyarrow's own conversion imports pandas."""
    return np.array(table[name].to_pylist(), np.float64)


class Gallery:
    """An opened gallery, read-only; threads may share it. Made by ``Gallery.open``.

    ``centres_m``: float64 (R, 2), east and north of each tile's centre in the local frame.
    ``tile_ids``: R names. ``lat_deg``, ``lon_deg``: float64 (R,).
    """

    def __init__(self, path: Path, manifest: Manifest, index: TileIndex, table: Any) -> None:
        self.path = path
        self.manifest = manifest
        self.index = index
        self.frame = LocalFrame(manifest.origin)
        self.tile_ids: tuple[str, ...] = tuple(table["tile_id"].to_pylist())
        self.centres_m = np.column_stack([_column(table, "east_m"), _column(table, "north_m")])
        self._extent = self.centres_m.min(axis=0), self.centres_m.max(axis=0)
        self.lat_deg = _column(table, "lat_deg")
        self.lon_deg = _column(table, "lon_deg")
        # Permanent threads, because each keeps its own handle of the imagery.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="tiles")

    @classmethod
    def open(cls, path: str | Path, verify: Literal["fast", "full"] = "fast") -> Gallery:
        """Open a gallery folder.

        Args:
            path: the folder.
            verify: ``fast`` checks the manifest and the checksums of index and tiles before they
                are parsed; ``full`` also reads the imagery and every descriptor.

        Raises:
            GalleryError: the manifest is missing or of another format, or a file is missing or has
                changed since the build.

        """
        folder = Path(path)
        manifest = Manifest.read(folder)
        engine = engine_of(manifest.index_kind)
        for name in (*engine.files, TILES):
            _check_file(folder, name, manifest)
        if stored_bytes(folder / manifest.imagery) != manifest.imagery_bytes:
            raise GalleryError(
                f"Gallery {folder}: got no imagery of {manifest.imagery_bytes} bytes at "
                f"{manifest.imagery}, expected what it was built from. Put the imagery back, "
                "or build the gallery again."
            )
        index = engine.open(folder, manifest.index_kind)
        with pyarrow.parquet.ParquetFile(folder / TILES) as file:
            table = file.read(columns=_COLUMNS)
        described = manifest.tiles * manifest.viewpoints
        got = (len(index), index.size, table.num_rows)
        if got != (described, manifest.descriptor_size, manifest.tiles):
            raise GalleryError(
                f"Gallery {folder}: got {table.num_rows} tiles and {len(index)} descriptors of "
                f"{index.size} numbers, expected {manifest.tiles} and {described} of "
                f"{manifest.descriptor_size}. Build it again."
            )
        gallery = cls(folder, manifest, index, table)
        if verify == "full":
            gallery._verify_everything()
        return gallery

    def __len__(self) -> int:
        """Number of tiles R."""
        return len(self.tile_ids)

    @cached_property
    def tiles(self) -> Any:
        """GeoDataFrame in WGS 84, a row per tile.

        Columns tile_id, east_m, north_m, lat_deg, lon_deg, coverage, source; the geometry is the
        tile's footprint. Read on first use, as searching does not need it.
        """
        import geopandas

        return geopandas.read_parquet(self.path / TILES)

    def tile(self, row: int) -> Tile:
        """One reference.

        Raises:
            SettingError: no such row.

        """
        self._check_row(row)
        east_m, north_m = self.centres_m[row]
        return Tile(
            tile_id=self.tile_ids[row],
            place=Place(float(self.lat_deg[row]), float(self.lon_deg[row])),
            east_m=float(east_m),
            north_m=float(north_m),
            side_m=self.manifest.tile_side_m,
        )

    def tile_image(self, row: int) -> UInt8Array:
        """The imagery of one tile, uint8 (pixels, pixels, 3), north up.

        Raises:
            SettingError: no such row.
            RasterError: the imagery vanished or is damaged.

        """
        self._check_row(row)
        return self._cut(self.centres_m[row])

    def _cut_near(self, points_m: Float64Array) -> UInt8Array:
        """Tiles (P, S, S, 3) around points (P, 2) near one another, read as one piece.

        That takes little longer than one tile.
        """
        pixels = self.manifest.tile_pixels
        pixel_m = self.manifest.tile_side_m / pixels
        low, high = points_m.min(axis=0), points_m.max(axis=0)
        # Whole pixels from the first point; half a pixel off, the piece would be resampled.
        middle = low + np.rint((high - low) / 2 / pixel_m) * pixel_m
        east_m, north_m = middle.tolist()
        # An even size, so that the piece has the pixel grid of a tile around its middle.
        reach_m = float(np.maximum(high - middle, middle - low).max())
        spread = 2 * math.ceil(reach_m / pixel_m - 1e-6)
        side_m = self.manifest.tile_side_m + spread * pixel_m
        piece = self._imagery.read_tile(east_m, north_m, side_m, pixels + spread)[0]
        right, up = (points_m - middle).T / pixel_m
        lefts = np.clip(spread // 2 + np.rint(right), 0, spread).astype(int)
        tops = np.clip(spread // 2 - np.rint(up), 0, spread).astype(int)
        return np.stack(
            [
                piece[top : top + pixels, left : left + pixels]
                for top, left in zip(tops, lefts, strict=True)
            ]
        )

    def tiles_at(self, points_m: Float64Array) -> UInt8Array:
        """Tiles (P, pixels, pixels, 3) around points (P, 2), on whole pixels of the gallery's grid.

        Points near one another are read in one piece. See ``inside`` for where whole tiles can be cut.

        Raises:
            RasterError: the imagery vanished or is damaged.

        """
        pixel_m = self.manifest.tile_side_m / self.manifest.tile_pixels
        snapped = np.round(points_m / pixel_m) * pixel_m
        if float(np.ptp(snapped, axis=0).max()) <= self.manifest.tile_side_m / 2:
            return self._cut_near(snapped)
        return np.stack(list(self._readers.map(self._cut, snapped)))

    @property
    def viewpoints_m(self) -> Float64Array:
        """Viewpoints (S, 2) of a place, metres east and north of its centre.

        The first S rows of ``index`` are the viewpoints of the first place, and so on.
        """
        return cell_viewpoints(self.manifest.viewpoints) * self.manifest.step_m

    @property
    def tile_side_m(self) -> float:
        """Side of a tile in metres."""
        return self.manifest.tile_side_m

    @property
    def cell_area_m2(self) -> float:
        """Area of one grid cell, square metres."""
        return self.manifest.step_m**2

    def inside(self, point_m: Float64Array) -> Float64Array:
        """Points (..., 2) of the local frame, moved between the outermost places."""
        return np.clip(point_m, *self._extent)

    def _cut(self, centre_m: Float64Array) -> UInt8Array:
        east_m, north_m = centre_m
        side_m, pixels = self.manifest.tile_side_m, self.manifest.tile_pixels
        return self._imagery.read_tile(float(east_m), float(north_m), side_m, pixels)[0]

    def overview(
        self, max_side: int = 2048
    ) -> tuple[UInt8Array, tuple[float, float, float, float]]:
        """The whole imagery for a web map.

        Returns:
            (uint8 (H, W, 4) RGBA in web Mercator, transparent where nothing is seen; (west, south,
            east, north) in degrees), see ``ImagerySource.overview``.

        Raises:
            RasterError: the imagery vanished or is damaged.

        """
        return self._imagery.overview(max_side)

    def rows_within(self, area: SearchArea) -> Int64Array:
        """Rows, int64 (n,), of the tiles whose centres lie in a circle; may be none.

        Raises:
            SettingError: the radius is not positive, or the centre is not a place on Earth.

        """
        centre, radius = area.centre, area.radius_m
        if not 0 < radius < float("inf"):
            raise SettingError(f"Search radius: got {radius} m, expected more than 0.")
        if not (abs(centre.lat_deg) <= 90 and abs(centre.lon_deg) <= 180):
            raise SettingError(
                f"Search centre: got latitude {centre.lat_deg}, longitude {centre.lon_deg}; "
                "expected -90..90 and -180..180 degrees. Check the order: latitude comes first."
            )
        offsets = self.centres_m - np.asarray(self.frame.to_metres(centre))
        return np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1]) <= radius).astype(np.int64)

    def require_model(
        self, model_id: str, model_hash: str, model_path: str | Path | None = None
    ) -> None:
        """Refuse any model but the one that described the tiles.

        Args:
            model_id: its name, for the message.
            model_hash: ``core.checkpoints.model_hash`` of its folder.
            model_path: its folder, for the command in the message.

        Raises:
            GalleryError: another model; the message holds the command that rebuilds the gallery.

        """
        if model_hash == self.manifest.model_hash:
            return
        raise GalleryError(
            f"Gallery {self.path}: got model {model_id} ({model_hash[:12]}), expected "
            f"{self.manifest.model_id} ({self.manifest.model_hash[:12]}) that built it. Rebuild it: "
            f"python -m core gallery build {self.path / self.manifest.imagery} "
            f"--model {model_path or model_id} --out {self.path}"
        )

    @cached_property
    def _imagery(self) -> ImagerySource:
        return open_imagery(self.path / self.manifest.imagery, self.frame, is_known=True)

    def _check_row(self, row: int) -> None:
        if not 0 <= row < len(self):
            raise SettingError(f"Gallery row: got {row}, expected 0 to {len(self) - 1}.")

    def _verify_everything(self) -> None:
        for name in self.manifest.checksums:
            _check_file(self.path, name, self.manifest)
        for start in range(0, len(self.index), 10_000):
            rows = np.arange(start, min(start + 10_000, len(self.index)))
            lengths = np.linalg.norm(self.index.reconstruct(rows), axis=1)
            if not np.allclose(lengths, 1.0, atol=0.03):
                raise GalleryError(
                    f"Gallery {self.path}: got descriptors that are no unit vectors, expected "
                    "length 1. Build it again."
                )
        if not np.any([self.tile_image(0), self.tile_image(len(self) - 1)]):
            raise GalleryError(
                f"Gallery {self.path}: got black tiles, expected imagery at {self.manifest.imagery}. "
                "Put the imagery back, or build the gallery again."
            )


def _check_file(folder: Path, name: str, manifest: Manifest) -> None:
    path = folder / name
    expected = manifest.checksums.get(name)
    if not path.is_file():
        got = "no file"
    elif expected is None:
        got = "no checksum"
    else:
        got = "" if file_hash(path) == expected else "other bytes"
    if got:
        raise GalleryError(
            f"Gallery {folder}: got {got} for {name}, expected the one in its "
            "manifest. It is damaged: copy it again, or run: python -m core gallery build "
            f"{folder / manifest.imagery} --model {manifest.model_id} --out {folder}"
        )
