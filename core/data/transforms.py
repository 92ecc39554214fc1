"""Changes of a view that leave its place as it is: light, sharpness, the frame of a photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["change_light", "photo_mask", "soften"]


def photo_mask(
    height: int, width: int, fov_deg: float, aspect: float, pitch_deg: float
) -> npt.NDArray[np.bool_]:
    """Canvas pixels (height, width) inside the frame of a pinhole photo.

    The view spans ``fov_deg`` over its columns and +-45 degrees over its rows. ``aspect`` is the
    photo's height over its width; ``pitch_deg`` lifts the camera (small angles: a shift of rows).
    """
    azimuth = np.radians(((np.arange(width) + 0.5) / width - 0.5) * fov_deg)
    elevation = np.radians(45.0 - (np.arange(height) + 0.5) / height * 90.0 - pitch_deg)
    half = aspect * np.tan(np.radians(fov_deg / 2))
    return np.asarray(np.abs(np.tan(elevation))[:, None] <= half * np.cos(azimuth)[None, :])


def change_light(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation, colour cast and noise of (B, 3, H, W) in [0, 1].

    Each image has its own draw; ``strength`` 0.2 means factors of about 0.8 to 1.25.
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
