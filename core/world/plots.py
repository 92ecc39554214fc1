"""Filling blocks: plots, buildings, gardens, lots, parks and fields, one recipe per district."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import LineString, Polygon

from core.world.streets import oriented_box

__all__ = ["RECIPES", "Draft", "fill_block"]

FloatArray = npt.NDArray[np.float64]

WALLS = ((0.62, 0.58, 0.50), (0.72, 0.70, 0.66), (0.55, 0.42, 0.26), (0.42, 0.18, 0.12),
         (0.60, 0.50, 0.30), (0.33, 0.36, 0.38), (0.30, 0.10, 0.075), (0.45, 0.50, 0.42),
         (0.52, 0.38, 0.30), (0.40, 0.44, 0.52), (0.24, 0.17, 0.12), (0.66, 0.60, 0.42))  # fmt: skip
ROOFS = ((0.30, 0.115, 0.07), (0.40, 0.17, 0.10), (0.075, 0.075, 0.08), (0.13, 0.13, 0.14),
         (0.20, 0.14, 0.11), (0.22, 0.085, 0.06), (0.28, 0.27, 0.26), (0.12, 0.16, 0.14),
         (0.34, 0.22, 0.15))  # fmt: skip
FLATS = ((0.20, 0.20, 0.20), (0.34, 0.33, 0.31), (0.50, 0.49, 0.47), (0.11, 0.11, 0.115),
         (0.28, 0.25, 0.22), (0.22, 0.25, 0.20))  # fmt: skip


@dataclass
class Draft:
    """What a town is made of, as rows in the making. Places are metres; angles radians."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    areas: list[tuple[str, Polygon]] = field(default_factory=list)
    plots: list[tuple[str, Polygon]] = field(default_factory=list)
    trees: list[tuple[float, float, str, float]] = field(default_factory=list)
    strips: list[tuple[str, LineString, float, float]] = field(default_factory=list)
    things: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float, float]] = field(default_factory=list)
    buildings: int = 0


def _colour(rng: np.random.Generator, palette: tuple[tuple[float, ...], ...]) -> list[float]:
    base = np.array(palette[rng.integers(len(palette))])
    return list(np.clip(base * rng.uniform(0.82, 1.15) + rng.normal(0, 0.012, 3), 0.02, 0.85))


class Site:
    """One block being filled: knows what is already taken."""

    def __init__(self, draft: Draft, block: Polygon, rng: np.random.Generator) -> None:
        self.draft, self.block, self.rng = draft, block, rng
        self.taken: list[Polygon] = []

    def free(self, shape: Polygon, gap: float = 0.0) -> bool:
        """Whether ``shape`` lies in the block and ``gap`` metres away from what is there."""
        if not self.block.contains(shape):
            return False
        wide = shape.buffer(gap) if gap else shape
        return not any(wide.intersects(other) for other in self.taken)

    def edges(self) -> list[tuple[FloatArray, FloatArray, FloatArray, float]]:
        """Straight sides: start, unit direction, unit inward normal, length."""
        ring = shapely.geometry.polygon.orient(self.block.simplify(2.5)).exterior
        corners = np.array(ring.coords)
        found = []
        for a, b in zip(corners[:-1], corners[1:], strict=True):
            length = float(np.linalg.norm(b - a))
            if length > 12:
                way = (b - a) / length
                found.append((a, way, np.array([-way[1], way[0]]), length))
        return found

    def points(self, spacing: float, inset: float = 1.0) -> FloatArray:
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
                kind = species[self.rng.integers(len(species))]
                self.draft.trees.append((x, y, kind, float(self.rng.uniform(0.65, 1.25))))


def _part(
    site: Site, x: float, y: float, angle: float, size: tuple[float, float], look: dict[str, Any]
) -> Polygon:
    shape = oriented_box(x, y, angle, *size)
    site.draft.parts.append(
        {"geometry": shape, "x": x, "y": y, "angle": angle, "length": size[0], "width": size[1],
         "building": site.draft.buildings, **look}
    )  # fmt: skip
    return shape


def _look(
    rng: np.random.Generator, floors: int, roof: str, style: int, storey: float = 2.9
) -> dict[str, Any]:
    palette = FLATS if roof == "flat" else ROOFS
    walls = WALLS
    if style == 4:
        walls = ((0.5, 0.51, 0.52), (0.35, 0.38, 0.42), (0.62, 0.61, 0.58), (0.3, 0.14, 0.1))
    return {
        "eave": floors * storey + rng.uniform(0.2, 0.7), "storey": storey, "floors": floors,
        "roof": roof, "pitch": float(rng.uniform(0.45, 1.0)), "style": style,
        "seams": int(rng.random() < 0.3), "wall_rgb": _colour(rng, walls),
        "roof_rgb": _colour(rng, palette),
    }  # fmt: skip


