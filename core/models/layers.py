"""Small parts that several encoders share: attention, padding, position tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "SelfAttention",
    "WeightCache",
    "attend",
    "encode_in_parts",
    "pad_columns",
    "resize_positions",
]

PIXELS_AT_ONCE = 16 * 128 * 512
"""Pixels that ``encode_in_parts`` encodes at once: sixteen views of the papers' size.

Their queries, keys and values take 19 MB in SAIG. From 32 MB on glibc returns memory at once. Still
smaller parts gain 2 % on an idle machine, but lose more on a busy one, where threads wait for each
other between parts.
"""


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
    gathered: Tensor = F.scaled_dot_product_attention(query, key, value)
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
        """Attend from each token to all tokens of its image: (B, N, C) -> (B, N, C)."""
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
    return F.pad(images, (columns, columns, 0, 0), mode="replicate")


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
    resized = F.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


class WeightCache:
    """Keeps what was computed from weights until one of them changes; for inference alone.

    It notices weights that change in place (an optimiser, ``load_state_dict``) and weights that are
    replaced (``to``, ``load_state_dict(assign=True)``). It does not notice a write through
    ``Tensor.data``.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple[Tensor, ...], tuple[object, ...], tuple[Tensor, ...]] | None = None

    def __call__(
        self, weights: tuple[Tensor, ...], compute: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """The result of ``compute``, which reads ``weights``; computed again when they change."""
        state = tuple(_state(weight) for weight in weights)
        known = self._known  # read once: another thread may replace it meanwhile
        # The weights are kept too: a freed one's address could be used for a new one.
        if known is not None and known[1] == state:
            return known[2]
        with torch.no_grad():
            computed = compute()
        self._known = weights, state, computed
        return computed

    def __deepcopy__(self, memo: dict[int, object]) -> WeightCache:
        return WeightCache()  # a copied model computes its own


def _state(weight: Tensor) -> tuple[object, ...]:
    version = 0 if weight.is_inference() else weight._version
    return id(weight), weight.data_ptr(), version


def encode_in_parts(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply ``encode`` to a batch (B, 3, H, W), a few images at a time where that is faster.

    On a CPU without gradients, the activations of a few images fit into memory that the process
    holds. Those of 32 are so large that in every layer the C library asks the system for fresh
    pages and gives them back. On other devices and with gradients the batch is encoded whole.
    """
    count = max(1, PIXELS_AT_ONCE // max(1, images.shape[-2] * images.shape[-1]))
    if torch.is_grad_enabled() or images.device.type != "cpu" or len(images) <= count:
        return encode(images)
    return torch.cat([encode(part) for part in images.split(count)])
