"""Let the teacher look at the student's first places again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.data.worlds import TILE_SIDE_M, Town
from core.evaluation.descriptors import Matches, Queries, place_offsets
from core.localization.calibration import POOL, RERANKED, ViewCalibration
from core.localization.ranking import refine_position
from core.localization.refinement import camera_position, steps_around
from core.models.alignment import aligned_scores
from core.models.geossk import GeoSSK
from core.photos.views import ground_batch
from core.polar import to_batch

__all__ = ["Reranker", "believed_camera", "combined", "rerank"]


@dataclass(frozen=True)
class Reranker:
    """Who looks again, and at what: a teacher, a town's imagery, and its places (R, 2) in metres."""

    teacher: GeoSSK
    town: Town
    centres: Float64Array

    def refine_position(
        self, view: UInt8Array, azimuth_shift: float, point: Float64Array
    ) -> Float64Array:
        """Where (2,) the camera of a view (h, w, 3) stood, from where the student believes it; the same
        point where nobody knows the azimuth shift, or the teacher has no azimuth.
        """
        if np.isnan(azimuth_shift) or self.teacher.base.bins is None:
            return point
        points = np.clip(steps_around(point), self.centres.min(axis=0), self.centres.max(axis=0))
        tiles = self.town.crop_tiles(points, self.teacher.aerial_size[0])
        return refine_position(self.teacher.eval(), view, azimuth_shift, points, tiles)


@torch.inference_mode()
def rerank(
    queries: Queries, matches: Matches, reranker: Reranker, first: int = RERANKED
) -> Float32Array:
    """What a teacher says of the student's first places of each query: scores (Q, R) of all places,
    -inf where it did not look. As the Localizer asks it: each tile is cut around the point where the
    student believes the camera in it, and met at the student's azimuth shift.
    """
    teacher = reranker.teacher.eval()
    is_global = teacher.base.bins is None
    scores = np.full(matches.similarity.shape, -np.inf, np.float32)
    order = np.argsort(-matches.similarity, axis=1, kind="stable")[:, :POOL]
    for index, best in enumerate(order):
        pool = best[np.isfinite(matches.similarity[index, best])]
        rows = pool[:first]
        view = queries.views[index : index + 1]
        points = _believed_cameras(matches, reranker.centres, index, pool, len(rows))
        tiles = reranker.town.crop_tiles(points, teacher.aerial_size[0])
        seen = to_batch(tiles, teacher.aerial_size)
        asked = ground_batch(view, teacher.ground_size, whole=is_global)
        azimuth_shifts = matches.azimuth_shift[index, rows]
        near = None if np.isnan(azimuth_shifts).any() else azimuth_shifts
        scores[index, rows] = aligned_scores(teacher, asked, seen, near)[0]
    return scores


def believed_camera(
    places: Float64Array, viewpoint_similarities: Float64Array, at: int
) -> Float64Array:
    """Where (2,) a student believes the camera in one of the places (K, 2) of a pool, in metres;
    ``viewpoint_similarities``: (K, S), its similarities of their viewpoints.
    """
    return camera_position(
        places,
        viewpoint_similarities,
        at,
        TILE_SIDE_M,
        place_offsets(viewpoint_similarities.shape[1]),
    )


def _believed_cameras(
    matches: Matches, centres: Float64Array, query: int, pool: Int64Array, count: int
) -> Float64Array:
    """Where (count, 2) the student believes a query's camera in the first places of its pool (K,)."""
    told = matches.viewpoint_similarities[query, pool]
    found = [believed_camera(centres[pool], told, place) for place in range(count)]
    inside = np.clip(np.stack(found), centres.min(axis=0), centres.max(axis=0))
    return np.asarray(inside)


def combined(
    similarity: Float32Array,
    teacher: Float32Array,
    view: ViewCalibration,
) -> Float32Array:
    """Final scores (Q, R): the logits that the Localizer orders by.

    ``teacher``: (Q, R), -inf where it did not look; such places count as if they had the lowest
    score it gave for that query.
    """
    lowest = np.where(np.isfinite(teacher), teacher, np.inf).min(axis=1, keepdims=True)
    filled = np.where(np.isfinite(teacher), teacher, lowest)
    return (view.student * similarity + view.teacher * filled).astype(np.float32)
