"""Rendered towns: determinism, geometry against hand-made rays, truth, and the folder format."""

import hashlib
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.ExifTags import IFD

from core.errors import WorldError
from core.geo import LocalFrame
from core.records import Place
from core.world import build
from core.world.build import (
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    TownJob,
    build_towns,
    build_world,
    demo_job,
    training_job,
)
from core.world.cameras import Camera, patch_truth, place_cameras
from core.world.layout import Draft, TownPlan, write_layout
from core.world.materials import CLASS_NAMES, CODE
from core.world.render import (
    COVER_M,
    Seen,
    make_scene,
    paint_ground,
    panorama_rays,
    photo_rays,
    render_view,
    still_meshes,
)
from core.world.sky import draw_light
from core.world.streets import MARGIN_M, oriented_box


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worlds")
    return build_world(7, 200, root / "tiny", panoramas=3, photos=1, canvas=(32, 128), quiet=True)


def test_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    again = build_world(
        7, 200, tmp_path / "tiny", panoramas=3, photos=1, canvas=(32, 128), quiet=True
    )
    assert _digest(again) == _digest(world)
    assert len(_digest(world)) == 3 + 1 + 6


def test_another_seed_gives_another_town(world: Path, tmp_path: Path) -> None:
    other = build_world(8, 200, tmp_path / "b", panoramas=2, canvas=(32, 128), packed=True,
                        quiet=True)  # fmt: skip
    assert _digest(other)["aerial.tif"] != _digest(world)["aerial.tif"]
    pack = np.load(other / "panoramas.npy")
    assert pack.shape == (2, 32, 128, 3)
    assert pack.dtype == np.uint8
    assert not (other / "panoramas").exists()


def test_a_held_out_style_gives_another_town(world: Path, tmp_path: Path) -> None:
    rest = {"panoramas": 3, "photos": 1, "canvas": (32, 128), "quiet": True}
    usual = build_world(7, 200, tmp_path / "tiny", style="town", **rest)
    assert _digest(usual) == _digest(world)
    assert "style" not in json.loads((world / "world.json").read_text())
    steppe = build_world(7, 200, tmp_path / "steppe", style="steppe", **rest)
    assert not set(_digest(steppe).values()) & set(_digest(world).values())
    assert json.loads((steppe / "world.json").read_text())["style"] == "steppe"
    with pytest.raises(WorldError, match="expected town or steppe"):
        build_world(7, 200, tmp_path / "moon", style="moon", **rest)
    with pytest.raises(WorldError, match="something else"):
        build_world(7, 200, steppe, **rest)


def test_the_folder_is_whole_and_in_its_format(world: Path) -> None:
    facts = json.loads((world / "world.json").read_text())
    assert facts["format"] == 1
    assert facts["synthetic"] is True
    assert facts["canvas"] == [32, 128]
    table = gpd.read_parquet(world / "panoramas.parquet")
    frame = LocalFrame(Place(0.0, 0.0))
    for row in table.itertuples():
        place = frame.to_place(row.east_m, row.north_m)
        assert place.lat_deg == pytest.approx(row.lat_deg, abs=1e-12)
        assert place.lon_deg == pytest.approx(row.geometry.x, abs=1e-12)
        assert max(abs(row.east_m), abs(row.north_m)) <= 100 - 38.4
        assert 0 <= row.heading_deg < 360
        assert 2 <= row.camera_height_m <= 3
        with Image.open(world / row.file) as picture:
            assert picture.size == (128, 32)
    with rasterio.open(world / "aerial.tif") as source:
        assert source.res == (0.3, 0.3)
        assert source.bounds.left == pytest.approx(-100)
        assert source.bounds.top == pytest.approx(100)
        assert "Azimuthal" in source.crs.to_wkt()
        assert source.read().std() > 10


def test_truth_has_a_class_and_a_place_per_patch(world: Path) -> None:
    truth = np.load(world / "truth.npz")
    names = list(truth["class_names"])
    assert names == list(CLASS_NAMES)
    assert truth["class_id"].shape == (3, 4, 32)
    sky = truth["class_id"] == names.index("sky")
    assert np.array_equal(np.isnan(truth["east_m"]), sky)
    table = gpd.read_parquet(world / "panoramas.parquet")
    offset = np.stack(
        [truth["east_m"] - table.east_m.to_numpy()[:, None, None],
         truth["north_m"] - table.north_m.to_numpy()[:, None, None]], -1
    )  # fmt: skip
    bearing = np.degrees(np.arctan2(offset[..., 0], offset[..., 1]))
    expected = table.heading_deg.to_numpy()[:, None] + (np.arange(32) + 0.5 - 16) * 11.25
    error = (bearing - expected[:, None] + 180) % 360 - 180
    assert np.nanmax(np.abs(error[~sky])) < 11.25
    bottom = np.hypot(*np.moveaxis(offset[:, 3], -1, 0))
    assert np.nanmax(bottom) < 3.0 / np.tan(np.radians(22.5)) + 0.5