def place_building(
    site: Site, centre: FloatArray, angle: float, size: tuple[float, float],
    look: dict[str, Any], gap: float = 2.0,
) -> bool:  # fmt: skip
    """Put one building, sometimes with a wing, where it fits. Returns whether it did."""
    rng = site.rng
    shape = oriented_box(centre[0], centre[1], angle, *size)
    if not site.free(shape, gap):
        return False
    site.draft.buildings += 1
    _part(site, centre[0], centre[1], angle, size, look)
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
            shape = shape.union(_part(site, x, y, angle + np.pi / 2, turned, low))
    site.taken.append(shape)
    return True


def _row(
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


def _centre(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("cobbles" if rng.random() < 0.5 else "slabs", site.block))
    floors = int(rng.integers(3, 6))

    def look() -> dict[str, Any]:
        roof = "flat" if rng.random() < 0.4 else "gable"
        style = 2 if rng.random() < 0.7 else 0
        return _look(rng, max(2, floors + int(rng.integers(-1, 2))), roof, style, 3.1)

    _row(site, 0.6, (11, 24), (10, 13), (0.0, 0.25), look, skip=0.06)
    _row(site, 27, (12, 24), (10, 12), (1.0, 6.0), look, skip=0.25)
    yard = site.block.buffer(-17)
    if yard.area > 150:
        kind = rng.choice(["parking", "garden", "gravel"])
        free = yard.difference(shapely.union_all([s.buffer(1.5) for s in site.taken]))
        for piece in shapely.get_parts(free):
            draft.areas.append((str(kind), piece))
            if kind == "parking":
                stalls(site, piece)
    site.trees(9, ("round", "linden", "bush"), 0.5, 15)


def _terraces(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("garden", site.block))
    shared = _look(rng, 2, "gable", int(rng.random() < 0.5))

    def look() -> dict[str, Any]:
        fresh = _look(rng, 2, "gable", shared["style"])
        return dict(
            shared, wall_rgb=fresh["wall_rgb"] if rng.random() < 0.4 else shared["wall_rgb"]
        )

    _row(site, rng.uniform(3, 6), (24, 46), (8.5, 10.5), (4, 9), look, keep=0.85)
    _row(site, 29, (18, 34), (8.5, 10.0), (5, 9), look, keep=0.7)
    _gardens(site, 11.0, hedge=0.5)
    site.trees(9, ("round", "birch", "bush", "fruit", "conifer"), 0.50, 2)


def _villas(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("garden", site.block))

    def look() -> dict[str, Any]:
        roof = str(rng.choice(["gable", "hip", "gable", "flat"], p=[0.5, 0.28, 0.1, 0.12]))
        return _look(rng, int(rng.integers(1, 3)), roof, int(rng.random() < 0.5), 2.7)

    _row(site, rng.uniform(4, 8), (9, 15), (7.5, 10.5), (4, 10), look, skip=0.1)
    _row(site, 27, (9, 13), (7.5, 10.0), (7, 13), look, skip=0.25)
    for start, way, inward, length in site.edges():
        for at in np.arange(6, length - 6, 19.0):
            angle = float(np.arctan2(way[1], way[0]))
            foot = start + way * (at + rng.uniform(-3, 3)) + inward * 4.5
            drive = oriented_box(foot[0], foot[1], angle + np.pi / 2, 9.4, 3.0)
            if rng.random() < 0.7 and site.free(drive.buffer(-0.3)):
                draft.areas.append(("drive", drive))
                draft.stalls.append((foot[0], foot[1], angle + np.pi / 2))
                site.taken.append(drive)
            shed = foot + inward * rng.uniform(14, 20) + way * 5
            if rng.random() < 0.35:
                small = _look(rng, 1, str(rng.choice(["gable", "flat"])), 1, 2.2)
                place_building(site, shed, angle, (5.0, 3.2), small)
            pool = shed + way * rng.uniform(-8, 8)
            shape = oriented_box(pool[0], pool[1], angle, 7.5, 3.8)
            if rng.random() < 0.12 and site.free(shape, 1.0):
                draft.areas.append(("patio", shape.buffer(1.0, join_style="mitre")))
                draft.areas.append(("pool", shape))
                site.taken.append(shape)
    _gardens(site, 20.0, hedge=0.65)
    site.trees(8.5, ("round", "birch", "conifer", "bush", "fruit", "pine"), 0.6, 1.5)


def _gardens(site: Site, spacing: float, hedge: float) -> None:
    """Plot borders: hedges or fences along the street side and between neighbours."""
    rng = site.rng
    for start, way, inward, length in site.edges():
        kind = "hedge" if rng.random() < hedge else "fence"
        for at in np.arange(2.0, length - 4, spacing):
            a = start + way * at + inward * 0.6
            front = LineString([a, a + way * (spacing - 4.5)])
            side = LineString([a, a + inward * rng.uniform(12, 22)])
            for line, chance in ((front, 0.62), (side, 0.6)):
                body = line.buffer(0.5)
                if rng.random() < chance and site.free(body):
                    wide, high = (0.9, rng.uniform(0.9, 1.9)) if kind == "hedge" else (0.08, 1.1)
                    site.draft.strips.append((kind, line, wide, float(high)))
                    site.taken.append(line.buffer(0.3))
            plot = shapely.box(0, 0, spacing, 22)
            turned = shapely.transform(
                plot, lambda p, a=a, w=way, n=inward: a + p[:, :1] * w + p[:, 1:] * n
            )
            if site.block.contains(turned.buffer(-1)):
                site.draft.plots.append(("garden", turned))


def stalls(site: Site, lot: Polygon) -> None:
    """Marked parking stalls in rows over a lot."""
    box = lot.minimum_rotated_rectangle
    corners = np.array(box.exterior.coords)
    sides = np.diff(corners, axis=0)[:2]
    long = int(np.argmax(np.linalg.norm(sides, axis=1)))
    way = sides[long] / np.linalg.norm(sides[long])
    across = np.array([-way[1], way[0]])
    centre = np.array(box.centroid.coords[0])
    reach, wide = np.linalg.norm(sides, axis=1)[[long, 1 - long]] / 2
    angle = float(np.arctan2(way[1], way[0]))
    inner = lot.buffer(-0.6)
    for offset in np.arange(-wide + 2.8, wide - 2.4, 8.2):
        for at in np.arange(-reach + 1.5, reach - 1.4, 2.6):
            x, y = centre + way * at + across * offset
            stall = oriented_box(x, y, angle, 2.5, 5.0)
            if inner.contains(stall) and not any(stall.intersects(s) for s in site.taken):
                line = oriented_box(*(np.array([x, y]) - way * 1.3), angle, 0.14, 4.9)
                site.draft.areas.append(("paint", line))
                site.draft.stalls.append((x, y, angle + np.pi / 2))


def _slabs(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("lawn", site.block))
    floors = int(rng.integers(3, 7))
    shared = _look(rng, floors, "flat" if rng.random() < 0.65 else "hip", 3, 2.9)
    _row(site, rng.uniform(5, 9), (26, 48), (11.5, 13.5), (9, 16), lambda: dict(shared), keep=0.6)
    _lot(site, 22, 30, 16)
    _play(site)
    _paths(site)
    site.trees(8, ("round", "birch", "linden", "pine", "bush"), 0.5, 1.5)


def _lot(site: Site, tries: int, length: float, width: float) -> None:
    rng = site.rng
    edges = site.edges()
    for _ in range(tries if edges else 0):
        start, way, inward, side = edges[rng.integers(len(edges))]
        centre = start + way * rng.uniform(0.2, 0.8) * side + inward * rng.uniform(9, 30)
        size = (length * rng.uniform(0.6, 1.2), width * rng.uniform(0.8, 1.2))
        lot = oriented_box(*centre, float(np.arctan2(way[1], way[0])), *size)
        if site.free(lot, 1.0):
            site.draft.areas.append(("parking", lot))
            stalls(site, lot)
            site.taken.append(lot)
            return


def _play(site: Site) -> None:
    rng = site.rng
    for x, y in site.points(15, 9):
        shape = shapely.Point(x, y).buffer(rng.uniform(4, 7), quad_segs=4)
        if site.free(shape, 1.5):
            site.draft.areas.append(("sand", shape))
            site.draft.things.append(("play", x, y, float(rng.uniform(0, 3)), 1.0))
            site.draft.things.append(("bench", x + 3, y + 3, float(rng.uniform(0, 3)), 1.0))
            site.taken.append(shape)
            return


def _paths(site: Site) -> None:
    rng = site.rng
    west, south, east, north = site.block.bounds
    for _ in range(2):
        a = np.array([rng.uniform(west, east), south - 5])
        b = np.array([rng.uniform(west, east), north + 5])
        if rng.random() < 0.5:
            a, b = (
                a[::-1] * 0 + [west - 5, rng.uniform(south, north)],
                np.array([east + 5, rng.uniform(south, north)]),
            )
        t = np.linspace(0, 1, 12)[:, None]
        bend = np.array([-(b - a)[1], (b - a)[0]]) * rng.normal(0, 0.12)
        line = LineString(a + t * (b - a) + np.sin(np.pi * t) * bend)
        path = line.buffer(1.1).intersection(site.block)
        if not path.is_empty and not any(path.intersects(s) for s in site.taken):
            for piece in shapely.get_parts(path):
                if piece.geom_type == "Polygon":
                    site.draft.areas.append(("gravel", piece))
                    site.taken.append(piece)


def _industry(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append((str(rng.choice(["parking", "asphalt_dark", "gravel"])), site.block))

    def look() -> dict[str, Any]:
        roof = "flat" if rng.random() < 0.75 else "gable"
        return dict(_look(rng, 1, roof, 4, float(rng.uniform(5, 9))), pitch=0.22)

    _row(site, rng.uniform(5, 10), (22, 42), (17, 27), (7, 14), look, keep=0.7)
    _lot(site, 25, 34, 17)
    for x, y in site.points(16, 5):
        angle = float(rng.uniform(0, np.pi))
        kind = str(rng.choice(["container", "container", "tank"]))
        if rng.random() < 0.5 and site.free(shapely.Point(x, y).buffer(4.0), 1.0):
            site.draft.things.append((kind, x, y, angle, float(rng.uniform(0.8, 1.3))))
            site.taken.append(shapely.Point(x, y).buffer(3.2))
    for start, way, inward, length in site.edges():
        if rng.random() < 0.5 and length > 30:
            a = start + way * 9 + inward * 0.5
            site.draft.strips.append(("fence", LineString([a, a + way * (length - 18)]), 0.06, 1.9))
    site.trees(13, ("birch", "poplar", "bush"), 0.35, 1.0)


def _park(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append((str(rng.choice(["lawn", "meadow"])), site.block))
    _paths(site)
    if rng.random() < 0.55:
        for x, y in site.points(18, 14)[:6]:
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            wave = 1 + 0.22 * np.sin(2 * turn + rng.uniform(0, 6)) + 0.12 * np.sin(3 * turn)
            r = rng.uniform(8, 15) * wave
            pond = Polygon(np.stack([x + r * np.cos(turn), y + r * 0.75 * np.sin(turn)], 1))
            if site.free(pond, 1.0):
                draft.areas.append(("water", pond))
                site.taken.append(pond)
                break
    elif rng.random() < 0.5:
        x, y = site.block.centroid.coords[0]
        for court in (oriented_box(x, y, rng.uniform(0, 3), 34, 18),):
            if site.free(court, 1.0):
                draft.areas.append(("pitch", court))
                for inset in (0.6, 7.5):
                    draft.areas.append(
                        (
                            "paint",
                            court.exterior.buffer(0.09)
                            if inset < 1
                            else court.centroid.buffer(3).exterior.buffer(0.08),
                        )
                    )
                site.taken.append(court)
    _play(site)
    for x, y in site.points(24, 3):
        site.draft.things.append(("bench", x, y, float(rng.uniform(0, 3)), 1.0))
    dense = rng.random()
    site.trees(6.5 if dense < 0.5 else 11, ("round", "birch", "linden", "pine", "bush"), 0.6, 2)


def _wood(site: Site) -> None:
    site.draft.areas.append(("woodland", site.block))
    _paths(site)
    mix = [("pine", "conifer", "birch", "bush"), ("round", "birch", "linden", "bush")]
    site.trees(5.0, mix[int(site.rng.random() < 0.4)], 0.78, 2)


def _farm(site: Site) -> None:
    rng, draft = site.rng, site.draft
    kinds = ["crop", "grain", "plough", "meadow", "grain"]
    pieces = [site.block]
    centre = np.array(site.block.centroid.coords[0])
    angle = rng.uniform(0, np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    cut = LineString([centre - way * 300, centre + way * 300])
    if site.block.area > 4000:
        pieces = list(shapely.get_parts(shapely.ops.split(site.block, cut)))
        verge = cut.intersection(site.block)
        if rng.random() < 0.6 and verge.length > 20 and verge.geom_type == "LineString":
            draft.strips.append(("hedge", verge, 1.4, 1.8))
    for piece in pieces:
        draft.areas.append(("meadow", piece))
        inner = piece.buffer(-2.2)
        for part in shapely.get_parts(inner):
            draft.areas.append((kinds[rng.integers(len(kinds))], part))
            draft.plots.append(("field", part))
    if rng.random() < 0.3:
        look = dict(_look(rng, 1, "gable", 1, 4.2))
        place_building(site, centre + way * 14, float(angle), (21, 11), look)
    for start, way, inward, length in site.edges():
        for at in np.arange(4, length, 9.0):
            if rng.random() < 0.22:
                x, y = start + way * at + inward * 1.2
                draft.trees.append(
                    (x, y, str(rng.choice(["birch", "round", "bush", "poplar"])), 1.0)
                )


RECIPES = {
    "centre": _centre, "terraces": _terraces, "villas": _villas, "slabs": _slabs,
    "industry": _industry, "park": _park, "wood": _wood, "farmland": _farm,
}  # fmt: skip


def fill_block(draft: Draft, block: Polygon, district: str, rng: np.random.Generator) -> None:
    """Add what one block (a polygon in metres, inside the pavements) holds in its district."""
    RECIPES[district](Site(draft, block, rng))
