"""Tile <-> polar view, canvas azimuth shifts and azimuth bins.

The polar view of a tile has the same frame as a ground canvas: columns are azimuth (centre =
north, clockwise to the right), rows are radius (top edge = half the tile's side, bottom edge =
the centre). Canvas and polar view of one place then differ by a circular azimuth shift, the heading, and
by what height does. The transform is SAFA's idea (Shi et al., NeurIPS 2019) with the top row at
the tile's edge and the centre column at north.
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
    "shift_canvas",
    "shift_from_heading",
    "tile_to_polar",
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


def _turned_grids(turns: Tensor, height: int, width: int) -> Tensor:
    """``polar_grid`` (B, height, width, 2) of tiles of which each is turned by so many bins (B,)."""
    angle = turns * (2 * torch.pi / BINS)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = polar_grid(height, width).to(turns).unbind(dim=2)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


def polar_view(tiles: Tensor, height: int, width: int, turns: Tensor | None = None) -> Tensor:
    """Polar views (B, C, height, width) of north-up tiles (B, C, S, S), bilinear.

    ``turns``: (B,) in azimuth bins, clockwise, by which the azimuths of each view's columns are greater
    than they would be; its centre column then looks ``turns * BIN_DEG`` degrees east of north.
    """
    if tiles.ndim != 4 or tiles.shape[-1] != tiles.shape[-2]:
        raise SettingError(
            f"Polar view: got tiles of shape {tuple(tiles.shape)}, expected (B, C, S, S)."
        )
    if turns is None:
        grid = polar_grid(height, width).to(tiles).expand(tiles.shape[0], -1, -1, -1)
    else:
        grid = _turned_grids(turns.to(tiles), height, width)
    return F.grid_sample(
        tiles,
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def rotated_back(places: FloatArray, turns: FloatArray) -> FloatArray:
    """Places (B, N, 2), east and north of tiles' centres, as they lie in views turned by bins (B,)."""
    angle = np.radians(turns * BIN_DEG)[:, None]
    east, north = places[..., 0], places[..., 1]
    return np.stack(
        [
            east * np.cos(angle) - north * np.sin(angle),
            north * np.cos(angle) + east * np.sin(angle),
        ],
        axis=-1,
    )


def tile_to_polar(tile: UInt8Array, height: int = 128, width: int = 512) -> UInt8Array:
    """Polar view (height, width, 3) uint8 of one north-up tile (S, S, 3) uint8."""
    batch = torch.from_numpy(np.array(tile)).permute(2, 0, 1)[None].float()
    polar = polar_view(batch, height, width)[0].permute(1, 2, 0)
    return polar.round().clamp(0, 255).to(torch.uint8).numpy()


def shift_canvas(canvas: UInt8Array, bins: int) -> UInt8Array:
    """A full canvas (H, W, 3) with its content moved right by whole bins.

    What was left of the centre moves into it, so the heading falls by 11.25 degrees per bin.
    """
    width = canvas.shape[1]
    if width % BINS:
        raise SettingError(f"Canvas: got a width of {width} px, expected a multiple of {BINS}.")
    return np.roll(canvas, bins * (width // BINS), axis=1)


@lru_cache(maxsize=8)
def sector_map(side: int = 256, turn: float = 0.0) -> Int16Array:
    """Token index (row-major over RINGS x BINS) of every tile pixel, (side, side); -1 off the circle.

    ``turn``: of the tile's polar view, in bins (``polar_view``).
    """
    centre = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(centre, centre)
    radius = np.hypot(x, y)
    azimuth = np.degrees(np.arctan2(x, -y))
    ring = np.floor((1 - radius) * RINGS)
    column = np.floor((azimuth + 180.0) / BIN_DEG - turn) % BINS
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
    """Heading in degrees [0, 360) of the centre of a query of n bins that lies at ``azimuth_shift``.

    The first bin of the polar view begins in the south (-180 degrees).
    """
    return float((-180.0 + (azimuth_shift + n_bins / 2) * 360.0 / bins) % 360.0)


def residual_rotation(azimuth_shift: float) -> float:
    """By how many bins, at most half of one, a tile is turned that is met at an azimuth shift: what the nearest
    whole azimuth shift lacks.
    """
    return azimuth_shift - round(azimuth_shift)


def shift_from_heading(heading_deg: float, n_bins: int, bins: int = BINS) -> float:
    """Azimuth shift in [0, bins), seldom whole, at which a query of n bins has this heading (degrees)."""
    return float(((heading_deg + 180.0) * bins / 360.0 - n_bins / 2) % bins)


def refine_shift(similarities: npt.ArrayLike) -> float:
    """Azimuth shift in [0, bins) of the peak between whole azimuth shifts, from similarities (bins,) of all azimuth shifts.

    The vertex of the parabola through the best azimuth shift and its two circular neighbours; the best
    azimuth shift itself where the three are equal.
    """
    curve = np.asarray(similarities, dtype=np.float64)
    best = int(np.argmax(curve))
    left, middle, right = curve[best - 1], curve[best], curve[(best + 1) % len(curve)]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((best + shift) % len(curve))
