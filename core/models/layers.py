"""Small parts that several encoders share: attention, padding, position tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SelfAttention", "attend", "pad_columns", "resize_positions"]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention, softmax(q k^T / sqrt(d)) v.

    The fused kernel is used except where a gradient is wanted on the CPU: its backward pass is
    several times slower there than three plain products.

    Args:
        query: (B, heads, N, d).
        key: (B, heads, M, d).
        value: (B, heads, M, d).

    Returns:
        (B, heads, N, d).

    """
    if torch.is_grad_enabled() and query.device.type == "cpu":
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        weighted: Tensor = scores.softmax(dim=-1) @ value
        return weighted
    gathered: Tensor = functional.scaled_dot_product_attention(query, key, value)
    return gathered


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused query-key-value map; names as in timm and SAIG.

    Args:
        width: channels C.
        heads: number of heads, a divisor of the width.

    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: got {heads}, expected a divisor of the width {width}.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let each token gather from all tokens of its image: (B, N, C) -> (B, N, C)."""
        batch, count, width = tokens.shape
        split = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        gathered = attend(query, key, value).transpose(1, 2).reshape(batch, count, width)
        projected: Tensor = self.proj(gathered)
        return projected


class _PadCircular(torch.autograd.Function):
    """Circular columns in one copy each way; torch's own leaves channels last and costs ten."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, columns: int) -> Tensor:
        ctx.columns = columns
        return torch.cat((images[..., -columns:], images, images[..., :columns]), dim=3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        columns, gradient = ctx.columns, gradients[0]
        inner = gradient[..., columns:-columns].clone()
        inner[..., -columns:] += gradient[..., :columns]
        inner[..., :columns] += gradient[..., -columns:]
        return inner, None


def pad_columns(images: Tensor, columns: int, circular: bool) -> Tensor:
    """Pad (B, C, H, W) left and right: with the other side if circular, else with the edge.

    ``columns``: 1 to W on either side.
    """
    if circular:
        padded: Tensor = _PadCircular.apply(images, columns)  # type: ignore[no-untyped-call]
        return padded
    return functional.pad(images, (columns, columns, 0, 0), mode="replicate")


def resize_positions(positions: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resample a table of learned positions to another grid, bicubic as SAIG does it.

    Args:
        positions: (1, N, C), row-major over the source grid.
        source: (rows, columns) with rows * columns = N.
        target: (rows, columns) wanted.

    Returns:
        (1, rows * columns, C); the table itself where source and target are equal.

    """
    if source == target:
        return positions
    grid = positions.transpose(1, 2).reshape(1, -1, *source)
    resized = functional.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
