"""Build a gallery folder from aerial imagery: cut, describe, index. A build can be stopped at any time.

The work is a list of chunks of grid points. Each finished chunk is one file in the journal folder. A
killed build continues with the first missing chunk, in the same batches, and ends with the same bytes.
At the end the files are moved into place, the manifest last. A folder without a manifest is not a
gallery.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.arrays import (
    AnyArray,
    BoolArray,
    Float16Array,
    Float32Array,
    Float64Array,
    Int64Array,
    UInt8Array,
)
from core.errors import GalleryError, RasterError, SettingError
from core.files import file_hash, folder_lock, write_text
from core.gallery.index import FLAT_8BIT, TileIndex, engine_of
from core.gallery.journal import CHUNK_TILES, Chunk, Journal, Plan
from core.gallery.manifest import BUILDING, FORMAT, MANIFEST, TILES, Manifest
from core.gallery.viewpoints import VIEWPOINTS, cell_viewpoints
from core.geo import grid_centres
from core.imagery.registry import open_imagery
from core.imagery.source import ImagerySource, Reference, TileReader, stored_bytes

__all__ = [
    "BuildReport",
    "GallerySettings",
    "SkippedTile",
    "build_gallery",
    "describe_places",
    "plan_places",
]

COPIED_BYTES = 200 * 1024 * 1024
"""Imagery up to this size is copied into the gallery; larger imagery is referred to by its path."""

Describe = Callable[[UInt8Array], Float32Array]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GallerySettings:
    """The geometry of a gallery, lengths in metres.

    ``min_coverage``: a tile with a smaller share of seen imagery is skipped, in (0, 1].
    ``viewpoints``: number of points of its grid cell from which a place is described: 1, 4 or 9.
    """

    tile_side_m: float = 76.8
    tile_pixels: int = 256
    step_m: float = 19.2
    min_coverage: float = 0.7
    index_kind: str = FLAT_8BIT
    viewpoints: int = VIEWPOINTS

    def __post_init__(self) -> None:
        """Refuse impossible geometry.

        Raises:
            SettingError: a length is not positive, the coverage not in (0, 1], or the viewpoints
                not 1, 4 or 9.

        """
        lengths = {"Tile side": self.tile_side_m, "Grid step": self.step_m}
        for name, length in lengths.items():
            if not 0.1 <= length <= 100_000:
                raise SettingError(f"{name}: got {length} m, expected 0.1 to 100000 m.")
        if not 16 <= self.tile_pixels <= 4096:
            raise SettingError(f"Tile: got {self.tile_pixels} pixels, expected 16 to 4096.")
        if not 0 < self.min_coverage <= 1:
            raise SettingError(
                f"Smallest coverage: got {self.min_coverage}, expected more than 0 and at most 1."
            )
        cell_viewpoints(self.viewpoints)

    @property
    def gsd_m(self) -> float:
        """Metres per pixel of a tile."""
        return self.tile_side_m / self.tile_pixels


@dataclass(frozen=True)
class SkippedTile:
    """A grid point without a reference; ``coverage``: seen share of its tile."""

    tile_id: str
    lat_deg: float
    lon_deg: float
    coverage: float


@dataclass(frozen=True)
class BuildReport:
    """Summary of a build. ``resumed``: number of chunks taken over from an unfinished build."""

    path: Path
    tiles: int
    skipped: tuple[SkippedTile, ...]
    chunks: int
    resumed: int
    notes: tuple[str, ...]


def build_gallery(
    source: str | Path,
    out: str | Path,
    describe: Describe,
    model_id: str,
    model_hash: str,
    settings: GallerySettings | None = None,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Describe the places of aerial imagery and write them as a gallery folder.

    Args:
        source: a georeferenced raster, a world folder with ``aerial.tif``, or another path that a
            kind of ``core.imagery.registry`` accepts.
        out: the gallery's folder; may be the world folder itself. Other files in it stay unchanged.
        describe: tiles uint8 (B, pixels, pixels, 3) -> unit descriptors float (B, D), B at most 64.
        model_id: name of the model, for people.
        model_hash: ``core.checkpoints.model_hash`` of its folder.
        settings: tile size, grid step, smallest coverage and kind of index; the defaults if None.
        on_progress: called with (grid points done, grid points) after each chunk.

    Raises:
        RasterError: the imagery cannot be read, or no tile reaches the smallest coverage.
        GalleryError: the model's descriptors are unusable, ``out`` holds other imagery, or another
            build is running in it.

    """
    with folder_lock(Path(out), GalleryError, f"Gallery {out}"):
        return _build(source, out, describe, model_id, model_hash, settings, on_progress)


