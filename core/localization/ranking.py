"""Tiles in the order of a photo: the student's search, then the teacher's second look.

K tiles in a ranking, T <= K of them seen by the teacher, n azimuth bins in the photo's canvas; S
viewpoints of a place in the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.gallery.viewpoints import over_viewpoints
from core.localization.calibration import ViewCalibration
from core.localization.refinement import between_steps
from core.localization.search import InnerProductIndex, search_all_shifts, search_places
from core.models.alignment import aligned_scores
from core.models.geossk import GeoSSK
from core.photos.views import canvas_bins, ground_batch
from core.polar import shift_from_heading, to_batch

__all__ = [
    "Ranking",
    "in_order",
    "rank_tiles",
    "refine_position",
    "rerank",
]


@dataclass(frozen=True)
class Ranking:
    """Tiles of one photo, best first.

    Attributes:
        rows: int64 (K,) gallery rows, each once.
        similarities: float32 (K,) of the student.
        teacher_scores: float32 (T,) of the first T tiles, none before ``rerank``.
        azimuth_shifts: float32 (K,) in [0, 32), nan where nobody knows.
        viewpoint_similarities: float32 (K, S), the student's similarities of each place's viewpoints.

    """

    rows: Int64Array
    similarities: Float32Array
    teacher_scores: Float32Array
    azimuth_shifts: Float32Array
    viewpoint_similarities: Float32Array


def rank_tiles(
    index: InnerProductIndex,
    descriptor: Float32Array,
    n_bins: int | None,
    k: int,
    heading_deg: float | None = None,
    rows: Int64Array | None = None,
    viewpoints: int = 1,
) -> Ranking:
    """The k best tiles of a photo, as the student has it.

    Args:
        index: inner-product index over tile descriptors.
        descriptor: (n * D,) of n azimuth bins, or (D,) of a global student.
        n_bins: n, or None for a global student, which knows no azimuth shifts.
        k: how many tiles at most.
        heading_deg: of the photo's centre, where known: only that azimuth shift is tried.
        rows: gallery rows to search; all by default.
        viewpoints: S, descriptors of a place in the index, one after another.

    """
    unseen = np.empty(0, dtype=np.float32)
    if n_bins is None:
        best, curves = search_places(index, descriptor[None], k, viewpoints, rows)
        viewpoint_similarities = curves[:, :, 0]
        similarities = over_viewpoints(viewpoint_similarities)
        order = np.argsort(-similarities, kind="stable")[:k]
        azimuth_shifts = np.full(len(order), np.nan, dtype=np.float32)
        return Ranking(
            best[order], similarities[order], unseen, azimuth_shifts, viewpoint_similarities[order]
        )
    wanted = None if heading_deg is None else [shift_from_heading(heading_deg, n_bins)]
    found = search_all_shifts(index, descriptor, n_bins, k, rows, wanted, viewpoints=viewpoints)
    known = found.rows[0] >= 0
    return Ranking(
        rows=found.rows[0][known],
        similarities=found.similarities[0][known],
        teacher_scores=unseen,
        azimuth_shifts=found.azimuth_shifts[0][known],
        viewpoint_similarities=found.viewpoint_similarities[0][known],
    )


@torch.inference_mode()
def rerank(
    ranking: Ranking,
    teacher: GeoSSK,
    canvas: UInt8Array,
    tiles: Sequence[UInt8Array],
    heading_deg: float | None = None,
    device: str = "cpu",
) -> Ranking:
    """Let the teacher score the first T tiles; the order stays the student's.

    Args:
        ranking: of the student.
        teacher: in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        tiles: uint8 (S, S, 3) each, of the first T places around the points where the student
            believes the camera in them.
        heading_deg: where known; used for azimuth shifts that the student does not know.
        device: where the teacher is.

    Each tile is met at the student's azimuth shift. A global student knows none: then the azimuth shift that the
    teacher's own descriptors find best becomes the tile's, unless the teacher is global too.

    """
    count = len(tiles)
    if not count:
        return ranking
    view = ground_batch([canvas], teacher.ground_size, device, whole=teacher.base.bins is None)
    seen = to_batch(tiles, teacher.aerial_size, device)
    azimuth_shifts = ranking.azimuth_shifts[:count]
    unknown = bool(np.isnan(azimuth_shifts).any())
    if unknown and heading_deg is not None:
        azimuth_shifts = np.full_like(
            azimuth_shifts, shift_from_heading(heading_deg, canvas_bins(canvas))
        )
        unknown = False
    scores, met = aligned_scores(teacher, view, seen, None if unknown else azimuth_shifts)
    if teacher.base.bins is None:
        azimuth_shifts = ranking.azimuth_shifts[:count]
    elif unknown:
        azimuth_shifts = met
    return replace(
        ranking,
        teacher_scores=scores,
        azimuth_shifts=np.concatenate([azimuth_shifts, ranking.azimuth_shifts[count:]]),
    )


@torch.inference_mode()
def refine_position(
    teacher: GeoSSK,
    canvas: UInt8Array,
    azimuth_shift: float,
    points: Float64Array,
    tiles: UInt8Array,
    device: str = "cpu",
) -> Float64Array:
    """Where the camera probably stood, (2,) in metres, as the teacher sees it.

    Args:
        teacher: with azimuth bins, in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        azimuth_shift: at which the place was found, in [0, 32).
        points: (P, 2) in metres, see ``position.steps_around``.
        tiles: uint8 (P, S, S, 3), cut around them.
        device: where the teacher is.
    """
    view = ground_batch([canvas], teacher.ground_size, device)
    seen = to_batch(tiles, teacher.aerial_size, device)
    shifts = np.full(len(tiles), azimuth_shift, np.float32)
    scores = aligned_scores(teacher, view, seen, shifts, mirrored=0)[0]
    return between_steps(points, scores)


def in_order(ranking: Ranking, view: ViewCalibration) -> tuple[Ranking, Float64Array]:
    """The tiles by their calibrated logits (K,), and these, best first.

    What the teacher has not seen never comes before what it has (see ``ViewCalibration.logits``).
    """
    logits = np.asarray(view.logits(ranking.similarities, ranking.teacher_scores), dtype=np.float64)
    order = np.argsort(-logits, kind="stable")
    seen = order[: len(ranking.teacher_scores)]
    ordered = Ranking(
        rows=ranking.rows[order],
        similarities=ranking.similarities[order],
        teacher_scores=ranking.teacher_scores[seen],
        azimuth_shifts=ranking.azimuth_shifts[order],
        viewpoint_similarities=ranking.viewpoint_similarities[order],
    )
    return ordered, logits[order]
