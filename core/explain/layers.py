"""One encoder's attention, layer by layer, and the similarity of its learned positions, as arrays.

``position_similarity`` is Figure 3 of L2LTR (Yang, Lu, Zhu, NeurIPS 2021,
https://arxiv.org/abs/2107.00842), for any encoder with learned positions. ``rollout`` is attention
rollout (Abnar and Zuidema, *Quantifying Attention Flow in Transformers*, ACL 2020, section 3), for
SAIG and L2LTR.

These explain one view alone; ``core.explain.pair`` explains a pair by the teacher's attention.

h, w are rows and columns of tokens, counted row by row; N is h * w, or 1 + h * w with L2LTR's class
token in front; L is the number of attention layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from core.arrays import AnyArray, Float32Array, Float64Array
from core.errors import SettingError
from core.models.l2ltr import CrossLayerAttention, L2ltr
from core.models.layers import SelfAttention
from core.models.saig import Saig
from core.models.two_branch import TwoBranch

__all__ = [
    "LayerAttention",
    "collect_attention",
    "descriptor_map",
    "layer_attention",
    "position_similarity",
    "rollout",
]


@dataclass(frozen=True)
class LayerAttention:
    """Attention inside one branch over one picture.

    Attributes:
        weights: float32 (L, N, N), heads averaged; row i is the attention of token i, sum 1.
        grid: (h, w) of the picture's tokens; for a polar model, of the tile's polar view.

    """

    weights: Float32Array
    grid: tuple[int, int]


def position_similarity(encoder: nn.Module) -> Float32Array:
    """Cosine similarity of every learned position with every other (L2LTR, Figure 3).

    The position of L2LTR's class token is left out, since it is no place in the image. SAIG with one
    position per row of tokens (azimuth models) has w = 1.

    Args:
        encoder: a ``Saig`` or an ``L2ltr``, such as ``model.ground_encoder``.

    Returns:
        float32 (h, w, h, w) in [-1, 1]; [i, j] holds the similarities of the token in row i, column j.

    Raises:
        SettingError: an encoder without learned positions, or with one that is all zeros.

    """
    table, grid = _positions(encoder)
    length = np.linalg.norm(table, axis=1, keepdims=True)
    if not length.all():
        raise SettingError(
            f"Positions of {type(encoder).__name__}: got one of length 0, which has no direction, "
            "expected learned ones. Train the model or load weights first."
        )
    unit = table / length
    similarity = np.clip(unit @ unit.T, -1.0, 1.0)
    return similarity.reshape(*grid, *grid).astype(np.float32)


def _positions(encoder: nn.Module) -> tuple[Float64Array, tuple[int, int]]:
    """Table (h * w, C) and its (h, w)."""
    if isinstance(encoder, Saig):
        return _to_numpy(encoder.pos_embed[0], np.float64), encoder.table
    if isinstance(encoder, L2ltr):
        part = encoder.transformer.embeddings
        return _to_numpy(part.position_embeddings[0, 1:], np.float64), part.grid
    raise SettingError(
        f"Positions of {type(encoder).__name__}: got no table of learned positions that can be read, "
        "expected a SAIG or an L2LTR encoder. Choose a model with one of them."
    )


@torch.inference_mode()
def layer_attention(
    model: TwoBranch, view: Literal["ground", "aerial"], images: Tensor
) -> LayerAttention:
    """Run one picture through one branch and keep the attention of its layers.

    Args:
        model: in evaluation mode, with SAIG or L2LTR branches.
        view: which branch.
        images: (1, 3, H, W) in [0, 1], as ``describe_ground`` or ``describe_aerial`` takes them.

    Raises:
        SettingError: several pictures, or a branch without attention that can be read.

    """
    if len(images) != 1:
        raise SettingError(f"Pictures: got {len(images)}, expected 1. Ask for one after the other.")
    encoder = model.ground_encoder if view == "ground" else model.aerial_encoder
    encode = model.ground_map if view == "ground" else model.aerial_map
    with collect_attention(encoder) as collected:
        features = encode(images)
    weights = _to_numpy(torch.cat(collected), np.float32)
    return LayerAttention(weights, (features.shape[2], features.shape[3]))


@contextmanager
def collect_attention(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """Collect, while open, the attention (B, N, N) of every layer that runs, heads averaged.

    The encoder computes as always, with its fused kernel, which never forms the weights. They are
    computed a second time from each layer's input. Two encoders that share their layers, or two
    threads that share an encoder, write into one list.

    Args:
        encoder: a ``Saig`` or an ``L2ltr``.

    Raises:
        SettingError: an encoder without such layers.

    """
    layers = [part for part in encoder.modules() if type(part) in _QUERY_AND_KEY]
    if not layers:
        raise SettingError(
            f"Attention of {type(encoder).__name__}: got no layer that can be read, expected a SAIG "
            "or an L2LTR encoder. Choose a model with one of them."
        )
    collected: list[Tensor] = []
    hooks = [layer.register_forward_hook(partial(_collect, collected)) for layer in layers]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _collect(collected: list[Tensor], layer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
    query, key = _QUERY_AND_KEY[type(layer)](layer, *inputs)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    collected.append(scores.float().softmax(dim=-1).mean(dim=1))


def _self_query_and_key(layer: SelfAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    query, key, _ = layer.qkv(tokens).chunk(3, dim=2)
    return _by_head(query, layer.heads), _by_head(key, layer.heads)


def _cross_query_and_key(
    layer: CrossLayerAttention, tokens: Tensor, previous: Tensor
) -> tuple[Tensor, Tensor]:
    """Self-cross attention: keys are made of the input of the layer before."""
    return _by_head(layer.query(tokens), layer.heads), _by_head(layer.key(previous), layer.heads)


def _by_head(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


_QUERY_AND_KEY: dict[type, Any] = {
    SelfAttention: _self_query_and_key,
    CrossLayerAttention: _cross_query_and_key,
}


def rollout(weights: Float32Array) -> Float32Array:
    """Share of each input token in each output token, if layers did nothing but attend.

    Each layer mixes tokens by half its attention and half the residual path, 0.5 A + 0.5 I. The
    result is the product over the layers (Abnar and Zuidema, section 3).

    Left out are the value and output maps, and L2LTR's MLPs; SAIG's blocks have none. L2LTR's
    self-cross attention needs no change: its keys come from the layer before and decide the weights
    A, but its values are tokens of the layer itself.

    Args:
        weights: float32 (L, N, N), first layer first, rows sum to 1.

    Returns:
        float32 (N, N), rows are output tokens and sum to 1.

    Raises:
        SettingError: weights of another shape, or rows with another sum.

    """
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2] or not len(weights):
        raise SettingError(
            f"Attention: got shape {weights.shape}, expected (L, N, N), at least one layer. "
            "Get it from layer_attention."
        )
    sums = weights.sum(axis=2, dtype=np.float64)
    if not (np.abs(sums - 1) <= 1e-3).all():
        worst = float(sums.flat[np.argmax(np.abs(np.nan_to_num(sums, nan=np.inf) - 1))])
        raise SettingError(
            f"Attention: got a row with the sum {worst:g}, expected 1. Average heads, do not add them."
        )
    mixed = np.eye(weights.shape[1])
    for layer in weights:
        mixed = 0.5 * (layer @ mixed + mixed)
    return mixed.astype(np.float32)


def descriptor_map(weights: Float32Array, grid: tuple[int, int]) -> Float32Array:
    """Share of every token of the picture in the input of the pooling.

    With a class token (L2LTR) it is the class token's row; the map sums to 1 less the share of the
    class token itself. Without one it is the mean over all rows, which is exact for mean pooling:
    SMD and azimuth pooling weigh tokens in ways of their own.

    Args:
        weights: float32 (N, N), a ``rollout`` or one layer of ``LayerAttention.weights``.
        grid: (h, w).

    Returns:
        float32 (h, w).

    Raises:
        SettingError: N is neither h * w nor one more.

    """
    tokens = grid[0] * grid[1]
    if weights.shape not in {(tokens, tokens), (tokens + 1, tokens + 1)}:
        raise SettingError(
            f"Attention: got shape {weights.shape}, expected {tokens} or {tokens + 1} tokens a side "
            f"for a grid of {grid[0]} x {grid[1]}. Take both from one LayerAttention."
        )
    shares = weights.mean(axis=0) if len(weights) == tokens else weights[0, 1:]
    return shares.reshape(grid).astype(np.float32)


def _to_numpy(values: Tensor, dtype: type[np.floating]) -> AnyArray:
    return values.detach().cpu().double().numpy().astype(dtype)
