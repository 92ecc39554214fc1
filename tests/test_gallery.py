"""Gallery folders: built to the byte through every interruption, opened only when they are whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.crs
from PIL import Image

import core.gallery.build
from core.errors import GalleryError, RasterError, SettingError
from core.files import file_hash
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.geo import LocalFrame, distance_m
from core.records import Place, SearchArea

TOWN = Place(0.0, 0.0)
FILES = ("aerial.tif", "index.faiss", "manifest.json", "tiles.parquet")


def describe(tiles: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 squares: a descriptor that differs between pieces of noise."""
    count, pixels = len(tiles), tiles.shape[1]
    squares = tiles.reshape(count, 8, pixels // 8, 8, pixels // 8, 3).mean(axis=(2, 4))
    values = squares.reshape(count, -1).astype(np.float32) - 127
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write_raster(path: Path, side: int = 640, origin: Place = TOWN, hole: int = 0) -> Path:
    """Noise of 0.3 m per pixel around a place; its first ``hole`` columns are black."""
    small = np.random.default_rng(7).integers(40, 255, (side // 8, side // 8, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    image = np.maximum(image, 20)
    image[:, :hole] = 0
    half = side * 0.3 / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        crs=rasterio.crs.CRS.from_wkt(LocalFrame(origin).crs.to_wkt()),
        transform=rasterio.Affine(0.3, 0, -half, 0, -0.3, half),
        tiled=True, blockxsize=256, blockysize=256, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(np.moveaxis(image, -1, 0))
    return path


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("source") / "town.tif")


@pytest.fixture(scope="module")
def built(raster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "gallery"
    build_gallery(raster, out, describe, "toy", "f00d")
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "gallery"))


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.is_file()}


# ---- what a gallery holds


def test_grid_lies_within_the_raster(built: Path) -> None:
    gallery = Gallery.open(built, verify="full")
    # 192 m hold centres over 115.2 m: 7 each way at 19.2 m.
    assert len(gallery) == 49
    assert len(gallery.index) == 49 * 4
    np.testing.assert_allclose(gallery.centres_m[0], [-57.6, 57.6])
    np.testing.assert_allclose(gallery.centres_m[8], [-38.4, 38.4])
    assert sorted(path.name for path in built.iterdir()) == sorted(FILES)
    manifest = gallery.manifest
    assert (manifest.tiles, manifest["step_m"], manifest["gsd_m"]) == (49, 19.2, 0.3)
    assert (manifest.model_id, manifest.model_hash) == ("toy", "f00d")
    assert manifest.origin == TOWN
    assert not manifest.synthetic


def test_every_tile_is_found_by_its_own_picture(raster: Path, tmp_path: Path) -> None:
    build_gallery(raster, tmp_path / "g", describe, "toy", "f00d", GallerySettings(viewpoints=1))
    gallery = Gallery.open(tmp_path / "g", verify="full")
    np.testing.assert_array_equal(gallery.viewpoints_m, [[0, 0]])
    pictures = np.stack([gallery.tile_image(row) for row in range(len(gallery))])
    similarities, rows = gallery.index.search(describe(pictures), 1)
    np.testing.assert_array_equal(rows[:, 0], range(49))
    np.testing.assert_allclose(similarities, 1.0, atol=5e-3)


def test_a_place_is_described_from_the_middles_of_its_quarters(built: Path) -> None:
    gallery = Gallery.open(built)
    assert gallery.manifest.viewpoints == 4
    np.testing.assert_allclose(np.abs(gallery.viewpoints_m), 4.8)
    inner = [row for row in range(49) if np.abs(gallery.centres_m[row]).max() < 57]
    for row in inner:
        points = gallery.centres_m[row] + gallery.viewpoints_m
        seen = gallery.tiles_at(points)
        stored = gallery.index.reconstruct(np.arange(4 * row, 4 * row + 4))
        np.testing.assert_allclose((describe(seen) * stored).sum(axis=1), 1.0, atol=5e-3)
    # At the corner three of the four would see beyond the imagery.
    corner = gallery.index.reconstruct([0, 1, 2, 3]) @ describe(gallery.tile_image(0)[None])[0]
    assert corner[0] == pytest.approx(1.0, abs=5e-3)
    assert (corner[1:] < corner[0]).all()


