"""Tiles from rasters in many coordinate systems show what lies at that place of the Earth."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.crs
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp

from core.errors import RasterError
from core.geo import LocalFrame, distance_m
from core.imagery.raster import RasterSource
from core.records import Place


def scene(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """A smooth ground in local metres, uint8 (..., 3), that repeats nowhere near."""
    red = 120 + 50 * np.sin(east / 7) + 50 * np.sin(north / 31)
    green = 120 + 50 * np.cos(north / 9) + 50 * np.sin(east / 43)
    blue = 120 + 60 * np.sin((east + north) / 17) + 40 * np.cos((east - 2 * north) / 61)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def write(path: Path, image: np.ndarray, transform: Any, crs: Any, **options: Any) -> Path:
    bands = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[None]
    profile = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": crs,
        "transform": transform,
    }
    with rasterio.open(path, "w", **{**profile, **options}) as dataset:
        dataset.write(bands)
    return path


def raster_of_scene(
    path: Path, place: Place, crs: str, pixel: float, shape: tuple[int, int], turn_deg: float = 0
) -> Path:
    """The scene around a place, drawn pixel by pixel in some system with PROJ alone."""
    frame, own = LocalFrame(place), CRS.from_user_input(crs)
    to_own = Transformer.from_crs(CRS.from_epsg(4326), own, always_xy=True)
    x, y = to_own.transform(place.lon_deg, place.lat_deg)
    cos, sin = np.cos(np.radians(turn_deg)) * pixel, np.sin(np.radians(turn_deg)) * pixel
    rows, columns = shape
    transform = rasterio.Affine(
        cos, sin, x - (cos * columns + sin * rows) / 2,
        sin, -cos, y - (sin * columns - cos * rows) / 2,
    )  # fmt: skip
    column, row = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    xs = transform.a * column + transform.b * row + transform.c
    ys = transform.d * column + transform.e * row + transform.f
    east, north = Transformer.from_crs(own, frame.crs, always_xy=True).transform(xs, ys)
    return write(path, scene(east, north), transform, rasterio.crs.CRS.from_wkt(own.to_wkt()))


def expected_tile(east_m: float, north_m: float, side_m: float, pixels: int) -> np.ndarray:
    offsets = ((np.arange(pixels) + 0.5) / pixels - 0.5) * side_m
    east, north = np.meshgrid(east_m + offsets, north_m - offsets)
    return scene(east, north)


BALI, GORINCHEM, KAMPALA = Place(-8.585, 115.16), Place(51.841, 4.988), Place(0.351, 32.595)


@pytest.mark.parametrize(
    ("place", "crs", "pixel", "turn_deg"),
    [
        (KAMPALA, "EPSG:3857", 0.25, 0),
        (GORINCHEM, "EPSG:28992", 0.25, 0),
        (BALI, "EPSG:32750", 0.35, 0),
        (GORINCHEM, "EPSG:3857", 0.4, 0),
        (BALI, "EPSG:4326", 2.7e-6, 0),
        (BALI, "EPSG:32750", 0.3, 25),
    ],
)
def test_tile_shows_its_place(
    tmp_path: Path, place: Place, crs: str, pixel: float, turn_deg: float
) -> None:
    path = raster_of_scene(tmp_path / "r.tif", place, crs, pixel, (640, 700), turn_deg)
    source = RasterSource.open(path, LocalFrame(place))
    assert source.gsd_m == pytest.approx(0.3, rel=0.6)
    for east, north in ((0.0, 0.0), (21.3, -17.77)):
        image, coverage = source.read_tile(east, north, 76.8, 256)
        assert image.shape == (256, 256, 3)
        assert coverage == 1.0
        error = np.abs(image.astype(int) - expected_tile(east, north, 76.8, 256))
        # Half a pixel of shift is 0.36 levels on average here, a wrong axis 40.
        assert error.mean() < 0.25


def test_own_frame_lies_around_the_raster(tmp_path: Path) -> None:
    path = raster_of_scene(tmp_path / "r.tif", BALI, "EPSG:32750", 0.35, (400, 300))
    source = RasterSource.open(path)
    assert distance_m(source.frame.origin, BALI) < 0.5
    assert distance_m(source.place(), BALI) < 1.0
    box = source.bounds
    assert box.east_m - box.west_m == pytest.approx(300 * 0.35, rel=0.02)
    assert box.north_m - box.south_m == pytest.approx(400 * 0.35, rel=0.02)


@pytest.mark.parametrize("origin", [Place(0.0, 0.0), Place(51.84, 4.99)])
def test_imagery_in_the_frame_already_is_cut_and_not_resampled(
    tmp_path: Path, origin: Place
) -> None:
    noise = np.random.default_rng(0).integers(3, 255, (600, 600, 3), dtype=np.uint8)
    crs = rasterio.crs.CRS.from_wkt(LocalFrame(origin).crs.to_wkt())
    # Off the frame's origin, so that a frame made anew around the raster would be noticed.
    path = write(tmp_path / "t.tif", noise, rasterio.Affine(0.3, 0, 210, 0, -0.3, 990), crs)
    source = RasterSource.open(path)
    assert source.frame.origin == origin
    assert (source.bounds.west_m, source.bounds.north_m) == (210.0, 990.0)
    image, coverage = source.read_tile(309.6, 888.0, 76.8, 256)
    np.testing.assert_array_equal(image, noise[212:468, 204:460])
    assert coverage == 1.0


@pytest.mark.parametrize("kind", ["rgb", "grey", "alpha", "nodata"])
def test_a_window_read_without_a_warp_is_the_warped_one(tmp_path: Path, kind: str) -> None:
    """Every tile on whole pixels, inside, over the border and outside, pixel by pixel."""
    bands = {"rgb": 3, "grey": 1, "alpha": 4, "nodata": 3}[kind]
    noise = np.random.default_rng(0).integers(0, 255, (300, 340, bands), dtype=np.uint8)
    noise[100:150, 80:130] = 1  # as dark as unseen
    options: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    options |= {"nodata": 7} if kind == "nodata" else {"photometric": "MINISBLACK"}
    options |= {"photometric": "RGB"} if bands >= 3 else {}
    options |= {"alpha": "unspecified"} if kind == "alpha" else {}
    crs = rasterio.crs.CRS.from_wkt(LocalFrame(Place(51.84, 4.99)).crs.to_wkt())
    grid = rasterio.Affine(0.3, 0, 210, 0, -0.3, 990)
    path = write(tmp_path / "t.tif", noise, grid, crs, **options)
    if kind == "alpha":
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [
                ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha,
            ]  # fmt: skip
    read, warped = RasterSource.open(path), RasterSource.open(path)
    assert (read._grid is not None) == (kind in ("rgb", "grey"))
    warped._grid = None
    lefts, tops = (-200, -64, -31, 0, 57, 300, 339, 400), (-90, -17, 0, 111, 269, 299, 310)
    for pixels in (64, 96):
        for left in lefts:
            for top in tops:
                east = 210 + (left + pixels / 2) * 0.3
                north = 990 - (top + pixels / 2) * 0.3
                got = read.read_tile(east, north, pixels * 0.3, pixels)
                expected = warped.read_tile(east, north, pixels * 0.3, pixels)
                np.testing.assert_array_equal(got[0], expected[0], err_msg=f"{left} {top}")
                assert got[1] == expected[1]


@pytest.mark.parametrize(
    ("shift_px", "side_m", "pixels"), [(0.01, 76.8, 256), (0, 76.8, 128), (0, 76.9, 256)]
)
def test_tiles_off_the_pixels_are_still_warped(
    tmp_path: Path, shift_px: float, side_m: float, pixels: int
) -> None:
    noise = np.random.default_rng(0).integers(3, 255, (600, 600, 3), dtype=np.uint8)
    crs = rasterio.crs.CRS.from_wkt(LocalFrame(Place(0, 0)).crs.to_wkt())
    grid = rasterio.Affine(0.3, 0, -90, 0, -0.3, 90)
    path = write(tmp_path / "t.tif", noise, grid, crs)
    source, warped = RasterSource.open(path), RasterSource.open(path)
    assert source._grid is not None
    warped._grid = None
    east = shift_px * 0.3
    image, _ = source.read_tile(east, 0.0, side_m, pixels)
    np.testing.assert_array_equal(image, warped.read_tile(east, 0.0, side_m, pixels)[0])
    west, north = east - side_m / 2, side_m / 2
    assert source._grid.window(west, north, side_m, pixels) is None
    # Another frame, a quarter turn or a deep raster are no case for it at all.
    assert RasterSource.open(path, LocalFrame(Place(0.01, 0)))._grid is None
    turned = rasterio.Affine(0, 0.3, -90, 0.3, 0, -90)
    assert RasterSource.open(write(tmp_path / "turned.tif", noise, turned, crs))._grid is None
    deep = write(tmp_path / "deep.tif", noise.astype(np.uint16), grid, crs)
    assert RasterSource.open(deep)._grid is None


def test_coverage_counts_what_is_there(tmp_path: Path) -> None:
    path = raster_of_scene(tmp_path / "r.tif", KAMPALA, "EPSG:3857", 0.3, (600, 600))
    source = RasterSource.open(path, LocalFrame(KAMPALA))
    image, coverage = source.read_tile(source.bounds.west_m, 0.0, 38.4, 128)
    assert coverage == pytest.approx(0.5, abs=0.02)
    assert image[:, :60].max() == 0
    assert image[:, 70:].min() > 0
    nothing, coverage = source.read_tile(5000.0, 0.0, 38.4, 128)
    assert (coverage, nothing.max()) == (0.0, 0)


@pytest.mark.parametrize("kind", ["alpha", "nodata", "black"])
def test_holes_are_not_seen(tmp_path: Path, kind: str) -> None:
    path = raster_of_scene(tmp_path / "whole.tif", BALI, "EPSG:32750", 0.3, (400, 400))
    with rasterio.open(path) as dataset:
        image = np.moveaxis(dataset.read(), 0, -1)
        transform, crs = dataset.transform, dataset.crs
    options: dict[str, Any] = {}
    if kind == "alpha":
        alpha = np.full((400, 400, 1), 255, np.uint8)
        alpha[:, :200] = 0
        image = np.concatenate([image, alpha], axis=2)
        options = {"photometric": "RGB", "alpha": "unspecified"}
    else:
        image[:, :200] = 255 if kind == "nodata" else 0
        options = {"nodata": 255} if kind == "nodata" else {}
    holed = write(tmp_path / "holed.tif", image, transform, crs, **options)
    if kind == "alpha":
        with rasterio.open(holed, "r+") as dataset:
            dataset.colorinterp = [
                ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha,
            ]  # fmt: skip
    source = RasterSource.open(holed, LocalFrame(BALI))
    tile, coverage = source.read_tile(0.0, 0.0, 76.8, 256)
    assert coverage == pytest.approx(0.5, abs=0.02)
    assert tile[:, :120].max() == 0
    assert tile[:, 136:].min() > 0
    overview, _ = source.overview(200)
    assert overview[..., 3].mean() / 255 == pytest.approx(0.5, abs=0.03)


def test_a_tile_of_one_colour_shows_nothing(tmp_path: Path) -> None:
    image = np.full((600, 600, 3), 255, np.uint8)
    image[:40] = np.random.default_rng(0).integers(0, 255, (40, 600, 3))
    crs = rasterio.crs.CRS.from_wkt(LocalFrame(Place(0.0, 0.0)).crs.to_wkt())
    path = write(tmp_path / "t.tif", image, rasterio.Affine(0.3, 0, -90, 0, -0.3, 90), crs)
    assert RasterSource.open(path).read_tile(0.0, 0.0, 76.8, 256)[1] == 0.0


def test_other_kinds_of_bands(tmp_path: Path) -> None:
    grid = rasterio.Affine(0.3, 0, -60, 0, -0.3, 60)
    crs = rasterio.crs.CRS.from_wkt(LocalFrame(Place(0.0, 0.0)).crs.to_wkt())
    ramp = np.tile(np.linspace(100, 250, 400).astype(np.uint8), (400, 1))
    grey = RasterSource.open(write(tmp_path / "grey.tif", ramp, grid, crs))
    tile, coverage = grey.read_tile(0.0, 0.0, 76.8, 256)
    assert coverage == 1.0
    np.testing.assert_array_equal(tile, np.repeat(ramp[72:328, 72:328, None], 3, axis=2))

    deep = (ramp.astype(np.uint16) * 37)[..., None].repeat(4, axis=2)
    sixteen = RasterSource.open(write(tmp_path / "deep.tif", deep, grid, crs))
    tile, coverage = sixteen.read_tile(0.0, 0.0, 115.2, 256)
    assert coverage > 0.95  # the darkest 2 percent become black, which counts as unseen
    assert tile.shape == (256, 256, 3)
    assert tile[0, -3, 0] > 240
    assert (np.diff(tile[10, :, 0].astype(int)) >= 0).all()

    path = write(tmp_path / "palette.tif", ramp // 64, grid, crs)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (200, 0, 0, 255), 2: (0, 200, 0, 255), 3: (0, 0, 200, 255)})
    tile, _ = RasterSource.open(path).read_tile(0.0, 0.0, 76.8, 256)
    colours = {tuple(colour) for colour in tile.reshape(-1, 3).tolist()}
    assert colours == {(200, 0, 0), (0, 200, 0), (0, 0, 200)}


def test_overview_fits_its_degrees(tmp_path: Path) -> None:
    path = raster_of_scene(tmp_path / "r.tif", GORINCHEM, "EPSG:28992", 0.25, (600, 800))
    source = RasterSource.open(path, LocalFrame(GORINCHEM))
    image, (west, south, east, north) = source.overview(400)
    assert max(image.shape[:2]) == 400
    assert image.shape[2] == 4
    assert west < GORINCHEM.lon_deg < east
    assert south < GORINCHEM.lat_deg < north
    # Every pixel of the picture, laid linearly into the box as a web map does over so small a box.
    rows, columns = image.shape[:2]
    lon = west + (np.arange(columns) + 0.5) / columns * (east - west)
    lat = north - (np.arange(rows) + 0.5) / rows * (north - south)
    lons, lats = np.meshgrid(lon, lat)
    to_local = Transformer.from_crs(4326, source.frame.crs, always_xy=True)
    metres = np.stack(to_local.transform(lons, lats), axis=-1)
    seen = image[..., 3] > 0
    error = np.abs(image[..., :3].astype(int) - scene(metres[..., 0], metres[..., 1]))[seen]
    assert seen.mean() > 0.95
    assert error.mean() < 1.5


def test_threads_read_the_same(tmp_path: Path) -> None:
    path = raster_of_scene(tmp_path / "r.tif", BALI, "EPSG:32750", 0.3, (500, 500))
    source = RasterSource.open(path)
    places = [(float(e), float(n)) for e in (-20, 0, 20) for n in (-20, 0, 20)]
    alone = [source.read_tile(e, n, 38.4, 128)[0] for e, n in places]
    wrong: list[tuple[float, float]] = []

    def read() -> None:
        for (east, north), expected in zip(places, alone, strict=True):
            if not np.array_equal(source.read_tile(east, north, 38.4, 128)[0], expected):
                wrong.append((east, north))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bad_rasters_get_one_sentence(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    grid, crs = rasterio.Affine(0.3, 0, 0, 0, -0.3, 0), rasterio.crs.CRS.from_epsg(32750)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    cut = write(tmp_path / "cut.tif", image, grid, crs)
    cut.write_bytes(cut.read_bytes()[:1000])
    nan = np.full((64, 64), np.nan, np.float32)
    cases = {
        "no such file": tmp_path / "gone.tif",
        "cannot be read": text,
        "no coordinate system": write(tmp_path / "nocrs.tif", image, grid, None),
        "no position": write(tmp_path / "nowhere.tif", image, rasterio.Affine.identity(), crs),
        "empty picture": write(tmp_path / "black.tif", np.zeros_like(image), grid, crs),
        "one colour": write(tmp_path / "white.tif", np.full_like(image, 255), grid, crs),
        "all transparent": write(tmp_path / "nan.tif", nan, grid, crs, nodata=float("nan")),
        "expected grey, RGB": write(
            tmp_path / "complex.tif", image[..., 0].astype(np.complex64), grid, crs
        ),
        "cannot be read as": cut,
    }
    for message, path in cases.items():
        with pytest.raises(RasterError, match=message) as caught:
            RasterSource.open(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(RasterError, match="no such file"):
        RasterSource.open(tmp_path)


def test_a_raster_that_vanishes_is_reported(tmp_path: Path) -> None:
    path = raster_of_scene(tmp_path / "r.tif", BALI, "EPSG:32750", 0.3, (300, 300))
    source = RasterSource.open(path)
    path.unlink()
    with pytest.raises(RasterError, match="error while reading"):
        source.read_tile(0.0, 0.0, 38.4, 128)
