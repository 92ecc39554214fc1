"""What is left of an uploaded photo's file: ``pytest tests/test_privacy.py``."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from app.privacy import strip_place
from core.errors import PhotoError
from core.photos.opening import open_photo

CAMERA_IFD, GPS_IFD, FOCAL_35MM = 0x8769, 0x8825, 0xA405
SECRET = b"52,5.1N"
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description "
    b'exif:GPSLatitude="52,5.1N" dji:GpsLatitude="52,5.1N" photoshop:City="52,5.1N" '
    b'GPano:FullPanoWidthPixels="256" GPano:FullPanoHeightPixels="128"/>'
    b"<geo:lat>52,5.1N</geo:lat><GPano:PoseHeadingDegrees>80</GPano:PoseHeadingDegrees>"
    b"</x:xmpmeta>"
)


def exif_of_a_phone() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x010E] = SECRET.decode()  # a caption
    camera = exif.get_ifd(CAMERA_IFD)
    camera[FOCAL_35MM] = 28
    camera[0x927C] = b"makers own note " + SECRET
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (52.0, 5.0, 6.0), 3: "E", 4: (5.0, 7.0, 0.0)})
    return exif


def read_again(exif: Image.Exif) -> Image.Exif:
    """Pillow writes the camera and the place into a TIFF only if it has read them itself."""
    again = Image.Exif()
    again.load(exif.tobytes())
    return again


def noise(side: int = 96, seed: int = 1) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (side, side * 4 // 3, 3), dtype=np.uint8)
    return Image.fromarray(values)


def exif_of(path: Path) -> Image.Exif:
    with Image.open(path) as picture:
        return picture.getexif()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment in front."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


@pytest.fixture
def phone(tmp_path) -> Path:
    path = tmp_path / "phone.jpg"
    noise().save(path, exif=exif_of_a_phone(), quality=90)
    return path


def test_a_jpeg_loses_its_place_and_none_of_its_pixels(phone):
    before, pixels = open_photo(phone), pixels_of(phone)
    scan = phone.read_bytes().split(b"\xff\xda", 1)[1]
    assert before.place is not None
    assert SECRET in phone.read_bytes()
    assert strip_place(phone)
    after = open_photo(phone)
    assert after.place is None
    assert after.fov_deg == before.fov_deg
    assert exif_of(phone)[0x010F] == "Maker"
    assert SECRET not in phone.read_bytes()
    assert phone.read_bytes().split(b"\xff\xda", 1)[1] == scan
    assert np.array_equal(pixels_of(phone), pixels)
    assert not strip_place(phone)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_lose_their_place_and_keep_their_pixels(tmp_path, kind):
    path = tmp_path / f"photo.{kind.lower()}"
    options = {"lossless": True} if kind == "WEBP" else {}
    noise().save(path, kind, exif=read_again(exif_of_a_phone()), **options)
    assert open_photo(path).place is not None
    assert strip_place(path)
    assert open_photo(path).place is None
    assert SECRET not in path.read_bytes()
    assert open_photo(path).fov_source == "EXIF 35 mm focal length"
    assert np.array_equal(pixels_of(path), np.asarray(noise()))


def png_with_xmp(image: Image.Image) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return encoded(image, "PNG", pnginfo=notes)


def png_with_packed_xmp(image: Image.Image) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    return encoded(image, "PNG", pnginfo=notes)


@pytest.mark.parametrize(
    "write",
    [
        lambda image: encoded(image, "JPEG", xmp=XMP),
        png_with_xmp,
        png_with_packed_xmp,
        lambda image: encoded(image, "WEBP", xmp=XMP),
        lambda image: encoded(image, "TIFF", tiffinfo={700: XMP}),
    ],
    ids=["jpeg", "png", "png, packed", "webp", "tiff"],
)
def test_a_place_in_xmp_alone_goes_and_the_panorama_stays(
    tmp_path, write: Callable[[Image.Image], bytes]
):
    path = tmp_path / "pano"
    path.write_bytes(write(noise(192)))
    before = open_photo(path)
    with Image.open(path) as picture:
        assert SECRET in bytes(str(picture.info["xmp"]), "utf-8")
    assert strip_place(path)
    with Image.open(path) as picture:
        assert b"52" not in bytes(str(picture.info["xmp"]), "utf-8").replace(b"256", b"")
    assert SECRET not in path.read_bytes()
    after = open_photo(path)
    assert (after.fov_source, after.fov_deg) == ("GPano", before.fov_deg)
    assert after.heading_deg == before.heading_deg == 80.0
    assert np.array_equal(after.image, before.image)
    assert not strip_place(path)


def test_later_pictures_of_a_multi_picture_file_go(tmp_path):
    path = tmp_path / "two.jpg"
    second = noise(seed=2)
    second.encoderinfo = {"exif": exif_of_a_phone().tobytes()}
    noise().save(
        path, "MPO", save_all=True, append_images=[second], exif=exif_of_a_phone().tobytes()
    )
    pixels = pixels_of(path)
    with Image.open(path) as picture:
        assert picture.n_frames == 2
        picture.seek(1)
        assert GPS_IFD in picture.getexif()
    assert path.read_bytes().count(SECRET) == 4
    assert strip_place(path)
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 1
    assert open_photo(path).place is None
    assert SECRET not in path.read_bytes()
    assert np.array_equal(pixels_of(path), pixels)


PLAIN_JPEG, PLAIN_PNG = encoded(noise(), "JPEG"), encoded(noise(), "PNG")
CORNERS = {
    "a film behind the picture": PLAIN_JPEG + b"\x00\x00\x00\x18ftypmp42" + SECRET,
    "a comment": with_segment(PLAIN_JPEG, 0xFE, SECRET),
    "captions of Photoshop": with_segment(PLAIN_JPEG, 0xED, b"Photoshop 3.0\x00" + SECRET),
    "extended XMP": with_segment(
        PLAIN_JPEG, 0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + SECRET
    ),
    "damaged Exif": with_segment(PLAIN_JPEG, 0xE1, b"Exif\x00\x00II?\x00" + SECRET),
    "a thumbnail": with_segment(PLAIN_JPEG, 0xE0, b"JFXX\x00\x10" + SECRET),
    "a text in a PNG": with_chunk(PLAIN_PNG, b"tEXt", b"Comment\x00" + SECRET),
    "an own chunk of a PNG": with_chunk(PLAIN_PNG, b"meTa", SECRET),
    "damaged XMP in a PNG": with_chunk(PLAIN_PNG, b"zTXt", b"Raw profile type exif\x00\x00" + SECRET),
    "behind a PNG": PLAIN_PNG + SECRET,
    "a comment in a GIF": encoded(noise(), "GIF", comment=SECRET),
    "behind a GIF": encoded(noise(), "GIF") + SECRET,
    "a second page": encoded(
        noise(), "TIFF", save_all=True,
        append_images=[noise(seed=2)], tiffinfo={270: SECRET.decode()},
    ),
    "an own tag of a TIFF": encoded(noise(), "TIFF", tiffinfo={33550: 0.5, 65000: SECRET.decode()}),
}  # fmt: skip


@pytest.mark.parametrize("corner", CORNERS)
def test_no_corner_is_left(tmp_path, corner):
    path = tmp_path / "photo"
    path.write_bytes(CORNERS[corner])
    pixels = pixels_of(path)
    assert strip_place(path)
    assert SECRET not in path.read_bytes()
    assert np.array_equal(pixels_of(path), pixels)
    assert open_photo(path).image.shape == (96, 128, 3)


def test_exif_as_text_in_a_png_is_still_read(tmp_path):
    """As ImageMagick writes it."""
    path = tmp_path / "old.png"
    digits = exif_of_a_phone().tobytes().hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\nexif\n{len(digits) // 2:8d}\n{lines}\n".encode()
    data = b"Raw profile type exif\x00\x00" + zlib.compress(text)
    path.write_bytes(with_chunk(PLAIN_PNG, b"zTXt", data))
    before = open_photo(path)
    assert before.place is not None
    assert strip_place(path)
    after = open_photo(path)
    assert (after.place, after.fov_source) == (None, before.fov_source)
    assert after.fov_deg == before.fov_deg


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "F", "1"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate", "strip_size": 999},
     {"big_tiff": True}, {"exif": read_again(exif_of_a_phone())}],
    ids=["plain", "lzw", "strips", "big", "exif"],
)  # fmt: skip
def test_a_tiff_of_any_kind_keeps_its_pixels(tmp_path, mode, options):
    path = tmp_path / "photo.tif"
    noise().convert("L").convert(mode).save(path, tiffinfo={270: SECRET.decode()}, **options)
    pixels = pixels_of(path)
    strip_place(path)
    assert SECRET not in path.read_bytes()
    assert np.array_equal(pixels_of(path), pixels)
    assert open_photo(path).place is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_orientation_stays(tmp_path, kind):
    path = tmp_path / "turned"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = SECRET.decode()
    noise().save(path, kind, exif=exif)
    before = open_photo(path).image
    assert strip_place(path)
    assert np.array_equal(open_photo(path).image, before)
    assert before.shape == (128, 96, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_stays_one(tmp_path, kind):
    path = tmp_path / "moving"
    options = {"comment": SECRET} if kind == "GIF" else {"exif": exif_of_a_phone()}
    frames = [noise(seed=seed) for seed in (1, 2, 3)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], loop=0, **options)
    assert strip_place(path)
    assert SECRET not in path.read_bytes()
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        picture.seek(2)
        picture.load()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_photo_without_a_place_is_not_touched(tmp_path, kind):
    path = tmp_path / "plain"
    noise().save(path, kind)
    before = path.read_bytes()
    assert not strip_place(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("progressive", [False, True])
def test_colours_stay(tmp_path, progressive):
    path = tmp_path / "cmyk.jpg"
    noise().convert("CMYK").save(path, icc_profile=b"profile " * 20_000, progressive=progressive)
    before = path.read_bytes()
    assert not strip_place(path)
    path.write_bytes(with_segment(before, 0xFE, SECRET))
    assert strip_place(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"\x00\x00\x00\x18ftypheic" + SECRET,
        b"\xff\xd8\xff\xe1\x00",
        b"\xff\xd8\xff\xe1\xff\xffExif",
        b"\xff\xd8\xff\xe1\x00\x00xx",
        b"\x89PNG\r\n\x1a\n\x00\x00\xff\xffIHDR",
        b"RIFF\xff\x00\x00\x00WEBPVP8 \xff\xff\x00\x00",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x21",
        b"II*\x00\xff\xff\x00\x00",
    ],
)
def test_what_cannot_be_told_apart_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=r"broken\.jpg: got a file whose place .* Save it anew"):
        strip_place(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken.jpg"]


def test_a_small_tiff_cannot_keep_us_for_hours(tmp_path):
    """50,000 strips, each of which is the whole file."""
    count = 50_000
    entries = [(273, 4, count, 38), (279, 4, count, 38 + 4 * count)]
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    size = 38 + 8 * count
    content = head + directory + struct.pack("<I", 0) * count + struct.pack("<I", size) * count
    (tmp_path / "bomb.tif").write_bytes(content)
    with pytest.raises(PhotoError, match="more bytes named than there are"):
        strip_place(tmp_path / "bomb.tif")


WHOLE = [
    encoded(noise(32), kind, exif=read_again(exif_of_a_phone()))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF")
] + [encoded(noise(32), "GIF", comment=SECRET)]


@settings(max_examples=200, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    share=st.floats(0, 1),
)
def test_any_damage_is_cleaned_or_refused(tmp_path_factory, whole, flips, share):
    content = bytearray(whole)
    for place, value in flips:
        content[int(place * len(content))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    for piece in (bytes(content), bytes(content[: int(share * len(content))])):
        path.write_bytes(piece)
        try:
            strip_place(path)
        except PhotoError:
            continue
        assert path.stat().st_size <= len(piece) + 8
