"""SAIG: "Simple, Effective and General: A New Backbone for Cross-view Image Geo-localization".

https://arxiv.org/abs/2302.01572. A convolutional stem, learned positions, then blocks of attention
alone: no MLP anywhere, which is what makes it narrow and deep. State-dict names are the authors'
without their branch prefix, so their files load one to one (``core.models.pretrained``).

Ours are the size ``xs`` for training on a CPU, and two choices of ``SaigConfig`` that treat a
panorama as a circle: ``is_wrapped`` and ``positions="rows"``. With both, shifting the panorama by
whole tokens shifts the tokens and changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.layers import (
    SelfAttention,
    WeightCache,
    encode_in_parts,
    pad_columns,
    resize_positions,
)

__all__ = ["Saig", "SaigConfig", "saig_d", "saig_s", "saig_xs"]

Size = tuple[int, int]
Stem = tuple[tuple[int, Size], ...]

OFFICIAL_STEM: Stem = (
    (64, (2, 2)),
    (128, (2, 2)),
    (128, (1, 1)),
    (256, (2, 2)),
    (256, (1, 1)),
    (512, (2, 2)),
)


@dataclass(frozen=True)
class SaigConfig:
    """Shape of one branch.

    Attributes:
        image_size: (height, width) in pixels that the position table is built for.
        depth: number of attention blocks.
        width: channels of a token.
        heads: attention heads.
        stem: channels and (vertical, horizontal) stride of each 3 x 3 convolution.
        positions: "grid", one learned vector per token as in the paper, or "rows", one per row of
            tokens, for views whose azimuth is unknown.
        is_wrapped: whether the columns of a circular view are padded from its other side, and
            those of a crop with its edge, instead of the paper's zeros.

    """

    image_size: Size = (128, 512)
    depth: int = 11
    width: int = 384
    heads: int = 12
    stem: Stem = OFFICIAL_STEM
    positions: Literal["grid", "rows"] = "grid"
    is_wrapped: bool = False


class ConvStem(nn.Module):
    """3 x 3 convolutions with batch norm and ReLU, then a 1 x 1 convolution to the tokens."""

    def __init__(self, config: SaigConfig) -> None:
        super().__init__()
        self.is_wrapped = config.is_wrapped
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, stride in config.stem:
            padding = (1, 0 if config.is_wrapped else 1)
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        self.conv_stem = nn.Sequential(*layers, nn.Conv2d(inputs, config.width, 1))
        self._folded = WeightCache()

    def forward(self, images: Tensor, circular: bool) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, width, h, w)."""
        if not (self.training or torch.is_grad_enabled()):
            return self._infer(images, circular)
        features = images
        for layer in self.conv_stem:
            if self.is_wrapped and isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                features = pad_columns(features, 1, circular)
            features = layer(features)
        return features

    def _infer(self, images: Tensor, circular: bool) -> Tensor:
        """``forward`` with the batch norms folded into the convolutions and channels last in memory.

        In inference the running statistics are constants: one pass per layer instead of three.
        Channels last is also the layout that the attention blocks take.
        """
        weights = tuple(self.conv_stem.state_dict(keep_vars=True).values())
        folded = iter(self._folded(weights, self._fold))
        features = images.contiguous(memory_format=torch.channels_last)
        convolutions: list[Any] = list(self.conv_stem)[:-1:3]
        for layer in convolutions:
            if self.is_wrapped:
                features = pad_columns(features, 1, circular)
            features = F.conv2d(
                features, next(folded), next(folded), layer.stride, layer.padding
            ).relu_()
        tokens: Tensor = self.conv_stem[-1](features)
        return tokens

    def _fold(self) -> tuple[Tensor, ...]:
        """Kernel and bias of each 3 x 3 convolution with the batch norm behind it."""
        folded: list[Tensor] = []
        layers: list[Any] = list(self.conv_stem)
        for conv, norm in zip(layers[:-1:3], layers[1::3], strict=True):
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            kernel = conv.weight * scale[:, None, None, None]
            folded.append(kernel.contiguous(memory_format=torch.channels_last))
            folded.append(norm.bias + (conv.bias - norm.running_mean) * scale)
        return tuple(folded)


