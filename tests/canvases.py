"""Synthetic photos: a tile's polar view is the panorama of a town that is flat."""

from __future__ import annotations

import numpy as np
import torch

from core.arrays import UInt8Array
from core.polar import BINS, polar_view


def tile_to_polar(tile: UInt8Array, height: int = 128, width: int = 512) -> UInt8Array:
    """Polar view (height, width, 3) uint8 of one north-up tile (S, S, 3) uint8."""
    batch = torch.from_numpy(np.array(tile)).permute(2, 0, 1)[None].float()
    polar = polar_view(batch, height, width)[0].permute(1, 2, 0)
    return polar.round().clamp(0, 255).to(torch.uint8).numpy()


def shift_canvas(canvas: UInt8Array, bins: int) -> UInt8Array:
    """A full canvas (H, W, 3) with its content moved right by whole bins.

    What was left of the centre moves into it, so the heading falls by 11.25 degrees per bin.
    """
    return np.roll(canvas, bins * (canvas.shape[1] // BINS), axis=1)
