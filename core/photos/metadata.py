"""The metadata of a picture file: EXIF and GPano XMP, read without trust.

Every value may be missing, impossible or malicious; a value that makes no sense becomes None.
Sources: Exif 2.32 (CIPA DC-008), Google's Photo Sphere XMP metadata (namespace GPano).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from core.records import Place

__all__ = [
    "GPANO_VALUE",
    "MAX_FOV_DEG",
    "MAX_PINHOLE_DEG",
    "MIN_FOV_DEG",
    "PanoramaHint",
    "PhotoMetadata",
    "fov_from_exif",
    "read_metadata",
    "read_orientation",
]

GPANO_VALUE = r"GPano:(\w+)(?:\s*=\s*[\"']|\s*>)\s*([^\"'<]{1,64})"
"""A pattern for one value of GPano: the name of an attribute or element, and its value."""
MIN_FOV_DEG = 5.0
MAX_FOV_DEG = 360.0
MAX_PINHOLE_DEG = 150.0
"""A wider picture is not from a pinhole camera: its columns are treated as equal angles."""

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAX_XMP_BYTES = 1_000_000
_FULL_FRAME_MM = 36.0
_INCH_MM = {2: 25.4, 3: 10.0}
"""FocalPlaneResolutionUnit: 2 is inches, 3 is centimetres."""

# Width (longer side) of the sensor in mm, for cameras that omit the 35 mm focal length.
# Makers' data sheets, to about 5 %; a name matches when the camera's model begins with it.
_SENSOR_WIDTH_MM = (
    ("hdr-as300", 5.7),
    ("hdr-as200", 6.2),
    ("hdr-as100", 6.2),
    ("fdr-x3000", 6.2),
    ("nokia 8.3 5g", 5.6),
    ("hero", 6.2),
    ("coolpix p6000", 7.4),
    ("dsc-rx100", 13.2),
    ("dsc-w", 6.2),
    ("ilce-7", 35.8),
    ("ilce-6", 23.5),
    ("nikon d6", 35.9),
    ("nikon d7", 35.9),
    ("nikon d3", 23.5),
    ("nikon d5", 23.5),
    ("canon eos 5d", 36.0),
    ("canon eos 6d", 35.8),
    ("canon eos", 22.3),
    ("canon powershot s", 7.4),
    ("canon powershot g", 7.4),
    ("x-t", 23.5),
    ("e-m", 17.3),
)


@dataclass(frozen=True)
class PanoramaHint:
    """The GPano values of an equirectangular panorama.

    ``fov_deg``: its width, in (0, 360]. ``horizon``: height of the horizon, as a share of the
    picture's height from the top. ``heading_deg``: of the picture's centre column, or None.
    """

    fov_deg: float
    horizon: float
    heading_deg: float | None


@dataclass(frozen=True)
class PhotoMetadata:
    """The metadata of a file; a value is None if the file has no usable one.

    ``focal_35mm``, ``focal_mm``, ``sensor_width_mm``: millimetres, the
    sensor's longer side. ``heading_deg``: clockwise from north. ``heading_is_magnetic``: the
    compass was not corrected to true north.
    """

    focal_35mm: float | None = None
    focal_mm: float | None = None
    sensor_width_mm: float | None = None
    place: Place | None = None
    heading_deg: float | None = None
    heading_is_magnetic: bool = False
    panorama: PanoramaHint | None = None


def read_metadata(image: Image.Image) -> PhotoMetadata:
    """EXIF and XMP of an opened picture (its pixels need not be decoded). Never raises."""
    try:
        exif = image.getexif()
        main: dict[int, Any] = dict(exif)
        camera: dict[int, Any] = dict(exif.get_ifd(_EXIF_IFD))
        gps: dict[int, Any] = dict(exif.get_ifd(_GPS_IFD))
    except Exception:  # on a damaged block Pillow's EXIF parser may raise anything
        main, camera, gps = {}, {}, {}
    return PhotoMetadata(
        focal_35mm=_within(_number(camera.get(41989)), 1.0, 2000.0),
        focal_mm=_within(_number(camera.get(37386)), 0.1, 2000.0),
        sensor_width_mm=_sensor_width_mm(main, camera, image.size),
        place=_place(gps),
        heading_deg=_heading(gps.get(17)),
        heading_is_magnetic=str(gps.get(16, "")).strip("\0 ").upper() == "M",
        panorama=_panorama(image),
    )


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of the decoded pixels; 1 if the file has no usable value.

    Call it after decoding: Pillow turns TIFF pictures upright itself and then removes the tag.
    """
    try:
        orientation = _number(image.getexif().get(274))
    except Exception:  # as above
        return 1
    return int(orientation) if orientation in range(1, 9) and orientation is not None else 1


