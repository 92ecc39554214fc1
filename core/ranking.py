"""Tiles in the order of a photo: the student's search, then the teacher's second look.

K tiles in a ranking, T <= K of them seen by the teacher, n azimuth bins in the photo's canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.evaluation.calibration import ViewCalibration
from core.models.geossk import GeoSSK
from core.polar import BINS, to_batch
from core.search import (
    InnerProductIndex,
    roll_from_heading,
    search_all_rolls,
)
from core.views import canvas_bins, ground_batch

__all__ = ["Ranking", "in_order", "look_again", "rank_tiles", "score_places", "whole_roll"]

UInt8Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Tiles of one photo, best first.

    Attributes:
        rows: int64 (K,) gallery rows, each once.
        similarities: float32 (K,) of the student.
        teacher_scores: float32 (T,) of the first T tiles, none before ``look_again``.
        rolls: float32 (K,) in [0, 32), nan where nobody knows.

    """

    rows: IntArray
    similarities: FloatArray
    teacher_scores: FloatArray
    rolls: FloatArray


def whole_roll(roll: float) -> int:
    """The nearest whole roll in [0, 32)."""
    return round(float(roll)) % BINS


def rank_tiles(
    index: InnerProductIndex,
    descriptor: FloatArray,
    n_bins: int | None,
    k: int,
    heading_deg: float | None = None,
    rows: IntArray | None = None,
) -> Ranking:
    """The k best tiles of a photo, as the student has it.

    Args:
        index: inner-product index over tile descriptors.
        descriptor: (n * D,) of n azimuth bins, or (D,) of a global student.
        n_bins: n, or None for a global student, which knows no rolls.
        k: how many tiles at most.
        heading_deg: of the photo's centre, where known: only that roll is tried.
        rows: gallery rows to search; all by default.

    """
    if n_bins is None:
        found, found_rows = index.search(descriptor[None], k, rows)
        similarities, best = found[0], found_rows[0]
        rolls = np.full(len(best), np.nan, dtype=np.float32)
    else:
        wanted = None if heading_deg is None else [roll_from_heading(heading_deg, n_bins)]
        matches = search_all_rolls(index, descriptor, n_bins, k, rows=rows, rolls=wanted)
        similarities, best, rolls = matches.similarities[0], matches.rows[0], matches.rolls[0]
    known = best >= 0
    unseen = np.empty(0, dtype=np.float32)
    return Ranking(best[known], similarities[known], unseen, rolls[known])


@torch.inference_mode()
def look_again(
    ranking: Ranking,
    teacher: GeoSSK,
    canvas: UInt8Image,
    tiles: Sequence[UInt8Image],
    heading_deg: float | None = None,
    device: str = "cpu",
) -> Ranking:
    """Let the teacher score the first T tiles; the order stays the student's.

    Args:
        ranking: of the student.
        teacher: in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        tiles: the first T tiles, uint8 (S, S, 3) each.
        heading_deg: where known; used for rolls that the student does not know.
        device: where the teacher is.

    Each place is looked at from every standpoint, near the student's roll. A global student knows
    none: then the teacher tries the rolls next to the one its own descriptors find best, and its
    best one becomes the tile's roll, unless the teacher is global too.

    """
    count = len(tiles)
    if not count:
        return ranking
    is_global = teacher.base.bins is None
    batch = ground_batch([canvas], teacher.ground_size, device, whole=is_global)
    ground = teacher.ground_tokens(batch)
    places = teacher.standpoint_tokens(to_batch(tiles, teacher.aerial_size, device))
    known, bins = ranking.rolls[:count], canvas_bins(canvas)
    seen, met = score_places(teacher, ground, places, known, bins, heading_deg)
    return replace(ranking, teacher_scores=seen, rolls=np.concatenate([met, ranking.rolls[count:]]))


def score_places(
    teacher: GeoSSK,
    ground: Tensor,
    places: Tensor,
    rolls: FloatArray,
    n_bins: int,
    heading_deg: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Teacher's scores (T,) of T places, and the rolls (T,) at which it met them.

    Args:
        teacher: in evaluation mode.
        ground: tokens (1, N, C) of one view of ``n_bins`` azimuth bins.
        places: ``standpoint_tokens`` (T, S, M, C).
        rolls: (T,) of the student; where nan, an azimuth teacher finds its own, and a global one
            leaves them as they are.
        n_bins: azimuth bins of the view.
        heading_deg: as for ``look_again``.

    """
    if teacher.base.bins is None:
        return teacher.place_scores(ground, places)[0].float().cpu().numpy(), rolls
    tried = _rolls_to_try(teacher, ground, places, rolls, n_bins, heading_deg)
    looks = [teacher.place_scores(ground, places, row[None]) for row in tried]
    scores = torch.cat(looks).float().cpu().numpy()
    best, each = scores.argmax(axis=0), np.arange(len(rolls))
    met = np.where(np.isnan(rolls), tried.cpu().numpy()[best, each], rolls).astype(np.float32)
    return scores[best, each], met


def in_order(ranking: Ranking, view: ViewCalibration) -> tuple[Ranking, npt.NDArray[np.float64]]:
    """The tiles by their calibrated logits (K,), and these, best first.

    What the teacher has not seen never comes before what it has (see ``ViewCalibration.logits``).
    """
    logits = np.asarray(view.logits(ranking.similarities, ranking.teacher_scores), dtype=np.float64)
    order = np.argsort(-logits, kind="stable")
    ordered = Ranking(
        rows=ranking.rows[order],
        similarities=ranking.similarities[order],
        teacher_scores=ranking.teacher_scores[order[: len(ranking.teacher_scores)]],
        rolls=ranking.rolls[order],
    )
    return ordered, logits[order]


def _rolls_to_try(
    teacher: GeoSSK,
    ground: Tensor,
    places: Tensor,
    rolls: FloatArray,
    n_bins: int,
    heading_deg: float | None,
) -> Tensor:
    """Whole rolls (tries, T) at which an azimuth teacher looks at each of T places."""
    if not np.isnan(rolls).any():
        whole = np.rint(rolls).astype(np.int64) % BINS
    elif heading_deg is not None:
        whole = np.full(len(rolls), whole_roll(roll_from_heading(heading_deg, n_bins)))
    else:
        curve = teacher.plain_similarity(ground, places.flatten(0, 1))[0]
        best = curve.unflatten(0, places.shape[:2]).amax(dim=1).argmax(dim=1)
        # No standpoint is the place's middle: the best of them may lie a bin off.
        return (best + torch.arange(-1, 2, device=best.device)[:, None]) % BINS
    return torch.from_numpy(whole)[None].to(ground.device)
