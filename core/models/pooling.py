"""Feature map in, descriptor out: how the tokens of one image become one unit vector.

SAIG: "Simple, Effective and General: A New Backbone for Cross-view Image Geo-localization",
https://arxiv.org/abs/2302.01572 (GAP and SMD). DSM: "Where am I
looking at?", https://arxiv.org/abs/2005.03860 (azimuth).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AzimuthPooling", "ClsPooling", "GapPooling", "SmdPooling"]


class GapPooling(nn.Module):
    """Mean over all tokens, then L2 normalisation (SAIG's GAP); no parameters.

    The attribute ``dim`` is the size D of the descriptor, equal to the channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool a feature map (B, C, h, w) into unit descriptors (B, C)."""
        return F.normalize(feature_map.flatten(2).mean(dim=2), dim=1)


class SmdPooling(nn.Module):
    """Mix the token axis, shared over channels, down to eight values (SAIG's SMD).

    Three linear maps N -> 4N -> N -> 8 with one exact GELU after the first and nothing between
    the others; no residual, no LayerNorm. The token count N is fixed by the layer widths, so one
    pooling fits one grid size only. Names follow the authors' state dicts.

    The attribute ``dim`` is the size of the descriptor, 8 * C (mixture d of channel c is entry
    d * C + c), and ``tokens`` is the number N expected.
    """

    MIXTURES = 8

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.dim = self.MIXTURES * channels
        self.tokens = tokens
        self.linear1 = nn.Linear(tokens, 4 * tokens)
        self.linear2 = nn.Linear(4 * tokens, tokens)
        self.linear3 = nn.Linear(tokens, self.MIXTURES)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool a feature map (B, C, h, w) with h * w = N into unit descriptors (B, 8 * C)."""
        mixed = self.linear1(feature_map.flatten(2))
        mixed = self.linear3(self.linear2(F.gelu(mixed)))
        return F.normalize(mixed.transpose(1, 2).flatten(1), dim=1)


class ClsPooling(nn.Module):
    """Marks encoders that describe by their class token (L2LTR); pools nothing.

    Attributes:
        dim: size D of the descriptor, equal to the channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels


class AzimuthPooling(nn.Module):
    """Pools over height only and keeps azimuth (the idea of DSM, Shi et al., CVPR 2020).

    Every column of the feature map becomes one azimuth bin, by a linear map with weights of its own
    for each row. Because it is linear, the share of each token in its bin is exact (contribution
    factor). A feature map with fewer columns than bins is widened by linear interpolation.
    """

    def __init__(self, channels: int, rows: int, dim: int = 24) -> None:
        super().__init__()
        self.rows = rows
        self.dim = dim
        self.project = nn.Conv2d(channels, dim, (rows, 1), bias=False)

    def forward(self, features: Tensor, bins: int) -> Tensor:
        """(B, C, rows, columns) -> raw bins (B, bins, dim), not normalised."""
        pooled: Tensor = self.project(features)
        pooled = pooled[:, :, 0]
        if pooled.shape[-1] != bins:
            pooled = F.interpolate(pooled, size=bins, mode="linear", align_corners=False)
        return pooled.transpose(1, 2)

    def contributions(self, tokens: Tensor, columns: int) -> Tensor:
        """Each token's summand of its bin: (..., rows * columns, C) -> (..., rows, columns, dim).

        The sum over rows is ``forward`` of a map that has one column per bin.
        """
        grid = tokens.unflatten(-2, (self.rows, columns))
        weight = self.project.weight[..., 0]
        return torch.einsum("...rwc,dcr->...rwd", grid, weight)
