"""Triangles of a town: walls and roofs, street furniture, hedges and fences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from core.arrays import Float32Array, Float64Array, UInt8Array
from core.world.layout import TownPlan
from core.world.materials import CODE

__all__ = [
    "Mesh", "box_faces", "building_mesh", "join", "place", "plain", "prism", "quads", "strip_mesh",
    "thing_mesh",
]  # fmt: skip


@dataclass
class Mesh:
    """n triangles. ``corners`` (n, 3, 3) metres; ``material`` (n,) codes; ``rgb`` (n, 3).

    ``uv`` (n, 3, 2) metres on the wall or roof; ``info`` (n, 4) as in materials.facade and roof;
    ``ident`` (n,) a number per building; ``normal`` (n, 3), zero to use the triangle's own normal.
    """

    corners: Float32Array
    material: UInt8Array
    rgb: Float32Array
    uv: Float32Array
    info: Float32Array
    ident: npt.NDArray[np.int32]
    normal: Float32Array


def plain(corners: Any, material: str | UInt8Array, rgb: Any, normal: Any = 0.0) -> Mesh:
    """A mesh without wall or roof texture."""
    corners = np.asarray(corners, np.float32)
    n = len(corners)
    code = np.full(n, CODE[material], np.uint8) if isinstance(material, str) else material
    return Mesh(
        corners, code, np.broadcast_to(np.asarray(rgb, np.float32), (n, 3)),
        np.zeros((n, 3, 2), np.float32), np.zeros((n, 4), np.float32), np.zeros(n, np.int32),
        np.broadcast_to(np.asarray(normal, np.float32), (n, 3)),
    )  # fmt: skip


def join(meshes: list[Mesh]) -> Mesh:
    """One mesh of several, in order."""
    fields = ("corners", "material", "rgb", "uv", "info", "ident", "normal")
    return Mesh(**{f: np.concatenate([getattr(m, f) for m in meshes]) for f in fields})


def quads(a: Any, b: Any, c: Any, d: Any) -> Float64Array:
    """(2n, 3, k) triangles of n quads with corners (n, k) in turn; pairs stay together."""
    return np.stack([np.stack([a, b, c], 1), np.stack([a, c, d], 1)], 1).reshape(-1, 3, a.shape[1])


def _faces(
    points: list[Any], uvs: list[Any], material: str, rgb: Any, info: Any, ident: Any
) -> Mesh:  # fmt: skip
    """Triangles or quads (n each) with wall or roof coordinates."""
    count = 2 if len(points) == 4 else 1
    if count == 2:
        corners, uv = quads(*points), quads(*uvs)
    else:
        corners, uv = np.stack(points, 1), np.stack(uvs, 1)
    rep = [np.repeat(np.asarray(x), count, 0) for x in (rgb, info, ident)]
    n = len(corners)
    return Mesh(
        corners.astype(np.float32), np.full(n, CODE[material], np.uint8),
        rep[0].astype(np.float32), uv.astype(np.float32), rep[1].astype(np.float32),
        rep[2].astype(np.int32), np.zeros((n, 3), np.float32),
    )  # fmt: skip


class _Parts:
    """Columns of the building parts as arrays, and their local frames."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        def get(key: str) -> Float64Array:
            return np.array([p[key] for p in parts], np.float64)

        self.x, self.y, self.angle = get("x"), get("y"), get("angle")
        self.hl, self.hw, self.eave = get("length") / 2, get("width") / 2, get("eave")
        self.storey, self.style, self.seams = get("storey"), get("style"), get("seams")
        self.pitch = get("pitch")
        self.wall, self.roof_rgb = get("wall_rgb"), get("roof_rgb")
        self.roof = np.array([p["roof"] for p in parts])
        self.ident = np.array([p["building"] for p in parts], np.int32) * 7919 + 13

    def at(self, along: Any, across: Any, z: Any) -> Float64Array:
        """(n, 3) world places of local ones."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        along, across, z = (np.broadcast_to(v, self.x.shape) for v in (along, across, z))
        return np.stack([self.x + c * along - s * across, self.y + s * along + c * across, z], 1)


def _walls(p: _Parts, top: Any) -> list[Mesh]:
    found = []
    signs = [(-1, -1, 1, -1), (1, -1, 1, 1), (1, 1, -1, 1), (-1, 1, -1, -1)]
    for number, (a, b, c, d) in enumerate(signs):
        length = 2 * (p.hl if number % 2 == 0 else p.hw)
        low = [p.at(a * p.hl, b * p.hw, 0), p.at(c * p.hl, d * p.hw, 0)]
        high = [p.at(c * p.hl, d * p.hw, top), p.at(a * p.hl, b * p.hw, top)]
        zero, tops = np.zeros_like(length), np.broadcast_to(top, length.shape)
        uv = [np.stack(q, 1) for q in ((zero, zero), (length, zero), (length, tops), (zero, tops))]
        info = np.stack([length, p.eave, p.storey, p.style], 1)
        found.append(_faces([*low, *high], uv, "wall", p.wall, info, p.ident + number))
    return found


def _flat(parts: list[dict[str, Any]]) -> list[Mesh]:
    p = _Parts(parts)
    corners = [p.at(a * p.hl, b * p.hw, p.eave) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    length, width, zero = 2 * p.hl, 2 * p.hw, np.zeros_like(p.hl)
    uv = [np.stack(q, 1) for q in ((zero, zero), (length, zero), (length, width), (zero, width))]
    info = np.stack([length, width, zero, zero + 2], 1)
    return [*_walls(p, p.eave + 0.35), _faces(corners, uv, "flat_roof", p.roof_rgb, info, p.ident)]


def _pitched(parts: list[dict[str, Any]]) -> list[Mesh]:
    p = _Parts(parts)
    hip = p.roof == "hip"
    swap = p.hl < p.hw
    p.angle = np.where(swap, p.angle + np.pi / 2, p.angle)
    p.hl, p.hw = np.where(swap, p.hw, p.hl), np.where(swap, p.hl, p.hw)
    top = p.eave + p.hw * p.pitch
    over = 0.45
    ow, ol, low = p.hw + over, p.hl + over, p.eave - over * p.pitch
    ridge = np.where(hip, np.maximum(ol - ow, 0.0), ol)
    slope = np.hypot(ow, ow * p.pitch)
    zero = np.zeros_like(ow)
    info = np.stack([2 * ol, slope, zero, p.seams], 1)
    found = _walls(p, p.eave)
    for side in (-1, 1):
        points = [p.at(-ol, side * ow, low), p.at(ol, side * ow, low),
                  p.at(ridge, 0, top), p.at(-ridge, 0, top)]  # fmt: skip
        uv = [np.stack(q, 1) for q in ((zero, zero), (2 * ol, zero), (ol + ridge, slope),
                                       (ol - ridge, slope))]  # fmt: skip
        found.append(_faces(points, uv, "tiles", p.roof_rgb, info, p.ident + (side > 0)))
    for end in (-1, 1):
        for kind, reach, wide, foot, rgb in (
            ("tiles", ol, ow, low, p.roof_rgb), ("wall", p.hl, p.hw, p.eave, p.wall),
        ):  # fmt: skip
            keep = hip if kind == "tiles" else ~hip
            tip = p.at(end * (ridge if kind == "tiles" else p.hl), 0, top)
            points = [p.at(end * reach, -wide, foot), p.at(end * reach, wide, foot), tip]
            base = zero if kind == "tiles" else p.eave
            peak = slope if kind == "tiles" else top
            uv = [np.stack(q, 1) for q in ((zero, base), (2 * wide, base), (wide, peak))]
            facts = [2 * wide, slope, zero, p.seams] if kind == "tiles" else [
                2 * wide, p.eave + 2.6, p.storey, p.style]  # fmt: skip
            rows = np.stack(facts, 1)
            found.append(_faces([q[keep] for q in points], [q[keep] for q in uv], kind,
                                rgb[keep], rows[keep], (p.ident + 1 + 2 * (end > 0))[keep]))  # fmt: skip
    return found


def box_faces(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> Any:
    """(10, 3, 3): a box without its bottom; triangles 8 and 9 are the top."""
    a, b, c, d = (np.array([[x, y, z0]]) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    up = np.array([[0, 0, z1 - z0]])
    sides = [quads(p, q, q + up, p + up) for p, q in ((a, b), (b, c), (c, d), (d, a))]
    return np.concatenate([*sides, quads(a + up, b + up, c + up, d + up)])


def place(template: Any, x: Any, y: Any, angle: Any, scale: Any = 1.0, z: Any = 0.0) -> Any:
    """(n * t, 3, 3): a template (t, 3, 3) at n places, turned by ``angle`` radians and scaled."""
    x, y, angle, scale, z = np.broadcast_arrays(*np.atleast_1d(x, y, angle, scale, z))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    zero, one = np.zeros_like(c), np.broadcast_to(scale, c.shape)
    turn = np.stack([np.stack([c, -s, zero], -1), np.stack([s, c, zero], -1),
                     np.stack([zero, zero, one], -1)], 1)  # fmt: skip
    moved = np.einsum("nij,tkj->ntki", turn, template) + np.stack([x, y, z], -1)[:, None, None]
    return moved.reshape(-1, 3, 3)


def _roof_boxes(parts: list[dict[str, Any]], rng: np.random.Generator) -> list[Mesh]:
    """Chimneys on pitched roofs, lift and ventilation boxes on flat ones."""
    found = []
    for part in parts:
        flat = part["roof"] == "flat"
        for _ in range(
            int(rng.integers(1, 4))
            if flat and part["width"] > 9
            else int(not flat and rng.random() < 0.7)
        ):
            along = rng.uniform(-0.38, 0.38) * max(part["length"], part["width"])
            across = rng.uniform(-0.25, 0.25) * min(part["width"], part["length"])
            angle = part["angle"] + (np.pi / 2 if part["length"] < part["width"] else 0)
            x = part["x"] + np.cos(angle) * along - np.sin(angle) * across
            y = part["y"] + np.sin(angle) * along + np.cos(angle) * across
            if flat:
                size = rng.uniform(0.6, 2.0, 2)
                box = box_faces(
                    -size[0],
                    size[0],
                    -size[1],
                    size[1],
                    part["eave"],
                    part["eave"] + rng.uniform(0.8, 2.4),
                )
                found.append(plain(place(box, x, y, angle), "concrete", rng.uniform(0.2, 0.55)))
            else:
                top = part["eave"] + min(part["width"], part["length"]) / 2 * part["pitch"] + 0.7
                box = box_faces(-0.4, 0.4, -0.3, 0.3, part["eave"], top)
                found.append(plain(place(box, x, y, angle), "chimney", (0.3, 0.17, 0.12)))
    return found


def building_mesh(town: TownPlan) -> list[Mesh]:
    """Walls, roofs, and the objects on the roofs."""
    flat = [p for p in town.draft.parts if p["roof"] == "flat"]
    pitched = [p for p in town.draft.parts if p["roof"] != "flat"]
    rng = np.random.default_rng([town.seed, 3])
    found = _roof_boxes(town.draft.parts, rng)
    if flat:
        found += _flat(flat)
    if pitched:
        found += _pitched(pitched)
    return found


def prism(radius: float, low: float, high: float, sides: int = 6) -> Any:
    """(3 * sides, 3, 3): an upright prism with a lid."""
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(turn) * radius, np.sin(turn) * radius], 1)
    a, b = ring[:-1], ring[1:]
    lift = [np.full((sides, 1), z) for z in (low, high)]
    sides_t = quads(np.hstack([a, lift[0]]), np.hstack([b, lift[0]]), np.hstack([b, lift[1]]),
                     np.hstack([a, lift[1]]))  # fmt: skip
    hub = np.tile([0.0, 0.0, high], (sides, 1))
    return np.concatenate(
        [sides_t, np.stack([np.hstack([a, lift[1]]), np.hstack([b, lift[1]]), hub], 1)]
    )


def _things_templates() -> dict[str, list[tuple[str, Any, Any]]]:
    grey, wood = (0.22, 0.23, 0.24), (0.28, 0.19, 0.11)
    arm = box_faces(0, 1.7, -0.05, 0.05, 7.0, 7.1)
    roof = box_faces(-2.1, 2.1, -0.9, 0.8, 2.4, 2.55)
    posts = np.concatenate([box_faces(x, x + 0.1, 0.6, 0.7, 0, 2.4) for x in (-2.0, 1.9)])
    back = box_faces(-2.0, 2.0, 0.68, 0.72, 0.3, 2.2)
    legs = [box_faces(x, x + 0.15, -1, -0.85, 0, 2.2) for x in (-2, 1.85)]
    frame = np.concatenate([*legs, box_faces(-2, 2, -1, -0.85, 2.1, 2.25)])
    return {
        "lamp": [("metal", prism(0.09, 0, 7.1), grey), ("metal", arm, grey),
                 ("sign", box_faces(1.2, 1.9, -0.14, 0.14, 6.92, 7.04), (0.7, 0.7, 0.66))],
        "pole": [("bark", prism(0.13, 0, 8.2), (0.2, 0.16, 0.12)),
                 ("bark", box_faces(-0.06, 0.06, -0.9, 0.9, 7.6, 7.72), (0.2, 0.16, 0.12))],
        "sign": [("metal", prism(0.045, 0, 2.9), (0.4, 0.4, 0.4)),
                 ("sign", box_faces(-0.03, 0.03, -0.32, 0.32, 2.2, 2.85), (0.6, 0.08, 0.06)),
                 ("sign", box_faces(-0.04, 0.04, -0.2, 0.2, 2.4, 2.65), (0.75, 0.75, 0.72))],
        "shelter": [("metal", roof, (0.3, 0.31, 0.32)), ("metal", posts, grey),
                    ("glass", back, (0.12, 0.15, 0.16)),
                    ("boards", box_faces(-1.2, 1.2, 0.25, 0.6, 0.4, 0.5), wood)],
        "bench": [("boards", box_faces(-0.9, 0.9, -0.25, 0.25, 0.38, 0.46), wood),
                  ("boards", box_faces(-0.9, 0.9, 0.22, 0.27, 0.46, 0.9), wood)],
        "play": [("sign", frame, (0.55, 0.12, 0.06)),
                 ("sign", box_faces(-0.8, 0.8, 1, 2.2, 1.2, 1.3), (0.1, 0.22, 0.5)),
                 ("sign", box_faces(-0.9, 0.9, 0.9, 2.3, 2.4, 2.6), (0.6, 0.45, 0.05))],
        "container": [("sign", box_faces(-3, 3, -1.22, 1.22, 0.1, 2.6), (0.3, 0.3, 0.3))],
        "tank": [("concrete", prism(2.7, 0, 5.5, 18), (0.6, 0.6, 0.58))],
    }  # fmt: skip


def thing_mesh(town: TownPlan) -> list[Mesh]:
    """Lamps, poles, signs, shelters, benches, play frames, containers and tanks."""
    rng = np.random.default_rng([town.seed, 4])
    found = []
    tones = np.array(
        [
            (0.36, 0.09, 0.06),
            (0.06, 0.14, 0.3),
            (0.1, 0.25, 0.16),
            (0.5, 0.48, 0.42),
            (0.4, 0.2, 0.06),
        ]
    )
    for kind, pieces in _things_templates().items():
        rows = np.array([t[1:] for t in town.draft.things if t[0] == kind])
        if len(rows) == 0:
            continue
        for material, faces, rgb in pieces:
            tone: Any = np.asarray(rgb)
            if kind == "container":
                tone = np.repeat(tones[rng.integers(0, len(tones), len(rows))], len(faces), 0)
            found.append(plain(place(faces, *rows.T), material, tone))
    return found


def _fence(height: float) -> Any:
    """2.4 m of fence: boards, or posts and wires if it is above eye level."""
    post = box_faces(-0.06, 0.06, -0.06, 0.06, 0, height + 0.1)
    if height < 1.5:
        return np.concatenate([post, box_faces(-1.2, 1.2, -0.02, 0.02, 0.15, height)])
    wires = [box_faces(-1.2, 1.2, -0.02, 0.02, z, z + 0.04) for z in np.linspace(0.2, height, 6)]
    return np.concatenate([post, *wires])


def strip_mesh(town: TownPlan) -> list[Mesh]:
    """Hedges, uneven and about a metre thick, and fences."""
    rng = np.random.default_rng([town.seed, 5])
    found = []
    for kind, line, width, height in town.draft.strips:
        coords = np.array(line.coords)
        for a, b in pairwise(coords):
            length = float(np.hypot(*(b - a)))
            angle = float(np.arctan2(b[1] - a[1], b[0] - a[0]))
            step = 0.8 if kind == "hedge" else 2.4
            count = max(1, round(length / step))
            t = (np.arange(count) + 0.5) / count
            x, y = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
            if kind == "hedge":
                unit = box_faces(-0.5, 0.5, -width / 2, width / 2, 0, height)
                faces = place(
                    unit, x, y, angle + rng.normal(0, 0.12, count), rng.uniform(0.85, 1.12, count)
                )
                rgb = np.repeat(rng.uniform(0.75, 1.2, (count, 1)), len(unit), 0) * (
                    0.075,
                    0.115,
                    0.04,
                )
                tilt = rng.normal(0, 0.35, (len(faces), 3))
                normal = (
                    _unit(np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])) + tilt
                )
                found.append(plain(faces, "hedge", rgb, _unit(normal)))
            else:
                tone = rng.uniform(0.7, 1.5) * np.array((0.26, 0.2, 0.15))
                found.append(plain(place(_fence(height), x, y, angle), "boards", tone))
    return found


def _unit(v: Any) -> Any:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)
