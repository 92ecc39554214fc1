"""Viewpoints: a place of the grid is described from several points of its cell.

A camera stands anywhere in a cell of 19.2 m, and a few metres change the direction and distance of
everything near it. So a gallery has four descriptors per place: of the tiles around the middles of the
cell's quarters, instead of one around its centre. All of them score the place; the answer is still one
place of the grid.

Numpy only; S is the number of viewpoints.
"""

from __future__ import annotations

import numpy as np

from core.arrays import AnyArray, Float64Array
from core.errors import SettingError

__all__ = ["COUNTS", "SHARPNESS", "VIEWPOINTS", "cell_viewpoints", "over_viewpoints"]

VIEWPOINTS = 4
"""Default number per place: the middles of its cell's quarters, 9.6 m apart on the usual grid."""
COUNTS = (1, 4, 9)
"""Allowed numbers: the centre alone, the middles of quarters, the middles of ninths."""
SHARPNESS = 20.0
"""Sharpness of the weights of viewpoints, for the choice of the place and for the camera position in
it. Chosen on validation towns: a smaller value finds the nearest place more often, a larger value finds
a place within 25 m more often."""


def cell_viewpoints(count: int = VIEWPOINTS) -> Float64Array:
    """Viewpoints (S, 2) of a cell, east and north of its centre in sides of the cell.

    The middles of its equal parts, row by row from the north-west.

    Raises:
        SettingError: the count is not 1, 4 or 9.

    """
    if count not in COUNTS:
        raise SettingError(
            f"Viewpoints: got {count}, expected 1, 4 or 9: the centre of a grid cell, or the "
            "middles of its quarters or ninths."
        )
    side = round(count**0.5)
    middles = (np.arange(side) + 0.5) / side - 0.5
    return np.array([(east, north) for north in -middles for east in middles]) + 0.0


def over_viewpoints(scores: AnyArray) -> AnyArray:
    """Scores (..., S) of viewpoints to scores of places (...).

    The logarithm of the mean exponential: all viewpoints are equally likely.
    """
    best = scores.max(axis=-1, keepdims=True)
    # Relative to the best: nothing overflows, and a place at -inf stays at -inf.
    beside = np.subtract(scores, best, out=np.zeros_like(scores), where=np.isfinite(best))
    mean = np.exp(SHARPNESS * beside).mean(axis=-1)
    places: AnyArray = best[..., 0] + np.log(mean) / SHARPNESS
    return places.astype(scores.dtype)