def test_photos_say_where_and_how_they_were_taken(world: Path) -> None:
    table = gpd.read_parquet(world / "photos.parquet")
    for row in table.itertuples():
        with Image.open(world / row.file) as photo:
            exif = photo.getexif()
            wide = photo.size[0] > photo.size[1]
        focal = exif.get_ifd(IFD.Exif)[0xA405]
        side = 36 if wide else 24
        assert np.degrees(2 * np.arctan(side / 2 / focal)) == pytest.approx(row.fov_deg)
        assert 50 <= row.fov_deg <= 110
        gps = exif.get_ifd(IFD.GPSInfo)
        degrees = [float(v) for v in gps[2]]
        sign = 1 if gps[1] == "N" else -1
        latitude = sign * (degrees[0] + degrees[1] / 60 + degrees[2] / 3600)
        assert latitude == pytest.approx(row.lat_deg, abs=1e-7)
        assert float(gps[17]) == pytest.approx(row.heading_deg, abs=0.01)
        assert "synthetic" in exif[0x0131]


def test_a_finished_town_is_kept_and_a_foreign_folder_refused(world: Path) -> None:
    before = (world / "world.json").stat().st_mtime_ns
    build_world(7, 200, world, panoramas=3, photos=1, canvas=(32, 128), quiet=True)
    assert (world / "world.json").stat().st_mtime_ns == before
    with pytest.raises(WorldError, match="something else"):
        build_world(9, 200, world, panoramas=3, photos=1, canvas=(32, 128), quiet=True)


