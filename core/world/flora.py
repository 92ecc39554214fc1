"""Trees and bushes: clumps of leaves around a dark core, cones, trunks and bare twigs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from core.arrays import Float64Array
from core.world.layout import TownPlan
from core.world.materials import Season
from core.world.meshes import Mesh, place, plain
from core.world.style import Style

__all__ = ["SPECIES", "tree_mesh"]

# species: shape, crown radius m, crown height m, height of the crown's foot m, leaf colour
SPECIES: dict[str, tuple[str, float, float, float, tuple[float, float, float]]] = {
    "round": ("clump", 4.3, 7.6, 2.0, (0.085, 0.125, 0.040)),
    "linden": ("clump", 3.4, 8.2, 2.3, (0.105, 0.150, 0.045)),
    "birch": ("clump", 2.8, 9.0, 2.2, (0.125, 0.165, 0.060)),
    "poplar": ("clump", 1.5, 13.0, 1.2, (0.090, 0.135, 0.045)),
    "fruit": ("clump", 2.4, 3.4, 1.1, (0.100, 0.135, 0.050)),
    "bush": ("clump", 1.35, 1.9, 0.05, (0.080, 0.115, 0.045)),
    "pine": ("clump", 2.9, 5.5, 6.0, (0.060, 0.085, 0.045)),
    "conifer": ("cone", 2.9, 13.0, 0.8, (0.040, 0.065, 0.034)),
}
EVERGREEN = ("pine", "conifer")
VARIANTS = 5


def _unit(v: Any) -> Any:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


@lru_cache(maxsize=1)
def _ball() -> Float64Array:
    """(20, 3, 3) faces of an icosahedron of radius one."""
    g = (1 + 5**0.5) / 2
    v = np.array([(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g),
                  (0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)])  # fmt: skip
    f = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4),
         (11, 10, 2), (10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9),
         (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)]  # fmt: skip
    return np.asarray(_unit(v)[np.array(f)])


def _leaves(rng: np.random.Generator, middle: Any, size: float) -> Any:
    """(n, 3, 3) triangles of random turn around n middles."""
    arms = _unit(rng.normal(size=(len(middle), 3, 3)))
    arms -= arms.mean(1, keepdims=True)
    return middle[:, None] + _unit(arms) * size * rng.uniform(0.6, 1.25, (len(middle), 1, 1))


def _clump_crown(rng: np.random.Generator, clumps: int, per: int) -> tuple[Any, Any, Any]:
    """Crown in a unit ball (z -1..1): faces, shading normals, brightness per face."""
    way = _unit(rng.normal(size=(clumps, 3)))
    centres = way * rng.uniform(0.35, 0.66, (clumps, 1))
    radius = rng.uniform(0.30, 0.48, clumps)
    ball = _ball()
    cores = np.concatenate([ball * r * 0.80 * rng.uniform(0.85, 1.15, (20, 1, 1)) + c
                            for c, r in zip(centres, radius, strict=True)])  # fmt: skip
    out = _unit(rng.normal(size=(clumps, per, 3)) + way[:, None] * 0.5)
    spots = (
        centres[:, None] + out * radius[:, None, None] * rng.uniform(0.84, 1.2, (clumps, per, 1))
    ).reshape(-1, 3)
    leaf = _leaves(rng, spots, 0.10)
    faces = np.concatenate([cores, leaf])
    normal = _unit(_unit(faces.mean(1)) * 0.75 + _unit(
        np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])) * 0.35
        + rng.normal(0, 0.22, (len(faces), 3)))  # fmt: skip
    depth = np.linalg.norm(faces.mean(1), axis=1)
    shade = np.clip(0.45 + 0.6 * depth, 0.4, 1.15) * rng.uniform(0.82, 1.18, len(faces))
    shade[: len(cores)] *= 0.82
    return faces, normal, shade


def _cone_crown(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """A spruce in the unit cylinder (z -1..1)."""
    found = []
    for level in np.linspace(-0.95, 0.88, 17):
        reach = (0.98 - level) / 1.95
        count = max(5, int(17 * reach + 4))
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 6)
        long = reach * rng.uniform(0.75, 1.15, count)
        wide = 0.20 * reach + 0.08
        tip = np.stack(
            [np.cos(turn) * long, np.sin(turn) * long, level - 0.10 - 0.03 * rng.random(count)], 1
        )
        side = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], 1) * wide
        root = np.stack(
            [np.cos(turn) * long * 0.15, np.sin(turn) * long * 0.15, 0 * turn + level + 0.13], 1
        )
        found.append(np.stack([tip - side * 0.5, tip + side * 0.5, root], 1))
    faces = np.concatenate(found)
    middle = faces.mean(1)
    outward = _unit(middle * (1, 1, 0) + (0, 0, 0.35))
    normal = _unit(outward + rng.normal(0, 0.30, faces[:, 0].shape))
    return faces, normal, rng.uniform(0.65, 1.3, len(faces))


def _twigs(rng: np.random.Generator, count: int = 90) -> Any:
    """Bare branches in a unit ball as thin triangles."""
    lift = np.array([0, 0, 0.5])
    way = _unit(rng.normal(size=(count, 3)) + lift)
    root = np.stack([0 * way[:, 0], 0 * way[:, 0], rng.uniform(-1.0, 0.2, count)], 1)
    tip = way * rng.uniform(0.7, 1.05, (count, 1))
    side = _unit(np.cross(tip - root, rng.normal(size=(count, 3)))) * 0.011
    return np.stack([root - side, root + side, tip], 1)


@lru_cache(maxsize=64)
def _template(species: str, variant: int, leafy: bool) -> tuple[Any, Any, Any, Any]:
    """Crown faces, normals and brightness, and trunk faces, in metres."""
    shape, radius, tall, foot, _ = SPECIES[species]
    rng = np.random.default_rng([77, sorted(SPECIES).index(species), variant])
    if shape == "cone":
        faces, normal, shade = _cone_crown(rng)
    elif not leafy:
        faces = _twigs(rng)
        normal = _unit(faces.mean(1) + rng.normal(0, 0.5, (len(faces), 3)))
        shade = np.ones(len(faces))
    else:
        faces, normal, shade = _clump_crown(rng, *((4, 12) if species == "bush" else (8, 22)))
    faces = faces * (radius, radius, tall / 2) + (0, 0, foot + tall / 2)
    turn = np.linspace(0, 2 * np.pi, 6)
    thick = 0.06 + 0.045 * radius + 0.006 * tall
    low = np.stack([np.cos(turn) * thick, np.sin(turn) * thick, 0 * turn], 1)
    taper, reach = (0.15, 0.8) if not leafy else (0.5, 0.55)
    high = low * (taper, taper, 0) + (0, 0, foot + tall * reach)
    trunk = np.concatenate([np.stack([low[:-1], low[1:], high[1:]], 1),
                            np.stack([low[:-1], high[1:], high[:-1]], 1)])  # fmt: skip
    return faces, normal, shade, trunk


def _planted(rows: Any, species: str, variant: int, leafy: bool, season: Season, style: Style,
             rng: np.random.Generator) -> list[Mesh]:  # fmt: skip
    x, y, scale = rows.T
    faces, normal, shade, trunk = _template(species, variant, leafy)
    angle = rng.uniform(0, 2 * np.pi, len(x))
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack([c * normal[:, 0] - s * normal[:, 1], s * normal[:, 0] + c * normal[:, 1],
                       np.broadcast_to(normal[:, 2], (len(x), len(normal)))], -1)  # fmt: skip
    base = np.array(SPECIES[species][4]) * style.leaf_tint
    if leafy or species in EVERGREEN:
        tint = np.array([1.0, 1.0, 1.0]) if species in EVERGREEN else np.array(season.leaf)
        own = tint * (
            1
            + rng.normal(0, season.spread if species not in EVERGREEN else 0.08, (len(x), 3))
            * (1, 0.7, 0.5)
        )
        rgb = np.clip(base * own * rng.uniform(0.8, 1.2, (len(x), 1)), 0.015, 0.5)
    else:
        rgb = np.tile((0.15, 0.125, 0.10), (len(x), 1))
    colour = (rgb[:, None] * shade[None, :, None]).reshape(-1, 3)
    bark = (0.42, 0.41, 0.38) if species == "birch" else (0.13, 0.10, 0.075)
    crown = plain(place(faces, x, y, angle, scale), "leaves", colour, turned.reshape(-1, 3))
    return [crown, plain(place(trunk, x, y, angle, scale), "bark", bark)]


def tree_mesh(town: TownPlan, season: Season, number: int) -> list[Mesh]:
    """All trees in one season. ``number``: of the capture; tints differ by it, places do not."""
    rng = np.random.default_rng([town.seed, 6, number])
    found: list[Mesh] = []
    for species in SPECIES:
        rows = np.array([(t[0], t[1], t[3]) for t in town.draft.trees if t[2] == species])
        if len(rows) == 0:
            continue
        out = species in EVERGREEN or season.leaves > 0
        for variant in range(VARIANTS):
            mine = rows[variant::VARIANTS]
            if len(mine):
                found += _planted(mine, species, variant, out, season, town.draft.style, rng)
    return found
