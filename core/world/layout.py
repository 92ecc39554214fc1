"""A whole town from a seed, as GeoDataFrames in metres around (0, 0), readable in QGIS."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from shapely.geometry import LineString, Polygon, box
from shapely.geometry.base import BaseGeometry as Geometry

from core.arrays import Float64Array
from core.errors import WorldError
from core.geo import local_crs
from core.records import Place
from core.world.plots import fill_block
from core.world.site import Draft
from core.world.streets import (
    MARGIN_M,
    Street,
    crossings,
    dashes,
    grow_streets,
    oriented_box,
)
from core.world.style import TOWN, Style

__all__ = ["TownPlan", "grow_town", "write_layout"]


@dataclass
class TownPlan:
    """The plan of a town, before it is rendered.

    ``covers``: (material name, geometry) in painting order. ``streets``: the drivable network.
    ``draft``: the objects on the ground. ``vehicles``: one (n, 5) array per capture: east, north,
    angle (radians), model number, colour number.
    """

    seed: int
    size_m: float
    streets: list[Street]
    covers: list[tuple[str, Geometry]]
    draft: Draft
    districts: list[tuple[str, Polygon]] = field(default_factory=list)
    vehicles: dict[str, Float64Array] = field(default_factory=dict)


def _district_of(rng: np.random.Generator, size: float) -> Any:
    count = max(4, int((size / 210) ** 2))
    seeds = rng.uniform(-size * 0.62, size * 0.62, (count, 2))
    far = np.linalg.norm(seeds, axis=1) / size
    kinds = []
    inner = ("centre", "slabs", "terraces", "park")
    middle = ("terraces", "villas", "slabs", "industry", "park", "wood")
    outer = ("villas", "farmland", "wood", "industry", "terraces")
    for distance in far:
        pick = inner if distance < 0.18 else middle if distance < 0.46 else outer
        weights = {
            4: (0.5, 0.25, 0.15, 0.1), 6: (0.24, 0.3, 0.17, 0.13, 0.08, 0.08),
            5: (0.32, 0.32, 0.12, 0.14, 0.1),
        }[len(pick)]  # fmt: skip
        kinds.append(pick[rng.choice(len(pick), p=weights)])

    def look_up(x: float, y: float) -> str:
        wobble = rng.normal(0, 14, 2)
        nearest = np.argmin(np.linalg.norm(seeds - [x, y] - wobble, axis=1))
        return kinds[int(nearest)]

    return look_up


def _band(rng: np.random.Generator, size: float) -> LineString:
    """A gently bent line across the whole town, for a canal or a railway."""
    angle = rng.uniform(0, np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([-way[1], way[0]])
    t = np.linspace(-1, 1, 40)[:, None]
    offset = rng.uniform(-0.28, 0.28) * size
    bend = np.sin(t * rng.uniform(1.2, 2.6) + rng.uniform(0, 6)) * size * 0.07
    return LineString(way * t * size * 0.95 + side * (offset + bend))


def _rail_covers(line: LineString) -> list[tuple[str, Geometry]]:
    covers: list[tuple[str, Geometry]] = [("meadow", line.buffer(9)), ("ballast", line.buffer(4.6))]
    for centre in (-2.2, 2.2):
        for rail in (-0.72, 0.72):
            covers.append(("steel", line.offset_curve(centre + rail).buffer(0.1)))
    return covers


def _street_covers(
    streets: list[Street], rng: np.random.Generator, kerb_m: float
) -> list[tuple[str, Geometry]]:  # fmt: skip
    walks: list[Geometry] = []
    kerbs: list[Geometry] = []
    roads: list[Geometry] = []
    dark: list[Geometry] = []
    for street in streets:
        half = street.width_m / 2
        if street.pavement_m > 0:
            walks.append(street.line.buffer(half + street.pavement_m))
            kerbs.append(street.line.buffer(half + kerb_m))
        (dark if rng.random() < 0.35 else roads).append(street.line.buffer(half))
    paint: list[Geometry] = []
    repairs: list[Geometry] = []
    for street in streets:
        paint += dashes(street)
        for _ in range(rng.poisson(street.line.length / 45)):
            spot = street.line.interpolate(rng.uniform(0, street.line.length))
            angle = rng.uniform(0, np.pi)
            repairs.append(
                oriented_box(spot.x, spot.y, angle, rng.uniform(1, 9), rng.uniform(0.6, 2.2))
            )
    road_area = shapely.union_all(roads + dark)
    junctions = shapely.union_all(
        [
            shapely.Point(c).buffer(7.5)
            for s in streets
            for c in (s.line.coords[0], s.line.coords[-1])
        ]
    )
    stripes = [stripe for street in streets for stripe in crossings(street, rng)]
    layers: list[tuple[str, Geometry]] = [("slabs", g) for g in walks]
    layers += [("kerb", g) for g in kerbs]
    layers += [("asphalt", g) for g in roads] + [("asphalt_dark", g) for g in dark]
    layers += [("repair", shapely.intersection(g, road_area)) for g in repairs]
    marks = shapely.difference(np.array(paint, dtype=object), junctions) if paint else []
    return layers + [("paint", g) for g in [*marks, *stripes]]


def _beside(street: Street, at: float, offset: float) -> tuple[float, float, float]:
    a = street.line.interpolate(at)
    b = street.line.interpolate(min(at + 1.0, street.line.length))
    if a.equals(b):
        a = street.line.interpolate(at - 1.0)
    angle = float(np.arctan2(b.y - a.y, b.x - a.x))
    return a.x - np.sin(angle) * offset, a.y + np.cos(angle) * offset, angle


def _furnish(street: Street, draft: Draft, rng: np.random.Generator, solid: Geometry) -> None:
    """Lamps, poles, signs, bins, shelters and street trees beside one street."""
    side = float(rng.choice([-1, 1]))
    edge = street.width_m / 2 + 0.6
    step = rng.uniform(22, 32)
    kind = "lamp" if street.kind != "side" or rng.random() < 0.6 else "pole"
    for at in np.arange(rng.uniform(4, 12), street.line.length - 3, step):
        x, y, angle = _beside(street, at, side * edge)
        draft.things.append((kind, x, y, angle - side * np.pi / 2, float(rng.uniform(0.9, 1.1))))
    for end in (11.0, street.line.length - 11.0):
        if rng.random() < 0.5 and street.line.length > 30:
            x, y, angle = _beside(street, end, -side * edge)
            draft.things.append(("sign", x, y, angle + np.pi / 2, float(rng.uniform(0.8, 1.2))))
    if street.kind != "side" and rng.random() < 0.3 and street.line.length > 50:
        x, y, angle = _beside(street, street.line.length * 0.4, -side * (edge + 1.4))
        draft.things.append(("shelter", x, y, angle + (np.pi if side < 0 else 0), 1.0))
    if rng.random() < (0.5 if street.kind != "side" else 0.22):
        usual = str(rng.choice(["linden", "round", "birch", "poplar"], p=[0.5, 0.25, 0.15, 0.1]))
        species = draft.style.species.get(usual, usual)
        rows = (-1, 1) if rng.random() < 0.5 else (side,)
        size = rng.uniform(0.7, 1.15)
        for row in rows:
            for at in np.arange(10, street.line.length - 8, rng.uniform(9, 15)):
                x, y, _ = _beside(street, at, row * (edge + max(street.pavement_m, 1.4) - 0.4))
                if rng.random() < 0.85 and not solid.intersects(shapely.Point(x, y).buffer(1.5)):
                    draft.trees.append((x, y, species, float(size * rng.uniform(0.85, 1.15))))


def _vehicles(town: TownPlan, rng: np.random.Generator, parked_share: float) -> Float64Array:
    rows: list[tuple[float, float, float, float, float]] = []

    def add(x: float, y: float, angle: float, models: list[int]) -> None:
        turn = angle + (np.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.02)
        rows.append((x, y, turn, float(rng.choice(models)), float(rng.integers(0, 12))))

    common = [0, 0, 0, 1, 1, 2, 2, 3]
    for street in town.streets:
        half = street.width_m / 2
        for side in (-1, 1):
            busy = rng.random() * parked_share if street.kind != "main" else 0.08
            for at in np.arange(14, street.line.length - 13, 6.4):
                if rng.random() < busy:
                    x, y, angle = _beside(street, at + rng.uniform(-0.5, 0.5), side * (half - 1.05))
                    add(x, y, angle, common)
            flow = {"main": 0.05, "collector": 0.022, "side": 0.006}[street.kind]
            lane = side * (0.25 * street.width_m)
            at = rng.uniform(0, 30)
            while at < street.line.length - 4:
                if rng.random() < flow * 12:
                    add(*_beside(street, at, lane), [*common, 4] + [4, 5] * (street.kind == "main"))
                at += rng.uniform(14, 40)
    for x, y, angle in town.draft.stalls:
        if rng.random() < 0.52:
            add(x, y, angle, common)
    return np.array(rows, np.float64).reshape(-1, 5)


def _blocks(size: float, wide: Geometry) -> list[Polygon]:
    frame = box(*(np.array([-1, -1, 1, 1]) * (size / 2 + MARGIN_M)))
    pieces = shapely.get_parts(shapely.difference(frame, wide))
    return [p for p in pieces if p.geom_type == "Polygon" and p.area > 120]


def grow_town(seed: int, size_m: float, style: Style = TOWN) -> TownPlan:
    """Grow the town of ``seed`` over ``size_m`` metres (150 to 6000) in a style. Raises WorldError."""
    if not 150 <= size_m <= 6000:
        raise WorldError(
            f"World size: got {size_m} m, expected 150 to 6000. Choose another size_m."
        )
    rng = np.random.default_rng([seed, 1])
    streets = grow_streets(rng, size_m, style)
    draft = Draft(style)
    canal, rail = _band(rng, size_m), _band(rng, size_m)
    has_canal, has_rail = rng.random() < 0.6, rng.random() < 0.55
    canal_width = float(rng.uniform(9, 20))
    road_space = shapely.union_all(
        [s.line.buffer(s.width_m / 2 + s.pavement_m - 0.06, cap_style="flat") for s in streets]
        + [s.line.buffer(s.width_m / 2) for s in streets]
    )
    bands = [canal.buffer(canal_width / 2 + 4)] * has_canal + [rail.buffer(10)] * has_rail
    wide = shapely.union_all([road_space, *bands])
    district_of = _district_of(rng, size_m)
    districts = []
    for block in _blocks(size_m, wide):
        point = block.representative_point()
        name = district_of(point.x, point.y)
        if block.area < 700 and name != "farmland":
            name = "park" if name != "wood" else "wood"
        districts.append((name, block))
        fill_block(draft, block, name, rng)
    covers: list[tuple[str, Geometry]] = []
    if has_canal:
        covers += [("meadow", canal.buffer(canal_width / 2 + 4.2)),
                   ("concrete", canal.buffer(canal_width / 2 + 0.5)),
                   ("water", canal.buffer(canal_width / 2))]  # fmt: skip
    if has_rail:
        covers += _rail_covers(rail)
    covers += [*draft.areas, *_street_covers(streets, rng, style.kerb_m)]
    if has_rail:
        covers += [(name, g.intersection(road_space)) for name, g in _rail_covers(rail)[2:]]
    solid = shapely.union_all([p["geometry"] for p in draft.parts])
    shapely.prepare(solid)
    for street in streets:
        _furnish(street, draft, rng, solid)
    town = TownPlan(seed, float(size_m), streets, covers, draft, districts)
    for number, capture in enumerate(("aerial", "ground")):
        own = np.random.default_rng([seed, 2, number])
        town.vehicles[capture] = _vehicles(town, own, own.uniform(0.45, 0.8))
    return town


def _frames(town: TownPlan) -> dict[str, gpd.GeoDataFrame]:
    crs = local_crs(Place(0.0, 0.0))

    def frame(columns: dict[str, list[Any]], shapes: list[Any]) -> gpd.GeoDataFrame:
        return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)

    draft, streets = town.draft, town.streets
    shown = [(name, g) for name, g in town.covers if not g.is_empty]
    keys = ("building", "length", "width", "eave", "floors", "roof", "style")
    layers = {
        "streets": frame(
            {k: [getattr(s, k) for s in streets] for k in ("kind", "width_m", "pavement_m")},
            [s.line for s in streets],
        ),
        "districts": frame(
            {"district": [d for d, _ in town.districts]}, [g for _, g in town.districts]
        ),
        "ground": frame({"cover": [n for n, _ in shown]}, [g for _, g in shown]),
        "plots": frame({"use": [n for n, _ in draft.plots]}, [g for _, g in draft.plots]),
        "buildings": frame(
            {k: [p[k] for p in draft.parts] for k in keys}, [p["geometry"] for p in draft.parts]
        ),
        "trees": frame(
            {"species": [t[2] for t in draft.trees], "scale": [t[3] for t in draft.trees]},
            [shapely.Point(t[0], t[1]) for t in draft.trees],
        ),
        "strips": frame(
            {"kind": [s[0] for s in draft.strips], "height_m": [s[3] for s in draft.strips]},
            [s[1] for s in draft.strips],
        ),
        "things": frame(
            {"kind": [t[0] for t in draft.things]},
            [shapely.Point(t[1], t[2]) for t in draft.things],
        ),
    }
    for capture, rows in town.vehicles.items():
        layers[f"vehicles_{capture}"] = frame(
            {"model": list(rows[:, 3].astype(int)), "angle": list(rows[:, 2])},
            [oriented_box(x, y, a, 4.4, 1.8) for x, y, a in rows[:, :3]],
        )
    return layers


def write_layout(town: TownPlan, path: Path) -> None:
    """Write the town as layers of one GeoPackage, the same bytes for the same town."""
    for name, layer in _frames(town).items():
        layer.to_file(path, layer=name, driver="GPKG", engine="pyogrio")
    with sqlite3.connect(path) as book:
        book.execute("UPDATE gpkg_contents SET last_change = '2026-01-01T00:00:00.000Z'")
    book.close()
