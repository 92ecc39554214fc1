"""Where the camera stood within the place that was found.

A gallery's places lie 19.2 m apart, so the centre of the right one is some 8 m from a camera. But the
best place's neighbours score too, and every place scores from several standpoints: the mean of all
these points, weighed by their scores, lies much nearer.

K places with S points each; metres east and north.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.standpoints import SHARPNESS

__all__ = ["REACH", "camera_position"]

REACH = 0.375
"""Sides of a tile from the best place within which others have a say: on the usual grid the eight
around it. Twice as far was no better on a validation town."""
FloatArray = npt.NDArray[np.floating[Any]]


def camera_position(
    centres: FloatArray,
    scores: FloatArray,
    first: int,
    side_m: float,
    standpoints: npt.ArrayLike = ((0.0, 0.0),),
) -> npt.NDArray[np.float64]:
    """Where the camera probably stood: (2,) metres in the frame of ``centres``.

    Args:
        centres: (K, 2) of places.
        scores: (K, S) the student's, of their standpoints; a point's weight is exp(SHARPNESS * score),
            -inf where a place is out of the question.
        first: the place that was found, 0 to K - 1; its scores are finite.
        side_m: of a tile.
        standpoints: (S, 2) east and north of a place's centre, in half sides of its tile.

    """
    apart = np.hypot(*(centres - centres[first]).T)
    near = apart <= REACH * side_m + 1e-6
    points = centres[near][:, None] + np.asarray(standpoints, np.float64) * side_m / 2
    logits = SHARPNESS * scores[near].astype(np.float64)
    weights = np.exp(logits - logits.max())
    return np.asarray((weights[..., None] * points).sum(axis=(0, 1)) / weights.sum())