def test_pictures_around_points_are_cut_from_one_piece(built: Path) -> None:
    """To the pixel what is read tile by tile, where the points lie on the raster's own grid."""
    gallery = Gallery.open(built)
    row = int(np.hypot(*gallery.centres_m.T).argmin())
    pixel_m = 76.8 / gallery.manifest.tile_pixels
    steps = np.array([[0, 0], [14, 0], [-14, 0], [0, 14], [3, -14]]) * pixel_m
    for middle in (gallery.centres_m[row], gallery.centres_m[0]):
        points = gallery.inside(middle + steps)
        one_by_one = np.concatenate([gallery.tiles_at(point[None]) for point in points])
        np.testing.assert_array_equal(gallery.tiles_at(points), one_by_one)


def test_tile_pictures_are_the_raster(built: Path, raster: Path) -> None:
    gallery = Gallery.open(built)
    with rasterio.open(raster) as dataset:
        whole = np.moveaxis(dataset.read(), 0, -1)
    tile = gallery.tile(9)
    column, row = round(320 + tile.east_m / 0.3), round(320 - tile.north_m / 0.3)
    expected = whole[row - 128 : row + 128, column - 128 : column + 128]
    np.testing.assert_array_equal(gallery.tile_image(9), expected)


def test_tiles_file_is_readable_by_others(built: Path) -> None:
    gallery = Gallery.open(built)
    table = geopandas.read_parquet(built / "tiles.parquet")
    assert table.crs.to_epsg() == 4326
    assert list(table.tile_id) == list(gallery.tile_ids)
    assert table.tile_id.is_unique
    metric = table.to_crs(LocalFrame(TOWN).crs)
    np.testing.assert_allclose(metric.area, 76.8**2, rtol=1e-6)
    np.testing.assert_allclose(metric.centroid.x, gallery.centres_m[:, 0], atol=1e-3)
    for row in (0, 20, 48):
        tile = gallery.tile(row)
        assert tile.side_m == 76.8
        assert distance_m(tile.place, gallery.frame.to_place(tile.east_m, tile.north_m)) < 1e-3
    assert gallery.tiles.equals(table)


def test_overview_covers_the_tiles(built: Path) -> None:
    gallery = Gallery.open(built)
    image, (west, south, east, north) = gallery.overview(300)
    assert max(image.shape[:2]) == 300
    assert image.shape[2] == 4
    assert west < gallery.lon_deg.min() < gallery.lon_deg.max() < east
    assert south < gallery.lat_deg.min() < gallery.lat_deg.max() < north


def test_another_place_and_unseen_parts(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "holed.tif", origin=Place(51.84, 4.99), hole=300)
    report = build_gallery(path, tmp_path / "g", describe, "toy", "f00d")
    gallery = Gallery.open(tmp_path / "g")
    assert report.tiles + len(report.skipped) == 49
    assert gallery.manifest.skipped == len(report.skipped) > 0
    assert {tile.tile_id for tile in report.skipped}.isdisjoint(gallery.tile_ids)
    assert all(tile.coverage < 0.7 for tile in report.skipped)
    # The first 90 m are black: a tile with 70 % seen begins at most 23 m west of the edge.
    assert gallery.centres_m[:, 0].min() >= -96 + 90 - 0.3 * 76.8 + 38.4 - 0.01
    assert distance_m(gallery.tile(0).place, Place(51.84, 4.99)) < 100


def test_rows_within_an_area(built: Path) -> None:
    gallery = Gallery.open(built)
    centre = gallery.frame.to_place(5.0, -3.0)
    rows = gallery.rows_within(SearchArea(centre, 40.0))
    slow = [
        row for row in range(len(gallery)) if distance_m(gallery.tile(row).place, centre) <= 40.0
    ]
    assert list(rows) == slow
    assert len(gallery.rows_within(SearchArea(Place(45.0, 9.0), 100.0))) == 0
    for radius in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="Search radius"):
            gallery.rows_within(SearchArea(centre, radius))
    with pytest.raises(SettingError, match="Search centre"):
        gallery.rows_within(SearchArea(Place(float("nan"), 0.0), 10.0))


# ---- building


