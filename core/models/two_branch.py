"""Two encoders, one per view, and the pooling that turns tokens into descriptors.

This is the student. It describes each image alone, so a gallery is described once.

The model does its own normalisation and polar transform: it takes images in [0, 1] at its sizes and
gives unit vectors.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.pooling import AzimuthPooling, ClsPooling
from core.polar import BINS, polar_view

__all__ = ["Encoder", "TwoBranch"]


class Encoder(Protocol):
    """What an encoder offers: a feature map with known channels, stride and normalisation.

    An encoder with a class token also has ``describe(images)``: normalised (B, 3, H, W) -> unit
    descriptors (B, channels). It is pooled by ``ClsPooling``, and only such encoders are.
    """

    channels: int
    stride: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, channels, H / stride[0], W / stride[1])."""
        ...


class TwoBranch(nn.Module):
    """Ground branch and aerial branch, with poolings of equal output size.

    ``ground_size``: (height, width) in pixels of a full canvas.
    ``aerial_size``: (height, width) in pixels of a tile.
    ``polar``: whether the aerial branch is given the polar view (at ``ground_size``) of its tile.
    ``bins``: azimuth bins of the descriptor, or None when it is global.
    """

    mean: Tensor
    std: Tensor
    # Modules that offer ``Encoder``, and poolings; mypy has no type for "a module and a protocol".
    ground_encoder: Any
    aerial_encoder: Any
    ground_pool: Any
    aerial_pool: Any

    def __init__(
        self,
        ground_encoder: Any,
        aerial_encoder: Any,
        ground_pool: Any,
        aerial_pool: Any,
        *,
        ground_size: tuple[int, int],
        aerial_size: tuple[int, int],
        polar: bool,
    ) -> None:
        super().__init__()
        self.ground_encoder = ground_encoder
        self.aerial_encoder = aerial_encoder
        self.ground_pool = ground_pool
        self.aerial_pool = aerial_pool
        self.ground_size = ground_size
        self.aerial_size = aerial_size
        self.polar = polar
        self.ground_stride: int = ground_encoder.stride[1]
        self.bins = BINS if isinstance(ground_pool, AzimuthPooling) else None
        self.register_buffer(
            "mean", torch.tensor(ground_encoder.mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(ground_encoder.std).view(1, 3, 1, 1), persistent=False
        )

    @property
    def dim(self) -> int:
        """Length D of a tile's descriptor."""
        width: int = self.ground_pool.dim
        return width * (self.bins or 1)

    def ground_map(self, images: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of full canvases or crops (B, 3, H, W) in [0, 1].

        Raises:
            SettingError: crops that are no whole number of bins, or crops for a global descriptor.

        """
        height, width = self.ground_size
        if images.shape[-2] != height or (images.shape[-1] * BINS) % width:
            raise SettingError(
                f"Ground view: got {images.shape[-2]} x {images.shape[-1]} px, expected a height of "
                f"{height} and whole bins of {width // BINS} px."
            )
        if self.bins is None and images.shape[-1] != width:
            raise SettingError(
                f"Ground view: got {images.shape[-1]} columns; a global descriptor needs the full "
                f"canvas of {width}. Fill what the photo does not show with grey."
            )
        circular = images.shape[-1] == width
        features: Tensor = self.ground_encoder.feature_map(
            (images - self.mean) / self.std, circular=circular
        )
        return features

    def aerial_views(self, tiles: Tensor, rotations: Tensor | None = None) -> Tensor:
        """The input of the aerial branch before normalisation: tiles, or their polar views.

        Args:
            tiles: (B, 3, S, S) in [0, 1], north up. A polar model also takes polar views
                (B, 3, H, W) that were made beforehand, at the size of its ground view: the
                benchmarks publish SAFA's, which differ from ours by a pixel or two.
            rotations: (B,), residual rotations of the polar views in bins
                (``core.polar.polar_view``). None: all 0.

        Raises:
            SettingError: rotations where no polar view is made.

        """
        height, width = self.ground_size
        is_made = height != width and tiles.shape[-2:] == (height, width)
        if self.polar and not is_made:
            return polar_view(tiles, height, width, rotations)
        if rotations is not None:
            raise SettingError(
                "Tiles: got residual rotations, but no polar view is made of these images by this "
                "model, expected none. Leave the rotations out."
            )
        return tiles

    def aerial_map(self, tiles: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Feature map (B, C, h, w) of tiles or their polar views; see ``aerial_views``."""
        views = self.aerial_views(tiles, rotations)
        features: Tensor = self.aerial_encoder.feature_map(
            (views - self.mean) / self.std, circular=self.polar
        )
        return features

    def describe_ground_map(self, features: Tensor) -> Tensor:
        """Unit descriptors (B, D), or (B, n * D) for n azimuth bins, of ground feature maps.

        Azimuth bins are normalised together, so a query weighs its bins by their lengths.
        """
        if self.bins is None:
            descriptor: Tensor = self.ground_pool(features)
            return descriptor
        count = features.shape[3] * self.ground_stride * BINS // self.ground_size[1]
        return F.normalize(self.ground_pool(features, count).flatten(1), dim=1)

    def describe_aerial_map(self, features: Tensor) -> Tensor:
        """Unit descriptors (B, D) of aerial feature maps; azimuth bins all have equal length."""
        if self.bins is None:
            descriptor: Tensor = self.aerial_pool(features)
            return descriptor
        bins: Tensor = F.normalize(self.aerial_pool(features, BINS), dim=2) / BINS**0.5
        return bins.flatten(1)

    def describe_ground(self, images: Tensor) -> Tensor:
        """Unit descriptors of ground views (B, 3, H, W) in [0, 1]: see ``describe_ground_map``."""
        if isinstance(self.ground_pool, ClsPooling):
            return self.ground_encoder.describe((images - self.mean) / self.std)
        return self.describe_ground_map(self.ground_map(images))

    def describe_aerial(self, tiles: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Unit descriptors (B, D) of tiles (B, 3, S, S) in [0, 1]; see ``aerial_views``."""
        if isinstance(self.aerial_pool, ClsPooling):
            views = self.aerial_views(tiles, rotations)
            return self.aerial_encoder.describe((views - self.mean) / self.std)
        return self.describe_aerial_map(self.aerial_map(tiles, rotations))

    def ground_tokens(self, images: Tensor) -> Tensor:
        """Local tokens (B, h * w, C), row-major, after the encoder's last layer."""
        return self.ground_map(images).flatten(2).transpose(1, 2)

    def aerial_tokens(self, tiles: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Local tokens (B, h * w, C), row-major, of the polar view or the tile."""
        return self.aerial_map(tiles, rotations).flatten(2).transpose(1, 2)