def fov_from_exif(
    metadata: PhotoMetadata, width: int, height: int
) -> tuple[float, str] | tuple[None, None]:
    """Horizontal field of view in degrees, and its source, of an upright picture of the given size.

    The film frame's 36 mm (or the sensor's width) belong to the picture's longer side. So the width
    of a portrait photo follows from its aspect: 24 mm at 3:2, 27 mm at 4:3. (None, None) if EXIF has
    no value, or one outside 5..150 degrees.
    """
    share = width / max(width, height)
    if metadata.focal_35mm is not None:
        fov = _view_angle_deg(_FULL_FRAME_MM * share, metadata.focal_35mm)
        if fov is not None:
            return fov, "EXIF 35 mm focal length"
    if metadata.focal_mm is not None and metadata.sensor_width_mm is not None:
        fov = _view_angle_deg(metadata.sensor_width_mm * share, metadata.focal_mm)
        if fov is not None:
            return fov, "EXIF focal length and known sensor"
    return None, None


def _view_angle_deg(side_mm: float, focal_mm: float) -> float | None:
    angle = math.degrees(2 * math.atan(side_mm / (2 * focal_mm)))
    return _within(angle, MIN_FOV_DEG, MAX_PINHOLE_DEG)


def _number(value: Any) -> float | None:
    """A finite float, or None; zero denominators come out of Pillow as nan."""
    if isinstance(value, bytes | bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None


def _heading(value: Any) -> float | None:
    direction = _within(_number(value), 0.0, 360.0)
    return None if direction is None else direction % 360.0


def _sensor_width_mm(
    main: dict[int, Any], camera: dict[int, Any], size: tuple[int, int]
) -> float | None:
    """The sensor's longer side: from the table by model, else from the focal plane's resolution."""
    model = str(main.get(272, "")).strip("\0 ").lower()
    for name, width_mm in _SENSOR_WIDTH_MM:
        if model.startswith(name):
            return width_mm
    per_unit = _number(camera.get(41486))
    unit_mm = _INCH_MM.get(int(_number(camera.get(41488)) or 2))
    if not per_unit or per_unit <= 0 or unit_mm is None:
        return None
    # The resolution belongs to the original picture; these tags keep its size after a resize.
    taken = [_number(camera.get(tag)) or 0.0 for tag in (40962, 40963)]
    pixels = max(taken) if min(taken) > 0 else float(max(size))
    return _within(pixels / per_unit * unit_mm, 2.0, 60.0)


def _place(gps: dict[int, Any]) -> Place | None:
    lat = _angle(gps.get(2), gps.get(1), "N", "S")
    lon = _angle(gps.get(4), gps.get(3), "E", "W")
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180:
        return None
    return Place(lat, lon)


def _angle(parts: Any, reference: Any, positive: str, negative: str) -> float | None:
    """Degrees, minutes, seconds and a hemisphere letter -> signed degrees."""
    letter = str(reference).strip("\0 ").upper()[:1]
    if letter not in (positive, negative) or not isinstance(parts, tuple | list) or len(parts) != 3:
        return None
    numbers = [_number(part) for part in parts]
    degrees, minutes, seconds = numbers
    # Some writers put degrees with decimals first and leave 0/0 for the rest.
    if degrees is None or degrees < 0:
        return None
    minutes, seconds = minutes or 0.0, seconds or 0.0
    if not (0 <= minutes < 60.0001 and 0 <= seconds < 60.0001):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    return -value if letter == negative else value


def _panorama(image: Image.Image) -> PanoramaHint | None:
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes):
        xmp = xmp[:_MAX_XMP_BYTES].decode("utf-8", "replace")
    if not isinstance(xmp, str) or "GPano" not in xmp:
        return None
    # A pattern instead of an XML parser: a packet of entities could otherwise fill the memory.
    pairs = re.findall(GPANO_VALUE, xmp[:_MAX_XMP_BYTES])
    values = {key: text.strip() for key, text in pairs}
    if values.get("ProjectionType", "equirectangular").lower() != "equirectangular":
        return None
    return _panorama_hint(values, image.size)


def _panorama_hint(values: dict[str, str], size: tuple[int, int]) -> PanoramaHint | None:
    def value(key: str, default: float) -> float:
        number = _number(values.get(key))
        return default if number is None else number

    full_width = value("FullPanoWidthPixels", 0.0)
    cropped_width = value("CroppedAreaImageWidthPixels", float(size[0]))
    if full_width <= 0 or not 0 < cropped_width <= full_width:
        return None
    fov = 360.0 * cropped_width / full_width
    if fov < MIN_FOV_DEG:
        return None
    full_height = value("FullPanoHeightPixels", full_width / 2)
    cropped_height = value("CroppedAreaImageHeightPixels", float(size[1]))
    top = value("CroppedAreaTopPixels", (full_height - cropped_height) / 2)
    horizon = (full_height / 2 - top) / cropped_height if cropped_height > 0 else 0.5
    heading = _number(values.get("PoseHeadingDegrees"))
    if heading is not None:
        # GPano gives the heading of the full panorama's centre; we want that of the cropped picture.
        left = value("CroppedAreaLeftPixels", (full_width - cropped_width) / 2)
        heading += ((left + cropped_width / 2) / full_width - 0.5) * 360.0
    return PanoramaHint(
        fov_deg=fov,
        horizon=horizon if 0.0 <= horizon <= 1.0 else 0.5,
        heading_deg=None if heading is None or abs(heading) > 720 else heading % 360.0,
    )
