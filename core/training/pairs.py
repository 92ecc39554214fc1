"""Batches of a benchmark's training pairs: pictures from disk, at the size the model takes in.

An epoch shows every ground picture once, in a random order; the rest that fills no batch is left out,
as in the published loaders. Everything depends on (seed, step) alone.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from core.arrays import BoolArray, Int64Array, UInt8Array
from core.data.benchmarks import ImageFiles, TrainingPairs
from core.data.benchmarks.views import open_views
from core.errors import DataError
from core.polar import BINS
from core.training.sampling import Batch

__all__ = ["PairBatches"]

Size = tuple[int, int]


class PairBatches:
    """Batches of a benchmark's pairs, as ``core.training.loop`` takes them.

    Row and column i of a batch are a pair. A picture that also shows the place of a query is no
    negative: its semi-positives (VIGOR), and the same aerial picture in another pair (VIGOR;
    University-1652, where one building has many drone pictures).

    Args:
        pairs: N pairs.
        aerial: the aerial pictures to show, those of ``pairs`` or their polar ones.
        ground_size: (height, width) in pixels of a ground picture.
        aerial_size: likewise of an aerial one.
        batch: pairs of a step.
        seed: same seed, same batches.
        is_turned: move the columns of both pictures of a pair by one random number, round the circle
            (SAIG on CVUSA with polar views). Both must be of one width.

    Raises:
        DataError: fewer pairs than a batch has.

    """

    def __init__(
        self,
        pairs: TrainingPairs,
        aerial: ImageFiles,
        ground_size: Size,
        aerial_size: Size,
        batch: int,
        seed: int,
        is_turned: bool = False,
    ) -> None:
        if len(pairs.ground) < batch:
            raise DataError(
                f"Training on {pairs.name}: got {len(pairs.ground)} pairs, expected at least the "
                f"{batch} of a batch. Use the whole data set, or a recipe with a smaller batch."
            )
        self.pairs, self.aerial = pairs, aerial
        self.ground_size, self.aerial_size = ground_size, aerial_size
        self.size, self.seed, self.is_turned = batch, seed, is_turned
        self._order: tuple[int, Int64Array] = (-1, np.empty(0, np.int64))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Made where the first batch is drawn, since threads do not pass into another process."""
        return ThreadPoolExecutor(min(16, os.cpu_count() or 1))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return len(self.pairs.ground) // self.size

    def batch(self, step: int) -> Batch:
        """The batch of one step, whenever it is called."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[turn * self.size : (turn + 1) * self.size]
        columns = self.pairs.aerial_of[rows]
        views = open_views(self.pairs.ground, rows, self.ground_size, self._threads)
        tiles = open_views(self.aerial, columns, self.aerial_size, self._threads)
        if self.is_turned:
            random = np.random.default_rng((self.seed, 1, step))
            shift = random.integers(0, views.shape[2], len(rows))
            views, tiles = _turned(views, shift), _turned(tiles, shift)
        return Batch(
            views=views,
            seen=np.ones(views.shape[:3], np.bool_),
            tiles=tiles,
            true_columns=np.arange(len(rows)),
            # North is in the middle of both pictures, or both were moved by the same angle.
            true_shifts=np.zeros(len(rows), np.float32),
            ignored=self._ignored(rows, columns),
            is_ready=True,
        )

    def identity(self) -> dict[str, Any]:
        """What decides a batch."""
        return {
            "data_set": self.pairs.name,
            "pairs": len(self.pairs.ground),
            "batch": self.size,
            "turned": self.is_turned,
            "aerial": self._aerial_kind(),
        }

    def remark(self, step: int, batch: Batch) -> dict[str, Any]:
        """Epoch of a step; its views show all bins."""
        return {"epoch": step // self.steps_per_epoch, "bins": BINS}

    def _aerial_kind(self) -> str:
        if self.aerial.computes_polar:
            return "computed polar"
        return "tiles" if self.aerial is self.pairs.aerial else "stored polar"

    def _epoch(self, epoch: int) -> Int64Array:
        if self._order[0] != epoch:
            random = np.random.default_rng((self.seed, 0, epoch))
            self._order = epoch, random.permutation(len(self.pairs.ground))
        return self._order[1]

    def _ignored(self, rows: Int64Array, columns: Int64Array) -> BoolArray:
        """Bool (B, B): aerial picture j also shows the place of ground picture i."""
        semi = self.pairs.semi_positives[rows]
        ignored = (semi[:, :, None] == columns[None, None, :]).any(axis=1)
        ignored |= columns[:, None] == columns[None, :]
        np.fill_diagonal(ignored, False)
        return np.asarray(ignored, dtype=np.bool_)


def _turned(images: UInt8Array, shift: Int64Array) -> UInt8Array:
    """Images (B, H, W, 3), each with its columns moved right, round the circle."""
    return np.stack([np.roll(image, by, axis=1) for image, by in zip(images, shift, strict=True)])
