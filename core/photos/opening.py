"""Open a street picture safely and find its field of view, heading and place.

The field of view comes from the first of these: the visitor's value (``with_fov``); GPano XMP; the
shape of a full panorama (2:1, or 4:1 for our own canvases); EXIF 35 mm focal length; EXIF focal
length with a known sensor; else 65 degrees, marked as a guess. A photo's own place and heading are
read but never used here.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from core.arrays import Float64Array, UInt8Array
from core.errors import PhotoError
from core.photos.canvas import GroundCanvas, checked_fov, ground_canvas
from core.photos.metadata import (
    MAX_PINHOLE_DEG,
    PhotoMetadata,
    fov_from_exif,
    read_metadata,
    read_orientation,
)
from core.records import Place

__all__ = [
    "GUESSED_FOV_DEG",
    "GroundCanvas",
    "Photo",
    "PhotoSource",
    "canvas_of",
    "checked_fov",
    "ground_canvas",
    "open_photo",
    "with_fov",
]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names; its JPEG reader also opens multi-picture files (MPO)."""
MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 80_000_000
"""Below Pillow's own warning threshold, so its decompression-bomb check stays a second protection."""
MIN_SIDE_PIXELS = 32
MAX_SIDE_PIXELS = 4096
"""Larger pictures are shrunk on opening; the canvas is only 512 pixels wide."""
BAND_PIXELS = 4_000_000
"""The part of a picture that is converted to RGB at a time."""
GUESSED_FOV_DEG = 65.0