class AttentionBlock(nn.Module):
    """Pre-norm residual attention, x + Attn(LN(x)), and nothing else."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        gathered: Tensor = self.attn(self.norm1(tokens))
        return tokens + gathered


class Saig(nn.Module):
    """Encoder of one view.

    Attributes:
        channels: C of the feature map.
        stride: (vertical, horizontal) pixels per token.
        mean, std: normalisation of RGB in [0, 1] that the images must have had.

    """

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, config: SaigConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SaigConfig()
        self.channels = config.width
        self.stride = _total_stride(config.stem)
        rows, columns = self.grid(*config.image_size)
        self.table = (rows, columns if config.positions == "grid" else 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.table[0] * self.table[1], config.width))
        self.patch_embed = ConvStem(config)
        self.blocks = nn.Sequential(
            *(AttentionBlock(config.width, config.heads) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self._initialise()

    def grid(self, height: int, width: int) -> Size:
        """Rows and columns of tokens of a view of so many pixels.

        Raises:
            SettingError: height or width is no multiple of the stride.

        """
        if height < 1 or width < 1 or height % self.stride[0] or width % self.stride[1]:
            raise SettingError(
                f"SAIG input size: got {height} x {width} px, expected multiples of "
                f"{self.stride[0]} x {self.stride[1]}. Resize or crop the view."
            )
        return height // self.stride[0], width // self.stride[1]

    def forward(self, images: Tensor, circular: bool = False) -> Tensor:
        """Encode normalised images (B, 3, H, W) into tokens (B, N, C), row-major, after the norm.

        Grids other than the table's get their positions by bicubic resampling. ``circular``: the
        view is a full circle; used where the encoder ``is_wrapped``, ignored by zero padding.
        """
        grid = self.grid(images.shape[-2], images.shape[-1])
        tokens = self.patch_embed(images, circular).flatten(2).transpose(1, 2)
        normed: Tensor = self.norm(self.blocks(tokens + self._positions(grid)))
        return normed

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        """Encode normalised images (B, 3, H, W) into (B, C, h, w); see ``forward``."""
        grid = self.grid(images.shape[-2], images.shape[-1])
        tokens = encode_in_parts(lambda part: self(part, circular), images)
        return tokens.transpose(1, 2).reshape(len(images), self.channels, *grid)

    def _positions(self, grid: Size) -> Tensor:
        """Position vectors (1, h * w, C) of a grid."""
        if self.config.positions == "grid":
            return resize_positions(self.pos_embed, self.table, grid)
        rows = resize_positions(self.pos_embed, self.table, (grid[0], 1))
        return rows.repeat_interleave(grid[1], dim=1)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def saig_s(image_size: Size, *, azimuth: bool = False) -> Saig:
    """SAIG-S, 11 blocks; with ``azimuth`` wrapped padding and row positions instead of the paper's."""
    return Saig(SaigConfig(image_size, 11, 384, 12, OFFICIAL_STEM, *_geometry(azimuth)))


def saig_d(image_size: Size, *, azimuth: bool = False) -> Saig:
    """SAIG-D, 22 blocks; with ``azimuth`` wrapped padding and row positions instead of the paper's."""
    return Saig(SaigConfig(image_size, 22, 384, 12, OFFICIAL_STEM, *_geometry(azimuth)))


def saig_xs(image_size: Size, *, azimuth: bool = False) -> Saig:
    """Ours, about a million parameters, for training on a CPU at 64 x 256 px.

    An azimuth view narrower than 512 px has tokens 8 px wide, so that it still has one column of
    tokens for each of 32 azimuth bins.
    """
    last = (2, 1) if azimuth and image_size[1] < 512 else (2, 2)
    stem = ((24, (2, 2)), (48, (2, 2)), (48, (1, 1)), (96, (2, 2)), (96, (1, 1)), (224, last))
    return Saig(SaigConfig(image_size, 6, 160, 5, stem, *_geometry(azimuth)))


def _geometry(azimuth: bool) -> tuple[Literal["grid", "rows"], bool]:
    return ("rows", True) if azimuth else ("grid", False)


def _total_stride(stem: Stem) -> Size:
    vertical = horizontal = 1
    for _, (down, right) in stem:
        vertical, horizontal = vertical * down, horizontal * right
    return vertical, horizontal
