"""The polar transform of SAFA, exactly as published.

Shi, Liu, Yu, Li: *Spatial-Aware Feature Aggregation for Cross-View Image based Geo-Localization*,
NeurIPS 2019; the sampling positions are those of its script for CVUSA (side 750) and CVACT (1200).
``core.polar`` uses the same idea in the frame of our own worlds (pixel centres, north between the
two middle columns, the border repeated). Weights trained on SAFA's pictures need this version.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from core.arrays import Float64Array, Int64Array, UInt8Array
from core.errors import SettingError

__all__ = ["POLAR_HEIGHT", "POLAR_WIDTH", "safa_polar"]

POLAR_HEIGHT = 112
POLAR_WIDTH = 616


def safa_polar(tile: UInt8Array) -> Float64Array:
    """Polar view (112, 616, 3) of one north-up tile (S, S, 3), float64 in [0, 255].

    Column 0 looks south and columns run clockwise, so the middle one looks north; the top row is
    just inside the tile's edge, the bottom row is its centre. Bilinear, 0 outside the tile. Not
    rounded. The published pictures were saved with a function that may have stretched each to its
    own minimum and maximum, so rounded values only approximate them.

    Raises:
        SettingError: the tile is not square with three channels.

    """
    if tile.ndim != 3 or tile.shape[0] != tile.shape[1] or tile.shape[2] != 3:
        raise SettingError(
            f"Polar transform: got an image of shape {tile.shape}, expected (S, S, 3)."
        )
    index, weight = _neighbours(tile.shape[0])
    colours = tile.reshape(-1, 3)[index]
    polar = np.einsum("kp,kpc->pc", weight, colours)
    return polar.reshape(POLAR_HEIGHT, POLAR_WIDTH, 3)


@lru_cache(maxsize=4)
def _neighbours(side: int) -> tuple[Int64Array, Float64Array]:
    """The four neighbours of every sample: flat pixel indices and weights, both (4, 112 * 616)."""
    radius = side / (2 * POLAR_HEIGHT) * (POLAR_HEIGHT - 1 - np.arange(POLAR_HEIGHT))[:, None]
    angle = 2 * np.pi * np.arange(POLAR_WIDTH)[None, :] / POLAR_WIDTH
    row = (side / 2 + radius * np.cos(angle)).ravel()  # the script indexes signal[x, y]: x is a row
    column = (side / 2 - radius * np.sin(angle)).ravel()
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down, right = row - top, column - left
    indices, weights = [], []
    for step_down, step_right in ((0, 0), (1, 0), (0, 1), (1, 1)):
        r, c = top + step_down, left + step_right
        is_inside = (r >= 0) & (r < side) & (c >= 0) & (c < side)
        share = (down if step_down else 1 - down) * (right if step_right else 1 - right)
        indices.append(np.where(is_inside, r * side + c, 0))
        weights.append(np.where(is_inside, share, 0.0))
    index, weight = np.stack(indices), np.stack(weights)
    index.setflags(write=False)
    weight.setflags(write=False)
    return index, weight
