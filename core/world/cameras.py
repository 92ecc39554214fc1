"""Ground cameras: their places, their pictures, and the truth of each picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD

from core.arrays import BoolArray, Float32Array, UInt8Array
from core.errors import WorldError
from core.records import Place
from core.world.layout import TownPlan
from core.world.materials import CLASS_NAMES, f32
from core.world.render import Scene, Seen, panorama_rays, photo_rays, render_view
from core.world.sky import develop, draw_light

__all__ = ["PATCHES", "Camera", "patch_truth", "photo_exif", "place_cameras", "shoot_panorama",
           "shoot_photo"]  # fmt: skip

PATCHES = (4, 32)
HALF_TILE_M = 38.4


@dataclass(frozen=True)
class Camera:
    """A place in metres, a height, and the bearing of the street there (degrees)."""

    east_m: float
    north_m: float
    height_m: float
    street_deg: float


def _candidates(town: TownPlan, count: int, rng: np.random.Generator) -> list[Camera]:
    if not town.streets:
        return []
    lengths = np.array([s.line.length for s in town.streets])
    reach = town.size_m / 2 - HALF_TILE_M
    found = []
    for number in rng.choice(len(lengths), count, p=lengths / lengths.sum()):
        street = town.streets[int(number)]
        at = rng.uniform(0, street.line.length)
        a = street.line.interpolate(max(at - 1, 0))
        b = street.line.interpolate(min(at + 1, street.line.length))
        wide = street.width_m / 2 + 0.6 * street.pavement_m
        side = rng.uniform(-1, 1) * wide
        angle = np.arctan2(b.y - a.y, b.x - a.x)
        x = (a.x + b.x) / 2 - np.sin(angle) * side
        y = (a.y + b.y) / 2 + np.cos(angle) * side
        bearing = float(90 - np.degrees(angle)) % 360
        height = rng.uniform(2.0, 3.0)
        if max(abs(x), abs(y)) <= reach:
            found.append(Camera(float(x), float(y), float(height), bearing))
    return found


def _clear(scene: Scene, cameras: list[Camera]) -> BoolArray:
    """Whether nothing is closer than 2.6 m around, 1 m above, or anywhere below each camera."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1)
    rings = [(ring - (0, 0, fall)) / np.hypot(1, fall) for fall in (0.0, 0.45, 0.95)]
    way = np.concatenate([*rings, [(0, 0, 1.0), (0, 0, -1.0)]]).astype(np.float32)
    reach = np.repeat([2.6, 2.6, 2.7, 1.0, 4.0], [24, 24, 24, 1, 1]).astype(np.float32)
    spots = np.array([(c.east_m, c.north_m, c.height_m) for c in cameras], np.float32)
    start = np.repeat(spots, len(way), 0)
    hit = scene.caster.run(start, np.tile(way, (len(spots), 1)),
                           dists=np.tile(reach, len(spots)), query="OCCLUDED")  # fmt: skip
    return np.asarray(~(hit >= 0).reshape(len(spots), -1).any(1))


def place_cameras(
    town: TownPlan, scene: Scene, count: int, rng: np.random.Generator
) -> list[Camera]:
    """``count`` cameras uniform along the streets, on road or pavement, with a free view.

    They keep half a tile from the raster's border. Raises WorldError if there are too few free places.
    """
    found: list[Camera] = []
    for _ in range(40):
        some = _candidates(town, 2 * count + 40, rng)
        if some:
            free = _clear(scene, some)
            found += [camera for camera, good in zip(some, free, strict=True) if good]
        if len(found) >= count:
            return found[:count]
    raise WorldError(
        f"World {town.seed}: got {len(found)} free camera places, expected {count}. "
        "Ask for fewer panoramas or a larger town."
    )