def test_same_input_same_bytes(built: Path, raster: Path, tmp_path: Path) -> None:
    build_gallery(raster, tmp_path / "again", describe, "toy", "f00d")
    assert hashes(tmp_path / "again") == hashes(built)


CHILD = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from test_gallery import describe
from core.gallery.folder import build_gallery
def slow(tiles):
    time.sleep(0.2)
    return describe(tiles)
def say(done, total):
    print(done, flush=True)
build_gallery({raster!r}, {out!r}, slow, "toy", "f00d", on_progress=say)
"""


def test_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "town.tif", side=960)
    whole = build_gallery(raster, tmp_path / "whole", describe, "toy", "f00d")
    assert whole.chunks >= 3
    out = tmp_path / "killed"
    code = CHILD.format(
        tests=str(Path(__file__).parent), root=str(Path(__file__).parents[1]),
        raster=str(raster), out=str(out),
    )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"64"
        time.sleep(0.1)
        child.send_signal(signal.SIGKILL)
    with pytest.raises(GalleryError, match="unfinished build"):
        Gallery.open(out)
    report = build_gallery(raster, out, describe, "toy", "f00d")
    assert 1 <= report.resumed < report.chunks
    assert hashes(out) == hashes(tmp_path / "whole")
    assert not (out / ".building").exists()


def test_stopped_at_every_single_step(
    built: Path, raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the n-th renaming fail, for every n: the next build mends it, and nothing half opens."""
    replace, calls = os.replace, {"left": 0}

    def failing(source: Any, target: Any) -> None:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt
        replace(source, target)

    stops, finished = 0, False
    while not finished:
        out = tmp_path / f"stopped-{stops}"
        calls["left"] = stops
        monkeypatch.setattr(os, "replace", failing)
        try:
            build_gallery(raster, out, describe, "toy", "f00d")
            finished = True
        except KeyboardInterrupt:
            with pytest.raises(GalleryError, match="unfinished build"):
                Gallery.open(out)
        monkeypatch.setattr(os, "replace", replace)
        build_gallery(raster, out, describe, "toy", "f00d")
        assert hashes(out) == hashes(built)
        stops += 1
    assert stops >= 6


