"""A town's grid of places, and their descriptors as tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from core.arrays import Float64Array
from core.data.worlds import GRID_STEP_M, Town
from core.geo import grid_centres
from core.models.two_branch import TwoBranch
from core.polar import to_batch

__all__ = ["describe_places", "town_grid"]

CHUNK = 64


def town_grid(town: Town, step_m: float = GRID_STEP_M) -> Float64Array:
    """Places (R, 2) of a town's gallery, metres east and north; rows north to south."""
    limit = town.half_extent_m
    return grid_centres(-limit, -limit, limit, limit, step_m)


@torch.inference_mode()
def describe_places(
    model: TwoBranch, town: Town, points: Float64Array, device: str = "cpu"
) -> Tensor:
    """Descriptors (R, S, D) float32 of the tiles around points (R, S, 2)."""
    model.eval()
    pixels = model.aerial_size[0]
    flat = points.reshape(-1, 2)
    parts = []
    for start in range(0, len(flat), CHUNK):
        tiles = town.crop_tiles(flat[start : start + CHUNK], pixels)
        batch = to_batch(tiles, model.aerial_size, device)
        parts.append(model.describe_aerial(batch).float().cpu())
    return torch.cat(parts).unflatten(0, points.shape[:2])