def _build(
    source: str | Path,
    out: str | Path,
    describe: Describe,
    model_id: str,
    model_hash: str,
    settings: GallerySettings | None,
    on_progress: Progress | None,
) -> BuildReport:
    settings, out = settings or GallerySettings(), Path(out)
    imagery = open_imagery(source)
    stored = imagery.reference()
    plan = plan_places(imagery, settings)
    target, is_copied = _imagery_target(stored, out)
    fingerprint = _fingerprint(imagery, model_id, model_hash, settings)
    journal = Journal.open(out / BUILDING, fingerprint)
    resumed = _describe_all(journal, imagery, plan, describe, settings, on_progress)
    coverage = np.concatenate([chunk.coverage for chunk in journal.all(plan)])
    kept = coverage >= settings.min_coverage
    if not kept.any():
        shutil.rmtree(journal.folder)
        raise RasterError(_no_tile_sentence(stored.path, settings, coverage))
    engine = engine_of(settings.index_kind)
    index = engine.build(_Descriptors(journal, plan), settings.index_kind)
    index.save(journal.folder)
    _write_tiles(journal.folder / TILES, imagery, plan, coverage, kept, settings)
    if is_copied:
        shutil.copyfile(stored.path, journal.folder / target)
    made_by = (model_id, model_hash)
    manifest = _manifest(imagery, target, index, len(kept), settings, made_by, journal.folder)
    _move_into_place(journal.folder, out, manifest)
    skipped, notes = _skipped(imagery, plan, coverage, kept), _notes(imagery, settings)
    return BuildReport(out, manifest.tiles, skipped, len(plan.chunks()), resumed, notes)


@dataclass(frozen=True)
class _Descriptors:
    """The descriptors of a finished journal, chunk by chunk; can be iterated several times."""

    journal: Journal
    plan: Plan

    def __iter__(self) -> Iterator[Float16Array]:
        return (
            chunk.descriptors for chunk in self.journal.all(self.plan) if len(chunk.descriptors)
        )


def _describe_all(
    journal: Journal,
    imagery: ImagerySource,
    plan: Plan,
    describe: Describe,
    settings: GallerySettings,
    on_progress: Progress | None,
) -> int:
    """Describe the missing chunks; returns the number of chunks that existed already."""
    resumed = 0
    for number, points in enumerate(plan.chunks()):
        if journal.read(number, len(points)) is None:
            journal.write(number, describe_places(imagery, plan, points, describe, settings))
        else:
            resumed += 1
        if on_progress is not None:
            on_progress(points.stop, len(plan.ids))
    return resumed


def plan_places(imagery: TileReader, settings: GallerySettings) -> Plan:
    """Grid points whose tiles lie within the imagery's box, from the north-west, row by row."""
    box, half = imagery.bounds, settings.tile_side_m / 2

    def inset(low: float, high: float) -> tuple[float, float]:
        # Imagery smaller than one tile keeps its middle point; the coverage decides.
        middle = (low + high) / 2
        return min(low + half, middle), max(high - half, middle)

    (west, east), (south, north) = inset(box.west_m, box.east_m), inset(box.south_m, box.north_m)
    centres = grid_centres(west, south, east, north, settings.step_m)
    # On whole pixels: imagery in the same frame and resolution is then cut, not resampled.
    centres = np.round(np.round(centres / settings.gsd_m) * settings.gsd_m, 4) + 0.0
    columns = len(np.unique(centres[:, 0]))
    ids = tuple(f"r{i // columns:04d}c{i % columns:04d}" for i in range(len(centres)))
    return Plan(centres, ids)


