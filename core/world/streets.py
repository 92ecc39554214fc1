"""The street network of a rendered town: a jittered, curved, partly broken grid with widths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon, box
from shapely.ops import substring

from core.arrays import Float64Array
from core.world.style import TOWN, Style

__all__ = ["MARGIN_M", "Street", "crossings", "dashes", "grow_streets", "oriented_box"]

MARGIN_M = 60.0
"""The town extends this far beyond its aerial raster, so that border views are not empty."""


@dataclass(frozen=True)
class Street:
    """One street between two junctions. ``line`` is in metres; widths are kerb to kerb."""

    line: LineString
    kind: str
    width_m: float
    pavement_m: float
    busy_start: bool
    busy_end: bool


def oriented_box(x: float, y: float, angle: float, length: float, width: float) -> Polygon:
    """Rectangle centred on (x, y), its length along ``angle`` (radians, counter-clockwise of east)."""
    c, s = np.cos(angle) / 2, np.sin(angle) / 2
    ux, uy, vx, vy = c * length, s * length, -s * width, c * width
    return Polygon(
        [(x - ux - vx, y - uy - vy), (x + ux - vx, y + uy - vy),
         (x + ux + vx, y + uy + vy), (x - ux + vx, y - uy + vy)]
    )  # fmt: skip


def _axis(rng: np.random.Generator, half: float, block_m: tuple[float, float]) -> Float64Array:
    places = [-half]
    while places[-1] < half:
        places.append(places[-1] + rng.uniform(*block_m))
    return np.array(places)


class _Warp:
    """A smooth bend of the plane: a turn and three long waves."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, np.pi)
        self.turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        lengths, ways = rng.uniform(350, 900, 3), rng.uniform(0, 2 * np.pi, 3)
        self.k = np.stack([np.cos(ways), np.sin(ways)], 1) * (2 * np.pi / lengths)[:, None]
        self.phase = rng.uniform(0, 2 * np.pi, 3)
        self.push = rng.normal(0, 1, (3, 2)) * (lengths / 40)[:, None]

    def __call__(self, points: Float64Array) -> Float64Array:
        waves = np.sin(points @ self.k.T + self.phase)
        return np.asarray((points + waves @ self.push) @ self.turn)


def _row_kinds(rng: np.random.Generator, count: int) -> list[tuple[str, float, float]]:
    rows = []
    for _ in range(count):
        draw = rng.random()
        if draw < 0.17:
            rows.append(("main", rng.uniform(11.5, 14), rng.uniform(2.4, 3.6)))
        elif draw < 0.42:
            rows.append(("collector", rng.uniform(8.5, 10.5), rng.uniform(1.8, 2.6)))
        else:
            rows.append(("side", rng.uniform(6, 7.8), rng.choice([0.0, 1.5, 1.8, 2.2])))
    return rows


def _edge(a: Float64Array, b: Float64Array, bow: float, warp: _Warp) -> LineString:
    t = np.linspace(0, 1, 9)[:, None]
    way = b - a
    side = np.array([-way[1], way[0]]) * bow
    return LineString(warp(a + t * way + np.sin(np.pi * t) * side))


def _grid_edges(
    rng: np.random.Generator, nodes: Float64Array, size: float, warp: _Warp
) -> list[tuple[LineString, tuple[str, float, float]]]:
    rows, columns = nodes.shape[:2]
    kinds = (_row_kinds(rng, columns), _row_kinds(rng, rows))
    reach = size * 0.44
    found = []
    for i in range(rows):
        for j in range(columns):
            far = float(np.clip((np.linalg.norm(nodes[i, j]) - reach) / (0.3 * size), 0, 1))
            for axis, (ni, nj) in enumerate(((i + 1, j), (i, j + 1), (i + 1, j + 1))):
                draw, bow = rng.random(), rng.normal(0, 0.025)
                if ni >= rows or nj >= columns:
                    continue
                if axis == 2:
                    kind = ("side", 6.4, 1.5)
                    gone = draw > 0.05 * (1 - far)
                else:
                    kind = kinds[axis][j if axis == 0 else i]
                    gone = draw < (0.04 if kind[0] == "main" else 0.2 + 0.4 * far)
                if not gone:
                    found.append((_edge(nodes[i, j], nodes[ni, nj], bow, warp), kind))
    return found


def grow_streets(rng: np.random.Generator, size_m: float, style: Style = TOWN) -> list[Street]:
    """Streets of a square town of ``size_m`` metres centred on (0, 0), margin included."""
    warp = _Warp(rng)
    half = size_m * 0.75 + 160
    xs, ys = _axis(rng, half, style.block_m), _axis(rng, half, style.block_m)
    nodes = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1)
    nodes = nodes + rng.normal(0, 6, nodes.shape)
    edges = _grid_edges(rng, nodes, size_m, warp)
    frame = box(*(np.array([-1, -1, 1, 1]) * (size_m / 2 + MARGIN_M)))
    degree: dict[tuple[float, float], int] = {}
    for line, _ in edges:
        for end in (line.coords[0], line.coords[-1]):
            key = (round(end[0], 2), round(end[1], 2))
            degree[key] = degree.get(key, 0) + 1
    streets = []
    for line, (kind, width, pavement) in edges:
        busy = [degree[(round(c[0], 2), round(c[1], 2))] >= 3
                for c in (line.coords[0], line.coords[-1])]  # fmt: skip
        inside = shapely.intersection(line, frame)
        if isinstance(inside, LineString) and inside.length > 6:
            widths = float(width) * style.road_scale, float(pavement) * style.pavement_scale
            streets.append(Street(inside, kind, *widths, busy[0], busy[1]))
    return streets


def _at(line: LineString, distance: float) -> tuple[float, float, float]:
    a = line.interpolate(max(distance - 0.5, 0))
    b = line.interpolate(min(distance + 0.5, line.length))
    return (a.x + b.x) / 2, (a.y + b.y) / 2, float(np.arctan2(b.y - a.y, b.x - a.x))


def dashes(street: Street) -> list[Polygon]:
    """Lane paint of one street: a broken centre line, and solid edge lines on main streets."""
    if street.kind == "side" or street.line.length < 25:
        return []
    marks = [
        oriented_box(*_at(street.line, d), 3.0, 0.16)
        for d in np.arange(10, street.line.length - 12, 7.5)
    ]
    if street.kind == "main":
        for side in (-1, 1):
            edge = street.line.offset_curve(side * (street.width_m / 2 - 0.45))
            if isinstance(edge, LineString) and edge.length > 30:
                middle = substring(edge, 9.0, edge.length - 9.0)
                marks.append(middle.buffer(0.08, cap_style="flat"))
    return marks


def crossings(street: Street, rng: np.random.Generator) -> list[Polygon]:
    """Zebra stripes near the busy ends of one street."""
    stripes = []
    for busy, distance in ((street.busy_start, 9.5), (street.busy_end, street.line.length - 9.5)):
        chance = {"main": 0.8, "collector": 0.55, "side": 0.12}[street.kind]
        if not busy or street.line.length < 45 or rng.random() > chance:
            continue
        x, y, angle = _at(street.line, distance)
        for offset in np.arange(-street.width_m / 2 + 0.6, street.width_m / 2 - 0.3, 1.0):
            cx, cy = x - np.sin(angle) * offset, y + np.cos(angle) * offset
            stripes.append(oriented_box(cx, cy, angle, 3.2, 0.5))
    return stripes
