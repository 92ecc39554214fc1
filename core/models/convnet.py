"""A small convolutional encoder with a horizontally circular field, for training on a CPU.

It has plain residual blocks and pads by what a view is. A full canvas or polar view is a circle: its
columns are padded with those of the other side. A crop of a canvas has two ends: its columns are
padded with copies of the outermost.

The stride is 16 vertically and 8 horizontally. A view of 64 x 256 pixels becomes 4 x 32 tokens, one
column per azimuth bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.layers import WeightCache, pad_columns

__all__ = ["ConvNet", "ConvNetConfig"]


@dataclass(frozen=True)
class ConvNetConfig:
    """Widths of the four stages, and how many residual blocks follow each stage's reduction."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    blocks: tuple[int, int, int, int] = (0, 1, 1, 2)


class ConvNorm(nn.Module):
    """3 x 3 convolution and batch norm, its columns padded by the caller's rule, rows by zeros."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=(1, 0), bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self._folded = WeightCache()

    def forward(self, x: Tensor, circular: bool) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H / stride, W / stride)."""
        padded = pad_columns(x, 1, circular)
        if self.training or torch.is_grad_enabled():
            normed: Tensor = self.norm(self.conv(padded))
            return normed
        # In inference the running statistics are constants: one pass instead of two. Training changes
        # them without a new version, but also the norm's count of batches, which is watched here.
        weights = (self.conv.weight, *self.norm.state_dict(keep_vars=True).values())
        kernel, bias = self._folded(weights, self._fold)
        return F.conv2d(padded, kernel, bias, self.conv.stride, self.conv.padding)

    def _fold(self) -> tuple[Tensor, ...]:
        """Kernel and bias of the convolution with the batch norm behind it."""
        norm: Any = self.norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        kernel = self.conv.weight * scale[:, None, None, None]
        return kernel.contiguous(
            memory_format=torch.channels_last
        ), norm.bias - norm.running_mean * scale


class ResidualBlock(nn.Module):
    """Two convolutions around a skip (He et al., 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = ConvNorm(width, width)

    def forward(self, x: Tensor, circular: bool) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        inner = F.relu(self.first(x, circular), inplace=True)
        return F.relu(x + self.second(inner, circular), inplace=True)


class Stage(nn.Module):
    """A strided convolution followed by residual blocks."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], blocks: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(inputs, outputs, stride)
        self.blocks = nn.ModuleList(ResidualBlock(outputs) for _ in range(blocks))

    def forward(self, x: Tensor, circular: bool) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = F.relu(self.reduce(x, circular), inplace=True)
        for block in self.blocks:
            x = block(x, circular)
        return x


class ConvNet(nn.Module):
    """Encoder of one view; offers ``core.models.two_branch.Encoder``."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    stride = (16, 8)

    def __init__(self, config: ConvNetConfig | None = None) -> None:
        super().__init__()
        config = config or ConvNetConfig()
        strides = ((2, 2), (2, 2), (2, 2), (2, 1))
        inputs = (3, *config.widths[:3])
        self.stages = nn.ModuleList(
            Stage(i, o, s, n)
            for i, o, s, n in zip(inputs, config.widths, strides, config.blocks, strict=True)
        )
        self.channels = config.widths[-1]

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        """Normalised images (B, 3, H, W) -> (B, channels, H / 16, W / 8).

        ``circular``: the left edge continues the right one (a full canvas or polar view).
        """
        images = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            images = stage(images, circular)
        return images
