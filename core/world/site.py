"""A block while it is filled: occupied areas, free places for trees, buildings along its sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon

from core.arrays import Float64Array
from core.world.streets import oriented_box
from core.world.style import TOWN, Style

__all__ = ["Draft", "Site", "look_of", "place_building", "row_of"]


@dataclass
class Draft:
    """The objects of a town, as growing lists of rows. Places are metres; angles radians."""

    style: Style = TOWN
    parts: list[dict[str, Any]] = field(default_factory=list)
    areas: list[tuple[str, Polygon]] = field(default_factory=list)
    plots: list[tuple[str, Polygon]] = field(default_factory=list)
    trees: list[tuple[float, float, str, float]] = field(default_factory=list)
    strips: list[tuple[str, LineString, float, float]] = field(default_factory=list)
    things: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float, float]] = field(default_factory=list)
    buildings: int = 0


def _shade_of(rng: np.random.Generator, palette: tuple[tuple[float, ...], ...]) -> list[float]:
    """A colour of the palette, a little lighter or darker."""
    base = np.array(palette[rng.integers(len(palette))])
    return list(np.clip(base * rng.uniform(0.82, 1.15) + rng.normal(0, 0.012, 3), 0.02, 0.85))


class Site:
    """One block while it is filled; it keeps track of occupied areas."""

    def __init__(self, draft: Draft, block: Polygon, rng: np.random.Generator) -> None:
        self.draft, self.block, self.rng = draft, block, rng
        self.taken: list[Polygon] = []

    def free(self, shape: Polygon, gap: float = 0.0) -> bool:
        """Whether ``shape`` lies in the block and at least ``gap`` metres from all objects there."""
        if not self.block.contains(shape):
            return False
        wide = shape.buffer(gap) if gap else shape
        return not any(wide.intersects(other) for other in self.taken)

    def edges(self) -> list[tuple[Float64Array, Float64Array, Float64Array, float]]:
        """Straight sides: start, unit direction, unit inward normal, length."""
        ring = shapely.geometry.polygon.orient(self.block.simplify(2.5)).exterior
        corners = np.array(ring.coords)
        found = []
        for a, b in pairwise(corners):
            length = float(np.linalg.norm(b - a))
            if length > 12:
                way = (b - a) / length
                found.append((a, way, np.array([-way[1], way[0]]), length))
        return found

    def points(self, spacing: float, inset: float = 1.0) -> Float64Array:
        """Jittered places over the block, about ``spacing`` metres apart, (n, 2)."""
        west, south, east, north = self.block.bounds
        xs = np.arange(west, east, spacing)
        ys = np.arange(south, north, spacing)
        grid = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
        grid = grid + self.rng.uniform(-0.42, 0.42, grid.shape) * spacing
        inner = self.block.buffer(-inset)
        return np.asarray(grid[shapely.contains_xy(inner, grid[:, 0], grid[:, 1])])

    def trees(self, spacing: float, species: tuple[str, ...], keep: float, inset: float) -> None:
        """Plant trees where nothing else is."""
        places = self.points(spacing, inset)
        solid = shapely.union_all([shape.buffer(1.6) for shape in self.taken])
        open_air = ~shapely.contains_xy(solid, places[:, 0], places[:, 1])
        for x, y in places[open_air]:
            if self.rng.random() < keep:
                usual = species[self.rng.integers(len(species))]
                kind = self.draft.style.species.get(usual, usual)
                self.draft.trees.append((x, y, kind, float(self.rng.uniform(0.65, 1.25))))


def _add_part(
    site: Site, x: float, y: float, angle: float, size: tuple[float, float], look: dict[str, Any]
) -> Polygon:
    shape = oriented_box(x, y, angle, *size)
    site.draft.parts.append(
        {"geometry": shape, "x": x, "y": y, "angle": angle, "length": size[0], "width": size[1],
         "building": site.draft.buildings, **look}
    )  # fmt: skip
    return shape


def look_of(site: Site, floors: int, roof: str, facade: int, storey: float = 2.9) -> dict[str, Any]:
    """Heights, roof and colours of a building; ``facade`` is the style in materials.facade."""
    rng, style = site.rng, site.draft.style
    return {
        "eave": floors * storey + rng.uniform(0.2, 0.7), "storey": storey, "floors": floors,
        "roof": roof, "pitch": float(rng.uniform(*style.pitch)), "style": facade,
        "seams": int(rng.random() < style.seamed_share),
        "wall_rgb": _shade_of(rng, style.shed_walls if facade == 4 else style.walls),
        "roof_rgb": _shade_of(rng, style.flat_roofs if roof == "flat" else style.roofs),
    }  # fmt: skip


def place_building(
    site: Site, centre: Float64Array, angle: float, size: tuple[float, float],
    look: dict[str, Any], gap: float = 2.0,
) -> bool:  # fmt: skip
    """Put one building, sometimes with a wing, where it fits. Returns whether it did."""
    rng = site.rng
    shape = oriented_box(centre[0], centre[1], angle, *size)
    if not site.free(shape, gap):
        return False
    site.draft.buildings += 1
    _add_part(site, centre[0], centre[1], angle, size, look)
    if rng.random() < 0.5 and look["style"] != 4 and size[0] > 8:
        wing = (float(rng.uniform(0.35, 0.5) * size[0]), float(rng.uniform(4.0, 7.5)))
        along = float(rng.choice([-1, 1])) * (size[0] - wing[0]) / 2 * rng.uniform(0.3, 1)
        across = -(size[1] + wing[1]) / 2 + 1.2
        across *= float(rng.choice([-1, 1]))
        c, s = np.cos(angle), np.sin(angle)
        x, y = centre[0] + c * along - s * across, centre[1] + s * along + c * across
        low = dict(look, eave=look["eave"] - (look["storey"] if look["floors"] > 1 else 0.15))
        if site.free(oriented_box(x, y, angle, *wing)):
            turned = (wing[1] + 2.0, wing[0])
            shape = shape.union(_add_part(site, x, y, angle + np.pi / 2, turned, low))
    site.taken.append(shape)
    return True


def row_of(
    site: Site, setback: float, widths: tuple[float, float], depths: tuple[float, float],
    gaps: tuple[float, float], looks: Any, skip: float = 0.0, keep: float = 1.0,
) -> None:  # fmt: skip
    """Buildings along every side of the block. ``looks()`` gives the next building's look."""
    rng = site.rng
    for start, way, inward, length in site.edges():
        if rng.random() > keep:
            continue
        angle = float(np.arctan2(way[1], way[0]))
        depth = float(rng.uniform(*depths))
        at = rng.uniform(1.0, 4.0)
        while at < length - widths[0]:
            width = float(min(rng.uniform(*widths), length - at - 0.5))
            if width < widths[0] * 0.8:
                break
            back = setback + depth / 2 + rng.uniform(0, 0.25) * setback
            centre = start + way * (at + width / 2) + inward * back
            if rng.random() >= skip:
                place_building(site, centre, angle, (width, depth), looks(), min(gaps[0], 2.0) / 2)
            at += width + rng.uniform(*gaps)