def _fingerprint(
    imagery: ImagerySource, model_id: str, model_hash: str, settings: GallerySettings
) -> str:
    """A hash that changes with everything that would change the result."""
    parts = [FORMAT, CHUNK_TILES, imagery.fingerprint(), model_id, model_hash, asdict(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def describe_places(
    imagery: TileReader, plan: Plan, points: range, describe: Describe, settings: GallerySettings
) -> Chunk:
    """Describe the places of a chunk with enough coverage, from all their viewpoints."""
    side_m, pixels = settings.tile_side_m, settings.tile_pixels
    coverage, places = [], []
    for centre in plan.centres[points.start : points.stop]:
        _, seen = imagery.read_tile(float(centre[0]), float(centre[1]), side_m, pixels)
        coverage.append(seen)
        if seen >= settings.min_coverage:
            places.append(
                _seen_from(imagery, centre, _viewpoints(centre, plan, settings), settings)
            )
    if not places:
        return Chunk(np.array(coverage), np.empty((0, 0), np.float16))
    # One viewpoint at a time: a place's tiles are views of one picture; stacking all needs more memory.
    described = []
    for at in range(settings.viewpoints):
        tiles = np.stack([place[at] for place in places])
        described.append(_unit(np.asarray(describe(tiles)), len(tiles)))
    descriptors = np.stack(described, axis=1).reshape(-1, described[0].shape[1])
    return Chunk(np.array(coverage), descriptors)


def _viewpoints(centre: Float64Array, plan: Plan, settings: GallerySettings) -> Int64Array:
    """Viewpoints of a place: (S, 2) whole pixels east and north of its centre."""
    # A tile around a point beyond the outermost places would reach beyond the imagery.
    low, high = plan.centres.min(axis=0), plan.centres.max(axis=0)
    viewpoints = centre + cell_viewpoints(settings.viewpoints) * settings.step_m
    return np.rint((np.clip(viewpoints, low, high) - centre) / settings.gsd_m).astype(np.int64)


def _seen_from(
    imagery: TileReader,
    centre: Float64Array,
    viewpoints: Int64Array,
    settings: GallerySettings,
) -> list[UInt8Array]:
    """The tiles around a place's viewpoints, cut from one picture that contains them all."""
    reach = int(np.abs(viewpoints).max())
    side_m = settings.tile_side_m + 2 * reach * settings.gsd_m
    pixels = settings.tile_pixels + 2 * reach
    picture, _ = imagery.read_tile(float(centre[0]), float(centre[1]), side_m, pixels)
    return [
        picture[reach - north :, reach + east :][: settings.tile_pixels, : settings.tile_pixels]
        for east, north in viewpoints
    ]


def _unit(descriptors: AnyArray, tiles: int) -> Float16Array:
    """A model's descriptors of ``tiles`` tiles; refused unless they are unit vectors."""
    is_matrix = descriptors.ndim == 2 and descriptors.shape[0] == tiles
    lengths = np.linalg.norm(descriptors.astype(np.float64), axis=-1) if is_matrix else np.zeros(1)
    if not is_matrix or not np.allclose(lengths, 1.0, atol=0.01):
        raise GalleryError(
            f"Model: got descriptors {descriptors.shape} of lengths {lengths.min():.3g} to "
            f"{lengths.max():.3g} for {tiles} tiles, expected unit vectors. Check its weights."
        )
    return descriptors.astype(np.float16)


def _write_tiles(
    path: Path,
    imagery: ImagerySource,
    plan: Plan,
    coverage: Float64Array,
    kept: BoolArray,
    settings: GallerySettings,
) -> None:
    """GeoParquet in WGS 84, a row per tile in the index's order; the geometry is the footprint."""
    import geopandas
    import shapely

    centres = plan.centres[kept]
    degrees = imagery.frame.to_degrees_many(centres[:, 0], centres[:, 1])
    half = settings.tile_side_m / 2
    turn = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * half
    corners = centres[:, None, :] + turn[None, :, :]
    outline = imagery.frame.to_degrees_many(corners[..., 0], corners[..., 1])
    geopandas.GeoDataFrame(
        {
            "tile_id": [tile for tile, keep in zip(plan.ids, kept, strict=True) if keep],
            "east_m": centres[:, 0],
            "north_m": centres[:, 1],
            "lat_deg": degrees[:, 0],
            "lon_deg": degrees[:, 1],
            "coverage": coverage[kept],
            "source": imagery.reference().path.name,
        },
        geometry=shapely.polygons(outline[..., ::-1]),
        crs="EPSG:4326",
    ).to_parquet(path, index=False)


def _imagery_target(stored: Reference, out: Path) -> tuple[str, bool]:
    """(path of the imagery relative to the gallery, whether to copy it there)."""
    path, copy = stored.path.resolve(), stored.copy_name
    if path.parent == out.resolve():
        return path.name, False
    if copy is None or path.stat().st_size > COPIED_BYTES:
        return Path(os.path.relpath(path, out.resolve())).as_posix(), False
    if (out / copy).exists() and not _is_own_copy(out, copy):
        raise GalleryError(
            f"Gallery {out}: got a folder with another {copy}, expected an empty folder or the "
            "gallery of the same imagery. Choose another --out."
        )
    return copy, True


def _is_own_copy(out: Path, copy: str) -> bool:
    """Whether a build copied the folder's imagery there, finished or interrupted at its end."""
    if (out / BUILDING).is_dir():
        return not (out / "world.json").exists()
    try:  # of any format: an older gallery may be rebuilt in its folder
        known = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["checksums"]
        return copy in known and not (out / "world.json").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _manifest(
    imagery: ImagerySource,
    target: str,
    index: TileIndex,
    points: int,
    settings: GallerySettings,
    made_by: tuple[str, str],
    files: Path,
) -> Manifest:
    path = imagery.reference().path
    names = (*engine_of(settings.index_kind).files, TILES)
    hashes = {name: file_hash(files / name) for name in names}
    if "/" not in target and path.is_file():
        hashes[target] = file_hash(path)
    return Manifest(
        format=FORMAT,
        tiles=len(index) // settings.viewpoints,
        skipped=points - len(index) // settings.viewpoints,
        tile_side_m=settings.tile_side_m,
        tile_pixels=settings.tile_pixels,
        gsd_m=settings.gsd_m,
        step_m=settings.step_m,
        viewpoints=settings.viewpoints,
        min_coverage=settings.min_coverage,
        origin_lat_deg=imagery.frame.origin.lat_deg,
        origin_lon_deg=imagery.frame.origin.lon_deg,
        crs=imagery.frame.crs.to_string(),
        model_id=made_by[0],
        model_hash=made_by[1],
        descriptor_size=index.size,
        index_kind=settings.index_kind,
        source=path.name,
        imagery=target,
        imagery_bytes=stored_bytes(path) or 0,
        synthetic=_is_synthetic(path.parent / "world.json"),
        checksums=hashes,
    )


def _is_synthetic(world: Path) -> bool:
    try:
        return bool(json.loads(world.read_text(encoding="utf-8")).get("synthetic", True))
    except (OSError, ValueError, AttributeError):
        return False


def _move_into_place(files: Path, out: Path, manifest: Manifest) -> None:
    """Remove the old manifest first and write the new one last: a half-moved folder is no gallery."""
    write_text(files / MANIFEST, manifest.to_json())
    (out / MANIFEST).unlink(missing_ok=True)
    for name in (*manifest.checksums, MANIFEST):
        if (files / name).exists():
            os.replace(files / name, out / name)
    shutil.rmtree(files)


def _skipped(
    imagery: ImagerySource,
    plan: Plan,
    coverage: Float64Array,
    kept: BoolArray,
) -> tuple[SkippedTile, ...]:
    left_out = np.flatnonzero(~kept)
    centres = plan.centres[left_out]
    degrees: Any = imagery.frame.to_degrees_many(centres[:, 0], centres[:, 1])
    return tuple(
        SkippedTile(plan.ids[point], float(lat), float(lon), float(coverage[point]))
        for point, (lat, lon) in zip(left_out, degrees, strict=True)
    )


def _notes(imagery: ImagerySource, settings: GallerySettings) -> tuple[str, ...]:
    if imagery.gsd_m <= 2 * settings.gsd_m:
        return ()
    return (
        f"The imagery has {imagery.gsd_m:.2g} m per pixel and tiles {settings.gsd_m:.2g}: it is "
        "enlarged, and places will be harder to tell apart.",
    )


def _no_tile_sentence(path: Path, settings: GallerySettings, coverage: Float64Array) -> str:
    return (
        f"Imagery {path.name}: got no tile of {settings.tile_side_m:g} m with imagery on "
        f"{settings.min_coverage:.0%} of it (best of {len(coverage)}: {coverage.max():.0%}), "
        "expected at least one. Use larger imagery, or a smaller --min-coverage."
    )
