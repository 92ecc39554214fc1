"""Grown towns: what a layout holds, and that its things do not stand in one another's way."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from core.errors import WorldError
from core.world.flora import SPECIES
from core.world.layout import TownPlan, grow_town, write_layout
from core.world.materials import CODE, MATERIALS, SEASONS, facade, ground_table, hash01, noise
from core.world.plots import RECIPES
from core.world.streets import MARGIN_M, grow_streets, oriented_box
from core.world.style import STYLES, TOWN


@pytest.fixture(scope="module")
def town() -> TownPlan:
    return grow_town(3, 500)


def test_towns_repeat_and_differ(town: TownPlan) -> None:
    again, other = grow_town(3, 500), grow_town(4, 500)
    assert again.draft.trees == town.draft.trees
    assert np.array_equal(again.vehicles["ground"], town.vehicles["ground"])
    assert other.draft.trees != town.draft.trees


def test_the_default_style_is_the_town_it_always_was() -> None:
    """Numbers of the town of this seed as it was grown before there were styles."""
    town = grow_town(11, 400.0)
    roofs = np.mean([part["roof_rgb"] for part in town.draft.parts], axis=0)
    assert (len(town.streets), len(town.draft.parts), len(town.draft.trees)) == (68, 293, 604)
    np.testing.assert_allclose(roofs, [0.2326, 0.1667, 0.1391], atol=5e-5)
    assert sum(street.width_m for street in town.streets) == pytest.approx(555.067, abs=1e-3)


def test_styles_differ_in_what_models_could_learn_by_heart() -> None:
    usual, steppe = TOWN, STYLES["steppe"]
    assert not {*usual.roofs, *usual.walls} & {*steppe.roofs, *steppe.walls}
    assert not [rgb for rgb in steppe.roofs if rgb[0] > 0.2 and rgb[0] - rgb[2] > 0.1]  # orange
    assert set(steppe.ground) <= set(CODE)
    assert {*steppe.species, *steppe.species.values()} <= set(SPECIES)
    table = ground_table(SEASONS["summer"], steppe)
    np.testing.assert_allclose(table[CODE["asphalt"]], steppe.ground["asphalt"])
    np.testing.assert_array_equal(
        table[CODE["steel"]], ground_table(SEASONS["summer"])[CODE["steel"]]
    )


def test_captures_have_their_own_vehicles(town: TownPlan) -> None:
    aerial, ground = town.vehicles["aerial"], town.vehicles["ground"]
    assert min(len(aerial), len(ground)) > 50
    shared = {tuple(r) for r in aerial.round(3)} & {tuple(r) for r in ground.round(3)}
    assert len(shared) < 0.02 * len(aerial)


def test_a_town_holds_many_kinds_of_things(town: TownPlan) -> None:
    kinds = {name for name, _ in town.covers} | {t[0] for t in town.draft.things}
    kinds |= {t[2] for t in town.draft.trees} | {s[0] for s in town.draft.strips}
    assert len(kinds) >= 20
    assert {name for name, _ in town.districts} <= set(RECIPES)
    assert {name for name, _ in town.covers} <= set(CODE)


def test_buildings_stay_off_the_streets(town: TownPlan) -> None:
    roads = shapely.union_all([s.line.buffer(s.width_m / 2) for s in town.streets])
    houses = [p["geometry"] for p in town.draft.parts]
    assert len(houses) > 20
    assert max(shapely.intersection(h, roads).area for h in houses) < 0.5


def test_streets_vary_and_stay_in_the_frame() -> None:
    streets = grow_streets(np.random.default_rng(5), 800)
    widths = [s.width_m for s in streets]
    assert 6 <= min(widths) < 8
    assert 11 < max(widths) <= 14
    reach = 400 + MARGIN_M + 1e-6
    assert all(max(np.abs(s.line.bounds)) <= reach for s in streets)


@pytest.mark.parametrize("size", [0, 149, 7000, float("nan")])
def test_impossible_sizes_are_refused(size: float) -> None:
    with pytest.raises(WorldError, match="expected 150 to 6000"):
        grow_town(1, size)


def test_layout_reads_back_as_metres(
    town: TownPlan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("layout") / "layout.gpkg"
    write_layout(town, path)
    names = set(gpd.list_layers(path)["name"])
    assert {"streets", "buildings", "trees", "ground", "vehicles_aerial"} <= names
    houses = gpd.read_file(path, layer="buildings")
    assert len(houses) == len(town.draft.parts)
    assert "Azimuthal" in houses.crs.to_wkt()
    assert houses.area.sum() == pytest.approx(sum(p["geometry"].area for p in town.draft.parts))


def test_oriented_box_by_hand() -> None:
    box = oriented_box(1, 2, np.pi / 2, 4, 2)
    assert box.area == pytest.approx(8)
    assert box.bounds == pytest.approx((0, 0, 2, 4))


def test_windows_leave_walls_between_them() -> None:
    z = np.linspace(0.6, 5.9, 200, dtype=np.float32)
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0, 9, 200, dtype=np.float32), z))
    n = len(u)
    info = np.tile(np.float32([9, 6, 3, 0]), (n, 1))
    wall = np.full((n, 3), 0.5, np.float32)
    out = facade(np.stack([u, v], 1), info, np.full(n, 11, np.int32), wall, np.ones(3, np.float32))
    kept = (np.abs(out - 0.5) < 1e-6).all(1)
    assert 0.4 < kept.mean() < 0.95
    assert out.min() >= 0
    assert out.max() <= 1
    assert kept[u < 0.1].mean() > 0.85  # corners are wall, but for ledges


def test_noise_is_even_and_repeats() -> None:
    x, y = np.random.default_rng(0).uniform(-500, 500, (2, 20_000)).astype(np.float32)
    for kind in (0, 1, 2):
        values = noise(kind, x, y, 1.0)
        assert abs(values.mean()) < 0.15
        assert 0.7 < values.std() < 1.1
        assert np.array_equal(values, noise(kind, x, y, 1.0))
    spread = hash01(np.arange(5000, dtype=np.int32))
    assert np.histogram(spread, 10, (0, 1))[0].min() > 400


def test_seasons_change_plants_only() -> None:
    summer, dry = (ground_table(SEASONS[s]) for s in ("summer", "dry summer"))
    changed = {MATERIALS[i].kind for i in np.flatnonzero((summer != dry).any(1))}
    assert changed == {"grass", "field"}
