"""Rank the tiles by similarity to a photo: the student searches, the teacher re-ranks.

K tiles in a ranking, T <= K of them scored by the teacher, n azimuth bins in the photo's canvas, S
viewpoints of a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from core.arrays import Float32Array, Int64Array, UInt8Array
from core.gallery.viewpoints import over_viewpoints
from core.localization.references import References
from core.localization.search import search_all_shifts, search_places
from core.models.alignment import aligned_scores
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.views import canvas_bins, ground_batch
from core.polar import shift_from_heading, to_batch

__all__ = ["POOL", "RERANKED", "Ranking", "describe_view", "rank_tiles", "rerank"]

POOL = 128
"""Tiles in a ranking; they share the probability of an answer."""
RERANKED = 20
"""Number of the student's first tiles that the teacher scores."""


@dataclass(frozen=True)
class Ranking:
    """Tiles of one photo, best first by the student.

    Attributes:
        rows: int64 (K,) rows of the places, each once.
        similarities: float32 (K,) of the student.
        teacher_scores: float32 (T,) of the first T tiles; none before ``rerank``.
        azimuth_shifts: float32 (K,) in [0, 32); nan for a global student.
        viewpoint_similarities: float32 (K, S) of each place's viewpoints.
        searched: number of searched places.

    """

    rows: Int64Array
    similarities: Float32Array
    teacher_scores: Float32Array
    azimuth_shifts: Float32Array
    viewpoint_similarities: Float32Array
    searched: int


@torch.inference_mode()
def describe_view(student: TwoBranch, canvas: UInt8Array, device: str = "cpu") -> Float32Array:
    """Descriptor of a canvas uint8 (h, w, 3): (n * D,) of an azimuth student, (D,) of a global one."""
    batch = ground_batch([canvas], student.ground_size, device, whole=student.bins is None)
    return student.describe_ground(batch)[0].float().cpu().numpy()


def rank_tiles(
    references: References,
    descriptor: Float32Array,
    n_bins: int | None,
    heading_deg: float | None = None,
    rows: Int64Array | None = None,
    k: int = POOL,
) -> Ranking:
    """The k best tiles for a photo, by the student.

    Args:
        references: the places to search.
        descriptor: of the photo, see ``describe_view``.
        n_bins: azimuth bins of its canvas; None for a global student.
        heading_deg: of the photo's centre, if known: only that azimuth shift is tried.
        rows: rows of the places to search; all by default.
        k: largest number of tiles.

    """
    index, viewpoints = references.index, len(references.viewpoints_m)
    searched = len(references.centres_m) if rows is None else len(rows)
    none = np.empty(0, dtype=np.float32)
    if n_bins is None:
        best, curves = search_places(index, descriptor[None], k, viewpoints, rows)
        each = curves[:, :, 0]
        similarities = over_viewpoints(each)
        order = np.argsort(-similarities, kind="stable")[:k]
        shifts = np.full(len(order), np.nan, dtype=np.float32)
        return Ranking(best[order], similarities[order], none, shifts, each[order], searched)
    wanted = None if heading_deg is None else [shift_from_heading(heading_deg, n_bins)]
    found = search_all_shifts(index, descriptor, n_bins, k, rows, wanted, viewpoints=viewpoints)
    known = found.rows[0] >= 0
    return Ranking(
        rows=found.rows[0][known],
        similarities=found.similarities[0][known],
        teacher_scores=none,
        azimuth_shifts=found.azimuth_shifts[0][known],
        viewpoint_similarities=found.viewpoint_similarities[0][known],
        searched=searched,
    )


@torch.inference_mode()
def rerank(
    ranking: Ranking,
    teacher: GeoSSK,
    canvas: UInt8Array,
    tiles: UInt8Array | Sequence[UInt8Array],
    heading_deg: float | None = None,
    device: str = "cpu",
) -> Ranking:
    """The ranking with the teacher's scores of its first T tiles; their order stays the student's.

    Every tile is aligned at the student's azimuth shift. A global student has none. Then an azimuth
    teacher finds the shift itself, or takes the shift of a known heading.

    Args:
        ranking: of the student.
        teacher: in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        tiles: uint8 (T, S, S, 3), cut around the estimated positions in the first T places.
        heading_deg: of the photo's centre, if known.
        device: where the teacher is.

    """
    count = len(tiles)
    if not count:
        return ranking
    view = ground_batch([canvas], teacher.ground_size, device, whole=teacher.base.bins is None)
    batch = to_batch(tiles, teacher.aerial_size, device)
    shifts = ranking.azimuth_shifts[:count]
    unknown = bool(np.isnan(shifts).any())
    if unknown and heading_deg is not None:
        shifts = np.full_like(shifts, shift_from_heading(heading_deg, canvas_bins(canvas)))
        unknown = False
    scores, aligned = aligned_scores(teacher, view, batch, None if unknown else shifts)
    if teacher.base.bins is None:
        shifts = ranking.azimuth_shifts[:count]
    elif unknown:
        shifts = aligned
    shifts = np.concatenate([shifts, ranking.azimuth_shifts[count:]])
    return replace(ranking, teacher_scores=scores, azimuth_shifts=shifts)