def patch_truth(seen: Seen, size: tuple[int, int], grid: int) -> tuple[UInt8Array, Float32Array]:
    """Majority class (4, 32) and median plan place (4, 32, 2) of that class per canvas patch."""
    (h, w), (rows, columns) = size, PATCHES
    shape = (rows, h // rows, columns, w // columns, grid * grid)
    kinds = seen.kind.reshape(shape)[..., 0].transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    places = seen.place.reshape(*shape, 2)[..., 0, :].transpose(0, 2, 1, 3, 4)
    places = places.reshape(rows * columns, -1, 2)
    names = len(CLASS_NAMES)
    keys = kinds + names * np.arange(rows * columns)[:, None]
    counts = np.bincount(keys.ravel(), minlength=names * rows * columns).reshape(-1, names)
    major = counts.argmax(1)
    kept = np.where((kinds == major[:, None])[..., None], places, np.float32(np.inf))
    kept = np.sort(kept, axis=1)
    middle = (counts[np.arange(len(major)), major] - 1) // 2
    median = kept[np.arange(len(major)), middle]
    median[major == 0] = np.nan
    return major.reshape(PATCHES).astype(np.uint8), median.reshape(*PATCHES, 2)


def _start(camera: Camera, count: int) -> Float32Array:
    spot = f32(camera.east_m, camera.north_m, camera.height_m)
    return np.ascontiguousarray(np.broadcast_to(spot, (count, 3)))


def shoot_panorama(
    scene: Scene, camera: Camera, heading_deg: float, size: tuple[int, int], grid: int,
    rng: np.random.Generator,
) -> tuple[UInt8Array, UInt8Array, Float32Array]:  # fmt: skip
    """Picture (h, w, 3) uint8 with its own light, and its truth (see patch_truth)."""
    light = draw_light(rng, from_above=False, style=scene.style)
    way = panorama_rays(heading_deg, size, grid)
    seen = render_view(scene, _start(camera, len(way)), way, light, rng)
    linear = np.minimum(seen.light, 4).reshape(*size, grid * grid, 3).mean(2)
    kind, place = patch_truth(seen, size, grid)
    return develop(linear, light, rng), kind, place


def shoot_photo(
    scene: Scene, camera: Camera, heading_deg: float, pitch_deg: float, fov_deg: float,
    size: tuple[int, int], rng: np.random.Generator, grid: int = 2,
) -> UInt8Array:  # fmt: skip
    """Perspective picture (h, w, 3) uint8 with its own light; ``fov_deg`` is horizontal."""
    light = draw_light(rng, from_above=False, style=scene.style)
    h, w = size
    rays = photo_rays(heading_deg, pitch_deg, fov_deg, size, grid).reshape(h, -1, 3)
    linear = np.empty((h, w, 3), np.float32)
    for first in range(0, h, 64):
        part = np.ascontiguousarray(rays[first : first + 64].reshape(-1, 3))
        seen = render_view(scene, _start(camera, len(part)), part, light, rng, 0.02, occlusion=4)
        linear[first : first + 64] = (
            np.minimum(seen.light, 4).reshape(-1, w, grid * grid, 3).mean(2)
        )
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    shade = 1 - 0.13 * (x * x + y * y).astype(np.float32)
    return develop(linear * shade[..., None], light, rng)


def _dms(degrees: float) -> tuple[float, float, float]:
    degrees = abs(degrees)
    minutes = (degrees % 1) * 60
    return float(int(degrees)), float(int(minutes)), round((minutes % 1) * 60, 4)


def photo_exif(place: Place, heading_deg: float, focal_35mm: int) -> Image.Exif:
    """EXIF of a rendered photo: who made it, focal length, place and bearing."""
    exif = Image.Exif()
    exif[0x010F] = "Crossview renderer"
    exif[0x0110] = "Crossview renderer"
    exif[0x0131] = "Crossview rendered world (synthetic, no real place)"
    details = exif.get_ifd(IFD.Exif)
    details[0xA405] = focal_35mm
    gps = exif.get_ifd(IFD.GPSInfo)
    gps[0] = b"\x02\x03\x00\x00"
    gps[1], gps[2] = "N" if place.lat_deg >= 0 else "S", _dms(place.lat_deg)
    gps[3], gps[4] = "E" if place.lon_deg >= 0 else "W", _dms(place.lon_deg)
    gps[16], gps[17] = "T", round(heading_deg, 2)
    return exif