def test_cut_off_chunk_is_done_again(raster: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "g"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(raster, out, describe, "toy", "f00d", on_progress=stop)
    chunk = out / ".building" / "chunk-000000.npz"
    for content in (chunk.read_bytes()[:50], b""):
        chunk.write_bytes(content)
        report = build_gallery(raster, out, describe, "toy", "f00d")
        assert report.resumed == 0
        assert hashes(out) == hashes(built)
        with pytest.raises(KeyboardInterrupt):
            build_gallery(raster, out, describe, "toy", "f00d", on_progress=stop)


def test_a_second_build_in_a_folder_is_refused_and_harms_nothing(
    raster: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g"
    refused = []

    def build_again(done: int, total: int) -> None:
        with pytest.raises(GalleryError, match="one at a time"):
            build_gallery(raster, out, describe, "other", "beef")
        refused.append(done)

    build_gallery(raster, out, describe, "toy", "f00d", on_progress=build_again)
    assert refused
    assert hashes(out) == hashes(built)
    build_gallery(raster, out, describe, "toy", "f00d")  # the lock is free again


def test_a_journal_of_another_model_is_not_used(raster: Path, built: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(raster, tmp_path / "g", lambda t: -describe(t), "old", "0", on_progress=stop)
    assert build_gallery(raster, tmp_path / "g", describe, "toy", "f00d").resumed == 0
    gallery = Gallery.open(tmp_path / "g")
    new = Gallery.open(built).index
    np.testing.assert_array_equal(gallery.index.reconstruct([3, 50]), new.reconstruct([3, 50]))


def test_a_gallery_of_an_older_format_can_be_built_again(copied: Path, raster: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(GalleryError, match="Build it again"):
        Gallery.open(copied)
    build_gallery(raster, copied, describe, "toy", "f00d")
    assert len(Gallery.open(copied, verify="full")) == 49


@pytest.mark.parametrize(("viewpoints", "step_m"), [(9, 19.2), (4, 25.0)])
def test_viewpoints_lie_on_whole_pixels(
    raster: Path, tmp_path: Path, viewpoints: int, step_m: float
) -> None:
    """Tiles are cut, not resampled: each is a window of the raster, to the last byte."""
    with rasterio.open(raster) as dataset:
        whole = np.moveaxis(dataset.read(), 0, -1)
    seen: list[np.ndarray] = []

    def watch(tiles: np.ndarray) -> np.ndarray:
        seen.extend(tiles)
        return describe(tiles)

    settings = GallerySettings(viewpoints=viewpoints, step_m=step_m)
    build_gallery(raster, tmp_path / "g", watch, "toy", "f00d", settings)
    gallery = Gallery.open(tmp_path / "g")
    assert len(seen) == len(gallery.index) == viewpoints * len(gallery)
    windows = np.lib.stride_tricks.sliding_window_view(whole[..., 0], (256, 256))
    for tile in seen[:: len(seen) // 8]:
        corners = np.argwhere(whole[: len(windows), : windows.shape[1], 0] == tile[0, 0, 0])
        assert any(np.array_equal(windows[row, column], tile[..., 0]) for row, column in corners)


def test_world_folder_becomes_a_gallery_in_place(tmp_path: Path) -> None:
    world = tmp_path / "town"
    write_raster(world / "aerial.tif")
    (world / "world.json").write_text(json.dumps({"format": 1, "synthetic": True}))
    (world / "panoramas.parquet").write_text("other people's file")
    before = {name: (world / name).stat().st_mtime_ns for name in os.listdir(world)}
    build_gallery(world, world, describe, "toy", "f00d")
    gallery = Gallery.open(world, verify="full")
    assert gallery.manifest.imagery == "aerial.tif"
    assert gallery.manifest.synthetic
    for name, changed in before.items():
        assert (world / name).stat().st_mtime_ns == changed
    old = hashes(world)
    build_gallery(world, world, lambda tiles: -describe(tiles), "newer", "beef")
    assert Gallery.open(world, verify="full").manifest.model_id == "newer"
    assert hashes(world)["aerial.tif"] == old["aerial.tif"]
    assert hashes(world)["index.faiss"] != old["index.faiss"]
    # The command in require_model's message builds from the gallery's own imagery.
    build_gallery(world / "aerial.tif", world, describe, "toy", "f00d")
    assert hashes(world) == old


def test_another_imagery_is_not_overwritten(raster: Path, tmp_path: Path) -> None:
    other = write_raster(tmp_path / "town" / "aerial.tif", side=400)
    content = other.read_bytes()
    with pytest.raises(GalleryError, match="another aerial"):
        build_gallery(raster, tmp_path / "town", describe, "toy", "f00d")
    assert other.read_bytes() == content


def test_large_and_dependent_imagery_is_referred_to(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "imagery" / "town.tif"
    source.parent.mkdir()
    shutil.copy(raster, source)
    monkeypatch.setattr(core.gallery.build, "COPIED_BYTES", 1000)
    build_gallery(source, tmp_path / "galleries" / "g", describe, "toy", "f00d")
    gallery = Gallery.open(tmp_path / "galleries" / "g", verify="full")
    assert gallery.manifest.imagery == "../../imagery/town.tif"
    assert not (gallery.path / "aerial.tif").exists()
    assert gallery.tile_image(0).any()
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "galleries", moved / "galleries")
    with pytest.raises(GalleryError, match="Put the imagery back"):
        Gallery.open(moved / "galleries" / "g")


def test_sources_without_a_tile_fail_loudly(tmp_path: Path) -> None:
    small = write_raster(tmp_path / "small.tif", side=160)
    with pytest.raises(RasterError, match=r"no tile of 76\.8 m with imagery on 70%"):
        build_gallery(small, tmp_path / "g", describe, "toy", "f00d")
    with pytest.raises(GalleryError, match=r"no manifest\.json"):
        Gallery.open(tmp_path / "g")
    black = write_raster(tmp_path / "black.tif", hole=640)
    with pytest.raises(RasterError, match="empty picture"):
        build_gallery(black, tmp_path / "g", describe, "toy", "f00d")
    with pytest.raises(RasterError, match=r"without aerial\.tif"):
        build_gallery(tmp_path, tmp_path / "g", describe, "toy", "f00d")
    lower = GallerySettings(min_coverage=0.2)
    assert build_gallery(small, tmp_path / "g", describe, "toy", "f00d", lower).tiles == 1


@pytest.mark.parametrize(
    "broken",
    [
        lambda tiles: np.zeros((len(tiles), 8), np.float32),
        lambda tiles: np.full((len(tiles), 8), np.nan, np.float32),
        lambda tiles: np.ones((1, 4), np.float32) / 2,
        lambda tiles: np.ones(len(tiles), np.float32),
    ],
)
def test_broken_models_are_refused(raster: Path, tmp_path: Path, broken: Any) -> None:
    with pytest.raises(GalleryError, match="expected unit vectors"):
        build_gallery(raster, tmp_path / "g", broken, "toy", "f00d")


def test_impossible_settings_are_refused() -> None:
    for values in ({"step_m": 0.0}, {"tile_side_m": float("nan")}, {"tile_pixels": 1}):
        with pytest.raises(SettingError, match="expected"):
            GallerySettings(**values)
    with pytest.raises(SettingError, match="coverage"):
        GallerySettings(min_coverage=0.0)


def test_coarse_imagery_is_remarked_on(raster: Path, tmp_path: Path) -> None:
    fine = GallerySettings(tile_pixels=1024, step_m=57.6)
    report = build_gallery(raster, tmp_path / "g", describe, "toy", "f00d", fine)
    assert "enlarged" in report.notes[0]


# ---- opening


@pytest.mark.parametrize("name", ["index.faiss", "tiles.parquet"])
def test_a_flipped_byte_is_noticed(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(GalleryError, match=f"other bytes for {name}") as caught:
        Gallery.open(copied)
    assert "python -m core gallery build" in str(caught.value)


def test_full_verification_reads_the_imagery(copied: Path) -> None:
    content = bytearray((copied / "aerial.tif").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "aerial.tif").write_bytes(content)
    Gallery.open(copied)
    with pytest.raises(GalleryError, match=r"other bytes for aerial\.tif"):
        Gallery.open(copied, verify="full")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(GalleryError, match=name):
        Gallery.open(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "got format 1, expected 3"),
        ({"viewpoints": 5}, "'viewpoints'"),
        ({"tiles": "many"}, "'tiles'"),
        ({"tiles": 48}, "expected 48"),
        ({"checksums": {}}, "no checksum"),
        ({"checksums": None}, "'checksums'"),
        ({"imagery": "/etc/passwd"}, "relative path"),
        ({"imagery": "http://example.org/a.tif"}, "relative path"),
        ({"imagery": "gone.tif"}, "no imagery"),
    ],
)
def test_manifests_that_cannot_be(copied: Path, change: dict[str, Any], message: str) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(GalleryError, match=message) as caught:
        Gallery.open(copied)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_gallery(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GalleryError, match=r"no manifest\.json"):
            Gallery.open(folder)
    for text in ("{", "[]", "{}", "\udcff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(GalleryError, match="got a manifest with"):
            Gallery.open(tmp_path)


def test_another_model_is_refused_with_the_command(built: Path) -> None:
    gallery = Gallery.open(built)
    gallery.require_model("toy", "f00d")
    with pytest.raises(GalleryError) as caught:
        gallery.require_model("other", "beef", "assets/models/other")
    assert str(caught.value).endswith(
        f"python -m core gallery build {built}/aerial.tif --model assets/models/other --out {built}"
    )


def test_rows_outside_are_refused(built: Path) -> None:
    gallery = Gallery.open(built)
    for row in (-1, 49):
        with pytest.raises(SettingError, match="expected 0 to 48"):
            gallery.tile(row)
        with pytest.raises(SettingError, match="expected 0 to 48"):
            gallery.tile_image(row)


def test_threads_share_a_gallery(built: Path) -> None:
    gallery = Gallery.open(built)
    expected = [Gallery.open(built).tile_image(row) for row in range(0, 49, 6)]
    wrong: list[int] = []

    def read() -> None:
        for number, row in enumerate(range(0, 49, 6)):
            if not np.array_equal(gallery.tile_image(row), expected[number]):
                wrong.append(row)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
