"""The ground canvas: the common form of all street pictures for the models.

Axes. Columns are azimuth, growing to the right (clockwise seen from above); the centre of the
canvas, between its two middle columns, is the photo's heading. Rows are elevation, from +45 degrees
at the upper edge to -45 at the lower one; the horizon lies between the two middle rows. At the
default 512 x 128 every pixel is 0.703 degrees in both directions, and 16 columns are one of the 32
azimuth bins. A picture narrower than 360 degrees gets a narrower canvas: the number of whole bins
nearest to its width, with the same centre. The part that the picture does not show is mid-grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from core.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from core.errors import PhotoError, SettingError
from core.photos.metadata import MAX_FOV_DEG, MAX_PINHOLE_DEG, MIN_FOV_DEG

__all__ = ["ELEVATION_DEG", "UNSEEN", "GroundCanvas", "checked_fov", "ground_canvas"]

ELEVATION_DEG = 45.0
UNSEEN = 127
_OVERSAMPLING = 2


@dataclass(frozen=True)
class GroundCanvas:
    """A street picture on the canvas.

    ``image``: uint8 (H, n_bins * columns per bin, 3). ``n_bins``: azimuth bins; the picture may
    cover the outermost ones only in part.
    ``fov_deg``: n_bins * bin width. ``mask``: bool (H, W), True where the picture shows something.
    """

    image: UInt8Array
    n_bins: int
    fov_deg: float
    mask: BoolArray


def checked_fov(value: object) -> float:
    """A typed field of view as degrees in [5, 360].

    Raises:
        SettingError: it is not a number (text, None, nan) or outside the range.

    """
    try:
        fov_deg = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        fov_deg = math.nan
    if isinstance(value, bool) or not MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:
        raise SettingError(
            f"Field of view: got {str(value)[:40]!r}, expected a number of degrees from "
            f"{MIN_FOV_DEG:g} to {MAX_FOV_DEG:g}. A phone's main camera sees about 65."
        )
    return fov_deg


def ground_canvas(
    image: UInt8Array,
    fov_deg: float,
    is_panorama: bool,
    bins: int = 32,
    size: tuple[int, int] = (128, 512),
    horizon: float = 0.5,
) -> GroundCanvas:
    """Reproject a picture onto the ground canvas, with the number of whole bins nearest to its width.

    A photo is treated as the picture of a level pinhole camera; everything beyond 45 degrees of
    elevation is cut. A panorama, and any picture wider than 150 degrees, is treated as
    equirectangular: columns are equal angles, rows have the same angle per pixel.

    Args:
        image: uint8 (H, W, 3).
        fov_deg: horizontal field of view of the picture, degrees in [5, 360].
        is_panorama: the picture is equirectangular.
        bins: azimuth bins of the full circle; they divide ``size[1]``.
        size: height and width of the full canvas, pixels.
        horizon: height of the horizon in a panorama, as a share of its height from the top.

    Raises:
        SettingError: the field of view is outside its range, or bins do not divide the width.
        PhotoError: the picture is not uint8 (H, W, 3).

    """
    fov_deg = checked_fov(fov_deg)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise PhotoError(
            f"Photo: got an array {image.shape} of {image.dtype}, expected uint8 (H, W, 3). "
            "Open it with core.photos.opening.open_photo."
        )
    if bins < 1 or size[1] % bins:
        raise SettingError(f"Azimuth bins: got {bins}, expected a divisor of {size[1]} columns.")
    n_bins = int(min(bins, max(1, math.floor(fov_deg * bins / 360.0 + 0.5 + 1e-6))))
    shape = (size[0], n_bins * (size[1] // bins))
    covered_deg = n_bins * 360.0 / bins
    if is_panorama or fov_deg > MAX_PINHOLE_DEG:
        pixels, mask = _from_equirectangular(image, fov_deg, covered_deg, shape, horizon)
    else:
        pixels, mask = _from_pinhole(image, fov_deg, covered_deg, shape)
    return GroundCanvas(pixels, n_bins, covered_deg, mask)


def _from_equirectangular(
    image: UInt8Array, fov_deg: float, covered_deg: float, shape: tuple[int, int], horizon: float
) -> tuple[UInt8Array, BoolArray]:
    """Cut the strip of +-45 degrees and of whole bins out of a panorama, and resize it."""
    height, width = image.shape[:2]
    per_degree = width / fov_deg
    row_span, row_first, row_count = _visible(
        horizon * height - ELEVATION_DEG * per_degree, 2 * ELEVATION_DEG * per_degree,
        height, shape[0],
    )  # fmt: skip
    column_span, column_first, column_count = _visible(
        (fov_deg - covered_deg) / 2 * per_degree, covered_deg * per_degree, width, shape[1]
    )
    pixels = np.full((*shape, 3), UNSEEN, np.uint8)
    mask = np.zeros(shape, np.bool_)
    if row_count and column_count:
        part = Image.fromarray(image).resize(
            (column_count, row_count),
            Image.Resampling.BILINEAR,
            box=(column_span[0], row_span[0], column_span[1], row_span[1]),
        )
        window = np.s_[
            row_first : row_first + row_count, column_first : column_first + column_count
        ]
        pixels[window] = np.asarray(part)
        mask[window] = True
    return pixels, mask


def _visible(
    start: float, length: float, limit: int, count: int
) -> tuple[tuple[float, float], int, int]:
    """The cells, of ``count`` over [start, start + length], that lie wholly inside [0, limit].

    Returns ((first edge, last edge) in source pixels, first cell, number of cells).
    """
    cell = length / count
    first = max(0, math.ceil(-start / cell - 1e-6))
    last = min(count, math.floor((limit - start) / cell + 1e-6))
    edges = (max(0.0, start + first * cell), min(float(limit), start + last * cell))
    return edges, first, max(0, last - first)


def _from_pinhole(
    image: UInt8Array, fov_deg: float, covered_deg: float, shape: tuple[int, int]
) -> tuple[UInt8Array, BoolArray]:
    """Sample a level pinhole picture along the canvas's azimuths and elevations."""
    rows, columns = shape[0] * _OVERSAMPLING, shape[1] * _OVERSAMPLING
    tangent = math.tan(math.radians(fov_deg / 2))
    aspect = image.shape[0] / image.shape[1]
    image = _shrunk(image, 2 * tangent * columns / math.radians(covered_deg))
    height, width = image.shape[:2]
    focal = width / 2 / tangent
    # Shrinking rounds height and width separately to whole pixels.
    focal_y = focal * height / (width * aspect)
    azimuth = np.radians(((np.arange(columns) + 0.5) / columns - 0.5) * covered_deg)
    elevation = np.radians((0.5 - (np.arange(rows) + 0.5) / rows) * 2 * ELEVATION_DEG)
    # Direction (cos e sin a, sin e, cos e cos a) intersects the plane z = 1 at (tan a, tan e / cos a).
    x = np.broadcast_to(width / 2 + focal * np.tan(azimuth), (rows, columns))
    y = height / 2 - focal_y * np.tan(elevation)[:, None] / np.cos(azimuth)[None, :]
    inside = (x >= -1e-6) & (x <= width + 1e-6) & (y >= -1e-6) & (y <= height + 1e-6)
    blocks = (shape[0], _OVERSAMPLING, shape[1], _OVERSAMPLING)
    sampled = _bilinear(image, x, y).reshape(*blocks, 3).mean(axis=(1, 3))
    mask = inside.reshape(blocks).all(axis=(1, 3))
    pixels = np.where(mask[..., None], np.clip(np.rint(sampled), 0, 255), UNSEEN)
    return pixels.astype(np.uint8), mask


def _shrunk(image: UInt8Array, wanted_width: float) -> UInt8Array:
    """The picture averaged down to the sampling density, so that nothing is skipped."""
    height, width = image.shape[:2]
    if width <= wanted_width:
        return image
    new_width = max(2, round(wanted_width))
    new_height = max(2, round(height * new_width / width))
    return np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BOX))


def _bilinear(image: UInt8Array, x: Float64Array, y: Float64Array) -> Float32Array:
    """Float (h, w, 3) of a uint8 picture at (x, y) in pixels from its upper left edge."""
    height, width = image.shape[:2]
    column = np.clip(x - 0.5, 0, width - 1)
    row = np.clip(y - 0.5, 0, height - 1)
    left = np.minimum(column.astype(np.intp), max(0, width - 2))
    top = np.minimum(row.astype(np.intp), max(0, height - 2))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across = (column - left).astype(np.float32)[..., None]
    down = (row - top).astype(np.float32)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)
