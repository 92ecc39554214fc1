"""Batches with wrong labels, to measure their effect on training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.arrays import UInt8Array
from core.training.sampling import Batch, TownBatches

__all__ = ["NoisyBatches"]


class NoisyBatches(TownBatches):
    """Batches of towns in which a share of the views have wrong labels.

    These views are exchanged among each other; their labels stay. ``noise``: their share.
    """

    def __init__(self, *arguments: Any, noise: float) -> None:
        super().__init__(*arguments)
        self.noise = noise

    def _drawn(self, random: np.random.Generator) -> Batch:
        batch = super()._drawn(random)
        if not self.noise:
            return batch
        return replace(batch, views=_exchanged(batch.views, self.noise, random))

    def identity(self) -> dict[str, Any]:
        """The towns, how batches are drawn, and the share of wrong labels."""
        return {**super().identity(), "noise": self.noise}


def _exchanged(views: UInt8Array, share: float, random: np.random.Generator) -> UInt8Array:
    """The views; about ``share`` of them are exchanged among each other."""
    wrong = np.flatnonzero(random.random(len(views)) < share)
    views = views.copy()
    views[wrong] = views[np.roll(wrong, 1)]
    return views
