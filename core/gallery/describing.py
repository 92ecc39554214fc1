"""A student as the describing function of a gallery build."""

from __future__ import annotations

from collections.abc import Callable

import torch

from core.arrays import Float32Array, UInt8Array
from core.models.two_branch import TwoBranch
from core.polar import to_batch

__all__ = ["tile_describer"]


def tile_describer(student: TwoBranch, device: str = "cpu") -> Callable[[UInt8Array], Float32Array]:
    """The function for ``build_gallery``: tiles uint8 (B, S, S, 3) -> descriptors float32 (B, D)."""

    @torch.inference_mode()
    def describe(tiles: UInt8Array) -> Float32Array:
        batch = to_batch(tiles, student.aerial_size, device)
        return student.describe_aerial(batch).float().cpu().numpy()

    return describe
