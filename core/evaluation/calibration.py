"""How sure an answer is: scores of tiles to probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """What validation towns say of a model's scores; stands in the student's config.json.

    ``temperature``: of the softmax over scores. ``confident_threshold``: smallest confidence at
    which an answer counts as a match.
    """

    temperature: float = 0.05
    confident_threshold: float = 0.5

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Calibration:
        """From the ``calibration`` part of a model's configuration; unknown keys are left alone."""
        known = {name: float(config[name]) for name in cls.__annotations__ if name in config}
        return cls(**known)

    def probabilities(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Shares (K,), summing to 1, of tiles with scores (K,)."""
        scaled = np.asarray(scores, np.float64) / self.temperature
        weights = np.exp(scaled - scaled.max())
        return np.asarray(weights / weights.sum())

    def confidence(self, scores: npt.NDArray[np.float32], place_shares: Sequence[float]) -> float:
        """Probability in [0, 1] that the first place is right."""
        return float(place_shares[0])