@pytest.mark.parametrize(
    ("size", "panoramas", "canvas"),
    [(20, 1, (32, 128)), (9000, 1, (32, 128)), (200, -1, (32, 128)), (200, 1, (30, 120)),
     (200, 1, (64, 128)), (float("nan"), 1, (32, 128))],
)  # fmt: skip
def test_bad_requests_are_refused(
    size: float, panoramas: int, canvas: tuple[int, int], tmp_path: Path
) -> None:
    with pytest.raises(WorldError, match="expected"):
        build_world(1, size, tmp_path / "w", panoramas=panoramas, canvas=canvas, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_splits_share_no_seed() -> None:
    assert not {*TRAIN_SEEDS} & {*VALIDATION_SEEDS}
    assert not {*TEST_SEEDS} & {*TRAIN_SEEDS, *VALIDATION_SEEDS}
    assert len({training_job(s).name for s in TRAIN_SEEDS}) == len(TRAIN_SEEDS) == 60
    assert demo_job(TEST_SEEDS[0]).canvas == (128, 512)


def test_panorama_rays_turn_clockwise_from_the_heading() -> None:
    way = panorama_rays(90.0, (64, 256), 1).reshape(64, 256, 3)
    assert np.allclose(np.linalg.norm(way, axis=-1), 1, atol=1e-6)
    centre = way[31:33, 127:129].mean((0, 1))
    assert np.allclose(centre, (1, 0, 0), atol=1e-3)  # heading east looks east
    assert way[32, 192, 1] < -0.99  # a quarter to the right of east is south
    assert way[0, :, 2].min() > 0.69  # the top edge looks 45 degrees up


def test_photo_rays_span_the_field_of_view() -> None:
    way = photo_rays(0.0, 0.0, 90.0, (300, 400), 1).reshape(300, 400, 3)
    left, right = way[150, 0], way[150, 399]
    span = np.degrees(np.arctan2(right[0], right[1]) - np.arctan2(left[0], left[1]))
    assert span == pytest.approx(90, abs=0.3)
    up = photo_rays(0.0, 3.0, 90.0, (3, 3), 1).reshape(3, 3, 3)[1, 1]
    assert np.degrees(np.arcsin(up[2])) == pytest.approx(3, abs=1e-3)


def _one_house() -> TownPlan:
    draft = Draft()
    draft.parts.append({
        "geometry": oriented_box(0, 20, 0, 10, 8), "x": 0.0, "y": 20.0, "angle": 0.0,
        "length": 10.0, "width": 8.0, "building": 1, "eave": 6.0, "storey": 3.0, "floors": 2,
        "roof": "flat", "pitch": 0.5, "style": 0, "seams": 0, "wall_rgb": [0.5] * 3,
        "roof_rgb": [0.3] * 3,
    })  # fmt: skip
    town = TownPlan(1, 200.0, [], [("water", oriented_box(30, 0, 0, 20, 20))], draft)
    town.vehicles = {"aerial": np.zeros((0, 5)), "ground": np.zeros((0, 5))}
    return town


def test_rays_meet_what_stands_there() -> None:
    town = _one_house()
    scene = make_scene(town, "ground", "summer", paint_ground(town), still_meshes(town))
    rng = np.random.default_rng(0)
    light = draw_light(rng, from_above=False)
    down = np.sqrt(0.5)
    way = np.array([(0, 1, 0), (0, -1, 0.5), (1, 0, -0.1), (-down, 0, -down)], np.float32)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    start = np.tile(np.float32([0, 0, 2.5]), (4, 1))
    seen = render_view(scene, start, way, light, rng)
    names = [CLASS_NAMES[k] for k in seen.kind]
    assert names == ["wall", "sky", "water", "grass"]
    assert seen.place[0] == pytest.approx((0, 16), abs=1e-3)
    assert np.isnan(seen.place[1]).all()
    assert seen.place[2] == pytest.approx((25, 0), abs=1e-2)
    assert seen.place[3] == pytest.approx((-2.5, 0), abs=1e-3)
    above = render_view(scene, np.float32([[0, 20, 90]]), np.float32([[0, 0, -1]]), light, rng)
    assert CLASS_NAMES[above.kind[0]] == "roof"


def test_the_ground_is_painted_north_up() -> None:
    town = _one_house()
    cover = paint_ground(town)
    half = 100 + MARGIN_M
    assert cover.shape == (round(2 * half / COVER_M),) * 2
    row, column = round((half - 0) / COVER_M), round((half + 30) / COVER_M)
    assert cover[row, column] == CODE["water"]
    assert cover[row, round((half - 30) / COVER_M)] == CODE["meadow"]
    assert (cover == CODE["water"]).sum() * COVER_M**2 == pytest.approx(400, rel=0.02)


def test_no_streets_no_cameras() -> None:
    town = _one_house()
    scene = make_scene(town, "ground", "bare", paint_ground(town), still_meshes(town))
    with pytest.raises(WorldError, match="camera places"):
        place_cameras(town, scene, 1, np.random.default_rng(0))


def test_patch_truth_is_the_majority_and_its_median() -> None:
    size, grid = (8, 64), 1
    kind = np.zeros(size, np.uint8)
    place = np.full((*size, 2), np.nan, np.float32)
    kind[6:, :2] = 5
    place[6:, :2] = [[(1, 2), (3, 4)], [(5, 6), (7, 8)]]
    kind[6, 0] = 3  # a minority whose place must not count
    place[6, 0] = (900, 900)
    seen = Seen(np.zeros((512, 3), np.float32), kind.ravel(), place.reshape(-1, 2))
    major, middle = patch_truth(seen, size, grid)
    assert major[3, 0] == 5
    assert major.sum() == 5
    assert middle[3, 0] == pytest.approx((5, 6))
    assert np.isnan(middle[0]).all()


def test_a_camera_keeps_clear_of_the_house() -> None:
    from core.world.cameras import _clear

    town = _one_house()
    scene = make_scene(town, "ground", "summer", paint_ground(town), still_meshes(town))
    spots = [Camera(0, 15.0, 2.5, 0), Camera(0, 12.0, 2.5, 0)]
    assert _clear(scene, spots).tolist() == [False, True]


def test_towns_are_built_side_by_side_and_failures_are_named(tmp_path: Path) -> None:
    good = TownJob("good", 7, 200.0, 1, canvas=(16, 64), packed=True)
    bad = TownJob("bad", 7, 20.0, 1)
    with pytest.raises(WorldError, match=r"1 of 2 towns.*bad.*World size"):
        build_towns([bad, good], tmp_path, workers=1)
    assert (tmp_path / "good" / "world.json").is_file()
    assert build_towns([good], tmp_path, workers=1) == [tmp_path / "good"]


def test_a_second_build_of_a_town_is_refused_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def build_again(*arguments: object) -> None:
        with pytest.raises(WorldError, match="one at a time"):
            build_world(7, 200.0, tmp_path / "town", panoramas=0)
        refused.append(True)
        write_layout(*arguments)

    monkeypatch.setattr(build, "write_layout", build_again)
    out = build_world(7, 200.0, tmp_path / "town", panoramas=0)
    assert refused == [True]
    assert sorted(path.name for path in out.iterdir()) == [
        "aerial.tif",
        "layout.gpkg",
        "world.json",
    ]
    assert build_world(7, 200.0, tmp_path / "town", panoramas=0) == out  # the lock is free again
