"""Pictures of a benchmark at a model's input size."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np
from PIL import Image

from core.arrays import UInt8Array
from core.data.benchmarks.records import ImageFiles

__all__ = ["open_view", "open_views"]

Size = tuple[int, int]


def open_view(images: ImageFiles, index: int, size: Size) -> UInt8Array:
    """One picture stretched to ``size`` (height, width), uint8 (H, W, 3).

    It uses Pillow's bilinear filter, which averages when it shrinks. The published code resizes with
    it, and weights trained on such pictures need the same.

    Raises:
        DataError: the picture cannot be read.

    """
    height, width = size
    picture = Image.fromarray(images.open(index))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def open_views(
    images: ImageFiles, indices: Iterable[int], size: Size, workers: Executor
) -> UInt8Array:
    """``open_view`` for several pictures, (n, H, W, 3) in the order of ``indices``."""
    return np.stack(list(workers.map(lambda index: open_view(images, index, size), indices)))
