"""The polar view of a tile, azimuth bins, azimuth shifts and headings.

The polar view has the frame of a ground canvas. Columns are azimuth: north in the centre, clockwise
to the right. Rows are radius: half the tile's side at the top edge, the tile's centre at the bottom.

Canvas and polar view of one place then differ by a circular azimuth shift, which gives the heading,
and by the change of view from the ground to the air.

The transform is SAFA's idea (Shi et al., NeurIPS 2019), here with the top row at the tile's edge and
the centre column at north.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from core.arrays import FloatArray, Int16Array, UInt8Array
from core.errors import SettingError

__all__ = [
    "BINS",
    "BIN_DEG",
    "RINGS",
    "heading_from_shift",
    "polar_grid",
    "polar_view",
    "refine_shift",
    "residual_rotation",
    "rotated_back",
    "sector_map",
    "shift_from_heading",
    "to_batch",
]

BINS = 32
"""Azimuth bins of a full circle. 32 rather than 16, so that a 65 degree photo keeps 5 whole bins."""
BIN_DEG = 360.0 / BINS
RINGS = 4
"""Rows of tokens: elevation bands of a canvas, rings of a tile (row 0 is the outermost)."""


@lru_cache(maxsize=16)
def polar_grid(height: int, width: int) -> Tensor:
    """Sampling positions of a polar view on its tile, (height, width, 2) as (x, y) in [-1, 1].

    Pixel centres: row r lies at radius 1 - (r + 0.5) / height of the half side, column c at azimuth
    -180 + (c + 0.5) * 360 / width degrees clockwise from north. x grows to the east, y to the south.
    """
    radius = 1.0 - (torch.arange(height, dtype=torch.float32) + 0.5) / height
    azimuth = (torch.arange(width, dtype=torch.float32) + 0.5) / width * 2 * torch.pi - torch.pi
    x = radius[:, None] * torch.sin(azimuth)[None, :]
    y = -radius[:, None] * torch.cos(azimuth)[None, :]
    return torch.stack([x, y], dim=-1)


def _rotated_grids(rotations: Tensor, height: int, width: int) -> Tensor:
    """``polar_grid`` of B tiles, each rotated by so many bins (B,): (B, height, width, 2)."""
    angle = rotations * (2 * torch.pi / BINS)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = polar_grid(height, width).to(rotations).unbind(dim=2)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


def polar_view(tiles: Tensor, height: int, width: int, rotations: Tensor | None = None) -> Tensor:
    """Polar views of tiles, bilinear.

    Args:
        tiles: (B, C, S, S), north up.
        height: of the views in pixels.
        width: of the views in pixels.
        rotations: (B,) in bins, clockwise. The centre column of a view then shows the azimuth
            ``rotation * BIN_DEG`` degrees instead of north. None: all 0.

    Returns:
        (B, C, height, width).

    Raises:
        SettingError: tiles that are not square.

    """
    if tiles.ndim != 4 or tiles.shape[-1] != tiles.shape[-2]:
        raise SettingError(
            f"Polar view: got tiles of shape {tuple(tiles.shape)}, expected (B, C, S, S)."
        )
    if rotations is None:
        grid = polar_grid(height, width).to(tiles).expand(tiles.shape[0], -1, -1, -1)
    else:
        grid = _rotated_grids(rotations.to(tiles), height, width)
    return F.grid_sample(
        tiles,
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def rotated_back(places: FloatArray, rotations: FloatArray) -> FloatArray:
    """Places in the frame of a rotated polar view, in which its sectors lie as if not rotated.

    Args:
        places: (B, N, 2), east and north of the tiles' centres.
        rotations: (B,) in bins, of the polar views.

    Returns:
        (B, N, 2), in the unit of ``places``.

    """
    angle = np.radians(rotations * BIN_DEG)[:, None]
    east, north = places[..., 0], places[..., 1]
    return np.stack(
        [
            east * np.cos(angle) - north * np.sin(angle),
            north * np.cos(angle) + east * np.sin(angle),
        ],
        axis=-1,
    )


@lru_cache(maxsize=8)
def sector_map(side: int = 256, rotation: float = 0.0) -> Int16Array:
    """Token index (row-major over RINGS x BINS) of every tile pixel, (side, side); -1 off the circle.

    ``rotation``: of the tile's polar view, in bins (``polar_view``).
    """
    centre = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(centre, centre)
    radius = np.hypot(x, y)
    azimuth = np.degrees(np.arctan2(x, -y))
    ring = np.floor((1 - radius) * RINGS)
    column = np.floor((azimuth + 180.0) / BIN_DEG - rotation) % BINS
    index = np.where(radius < 1, ring * BINS + column, -1).astype(np.int16)
    index.setflags(write=False)
    return index


def to_batch(
    images: UInt8Array | Sequence[UInt8Array], size: tuple[int, int], device: str = "cpu"
) -> Tensor:
    """uint8 images (B, H, W, 3) -> float (B, 3, h, w) in [0, 1], reduced by area averaging.

    ``size``: (height, width) wanted. Enlarging is bilinear. All images must have one shape.
    """
    stacked = np.ascontiguousarray(images if isinstance(images, np.ndarray) else np.stack(images))
    batch = torch.from_numpy(stacked).to(device).permute(0, 3, 1, 2).float().div_(255.0)
    if batch.shape[-2:] == size:
        return batch.contiguous()
    if batch.shape[-2] >= size[0] and batch.shape[-1] >= size[1]:
        return F.interpolate(batch, size=size, mode="area")
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)


def heading_from_shift(azimuth_shift: float, n_bins: int, bins: int = BINS) -> float:
    """Heading in degrees [0, 360) of the centre of a query of n bins at an azimuth shift in bins.

    The first bin of the polar view begins in the south (-180 degrees).
    """
    return float((-180.0 + (azimuth_shift + n_bins / 2) * 360.0 / bins) % 360.0)


def residual_rotation(azimuth_shift: float) -> float:
    """An azimuth shift less the nearest whole one, in bins, at most half of one to either side.

    A tile whose polar view is rotated by it lies under the query at that whole azimuth shift.
    """
    return azimuth_shift - round(azimuth_shift)


def shift_from_heading(heading_deg: float, n_bins: int, bins: int = BINS) -> float:
    """Azimuth shift in [0, bins), seldom whole, at which a query of n bins has this heading (degrees)."""
    return float(((heading_deg + 180.0) * bins / 360.0 - n_bins / 2) % bins)


def refine_shift(similarities: npt.ArrayLike) -> float:
    """Azimuth shift in [0, bins) of the peak, between whole ones.

    It is the vertex of the parabola through the best whole azimuth shift and its two circular
    neighbours; the best one itself where the three are equal.

    Args:
        similarities: (bins,), at every whole azimuth shift.

    """
    curve = np.asarray(similarities, dtype=np.float64)
    best = int(np.argmax(curve))
    left, middle, right = curve[best - 1], curve[best], curve[(best + 1) % len(curve)]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((best + shift) % len(curve))