_READABLE = "JPEG, PNG, WebP, TIFF, BMP or GIF"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transformation that makes a picture upright, by EXIF orientation."""

PhotoSource = str | Path | bytes | UInt8Array | Image.Image


@dataclass(frozen=True)
class Photo:
    """A street picture, upright, with the metadata of its file.

    ``image``: uint8 (H, W, 3) RGB, longer side at most 4096. ``fov_deg``: horizontal, in [5, 360];
    ``fov_source``: its source, in words; ``fov_is_guess``: it is only a usual value.
    ``place``, ``heading_deg`` (clockwise from north): from the file, or None.
    ``is_panorama``: equirectangular. ``horizon``: its height in a panorama, share from the top.
    ``notes``: remarks for the visitor, a sentence each.
    """

    image: UInt8Array
    name: str
    fov_deg: float
    fov_source: str
    place: Place | None = None
    heading_deg: float | None = None
    is_panorama: bool = False
    horizon: float = 0.5
    notes: tuple[str, ...] = ()

    @property
    def fov_is_guess(self) -> bool:
        """Whether the field of view is only a usual value: neither file nor visitor gave one."""
        return self.fov_source == "guess"


def open_photo(source: PhotoSource | None, name: str | None = None) -> Photo:
    """Open a picture from a path, bytes, an array or Pillow image.

    Args:
        source: file path, file contents, uint8 array (H, W), (H, W, 3) or (H, W, 4), or a Pillow
            image. Only the formats listed in ``FORMATS`` are decoded, within ``MAX_FILE_BYTES`` and
            ``MAX_PIXELS``; of an animation only the first frame.
        name: its name in messages; by default the file's name.

    Raises:
        PhotoError: there is no picture, or it has another format, is damaged, too large, smaller
            than 32 pixels, or empty.

    """
    if source is None:
        raise PhotoError("Photo: got none, expected a street photo. Choose or upload one first.")
    if isinstance(source, np.ndarray):
        label, picture = name or "photo", _from_array(source)
    elif isinstance(source, Image.Image):
        label, picture = name or Path(str(getattr(source, "filename", "") or "photo")).name, source
    elif isinstance(source, bytes | bytearray):
        label = name or "photo"
        picture = _opened(bytes(source), label)
    else:
        label = name or Path(source).name
        picture = _opened(_file_bytes(source, label), label)
    _check_size(picture, label)
    metadata = read_metadata(picture)
    notes = _notes(picture, metadata)
    upright = _decoded(picture, label)
    return _described(upright, label, metadata, notes)


def with_fov(photo: Photo, fov_deg: object) -> Photo:
    """The same photo with a typed field of view, in degrees.

    A picture that is a panorama by its shape alone becomes an ordinary photo if the typed value is
    less than 150 degrees.

    Raises:
        SettingError: the value is not a number from 5 to 360.

    """
    fov = checked_fov(fov_deg)
    by_shape = photo.fov_source.startswith("panorama")
    is_panorama = fov > MAX_PINHOLE_DEG or (photo.is_panorama and not by_shape)
    return replace(photo, fov_deg=fov, fov_source="typed", is_panorama=is_panorama)


def canvas_of(photo: Photo, bins: int = 32, size: tuple[int, int] = (128, 512)) -> GroundCanvas:
    """The photo on its ground canvas; see ``ground_canvas``."""
    return ground_canvas(
        photo.image, photo.fov_deg, photo.is_panorama, bins=bins, size=size, horizon=photo.horizon
    )


def _file_bytes(source: str | Path, label: str) -> bytes:
    try:
        size = os.stat(source).st_size
        if not 0 < size <= MAX_FILE_BYTES:
            raise PhotoError(_size_sentence(label, size))
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise PhotoError(
            f"Photo {label}: got no file to read ({reason}), expected a picture. Check the path."
        ) from error


def _size_sentence(label: str, size: int) -> str:
    return (
        f"Photo {label}: got a file of {size / 2**20:.1f} MB, expected more than 0 and at most "
        f"{MAX_FILE_BYTES // 2**20} MB. Save it smaller, as JPEG."
    )


def _from_array(array: UInt8Array) -> Image.Image:
    good_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not good_shape or array.size == 0:
        raise PhotoError(
            f"Photo: got an array {array.shape} of {array.dtype}, expected uint8 (H, W, 3). "
            "Convert it to 8-bit RGB."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _opened(content: bytes, label: str) -> Image.Image:
    """Read the header only; refuse by format and size before a pixel is decoded."""
    if not 0 < len(content) <= MAX_FILE_BYTES:
        raise PhotoError(_size_sentence(label, len(content)))
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(_pixels_sentence(label, "far more")) from error
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"Photo {label}: got something that is no picture, expected {_READABLE}. "
            "Choose another file."
        ) from error
    except Exception as error:  # on a damaged header the decoders may raise anything
        raise PhotoError(_damaged_sentence(label)) from error


def _pixels_sentence(label: str, got: str) -> str:
    return (
        f"Photo {label}: got {got} pixels, expected at most {MAX_PIXELS // 10**6} million. "
        "Save it smaller."
    )


def _damaged_sentence(label: str) -> str:
    return (
        f"Photo {label}: got a damaged or cut-off file, expected a whole {_READABLE}. "
        "Copy or download it again."
    )


def _check_size(picture: Image.Image, label: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoError(_pixels_sentence(label, f"{width} x {height}"))
    if min(width, height) < MIN_SIDE_PIXELS:
        raise PhotoError(
            f"Photo {label}: got {width} x {height} pixels, expected at least {MIN_SIDE_PIXELS} on "
            "each side. Choose a larger picture."
        )


def _decoded(picture: Image.Image, label: str) -> UInt8Array:
    """Pixels of the first frame: upright, uint8 (H, W, 3), at most 4096 on the longer side."""
    try:
        # JPEG can decode directly to a half, quarter or eighth of its size; other formats ignore this.
        picture.draft(None, (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
        picture.load()
        orientation = read_orientation(picture)
        shrunk = _shrunk(picture)
        if orientation not in _UPRIGHT:
            return shrunk
        return np.array(Image.fromarray(shrunk).transpose(_UPRIGHT[orientation]), np.uint8)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # on damaged pixel data the decoders may raise anything
        raise PhotoError(_damaged_sentence(label)) from error


def _shrunk(picture: Image.Image) -> UInt8Array:
    """A decoded picture of any mode as uint8 (H, W, 3), at most 4096 on the longer side.

    It is converted band by band: 80 million pixels of 16 bit or with transparency would take
    gigabytes if they were converted to RGB at once.
    """
    width, height = _shrunk_size(picture.size)
    value_range = _value_range(picture) if _is_deep(picture) else None
    step = picture.height / height
    rows = max(1, int(BAND_PIXELS / (picture.width * step)))
    shrunk = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = int(top * step), min(math.ceil(bottom * step), picture.height)
        band = _to_rgb(picture.crop((0, first, picture.width, last)), value_range)
        # The box may begin and end inside a row of pixels, so there is no seam between two bands.
        box = (0, top * step - first, band.width, min(bottom * step - first, band.height))
        part = band.resize((width, bottom - top), Image.Resampling.BOX, box)
        shrunk[top:bottom] = np.asarray(part)
    return shrunk


def _shrunk_size(size: tuple[int, int]) -> tuple[int, int]:
    share = min(1.0, MAX_SIDE_PIXELS / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _to_rgb(picture: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Any Pillow mode as RGB; transparent parts become the canvas's mid-grey.

    ``value_range``: the values that become 0 and 255 in a picture of deep grey.
    """
    if value_range is not None:
        return _stretched(np.asarray(picture, np.float64), *value_range)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (127, 127, 127, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def _is_deep(picture: Image.Image) -> bool:
    """Whether its pixels are grey of 16 or 32 bit, or floats."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _value_range(picture: Image.Image) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of deep grey, over its finite pixels.

    Cameras use 10, 12, 14 or 16 of the bits without recording the number, hence the percentiles.
    """
    kind = np.asarray(picture.crop((0, 0, 1, 1))).dtype
    values, filled = np.empty(picture.width * picture.height, kind), 0
    rows = max(1, BAND_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        box = (0, top, picture.width, min(top + rows, picture.height))
        band = np.asarray(picture.crop(box))
        finite = band[np.isfinite(band)]
        values[filled : filled + finite.size] = finite
        filled += finite.size
    if not filled:
        raise ValueError("no finite pixel")
    low, high = np.percentile(values[:filled], (0.5, 99.5), overwrite_input=True)
    return float(low), float(high)


def _stretched(values: Float64Array, low: float, high: float) -> Image.Image:
    """Deep grey as 8 bit: ``low`` to ``high`` becomes 0 to 255."""
    values = np.where(np.isfinite(values), values, low)
    scaled = (values - low) / max(high - low, 1e-9) * 255
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _notes(picture: Image.Image, metadata: PhotoMetadata) -> list[str]:
    notes = []
    try:
        is_animated = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
        if is_animated:
            picture.seek(0)
            notes.append("The file holds several pictures; only the first is used.")
    except Exception:  # counting frames reads the rest of the file, which may be damaged
        pass
    if metadata.heading_deg is not None and metadata.heading_is_magnetic:
        notes.append("Its compass heading is magnetic, which can be some degrees off true north.")
    return notes


def _described(image: UInt8Array, name: str, metadata: PhotoMetadata, notes: list[str]) -> Photo:
    """Add the field of view to an upright picture, in the order of the module's docstring."""
    height, width = image.shape[:2]
    heading, horizon, is_panorama = metadata.heading_deg, 0.5, True
    hint = metadata.panorama
    exif_fov, exif_source = fov_from_exif(metadata, width, height)
    if hint is not None:
        fov, source, horizon = hint.fov_deg, "GPano", hint.horizon
        heading = hint.heading_deg if hint.heading_deg is not None else heading
    elif min(abs(width - 2 * height), abs(width - 4 * height)) <= 0.005 * height:
        fov, source = 360.0, f"panorama {round(width / height)}:1"
        notes.append(
            f"Its shape, {round(width / height)}:1, is that of a full panorama. "
            "If it is an ordinary photo, type its field of view."
        )
    elif exif_fov is not None and exif_source is not None:
        fov, source, is_panorama = exif_fov, exif_source, False
    else:
        fov, source, is_panorama = GUESSED_FOV_DEG, "guess", False
        notes.append("The file has no field of view; 65 degrees is a guess.")
    return Photo(
        image=image,
        name=name,
        fov_deg=fov,
        fov_source=source,
        place=metadata.place,
        heading_deg=heading,
        is_panorama=is_panorama,
        horizon=horizon,
        notes=tuple(notes),
    )
