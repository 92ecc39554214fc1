"""Where the camera stood within the place that was found.

A gallery's places lie 19.2 m apart, so the centre of the right one is some 8 m from a camera. But the
best place's neighbours score too, and every place scores from several viewpoints: the mean of all
these points, weighed by their scores, lies much nearer. A teacher that learned to tell pairs that lie
over one another from those that do not quite can halve what is left: it looks at the place from there
and from a few steps around.

K places with S points each; metres east and north.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.arrays import Float64Array, FloatArray
from core.gallery.viewpoints import SHARPNESS

__all__ = ["REACH", "STRIDE_M", "between_steps", "camera_position", "steps_around"]

REACH = 0.375
"""Sides of a tile from the best place within which others have a say: on the usual grid the eight
around it. Twice as far was no better on a validation town."""
STRIDE_M = 4.0
"""How far a teacher steps aside: on a validation town better than 2 and 3 m, and four steps to the sides
as good as eight."""
STEPS = np.array([(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
DISCERNING = 30.0
"""How much a better score of a teacher counts more than a worse one; chosen there too."""


def camera_position(
    centres: FloatArray,
    scores: FloatArray,
    first: int,
    side_m: float,
    viewpoints: npt.ArrayLike = ((0.0, 0.0),),
) -> Float64Array:
    """Where the camera probably stood: (2,) metres in the frame of ``centres``.

    Args:
        centres: (K, 2) of places.
        scores: (K, S) the student's, of their viewpoints; a point's weight is exp(SHARPNESS * score),
            -inf where a place is out of the question.
        first: the place that was found, 0 to K - 1; its scores are finite.
        side_m: of a tile.
        viewpoints: (S, 2) east and north of a place's centre, in half sides of its tile.

    """
    apart = np.hypot(*(centres - centres[first]).T)
    near = apart <= REACH * side_m + 1e-6
    points = centres[near][:, None] + np.asarray(viewpoints, np.float64) * side_m / 2
    return _weighed(points.reshape(-1, 2), SHARPNESS * scores[near].reshape(-1))


def steps_around(point: FloatArray) -> Float64Array:
    """A point (2,) in metres and those a stride to the east, west, north and south of it: (5, 2)."""
    return np.asarray(point + STRIDE_M * STEPS)


def between_steps(points: FloatArray, scores: FloatArray) -> Float64Array:
    """Where among points (P, 2) in metres a camera probably stood, (2,), by a teacher's scores (P,)."""
    return _weighed(points, DISCERNING * scores)


def _weighed(points: FloatArray, logits: FloatArray) -> Float64Array:
    """Mean (2,) of points (P, 2), weighed by the exponentials of logits (P,)."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray((weights[:, None] * points).sum(axis=0) / weights.sum())
