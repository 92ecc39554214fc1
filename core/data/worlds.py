"""Rendered worlds as data: panoramas with their places and headings, and the imagery above them.

``core.world.build`` writes a world folder; ``load_town``, ``load_photos`` and ``load_truth`` read it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from pyarrow import parquet
from rasterio.enums import Resampling

from core.arrays import Float64Array, UInt8Array
from core.errors import WorldError

__all__ = [
    "GRID_STEP_M",
    "TILE_SIDE_M",
    "PatchTruth",
    "PhotoQueries",
    "Town",
    "has_photos",
    "load_photos",
    "load_town",
    "load_truth",
]

TILE_SIDE_M = 76.8
"""Side of a tile on the ground: 256 px at 0.3 m."""

GRID_STEP_M = 19.2
"""Distance between neighbouring places of a gallery: a quarter of a tile."""

PATCHES = (4, 32)
"""Rows and columns of patches of a full canvas."""


@dataclass(frozen=True)
class Town:
    """One rendered town in memory.

    panoramas: uint8 (n, h, w, 3), full canvases. places: (n, 2) metres east and north.
    heading_deg: (n,). mosaic: uint8 (H, W, 3), north up, ``pixel_m`` metres per pixel, its middle
    at the origin of the local frame. ``truth``: the content of each ground patch, if it was loaded
    (``load_truth``).
    """

    name: str
    size_m: float
    panoramas: UInt8Array
    places: Float64Array
    heading_deg: Float64Array
    mosaic: UInt8Array
    pixel_m: float
    truth: PatchTruth | None = None

    @property
    def half_extent_m(self) -> float:
        """Greatest |east| or |north| at which a whole tile can be cut."""
        return self.size_m / 2 - TILE_SIDE_M / 2

    def crop_tiles(self, centres: Float64Array, pixels: int) -> UInt8Array:
        """North-up tiles (n, pixels, pixels, 3) around centres (n, 2), to the nearest pixel.

        Centres nearer to the border than half a tile are moved inwards.
        """
        limit = self.half_extent_m
        inside = np.clip(centres, -limit, limit)
        half = self.size_m / 2
        left = np.rint((inside[:, 0] + half) / self.pixel_m - pixels / 2).astype(int)
        top = np.rint((half - inside[:, 1]) / self.pixel_m - pixels / 2).astype(int)
        height, width = self.mosaic.shape[:2]
        left = np.clip(left, 0, width - pixels)
        top = np.clip(top, 0, height - pixels)
        return np.stack(
            [self.mosaic[t : t + pixels, x : x + pixels] for t, x in zip(top, left, strict=True)]
        )


@dataclass(frozen=True)
class PhotoQueries:
    """Perspective photos of a town: files, places (n, 2) in metres, headings and fields of view."""

    files: tuple[Path, ...]
    places: Float64Array
    heading_deg: Float64Array
    fov_deg: Float64Array


@dataclass(frozen=True)
class PatchTruth:
    """The content of every patch of a town's n panoramas: its most frequent class, and its place.

    Rows from the top; column c is the middle of azimuths heading - 180 + (c + 0.5) * 11.25 degrees.

    class_id: uint8 (n, 4, 32), index into ``class_names``. places: float64 (n, 4, 32, 2), the median
    place of the visible content of that class, metres east and north in the town's frame (not from the
    camera); nan for sky.
    """

    class_id: UInt8Array
    places: Float64Array
    class_names: tuple[str, ...]


def _read_world_json(folder: Path) -> dict[str, object]:
    path = folder / "world.json"
    if not path.is_file():
        raise WorldError(
            f"World {folder}: got no world.json, expected a rendered world. "
            "Build one with: python -m core world build --seed 1 --out DIR"
        )
    try:
        record: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        float(str(record["size_m"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WorldError(
            f"World {folder}: world.json is damaged ({error}). Build the world again."
        ) from error
    return record


def _read_panoramas(folder: Path, files: list[str]) -> UInt8Array:
    packed = folder / "panoramas.npy"
    try:
        if packed.is_file():
            return np.asarray(np.load(packed, mmap_mode="r"), dtype=np.uint8)
        return np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in files])
    except (OSError, ValueError, EOFError) as error:
        raise WorldError(f"World {folder}: its panoramas cannot be read ({error}).") from error


def _read_mosaic(folder: Path, size_m: float, pixels: int) -> tuple[UInt8Array, float]:
    side = round(size_m / TILE_SIDE_M * pixels)
    try:
        # The file's reduced copies were compressed a second time, and galleries do not use them.
        with rasterio.open(folder / "aerial.tif", OVERVIEW_LEVEL="NONE") as raster:
            bands = raster.read((1, 2, 3), out_shape=(3, side, side), resampling=Resampling.average)
    except rasterio.errors.RasterioIOError as error:
        raise WorldError(f"World {folder}: aerial.tif cannot be read ({error}).") from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0)), size_m / side


def load_town(folder: str | Path, tile_pixels: int = 128) -> Town:
    """Read a world folder; its imagery is averaged so that a tile has ``tile_pixels`` columns.

    Raises:
        WorldError: the folder is not a world, or one of its files cannot be read.

    """
    folder = Path(folder)
    record = _read_world_json(folder)
    size_m = float(str(record["size_m"]))
    try:
        table = parquet.read_table(
            folder / "panoramas.parquet", columns=["file", "east_m", "north_m", "heading_deg"]
        )
    except (OSError, ValueError, KeyError) as error:
        raise WorldError(f"World {folder}: panoramas.parquet cannot be read ({error}).") from error
    mosaic, pixel_m = _read_mosaic(folder, size_m, tile_pixels)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return Town(
        name=folder.name,
        size_m=size_m,
        panoramas=_read_panoramas(folder, columns["file"]),
        places=np.stack([columns["east_m"], columns["north_m"]], axis=1).astype(np.float64),
        heading_deg=np.asarray(columns["heading_deg"], np.float64),
        mosaic=mosaic,
        pixel_m=pixel_m,
    )


def has_photos(folder: str | Path) -> bool:
    """Whether a world folder has perspective photos besides its panoramas."""
    return (Path(folder) / "photos.parquet").is_file()


def load_photos(folder: str | Path) -> PhotoQueries:
    """The perspective photos of a world folder.

    Raises:
        WorldError: the folder has no photos.parquet.

    """
    folder = Path(folder)
    try:
        table = parquet.read_table(folder / "photos.parquet")
    except (OSError, ValueError, KeyError) as error:
        raise WorldError(f"World {folder}: photos.parquet cannot be read ({error}).") from error
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "geometry"}
    return PhotoQueries(
        files=tuple(folder / name for name in columns["file"]),
        places=np.stack([columns["east_m"], columns["north_m"]], axis=1).astype(np.float64),
        heading_deg=np.asarray(columns["heading_deg"], np.float64),
        fov_deg=np.asarray(columns["fov_deg"], np.float64),
    )


def with_truth_of(town: Town, truth: PatchTruth) -> Town:
    """The town with the truth of its patches.

    Raises:
        WorldError: the truth has another number of panoramas.

    """
    if len(truth.class_id) != len(town.panoramas):
        raise WorldError(
            f"World {town.name}: got the truth of {len(truth.class_id)} panoramas, expected that of "
            f"its {len(town.panoramas)}. Build the world again."
        )
    return replace(town, truth=truth)


def load_truth(folder: str | Path) -> PatchTruth:
    """The truth of each patch of each panorama of a world folder, in the order of its panoramas.

    Raises:
        WorldError: truth.npz is missing, damaged or of another layout.

    """
    path = Path(folder) / "truth.npz"
    if not path.is_file():
        raise WorldError(
            f"World {folder}: got no truth.npz, expected what its patches show. Build the world again "
            "with: python -m core world build"
        )
    try:
        # numpy does not close a damaged file that it opened itself.
        with path.open("rb") as file, np.load(file) as stored:
            names = tuple(str(name) for name in stored["class_names"])
            kinds = stored["class_id"]
            places = np.stack([stored["east_m"], stored["north_m"]], axis=-1).astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WorldError(
            f"World {folder}: truth.npz is damaged ({error}). Build the world again."
        ) from error
    expected = (len(kinds) if kinds.ndim else 0, *PATCHES)
    if kinds.shape != expected or places.shape != (*expected, 2) or kinds.dtype != np.uint8:
        raise WorldError(
            f"World {folder}: truth.npz has classes {kinds.dtype} {kinds.shape} and places "
            f"{places.shape}, expected uint8 (n, 4, 32) and (n, 4, 32, 2). Build the world again."
        )
    if kinds.size and kinds.max() >= len(names):
        raise WorldError(
            f"World {folder}: truth.npz has class {kinds.max()}, expected one of its {len(names)} "
            "names. Build the world again."
        )
    return PatchTruth(kinds, places, names)
