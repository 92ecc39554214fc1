"""Estimate where the camera stood within the found place.

A gallery's places lie 19.2 m apart, so the centre of the right place is about 8 m from the camera. The
neighbours of the best place have scores too, one for each viewpoint. The mean of all these points,
weighted by their scores, is much nearer to the camera. The teacher can halve the remaining error: it
scores the tile around that point and the tiles around four points beside it.

K places with S viewpoints each; metres east and north.
"""

from __future__ import annotations

import numpy as np
import torch

from core.arrays import Float64Array, FloatArray, UInt8Array
from core.gallery.viewpoints import SHARPNESS
from core.localization.ranking import Ranking
from core.localization.references import References
from core.models.alignment import aligned_scores
from core.models.geossk import GeoSSK
from core.photos.views import ground_batch
from core.polar import to_batch

__all__ = ["REACH", "STRIDE_M", "estimated_position", "refine_position", "weighted_position"]

REACH = 0.375
"""Places within this distance of the best place count, in sides of a tile: on the usual grid the eight
around it. Twice the distance was no better on a validation town."""
STRIDE_M = 4.0
"""Distance of the points beside the estimate, metres. On a validation town it was better than 2 and 3
m, and four points were as good as eight."""
STEPS = np.array([(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
TEACHER_SHARPNESS = 30.0
"""Sharpness of the weights of the teacher's scores; chosen on the same town."""


def estimated_position(references: References, ranking: Ranking, at: int) -> Float64Array:
    """The student's camera position (2,) in the place at one position of its ranking.

    The mean of the viewpoints of that place and of its neighbours, each weighted by
    exp(SHARPNESS * similarity), moved to where a whole tile can be cut.
    """
    centres = references.centres_m[ranking.rows]
    apart = np.hypot(*(centres - centres[at]).T)
    near = apart <= REACH * references.tile_side_m + 1e-6
    points = centres[near][:, None] + references.viewpoints_m
    scores = SHARPNESS * ranking.viewpoint_similarities[near]
    return references.inside(weighted_position(points.reshape(-1, 2), scores.reshape(-1)))


@torch.inference_mode()
def refine_position(
    references: References,
    teacher: GeoSSK,
    canvas: UInt8Array,
    azimuth_shift: float,
    estimate_m: Float64Array,
    device: str = "cpu",
) -> Float64Array:
    """The teacher's camera position (2,), starting from the student's estimate (2,).

    Args:
        references: with the imagery.
        teacher: with azimuth bins, in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        azimuth_shift: of the found place, in [0, 32).
        estimate_m: the student's estimate.
        device: where the teacher is.

    """
    points = references.inside(estimate_m + STRIDE_M * STEPS)
    tiles = to_batch(references.tiles_at(points), teacher.aerial_size, device)
    view = ground_batch([canvas], teacher.ground_size, device)
    shifts = np.full(len(points), azimuth_shift, np.float32)
    scores = aligned_scores(teacher, view, tiles, shifts, mirrored=0)[0]
    return weighted_position(points, TEACHER_SHARPNESS * scores)


def weighted_position(points: FloatArray, logits: FloatArray) -> Float64Array:
    """Mean (2,) of points (P, 2), weighted by the exponentials of logits (P,)."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray((weights[:, None] * points).sum(axis=0) / weights.sum())
