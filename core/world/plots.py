"""The contents of blocks, one recipe per district: gardens, lots, yards, parks, woods and fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.ops import split

from core.world.site import Draft, Site, look_of, place_building, row_of
from core.world.streets import oriented_box

__all__ = ["RECIPES", "fill_block", "stalls"]


def _centre(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("cobbles" if rng.random() < 0.5 else "slabs", site.block))
    floors = int(rng.integers(3, 6))

    def look() -> dict[str, Any]:
        roof = "flat" if rng.random() < 0.4 else "gable"
        style = 2 if rng.random() < 0.7 else 0
        return look_of(site, max(2, floors + int(rng.integers(-1, 2))), roof, style, 3.1)

    row_of(site, 0.6, (11, 24), (10, 13), (0.0, 0.25), look, skip=0.06)
    row_of(site, 27, (12, 24), (10, 12), (1.0, 6.0), look, skip=0.25)
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
    shared = look_of(site, 2, "gable", int(rng.random() < 0.5))

    def look() -> dict[str, Any]:
        fresh = look_of(site, 2, "gable", shared["style"])
        return dict(
            shared, wall_rgb=fresh["wall_rgb"] if rng.random() < 0.4 else shared["wall_rgb"]
        )

    row_of(site, rng.uniform(3, 6), (24, 46), (8.5, 10.5), (4, 9), look, keep=0.85)
    row_of(site, 29, (18, 34), (8.5, 10.0), (5, 9), look, keep=0.7)
    _gardens(site, 11.0, hedge=0.5)
    site.trees(9, ("round", "birch", "bush", "fruit", "conifer"), 0.50, 2)


def _villas(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("garden", site.block))

    def look() -> dict[str, Any]:
        roof = str(rng.choice(["gable", "hip", "gable", "flat"], p=[0.5, 0.28, 0.1, 0.12]))
        return look_of(site, int(rng.integers(1, 3)), roof, int(rng.random() < 0.5), 2.7)

    row_of(site, rng.uniform(4, 8), (9, 15), (7.5, 10.5), (4, 10), look, skip=0.1)
    row_of(site, 27, (9, 13), (7.5, 10.0), (7, 13), look, skip=0.25)
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
                small = look_of(site, 1, str(rng.choice(["gable", "flat"])), 1, 2.2)
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
                line = oriented_box(x - way[0] * 1.3, y - way[1] * 1.3, angle, 0.14, 4.9)
                site.draft.areas.append(("paint", line))
                site.draft.stalls.append((x, y, angle + np.pi / 2))


def _slabs(site: Site) -> None:
    rng, draft = site.rng, site.draft
    draft.areas.append(("lawn", site.block))
    floors = int(rng.integers(3, 7))
    shared = look_of(site, floors, "flat" if rng.random() < 0.65 else "hip", 3, 2.9)
    row_of(site, rng.uniform(5, 9), (26, 48), (11.5, 13.5), (9, 16), lambda: dict(shared), keep=0.6)
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
        angle = float(np.arctan2(way[1], way[0]))
        lot = oriented_box(centre[0], centre[1], angle, *size)
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
        return dict(look_of(site, 1, roof, 4, float(rng.uniform(5, 9))), pitch=0.22)

    row_of(site, rng.uniform(5, 10), (22, 42), (17, 27), (7, 14), look, keep=0.7)
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
        pieces = list(shapely.get_parts(split(site.block, cut)))
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
        look = dict(look_of(site, 1, "gable", 1, 4.2))
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
    """Fill one block (a polygon in metres, inside the pavements) as usual in its district."""
    RECIPES[district](Site(draft, block, rng))
