"""Ray casting with embree and shading in numpy: the aerial picture, panoramas and photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio import Affine
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter

from core.arrays import Float32Array, UInt8Array
from core.errors import WorldError
from core.world.flora import tree_mesh
from core.world.layout import TownPlan
from core.world.materials import (
    CODE,
    SEASONS,
    class_table,
    f32,
    facade,
    ground_table,
    noise,
    roof,
    rough_table,
)
from core.world.meshes import Mesh, building_mesh, join, strip_mesh, thing_mesh
from core.world.sky import Light, hazed, sky_colour
from core.world.streets import MARGIN_M
from core.world.style import Style
from core.world.vehicles import vehicle_mesh

__all__ = ["COVER_M", "Scene", "Seen", "make_scene", "paint_ground", "panorama_rays", "photo_rays",
           "render_aerial", "render_view", "still_meshes"]  # fmt: skip

COVER_M = 0.125
FAR = 1e30


@dataclass
class Scene:
    """One capture of a town, ready for rays.

    ``cover`` (rows, columns) uint8 material codes of the ground from the north-west corner,
    ``half_m`` half its side; ``mesh`` the objects on it; ``caster`` the embree scene of the mesh.
    """

    mesh: Mesh
    normals: Float32Array
    caster: Any
    cover: UInt8Array
    half_m: float
    table: Float32Array
    style: Style
    furrow: tuple[float, float]


@dataclass
class Seen:
    """The hits of n rays: linear light (n, 3), class (n,), plan place (n, 2), NaN for sky."""

    light: Float32Array
    kind: UInt8Array
    place: Float32Array


def _embree() -> tuple[Any, Any]:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise WorldError(
            "World: got no embreex, expected it installed. Run: pip install -r requirements-world.txt"
        ) from error
    return EmbreeScene, TriangleMesh


def paint_ground(town: TownPlan) -> UInt8Array:
    """Material codes (n, n) of the ground, ``COVER_M`` metres per cell, north up."""
    half = town.size_m / 2 + MARGIN_M
    side = round(2 * half / COVER_M)
    shapes = [(g, CODE[name]) for name, g in town.covers if not g.is_empty]
    place = Affine(COVER_M, 0, -half, 0, -COVER_M, half)
    return np.asarray(
        rasterize(shapes, (side, side), CODE["meadow"], transform=place, dtype="uint8")
    )


def still_meshes(town: TownPlan) -> list[Mesh]:
    """The meshes that both captures share: buildings, hedges, fences and street furniture."""
    return [*building_mesh(town), *strip_mesh(town), *thing_mesh(town)]


def make_scene(
    town: TownPlan, capture: str, season: str, cover: UInt8Array, still: list[Mesh]
) -> Scene:
    """One capture ("aerial" or "ground") of a town in a season named in SEASONS."""
    scene_type, mesh_type = _embree()
    number, style = ("aerial", "ground").index(capture), town.draft.style
    moving = vehicle_mesh(town.vehicles[capture])
    mesh = join([*still, *moving, *tree_mesh(town, SEASONS[season], number)])
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    flat = np.cross(edges[:, 0], edges[:, 1])
    flat /= np.maximum(np.sqrt(_dot(flat, flat)), 1e-9)[:, None]
    caster = scene_type()
    mesh_type(caster, np.ascontiguousarray(mesh.corners))
    furrow = np.random.default_rng([town.seed, 7]).uniform(0, np.pi)
    return Scene(
        mesh, flat.astype(np.float32), caster, cover, town.size_m / 2 + MARGIN_M,
        ground_table(SEASONS[season], style), style, (float(np.cos(furrow)), float(np.sin(furrow))),
    )  # fmt: skip


def _codes(scene: Scene, x: Float32Array, y: Float32Array) -> UInt8Array:
    side = scene.cover.shape[0]
    column = ((x + scene.half_m) * (1 / COVER_M)).astype(np.int64)
    row = ((scene.half_m - y) * (1 / COVER_M)).astype(np.int64)
    inside = (column >= 0) & (row >= 0) & (column < side) & (row < side)
    flat = np.where(inside, row * side + column, 0)
    return np.asarray(np.where(inside, scene.cover.ravel()[flat], CODE["meadow"]), np.uint8)


ROUGH = rough_table()
KINDS = class_table()
GLOSSY = np.zeros(len(KINDS), np.float32)
for _name, _gloss in (("glass", 0.45), ("paintwork", 0.14), ("water", 0.30), ("pool", 0.2)):
    GLOSSY[CODE[_name]] = _gloss
FIELDS = np.array([CODE["crop"], CODE["grain"], CODE["plough"]])


def _textured(
    rgb: Float32Array, code: UInt8Array, p: Float32Array, normal: Float32Array, distance: Float32Array,
    grain_m: float, fade: float,
) -> Float32Array:  # fmt: skip
    """Noise over every surface; on steep surfaces it varies along the surface and with height."""
    steep = np.abs(normal[:, 2]) < 0.5
    x = np.where(steep, normal[:, 0] * p[:, 1] - normal[:, 1] * p[:, 0], p[:, 0])
    y = np.where(steep, p[:, 2], p[:, 1])
    rough = ROUGH[code]
    fine = rough[:, 0] * np.float32(0.5) / (1 + distance * np.float32(fade))
    value = 1 + fine * noise(0, x, y, grain_m) + rough[:, 1] * noise(1, x, y, 0.35)
    leaf = np.flatnonzero((code == CODE["leaves"]) | (code == CODE["hedge"]))
    if len(leaf):
        q, far = p[leaf], distance[leaf]
        speck = noise(0, q[:, 0] + q[:, 2], q[:, 1] - q[:, 2], 0.085)
        value[leaf] = 1 + 0.48 * np.clip(speck * 1.6, -1, 1) / (1 + far * np.float32(fade * 0.5))
    return np.asarray(rgb * np.maximum(value, 0.15)[:, None], np.float32)


def _ground_rgb(scene: Scene, code: UInt8Array, p: Float32Array) -> Float32Array:
    rgb = scene.table[code]
    field = np.isin(code, FIELDS)
    if field.any():
        across = p[field, 0] * scene.furrow[0] + p[field, 1] * scene.furrow[1]
        wave = 0.5 + 0.5 * np.sin(across * (2 * np.pi / 1.5))
        tram = (across % 18.0) < 0.5
        rgb[field] *= (0.80 + 0.35 * wave - 0.3 * tram)[:, None]
    slab = (code == CODE["slabs"]) | (code == CODE["patio"])
    if slab.any():
        q = p[slab]
        joint = ((q[:, 0] % 0.6) < 0.03) | ((q[:, 1] % 0.6) < 0.03)
        rgb[slab] *= (1 - 0.18 * joint)[:, None]
    tie = code == CODE["ballast"]
    if tie.any():
        rgb[tie] *= (0.85 + 0.25 * ((p[tie, 0] + p[tie, 1]) % 0.9 < 0.4))[:, None]
    return rgb


def _object_rgb(
    scene: Scene, tri: Any, hit_uv: Float32Array, code: Any, light: Light, detail: float
) -> Float32Array:
    mesh = scene.mesh
    rgb = np.array(mesh.rgb[tri])
    for names, paint in ((("wall",), "wall"), (("tiles", "flat_roof"), "roof")):
        mine = np.isin(code, [CODE[n] for n in names])
        if not mine.any():
            continue
        t = tri[mine]
        corner = mesh.uv[t]
        b = hit_uv[mine]
        uv = (
            corner[:, 0]
            + b[:, :1] * (corner[:, 1] - corner[:, 0])
            + b[:, 1:] * (corner[:, 2] - corner[:, 0])
        )
        if paint == "wall":
            rgb[mine] = facade(uv, mesh.info[t], mesh.ident[t], rgb[mine], light.horizon)
        else:
            rgb[mine] = roof(uv, mesh.info[t], mesh.ident[t], rgb[mine], detail)
    return rgb


def _dot(a: Float32Array, b: Float32Array) -> Float32Array:
    """Row by row inner products (n,) of two (n, 3)."""
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _sunlit(
    scene: Scene, p: Float32Array, normal: Float32Array, light: Light, rng: np.random.Generator
) -> Float32Array:
    """Sunlight reaching n points, 0 to 1 each, with soft shadow edges."""
    sun = light.sun + rng.standard_normal(p.shape, np.float32) * np.float32(0.006)
    slant = np.maximum(normal @ light.sun, 0)
    if float(light.sun_rgb[0]) < 0.4:
        return np.asarray(slant, np.float32)
    lit = np.flatnonzero(slant > 0)
    hit = scene.caster.run(
        np.ascontiguousarray(p[lit] + normal[lit] * np.float32(0.03)), np.ascontiguousarray(sun[lit]),
        query="OCCLUDED",
    )  # fmt: skip
    slant[lit[hit >= 0]] = 0
    return np.asarray(slant, np.float32)


def _openness(
    scene: Scene, p: Float32Array, normal: Float32Array, rng: np.random.Generator, rays: int
) -> Float32Array:  # fmt: skip
    """Ambient light reaching n points, 0 to 1: ``rays`` short ones into the hemisphere.

    With one ray, two neighbouring samples share it.
    """
    count, share = len(p), 2 if rays == 1 else 1
    p, normal = p[::share], normal[::share]
    start = np.ascontiguousarray(p + normal * np.float32(0.04))
    reach = np.full(len(p), 3.2, np.float32)
    open_air = np.zeros(len(p), np.float32)
    for _ in range(rays):
        way = rng.standard_normal(p.shape, np.float32)
        way *= 1 / np.sqrt(_dot(way, way))[:, None]
        way += normal * np.float32(1.02)
        hit = scene.caster.run(start, way, dists=reach, query="OCCLUDED")
        open_air += np.where(hit >= 0, np.float32(0.45), np.float32(1.0))
    return np.repeat(open_air / np.float32(rays), share)[:count]


def _hits(scene: Scene, start: Float32Array, way: Float32Array) -> tuple[Any, Any, Any, Any]:
    """Distance, triangle (-1 ground, -2 sky) and barycentric place of n rays."""
    found = scene.caster.run(start, way, query="INTERSECT", output=True)
    tri, distance = found["primID"].astype(np.int64), found["tfar"]
    down = way[:, 2] < -1e-4
    plane = np.where(down, -start[:, 2] / np.where(down, way[:, 2], -1), FAR).astype(np.float32)
    ground = (plane < distance) & (plane < 1500)
    tri = np.where(ground, -1, np.where(found["geomID"] < 0, -2, tri))
    return np.where(ground, plane, distance), tri, np.stack([found["u"], found["v"]], 1), down


def render_view(
    scene: Scene, start: Float32Array, way: Float32Array, light: Light, rng: np.random.Generator,
    grain_m: float = 0.035, detail: float = 1.0, occlusion: int = 1, haze: float = 1.0,
    fade: float = 0.07,
) -> Seen:  # fmt: skip
    """Light along n rays. ``start`` and ``way`` (n, 3) float32, ``way`` of unit length.

    ``grain_m`` texel of the fine noise, ``fade`` how fast it fades with distance (per metre),
    ``detail`` 0 to 1 strength of roof tiles, ``occlusion`` rays for ambient light.
    """
    distance, tri, bary, _ = _hits(scene, start, way)
    n = len(start)
    out = np.empty((n, 3), np.float32)
    kind = np.zeros(n, np.uint8)
    place = np.full((n, 2), np.nan, np.float32)
    sky = np.flatnonzero(tri == -2)
    if len(sky):
        out[sky] = np.repeat(sky_colour(way[sky[::2]], light), 2, axis=0)[: len(sky)]
    solid = np.flatnonzero(tri != -2)
    if len(solid) == 0:
        return Seen(out, kind, place)
    tri, to = tri[solid], way[solid]
    p = start[solid] + to * distance[solid, None]
    code, rgb, normal = _surface(scene, p, tri, to, bary[solid], light, rng, detail)
    rgb = _textured(rgb, code, p, normal, distance[solid], grain_m, fade)
    sunlit = _sunlit(scene, p, normal, light, rng)
    open_air = _openness(scene, p, normal, rng, occlusion)
    up = (0.5 + 0.5 * normal[:, 2])[:, None]
    glow = light.bounce + (light.ambient - light.bounce) * up
    glow *= open_air[:, None]
    sunlit[code == CODE["leaves"]] += np.float32(0.10)
    glow += light.sun_rgb * sunlit[:, None]
    colour = _mirrored(rgb * glow, code, normal, to, light)
    out[solid] = hazed(colour, distance[solid] * np.float32(haze), light)
    kind[solid], place[solid] = KINDS[code], p[:, :2]
    return Seen(out, kind, place)


def _surface(
    scene: Scene, p: Float32Array, tri: Any, to: Float32Array, bary: Float32Array, light: Light,
    rng: np.random.Generator, detail: float,
) -> tuple[Any, Float32Array, Float32Array]:  # fmt: skip
    """Material code (n,), reflectance (n, 3) and facing normal (n, 3) where rays hit something."""
    code = np.empty(len(p), np.uint8)
    rgb = np.empty((len(p), 3), np.float32)
    normal = np.zeros((len(p), 3), np.float32)
    on, off = np.flatnonzero(tri < 0), np.flatnonzero(tri >= 0)
    if len(on):
        q = p[on]
        blur = (rng.random((2, len(on)), np.float32) - np.float32(0.5)) * np.float32(COVER_M)
        code[on] = ground = _codes(scene, q[:, 0] + blur[0], q[:, 1] + blur[1])
        rgb[on] = _ground_rgb(scene, ground, q)
        normal[on, 2] = 1
    if len(off):
        t = tri[off]
        code[off] = material = scene.mesh.material[t]
        rgb[off] = _object_rgb(scene, t, bary[off], material, light, detail)
        own, flat = scene.mesh.normal[t], scene.normals[t]
        flip = np.where(_dot(flat, to[off]) > 0, np.float32(-1), np.float32(1))
        normal[off] = np.where(own[:, :1] != 0, own, flat * flip[:, None])
    return code, rgb, normal


def _mirrored(
    colour: Float32Array, code: Any, normal: Float32Array, to: Float32Array, light: Light
) -> Float32Array:
    """Add the reflection of the sky on glossy surfaces."""
    gloss = GLOSSY[code]
    shiny = np.flatnonzero(gloss > 0)
    if len(shiny):
        n, d = normal[shiny], to[shiny]
        along = _dot(n, d)[:, None]
        back = d - 2 * along * n
        back[:, 2] = np.maximum(np.abs(back[:, 2]), 0.08)
        fresnel = gloss[shiny, None] * (0.25 + 0.75 * (1 - np.abs(along)) ** 3)
        colour[shiny] = (
            colour[shiny] * (1 - fresnel) + np.minimum(sky_colour(back, light), 3) * fresnel
        )
    return colour


def panorama_rays(heading_deg: float, size: tuple[int, int], grid: int) -> Float32Array:
    """Unit directions (h * w * grid * grid, 3), samples of a pixel together, for a canvas.

    360 degrees wide with the heading in the middle, +45 to -45 degrees of elevation.
    """
    h, w = size
    sub = (np.arange(grid) + 0.5) / grid
    azimuth = np.radians(heading_deg + (np.arange(w)[:, None] + sub - w / 2) * 360 / w)
    height = np.radians(45 - (np.arange(h)[:, None] + sub) * 90 / h)
    way = np.empty((h, w, grid, grid, 3), np.float32)
    flat = np.cos(height)[:, None, :, None]
    way[..., 0] = flat * np.sin(azimuth)[None, :, None, :]
    way[..., 1] = flat * np.cos(azimuth)[None, :, None, :]
    way[..., 2] = np.sin(height)[:, None, :, None]
    return way.reshape(-1, 3)


def photo_rays(
    heading_deg: float, pitch_deg: float, fov_deg: float, size: tuple[int, int], grid: int
) -> Float32Array:
    """Unit directions (h * w * grid * grid, 3) of a pinhole camera; ``fov_deg`` is horizontal."""
    h, w = size
    sub = (np.arange(grid) + 0.5) / grid
    rows = np.arange(h)[:, None, None, None] + sub[None, None, :, None]
    columns = np.arange(w)[None, :, None, None] + sub[None, None, None, :]
    scale = np.tan(np.radians(fov_deg) / 2) / (w / 2)
    right, up = np.broadcast_arrays((columns - w / 2) * scale, (h / 2 - rows) * scale)
    a, e = np.radians(heading_deg), np.radians(pitch_deg)
    forward = np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
    east = np.array([np.cos(a), -np.sin(a), 0.0])
    lift = np.cross(east, forward)
    way = forward + right[..., None] * east + up[..., None] * lift
    way = way.reshape(-1, 3)
    return np.ascontiguousarray(way / np.linalg.norm(way, axis=1, keepdims=True), np.float32)


def render_aerial(
    scene: Scene, light: Light, size_m: float, gsd_m: float, grid: int, rng: np.random.Generator
) -> Float32Array:
    """Linear orthophoto (n, n, 3), north up, ``grid`` x ``grid`` rays per pixel, slightly soft."""
    n = round(size_m / gsd_m)
    picture = np.empty((n, n, 3), np.float32)
    rows = max(1, 150_000 // (n * grid * grid))
    sub = (np.arange(grid) + 0.5) / grid
    for first in range(0, n, rows):
        count = min(rows, n - first)
        r = first + np.arange(count)[:, None, None, None] + sub[None, None, :, None]
        c = np.arange(n)[None, :, None, None] + sub[None, None, None, :]
        shake = rng.uniform(-0.45, 0.45, (2, count, n, grid, grid)) / grid
        x = (c + shake[0]) * gsd_m - size_m / 2
        y = size_m / 2 - (r + shake[1]) * gsd_m
        start = np.stack([x, y, np.full_like(x, 90.0)], -1).reshape(-1, 3).astype(np.float32)
        way = np.broadcast_to(f32(0, 0, -1), start.shape)
        seen = render_view(scene, start, np.ascontiguousarray(way), light, rng, grain_m=0.2,
                           detail=0.25, haze=2.2, fade=0.0)  # fmt: skip
        picture[first : first + count] = seen.light.reshape(count, n, -1, 3).mean(2)
    return np.asarray(gaussian_filter(picture, (0.6, 0.6, 0)), np.float32)
