"""Changes of a view that keep its place: light, sharpness, tilt, the frame of a photo."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.arrays import BoolArray, UInt8Array

__all__ = ["change_light", "photo_mask", "soften", "tilted"]


def photo_mask(
    height: int, width: int, span_deg: float, fov_deg: float, aspect: float
) -> BoolArray:
    """Canvas pixels (height, width) inside the frame of a pinhole photo that is assumed level.

    The canvas spans ``span_deg`` over its columns and +-45 degrees over its rows, the photo ``fov_deg``
    over its own; ``aspect`` is the photo's height over its width.
    """
    azimuth = np.radians(((np.arange(width) + 0.5) / width - 0.5) * span_deg)
    elevation = np.radians(45.0 - (np.arange(height) + 0.5) / height * 90.0)
    half = aspect * np.tan(np.radians(fov_deg / 2))
    inside = np.abs(np.tan(elevation))[:, None] <= half * np.cos(azimuth)[None, :]
    return np.asarray(inside & (np.abs(azimuth) <= np.radians(fov_deg / 2)))


def tilted(canvas: UInt8Array, span_deg: float, pitch_deg: float, roll_deg: float) -> UInt8Array:
    """The canvas (h, w, 3) of a tilted camera whose tilt is ignored, from the level canvas.

    The canvas spans ``span_deg`` over its columns and +-45 degrees over its rows. The camera is lifted
    by ``pitch_deg`` and rolled by ``roll_deg`` (its right side down). To first order, its
    picture at azimuth a shows content that is pitch * cos(a) - roll * sin(a) higher. The shift is
    rounded to whole rows; the outermost rows are repeated.
    """
    height, width = canvas.shape[:2]
    azimuth = np.radians(((np.arange(width) + 0.5) / width - 0.5) * span_deg)
    higher_deg = pitch_deg * np.cos(azimuth) - roll_deg * np.sin(azimuth)
    rows = np.arange(height)[:, None] - np.rint(higher_deg * height / 90.0).astype(np.intp)
    return canvas[np.clip(rows, 0, height - 1), np.arange(width)]


def change_light(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation, colour cast and noise of (B, 3, H, W) in [0, 1].

    Each image has its own random change; ``strength`` 0.2 means factors of about 0.8 to 1.25.
    """

    def draw(*shape: int) -> Tensor:
        uniform = torch.rand(len(images), *shape, 1, 1, generator=generator) * 2 - 1
        return uniform.to(images.device) * strength

    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + 1.5 * draw(1)) + mean * (1 + draw(1))
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + 2 * draw(1))
    return (images * (1 + 0.5 * draw(3))).clamp(0, 1)


def soften(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Blur a ``share`` of the images (B, 3, H, W) lightly (3 x 3 binomial), chosen at random."""
    blurred = torch.rand(len(images), generator=generator) < share
    if not blurred.any():
        return images
    chosen = blurred.to(images.device)
    weights = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    kernel = (weights[:, None] * weights[None, :]).expand(3, 1, 3, 3)
    images = images.clone()
    images[chosen] = F.conv2d(F.pad(images[chosen], (1, 1, 1, 1), "replicate"), kernel, groups=3)
    return images
