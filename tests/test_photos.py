"""Opening street pictures: hostile files, what they say about themselves, and the ground canvas."""

from __future__ import annotations

import io
import math
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from core.errors import CoreError, PhotoError, SettingError
from core.photos.opening import canvas_of, checked_fov, ground_canvas, open_photo, with_fov

CANVAS_DEG = 360 / 512


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def as_bytes(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_exif(
    image: Image.Image,
    main: dict[int, Any] | None = None,
    camera: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    **options: Any,
) -> bytes:
    exif = Image.Exif()
    for tag, value in (main or {}).items():
        exif[tag] = value
    if camera:
        exif.get_ifd(0x8769).update(camera)
    if gps:
        exif.get_ifd(0x8825).update(gps)
    return as_bytes(image, exif=exif.tobytes(), **options)


def gpano(**values: Any) -> bytes:
    attributes = " ".join(f'GPano:{key}="{value}"' for key, value in values.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {attributes}/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def scene(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """A smooth world: colour by direction, radians -> uint8 (..., 3)."""
    red = 127 + 100 * np.sin(3 * azimuth) * np.cos(elevation)
    green = 127 + 100 * np.cos(2 * azimuth + 4 * elevation)
    blue = 127 + 100 * np.sin(5 * elevation)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def pinhole(width: int, height: int, fov_deg: float, turned_deg: float = 0.0) -> np.ndarray:
    """What a level camera sees of the scene."""
    focal = width / 2 / math.tan(math.radians(fov_deg) / 2)
    x, y = np.meshgrid(
        (np.arange(width) + 0.5 - width / 2) / focal, (height / 2 - np.arange(height) - 0.5) / focal
    )
    return scene(np.arctan(x) + math.radians(turned_deg), np.arctan(y / np.hypot(1, x)))


def canvas_directions(columns: int) -> tuple[np.ndarray, np.ndarray]:
    azimuth = np.radians((np.arange(columns) + 0.5 - columns / 2) * CANVAS_DEG)
    elevation = np.radians(45 - (np.arange(128) + 0.5) * 90 / 128)
    across, up = np.meshgrid(azimuth, elevation)
    return across, up


# ---- the canvas


@pytest.mark.parametrize(("fov", "width", "height"), [(65, 640, 480), (90, 600, 800), (50, 81, 61)])
def test_photo_on_the_canvas_is_the_scene(fov: float, width: int, height: int) -> None:
    canvas = ground_canvas(pinhole(width, height, fov), fov, False)
    assert canvas.n_bins == int(fov / 11.25 + 0.5)
    assert canvas.fov_deg == canvas.n_bins * 11.25
    assert canvas.image.shape == (128, canvas.n_bins * 16, 3)
    expected = scene(*canvas_directions(canvas.image.shape[1])).astype(int)
    error = np.abs(canvas.image.astype(int) - expected)[canvas.mask]
    assert error.mean() < 1.5
    assert np.percentile(error, 99) < 8
    assert (canvas.image[~canvas.mask] == 127).all()


@pytest.mark.parametrize("azimuth_deg", [-30.0, -11.0, 0.0, 7.5, 31.0])
def test_vertical_line_lands_in_its_column(azimuth_deg: float) -> None:
    width, fov = 1600, 80.0
    image = np.zeros((1200, width, 3), np.uint8)
    focal = width / 2 / math.tan(math.radians(fov / 2))
    centre = round(width / 2 + focal * math.tan(math.radians(azimuth_deg)))
    image[:, centre - 8 : centre + 8] = 255
    canvas = ground_canvas(image, fov, False)
    # The horizon's row, as a line of constant azimuth is straight on the canvas at every row.
    for row in (50, 63, 90):
        brightness = canvas.image[row, :, 0].astype(float)
        column = (brightness * (np.arange(len(brightness)) + 0.5)).sum() / brightness.sum()
        found = (column - len(brightness) / 2) * CANVAS_DEG
        assert found == pytest.approx(azimuth_deg, abs=0.3)


def test_horizon_lies_between_the_middle_rows() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    image[300:] = 255
    canvas = ground_canvas(image, 70, False)
    assert canvas.image[62].max() == 0
    assert canvas.image[65].min() == 255
    np.testing.assert_allclose(canvas.image[63].astype(int) + canvas.image[64], 255, atol=3)


def test_mask_shows_the_photos_height() -> None:
    width, height, fov = 800, 600, 60.0
    canvas = ground_canvas(np.full((height, width, 3), 9, np.uint8), fov, False)
    top = math.degrees(math.atan(height / width * math.tan(math.radians(fov / 2))))
    seen = canvas.mask[:, canvas.mask.shape[1] // 2]
    assert abs(int(seen.sum()) - 2 * top / 90 * 128) <= 2
    portrait = ground_canvas(np.full((1600, 600, 3), 9, np.uint8), 60, False)
    assert portrait.mask.all()


def test_full_canvas_passes_unchanged() -> None:
    own = np.random.default_rng(1).integers(0, 255, (128, 512, 3), dtype=np.uint8)
    canvas = ground_canvas(own, 360, True)
    assert canvas.n_bins == 32
    assert canvas.mask.all()
    np.testing.assert_array_equal(canvas.image, own)


def test_two_to_one_panorama_is_cropped_to_its_middle() -> None:
    azimuth = (np.arange(1024) + 0.5 - 512) * 2 * np.pi / 1024
    elevation = np.pi / 2 - (np.arange(512) + 0.5) * np.pi / 512
    image = scene(*np.meshgrid(azimuth, elevation))
    photo = open_photo(image)
    assert (photo.fov_deg, photo.fov_source, photo.is_panorama) == (360, "panorama 2:1", True)
    expected = scene(*canvas_directions(512)).astype(int)
    assert np.abs(canvas_of(photo).image.astype(int) - expected).max() <= 3


def test_picture_wider_than_its_whole_bins_keeps_its_centre() -> None:
    own = np.random.default_rng(2).integers(0, 255, (128, 512, 3), dtype=np.uint8)
    part = own[:, 100:298]  # 139.2 degrees: 12 whole bins, 3 columns left over on each side
    canvas = ground_canvas(part, 198 * CANVAS_DEG, True)
    assert canvas.n_bins == 12
    np.testing.assert_array_equal(canvas.image, part[:, 3:-3])


def test_picture_narrower_than_its_whole_bins_ends_in_grey() -> None:
    own = np.random.default_rng(2).integers(0, 100, (128, 512, 3), dtype=np.uint8)
    wider = ground_canvas(own[:, 100:304], 204 * CANVAS_DEG, True)
    assert (wider.n_bins, wider.fov_deg) == (13, 13 * 11.25)
    np.testing.assert_array_equal(wider.image[:, 2:-2], own[:, 100:304])
    assert not wider.mask[:, [0, 1, -2, -1]].any()
    assert (wider.image[:, [0, 1, -2, -1]] == 127).all()


def test_low_panorama_leaves_the_rest_unseen() -> None:
    own = np.random.default_rng(3).integers(0, 100, (128, 512, 3), dtype=np.uint8)
    canvas = ground_canvas(own[32:96], 360, True)
    np.testing.assert_array_equal(canvas.image[32:96], own[32:96])
    assert (canvas.image[:32] == 127).all()
    assert canvas.mask.sum() == 64 * 512
    shifted = ground_canvas(own[32:], 360, True, horizon=32 / 96)
    np.testing.assert_array_equal(shifted.image[32:], own[32:])


def test_narrow_photo_gets_one_bin_with_unseen_sides() -> None:
    canvas = ground_canvas(np.full((300, 400, 3), 5, np.uint8), 6.0, False)
    assert (canvas.n_bins, canvas.image.shape) == (1, (128, 16, 3))
    seen = canvas.mask[64]
    assert seen[8]
    assert not seen[0]
    assert not seen[-1]


@settings(max_examples=40, deadline=None)
@given(
    fov=st.floats(5, 360),
    width=st.integers(32, 400),
    height=st.integers(32, 400),
    is_panorama=st.booleans(),
)
def test_canvas_always_has_whole_bins(
    fov: float, width: int, height: int, is_panorama: bool
) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    canvas = ground_canvas(image, fov, is_panorama)
    assert canvas.image.shape == (128, 16 * canvas.n_bins, 3)
    assert canvas.mask.shape == canvas.image.shape[:2]
    assert canvas.fov_deg == 11.25 or abs(canvas.fov_deg - fov) <= 11.25 / 2 + 1e-3
    assert (canvas.image[canvas.mask] == 200).all()
    assert (canvas.image[~canvas.mask] == 127).all()


def test_other_canvas_sizes_keep_the_bins() -> None:
    canvas = ground_canvas(pinhole(320, 240, 65), 65, False, size=(64, 256))
    assert (canvas.n_bins, canvas.image.shape) == (6, (64, 48, 3))
    with pytest.raises(SettingError, match="divisor"):
        ground_canvas(pinhole(32, 32, 65), 65, False, bins=7)
    with pytest.raises(PhotoError, match="uint8"):
        ground_canvas(np.zeros((40, 40, 3), np.float32), 65, False)  # type: ignore[arg-type]


# ---- the field of view


@pytest.mark.parametrize(
    "value", [0, 400, -3, "wide", "", None, math.nan, math.inf, True, [60], "1e400"]
)
def test_impossible_fields_of_view_are_refused(value: object) -> None:
    with pytest.raises(SettingError, match=r"Field of view: got .* expected a number of degrees"):
        checked_fov(value)


def test_possible_fields_of_view() -> None:
    assert checked_fov("72.5") == 72.5
    assert checked_fov(360) == 360


@pytest.mark.parametrize(
    ("size", "focal", "expected"),
    [((300, 200), 26, 69.39), ((200, 300), 26, 49.55), ((400, 300), 35, 54.43), ((300, 400), 35, 42.19)],
)  # fmt: skip
def test_fov_from_35_mm_focal_length(size: tuple[int, int], focal: int, expected: float) -> None:
    photo = open_photo(with_exif(picture(*size), camera={41989: focal}))
    assert photo.fov_deg == pytest.approx(expected, abs=0.01)
    assert photo.fov_source == "EXIF 35 mm focal length"
    assert not photo.is_panorama


def test_fov_follows_the_orientation() -> None:
    """A phone held upright stores a landscape picture and orientation 6."""
    photo = open_photo(with_exif(picture(300, 200), main={274: 6}, camera={41989: 26}))
    assert photo.image.shape == (300, 200, 3)
    assert photo.fov_deg == pytest.approx(49.55, abs=0.01)


def test_fov_from_known_sensors() -> None:
    by_name = with_exif(picture(320, 180), main={272: "HDR-AS300"}, camera={37386: 2.6})
    assert open_photo(by_name).fov_deg == pytest.approx(95.3, abs=0.5)
    by_plane = with_exif(
        picture(300, 200),
        main={272: "Unheard Of"},
        camera={37386: 20.0, 41486: 3000 / (22.3 / 25.4), 41488: 2, 40962: 3000, 40963: 2000},
    )
    photo = open_photo(by_plane)
    assert photo.fov_deg == pytest.approx(2 * math.degrees(math.atan(22.3 / 40)), abs=0.1)
    assert photo.fov_source == "EXIF focal length and known sensor"


def test_no_word_about_it_is_a_guess() -> None:
    photo = open_photo(as_bytes(picture()))
    assert (photo.fov_deg, photo.fov_source, photo.fov_is_guess) == (65.0, "guess", True)
    assert "guess" in photo.notes[0]
    typed = with_fov(photo, "90")
    assert (typed.fov_deg, typed.fov_source, typed.fov_is_guess) == (90.0, "typed", False)


def test_typing_overrules_a_shape_but_not_gpano() -> None:
    by_shape = open_photo(picture(512, 128))
    assert (by_shape.fov_source, by_shape.is_panorama) == ("panorama 4:1", True)
    assert not with_fov(by_shape, 70).is_panorama
    assert with_fov(by_shape, 200).is_panorama
    said = open_photo(as_bytes(picture(256, 128), xmp=gpano(FullPanoWidthPixels=256)))
    assert with_fov(said, 120).is_panorama


def test_gpano_of_a_partial_panorama() -> None:
    xmp = gpano(
        ProjectionType="equirectangular",
        FullPanoWidthPixels=8000,
        FullPanoHeightPixels=4000,
        CroppedAreaImageWidthPixels=2000,
        CroppedAreaImageHeightPixels=1000,
        CroppedAreaLeftPixels=5000,
        CroppedAreaTopPixels=1600,
        PoseHeadingDegrees=350.0,
    )
    photo = open_photo(as_bytes(picture(400, 200), xmp=xmp))
    assert (photo.fov_deg, photo.fov_source, photo.is_panorama) == (90.0, "GPano", True)
    assert photo.horizon == pytest.approx(0.4)
    # The crop's centre, column 6000 of 8000, is 90 degrees right of the full panorama's.
    assert photo.heading_deg == pytest.approx(80.0)


@pytest.mark.parametrize(
    "values",
    [
        {"FullPanoWidthPixels": 0},
        {"FullPanoWidthPixels": "nonsense"},
        {"FullPanoWidthPixels": 1000, "CroppedAreaImageWidthPixels": 5000},
        {"FullPanoWidthPixels": 1000, "ProjectionType": "cylindrical"},
        {"FullPanoWidthPixels": 10**9},
    ],
)
def test_senseless_gpano_is_ignored(values: dict[str, Any]) -> None:
    photo = open_photo(as_bytes(picture(), xmp=gpano(**values)))
    assert photo.fov_source == "guess"


# ---- place and heading


def test_place_and_heading_are_read() -> None:
    gps = {1: "S", 2: (8.0, 35.0, 6.0), 3: "E", 4: (115.0, 9.0, 38.76), 16: "M", 17: 123.5}
    photo = open_photo(with_exif(picture(), gps=gps))
    assert photo.place is not None
    assert photo.place.lat_deg == pytest.approx(-8.585)
    assert photo.place.lon_deg == pytest.approx(115.160767, abs=1e-6)
    assert photo.heading_deg == 123.5
    assert any("magnetic" in note for note in photo.notes)


ZERO = IFDRational(1, 0)


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (ZERO, ZERO, ZERO), 3: "E", 4: (1.0, 2.0, 3.0), 17: ZERO},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (1.0, 2.0, 3.0), 17: 400.0},
        {1: "N", 2: (45.0, 0.0, 0.0), 3: "E", 4: (181.0, 0.0, 0.0)},
        {1: "N", 2: (45.0, 75.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "X", 2: (45.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {2: (45.0, 0.0, 0.0), 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (45.0,), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 3: "E"},
    ],
)
def test_hostile_gps_becomes_nothing(gps: dict[int, Any]) -> None:
    photo = open_photo(with_exif(picture(), gps=gps))
    assert photo.place is None
    assert photo.heading_deg is None


def test_hostile_focal_lengths_become_a_guess() -> None:
    for camera in ({41989: 0}, {37386: ZERO}, {37386: 5.0, 41486: ZERO, 41488: 9}):
        assert open_photo(with_exif(picture(), camera=camera)).fov_is_guess


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_is_no_exif() -> None:
    content = as_bytes(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x07" * 40)
    assert open_photo(content).fov_is_guess


# ---- formats and orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, kind: str) -> None:
    upright = np.zeros((60, 90, 3), np.uint8)
    upright[:30, :45], upright[:30, 45:], upright[30:, :45] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # as stored = the inverse turn
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    photo = open_photo(as_bytes(stored, kind, exif=exif, quality=95))
    assert photo.image.shape == upright.shape
    assert np.abs(photo.image.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = open_photo(as_bytes(picture(), kind, **options))
    assert photo.image.shape == (64, 96, 3)
    assert np.abs(photo.image.astype(int) - np.asarray(picture())).mean() < 12


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (64, 64), (220, 30, 30)).convert("CMYK")
    colour = open_photo(as_bytes(red, quality=95)).image[32, 32].astype(int)
    assert np.abs(colour - (220, 30, 30)).max() < 12


@pytest.mark.parametrize("top", [65535, 4095, 1023])
def test_deep_grey_fills_the_range(top: int) -> None:
    ramp = np.linspace(0, top, 96).astype(np.uint16)
    image = Image.fromarray(np.tile(ramp, (64, 1)))
    photo = open_photo(as_bytes(image, "PNG"))
    assert photo.image.shape == (64, 96, 3)
    row = photo.image[10, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[0] == 0
    assert row[-1] == 255


def test_one_deep_grey_is_no_reason_to_stop() -> None:
    flat = Image.fromarray(np.full((64, 64), 500, np.uint16))
    assert open_photo(as_bytes(flat, "PNG")).image.shape == (64, 64, 3)
    floats = Image.fromarray(np.full((64, 64), np.nan, np.float32))
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(as_bytes(floats, "TIFF"))


def test_transparency_becomes_mid_grey() -> None:
    layer = np.zeros((64, 64, 4), np.uint8)
    layer[:, 32:] = (200, 10, 10, 255)
    image = open_photo(as_bytes(Image.fromarray(layer), "PNG")).image
    assert tuple(image[5, 5]) == (127, 127, 127)
    assert tuple(image[5, 50]) == (200, 10, 10)
    palette = Image.fromarray(layer).convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert tuple(
        open_photo(as_bytes(palette, "GIF", transparency=palette.getpixel((0, 0)))).image[5, 5]
    ) == (127, 127, 127)


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green", "blue")]
    content = as_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    photo = open_photo(content)
    assert tuple(photo.image[5, 5]) == (255, 0, 0)
    assert any("first" in note for note in photo.notes)


def test_arrays_and_images_are_taken_too() -> None:
    grey = np.full((40, 50), 7, np.uint8)
    assert open_photo(grey).image.shape == (40, 50, 3)
    assert open_photo(np.dstack([grey] * 4)).image.shape == (40, 50, 3)
    assert open_photo(picture(), name="mine").name == "mine"
    for bad in (grey.astype(np.float32), grey[None, None], np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(PhotoError, match="uint8"):
            open_photo(bad)


def test_long_pictures_are_shrunk_without_changing_their_angle(tmp_path: Path) -> None:
    file = tmp_path / "wide view.jpg"
    file.write_bytes(with_exif(picture(5000, 2500 + 300), camera={41989: 24}))
    photo = open_photo(file)
    assert photo.name == "wide view.jpg"
    assert max(photo.image.shape) == 4096
    assert photo.fov_deg == pytest.approx(2 * math.degrees(math.atan(36 / 48)), abs=1e-6)


# ---- large pictures


def at_once(image: Image.Image) -> np.ndarray:
    """The slow way: widen the whole picture to RGB, then shrink it."""
    if image.mode in ("I;16", "F"):
        values = np.asarray(image, np.float64)
        low, high = np.percentile(values, (0.5, 99.5))
        grey = np.clip(np.rint((values - low) / (high - low) * 255), 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (127, 127, 127, 255)), image)
    rgb = image.convert("RGB")
    rgb.thumbnail((4096, 4096), Image.Resampling.BOX)
    return np.asarray(rgb).astype(int)


def tall_noise(mode: str) -> Image.Image:
    """Noise of 700 x 6001 pixels, of which no two rows and no two channels are equal."""
    rng = np.random.default_rng(4)
    if mode == "RGBA":
        return Image.fromarray(rng.integers(0, 256, (6001, 700, 4), dtype=np.uint8))
    deep = rng.normal(900, 300, (6001, 700)).clip(0, 4095)
    return Image.fromarray(deep.astype(np.uint16 if mode == "I;16" else np.float32))


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "F"])
@pytest.mark.parametrize("band", [1_000, 300_000, 4_000_000])
def test_bands_change_nothing(mode: str, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.photos.opening.BAND_PIXELS", band)
    image = tall_noise(mode)
    expected = at_once(image)
    shrunk = open_photo(image).image
    assert shrunk.shape == expected.shape == (4096, 478, 3)
    assert np.abs(shrunk - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "F"])
def test_never_is_more_than_a_band_widened(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole picture of 80 million pixels as RGB, or as numbers, is what took gigabytes."""
    monkeypatch.setattr("core.photos.opening.BAND_PIXELS", 200_000)
    image = tall_noise(mode)
    largest = []
    usual = Image.Image.convert

    def convert(picture: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        largest.append(picture.width * picture.height)
        return usual(picture, *arguments, **options)

    monkeypatch.setattr(Image.Image, "convert", convert)
    tracemalloc.start()
    open_photo(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(largest) <= 200_000 + 2 * image.width
    # Numpy's share: the answer, the deep values once, and a band of doubles with its mask.
    itemsize = {"RGBA": 0, "I;16": 2, "F": 4}[mode]
    assert peak < 1.3 * (4096 * 478 * 3 + 6001 * 700 * itemsize) + 200_000 * 8 * 5


# ---- bad input: one sentence each


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    parts = [b"\x89PNG\r\n\x1a\n"]
    for chunk in (body, data, b"IEND"):
        parts += [struct.pack(">I", len(chunk) - 4), chunk, struct.pack(">I", zlib.crc32(chunk))]
    return b"".join(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Dear diary, this is no picture at all. " * 20, "no picture"),
        (as_bytes(picture(640, 480))[:4000], "damaged or cut-off"),
        (as_bytes(picture(640, 480), "PNG")[:2000], "damaged or cut-off"),
        (as_bytes(Image.new("RGB", (1, 1)), "PNG"), "1 x 1 pixels, expected at least 32"),
        (png_header(30_000, 30_000), "pixels, expected at most 80 million"),
        (png_header(10_000, 9_500), "pixels, expected at most 80 million"),
        (png_header(9_000, 8_999), "pixels, expected at most 80 million"),
        (b"", "0.0 MB"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "no picture"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "street.jpg"
    file.write_bytes(content)
    for source in (file, str(file), content):
        with pytest.raises(PhotoError, match=message) as caught:
            open_photo(source)
        assert "\n" not in str(caught.value)


def test_no_photo_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="got none"):
        open_photo(None)
    for missing in (tmp_path / "gone.jpg", tmp_path, "a\0b.jpg"):
        with pytest.raises(PhotoError, match=r"no file to read|0\.0 MB"):
            open_photo(missing)


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.jpg"
    with file.open("wb") as stream:
        stream.truncate(60 * 1024 * 1024)
    with pytest.raises(PhotoError, match="at most 50 MB"):
        open_photo(file)


WHOLE = with_exif(
    picture(), main={271: "Maker", 274: 3}, camera={41989: 28, 37386: 4.2},
    gps={1: "N", 2: (1.0, 2.0, 3.0), 3: "E", 4: (1.0, 2.0, 3.0), 17: 5.0},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6),
    length=st.integers(0, len(WHOLE)),
)
def test_any_damage_opens_or_is_refused(flips: list[tuple[int, int]], length: int) -> None:
    content = bytearray(WHOLE)
    for position, value in flips:
        content[position] = value
    for piece in (bytes(content), bytes(content[:length])):
        try:
            photo = open_photo(piece)
        except CoreError:
            continue
        assert 5 <= photo.fov_deg <= 360
        assert canvas_of(photo).image.dtype == np.uint8
