"""Building rendered worlds as folders: layout, aerial picture, panoramas, truth and photos."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from PIL import Image
from rasterio import Affine
from tqdm import tqdm

from core.errors import WorldError
from core.files import folder_lock
from core.geo import LocalFrame
from core.records import Place
from core.world.cameras import (
    PATCHES,
    Camera,
    photo_exif,
    place_cameras,
    shoot_panorama,
    shoot_photo,
)
from core.world.layout import TownPlan, grow_town, write_layout
from core.world.materials import CLASS_NAMES, SEASONS
from core.world.render import Scene, make_scene, paint_ground, render_aerial, still_meshes
from core.world.sky import develop, draw_light
from core.world.style import TOWN, style_named

__all__ = ["TEST_SEEDS", "TRAIN_SEEDS", "VALIDATION_SEEDS", "TownJob", "build_towns",
           "build_world", "demo_job", "training_job"]  # fmt: skip

TRAIN_SEEDS = tuple(range(1000, 1060))
VALIDATION_SEEDS = (2000, 2001, 2002, 2003)
TEST_SEEDS = (3000, 3001, 3002)
"""Three test towns, never used for choices; the first is the demo town."""

GSD_M = 0.3
ORIGIN = Place(0.0, 0.0)
FORMAT = 1


@dataclass(frozen=True)
class TownJob:
    """One town to build: the arguments of ``build_world``."""

    name: str
    seed: int
    size_m: float
    panoramas: int
    photos: int = 0
    canvas: tuple[int, int] = (128, 512)
    packed: bool = False
    aerial_grid: int = 1
    style: str = TOWN.name


def training_job(seed: int, panoramas: int = 1000) -> TownJob:
    """A town to learn from: 1152 m, panoramas of 64 x 256 packed in one array."""
    return TownJob(f"town-{seed}", seed, 1152.0, panoramas, 0, (64, 256), True)


def demo_job(seed: int) -> TownJob:
    """A town to test on and to show: 1536 m, 600 panoramas of 128 x 512 and 24 photos."""
    return TownJob(f"town-{seed}", seed, 1536.0, 600, 24, (128, 512), False, 2)


def _checked(
    size_m: float, panoramas: int, photos: int, canvas: tuple[int, int]
) -> None:  # fmt: skip
    if not 150 <= size_m <= 6000:
        raise WorldError(f"World size: got {size_m} m, expected 150 to 6000. Choose another size.")
    if panoramas < 0 or photos < 0:
        raise WorldError(
            f"World pictures: got {panoramas} panoramas and {photos} photos, expected 0 or more. "
            "Choose other numbers."
        )
    if canvas[0] % PATCHES[0] or canvas[1] != 4 * canvas[0] or canvas[0] < 16:
        raise WorldError(
            f"World canvas: got {canvas[0]} x {canvas[1]}, expected four times as wide as high and "
            "a height of 16, 32, 64, 128 or another multiple of 16. Choose another canvas."
        )


def _seasons(seed: int) -> dict[str, str]:
    """Season names of the two captures, drawn independently."""
    rng = np.random.default_rng([seed, 8])
    names = list(SEASONS)
    return {
        "aerial": str(rng.choice(names, p=[0.3, 0.35, 0.2, 0.1, 0.05])),
        "ground": str(rng.choice(names, p=[0.22, 0.33, 0.15, 0.2, 0.1])),
    }


def _write_aerial(town: TownPlan, scene: Scene, path: Path, grid: int) -> None:
    rng = np.random.default_rng([town.seed, 9])
    light = draw_light(rng, from_above=True, style=scene.style)
    linear = render_aerial(scene, light, town.size_m, GSD_M, grid, rng)
    picture = develop(linear, light, rng)
    n = len(picture)
    profile: dict[str, Any] = {
        "driver": "COG", "width": n, "height": n, "count": 3, "dtype": "uint8",
        "crs": LocalFrame(ORIGIN).crs.to_wkt(), "compress": "WEBP", "quality": 90,
        "transform": Affine(GSD_M, 0, -town.size_m / 2, 0, -GSD_M, town.size_m / 2),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.moveaxis(picture, -1, 0))


def _table(rows: list[dict[str, Any]]) -> gpd.GeoDataFrame:
    """Rows with east_m and north_m, and their places in degrees."""
    frame = LocalFrame(ORIGIN)
    east = np.array([r["east_m"] for r in rows], np.float64)
    north = np.array([r["north_m"] for r in rows], np.float64)
    degrees = frame.to_degrees_many(east, north)
    columns = {key: [r[key] for r in rows] for key in rows[0]}
    columns |= {"lat_deg": list(degrees[:, 0]), "lon_deg": list(degrees[:, 1])}
    points = gpd.points_from_xy(degrees[:, 1], degrees[:, 0], crs="EPSG:4326")
    return gpd.GeoDataFrame(columns, geometry=points)


def _write_panoramas(
    town: TownPlan, scene: Scene, folder: Path, job: TownJob, quiet: bool
) -> None:  # fmt: skip
    rng = np.random.default_rng([town.seed, 10])
    cameras = place_cameras(town, scene, job.panoramas, rng)
    kinds = np.zeros((job.panoramas, *PATCHES), np.uint8)
    places = np.zeros((job.panoramas, *PATCHES, 2), np.float32)
    pack = np.zeros((job.panoramas if job.packed else 0, *job.canvas, 3), np.uint8)
    if not job.packed:
        (folder / "panoramas").mkdir()
    rows = []
    for i, camera in enumerate(tqdm(cameras, desc=f"{job.name} panoramas", disable=quiet)):
        own = np.random.default_rng([town.seed, 11, i])
        heading = float(own.uniform(0, 360))
        picture, kinds[i], places[i] = shoot_panorama(scene, camera, heading, job.canvas, 2, own)
        name = "panoramas.npy" if job.packed else f"panoramas/p{i:04d}.webp"
        if job.packed:
            pack[i] = picture
        else:
            Image.fromarray(picture).save(folder / name, quality=92, method=4)
        row = {"panorama_id": f"p{i:04d}", "east_m": camera.east_m, "north_m": camera.north_m}
        row |= {"heading_deg": heading, "file": name, "camera_height_m": camera.height_m}
        rows.append(row)
    if job.packed:
        np.save(folder / "panoramas.npy", pack)
    _table(rows).to_parquet(folder / "panoramas.parquet")
    np.savez_compressed(folder / "truth.npz", class_id=kinds, east_m=places[..., 0],
                        north_m=places[..., 1], class_names=np.array(CLASS_NAMES))  # fmt: skip


def _write_photos(town: TownPlan, scene: Scene, folder: Path, count: int, quiet: bool) -> None:
    rng = np.random.default_rng([town.seed, 12])
    cameras = place_cameras(town, scene, count, rng)
    (folder / "photos").mkdir()
    frame, rows = LocalFrame(ORIGIN), []
    for i, camera in enumerate(tqdm(cameras, desc="photos", disable=quiet)):
        own = np.random.default_rng([town.seed, 13, i])
        rows.append(_one_photo(scene, camera, folder, i, frame, own))
    _table(rows).to_parquet(folder / "photos.parquet")


def _one_photo(
    scene: Scene, camera: Camera, folder: Path, number: int, frame: LocalFrame,
    rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    portrait = bool(rng.random() < 0.2)
    side_mm, widest = (24.0, 85.0) if portrait else (36.0, 108.0)
    wish = rng.uniform(52.0, widest)
    focal = round(side_mm / 2 / np.tan(np.radians(wish) / 2))
    fov = float(np.degrees(2 * np.arctan(side_mm / 2 / focal)))
    heading = float(camera.street_deg + rng.choice([0, 180]) + rng.normal(0, 28)) % 360
    pitch = float(rng.uniform(-3, 3))
    size = (1024, 768) if portrait else (768, 1024)
    picture = shoot_photo(scene, camera, heading, pitch, fov, size, rng)
    name = f"photos/photo{number:02d}.jpg"
    place = frame.to_place(camera.east_m, camera.north_m)
    # In EXIF 36 mm lie along the longer side, as in a 4:3 frame of a phone: 27 mm across a portrait.
    across = 27.0 if portrait else 36.0
    focal_35mm = round(across / 2 / np.tan(np.radians(fov) / 2))
    exif = photo_exif(place, heading, int(focal_35mm))
    Image.fromarray(picture).save(folder / name, quality=90, exif=exif)
    row = {"photo_id": f"photo{number:02d}", "file": name, "east_m": camera.east_m}
    row |= {"north_m": camera.north_m, "heading_deg": heading, "fov_deg": fov}
    return row | {"pitch_deg": pitch}


def _facts(job: TownJob, seasons: dict[str, str]) -> dict[str, Any]:
    facts = asdict(job)
    return {
        "format": FORMAT, **{k: facts[k] for k in ("seed", "size_m", "panoramas", "photos")},
        "gsd_m": GSD_M, "origin": {"lat_deg": ORIGIN.lat_deg, "lon_deg": ORIGIN.lon_deg},
        "canvas": list(job.canvas), "packed": job.packed, "synthetic": True,
        "season_aerial": seasons["aerial"], "season_ground": seasons["ground"],
        **({} if job.style == TOWN.name else {"style": job.style}),
    }  # fmt: skip


def build_world(
    seed: int, size_m: float, out: Path, *, panoramas: int, photos: int = 0,
    canvas: tuple[int, int] = (128, 512), packed: bool = False, aerial_grid: int = 1,
    style: str = TOWN.name, quiet: bool = False,
) -> Path:  # fmt: skip
    """Build the town of ``seed`` as the folder ``out``; same arguments, same bytes.

    ``size_m`` side in metres (150 to 6000), ``canvas`` rows and columns of a panorama, ``packed``
    panoramas in one .npy, ``aerial_grid`` rays per aerial pixel and axis, ``style`` a key of
    ``core.world.style.STYLES``. The town is written beside ``out`` and renamed when complete; a folder
    that already holds this town stays unchanged. Raises WorldError for sizes out of range, an unknown
    style, a folder with other contents, another build running in it, or a missing embreex.
    """
    out = Path(out)
    _checked(size_m, panoramas, photos, canvas)
    job = TownJob(out.name, seed, size_m, panoramas, photos, canvas, packed, aerial_grid, style)
    style_named(style)
    with folder_lock(out, WorldError, f"World folder {out.name}"):
        return _build(job, out, quiet)


def _build(job: TownJob, out: Path, quiet: bool) -> Path:
    seasons = _seasons(job.seed)
    facts = _facts(job, seasons)
    if out.exists():
        about = out / "world.json"
        if about.is_file() and json.loads(about.read_text()) == facts:
            return out
        raise WorldError(
            f"World folder {out.name}: got a folder that holds something else, expected none or "
            "this very town. Delete it or choose another folder."
        )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    town = grow_town(job.seed, job.size_m, style_named(job.style))
    write_layout(town, partial / "layout.gpkg")
    cover, still = paint_ground(town), still_meshes(town)
    scene = make_scene(town, "aerial", seasons["aerial"], cover, still)
    _write_aerial(town, scene, partial / "aerial.tif", job.aerial_grid)
    scene = make_scene(town, "ground", seasons["ground"], cover, still)
    if job.panoramas:
        _write_panoramas(town, scene, partial, job, quiet)
    if job.photos:
        _write_photos(town, scene, partial, job.photos, quiet)
    (partial / "world.json").write_text(json.dumps(facts, indent=1) + "\n")
    partial.rename(out)
    return out


def _run(work: tuple[TownJob, Path]) -> tuple[str, str]:
    """Build one town; returns its name and an error message (empty on success)."""
    job, root = work
    try:
        build_world(
            job.seed, job.size_m, root / job.name, panoramas=job.panoramas, photos=job.photos,
            canvas=job.canvas, packed=job.packed, aerial_grid=job.aerial_grid,
            style=job.style, quiet=True,
        )  # fmt: skip
    except Exception as error:  # one bad town must not lose the others: reported at the end
        return job.name, f"{type(error).__name__}: {error}"
    return job.name, ""


def build_towns(jobs: list[TownJob], out_root: Path, workers: int = 0) -> list[Path]:
    """Build towns in the order given, ``workers`` at a time (0: one per core).

    Finished towns are kept, so a stopped run can continue. Returns their folders. Raises WorldError at
    the end with the names of the towns that could not be built.
    """
    root = Path(out_root)
    root.mkdir(parents=True, exist_ok=True)
    count = workers or multiprocessing.cpu_count()
    work = [(job, root) for job in jobs]
    failed = []
    with multiprocessing.get_context("spawn").Pool(min(count, max(1, len(work)))) as pool:
        for name, trouble in tqdm(pool.imap(_run, work), total=len(work), desc="towns"):
            tqdm.write(f"{name}: {trouble or 'built'}")
            failed += [f"{name} ({trouble})"] * bool(trouble)
    if failed:
        raise WorldError(
            f"Worlds: got {len(failed)} of {len(jobs)} towns that could not be built, expected "
            f"none: {'; '.join(failed)}. Build them again or leave their seeds out."
        )
    return [root / job.name for job in jobs]
