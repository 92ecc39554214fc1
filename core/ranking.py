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
from core.explain import canvas_bins, ground_batch
from core.models.geossk import GeoSSK
from core.polar import BINS, to_batch
from core.search import (
    InnerProductIndex,
    roll_from_heading,
    search_all_rolls,
)

__all__ = ["Ranking", "in_order", "look_again", "rank_tiles", "whole_roll"]

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

    Each pair is looked at under the whole roll nearest to the student's. A global student knows
    none: then the teacher tries all of them and its best one becomes the tile's roll, unless the
    teacher is global too.

    """
    count = len(tiles)
    if not count:
        return ranking
    is_global = teacher.base.bins is None
    batch = ground_batch(canvas, teacher.ground_size, device, whole=is_global)
    ground = teacher.ground_tokens(batch)
    aerial = teacher.aerial_tokens(to_batch(tiles, teacher.aerial_size, device))
    known = np.zeros(count, np.float32) if is_global else ranking.rolls[:count]
    tried = _rolls_to_try(known, heading_deg, canvas_bins(canvas))
    looks = [teacher.pair_scores(ground, aerial, _row(rolls, device)) for rolls in tried]
    scores = torch.cat(looks).float().cpu().numpy()
    best, each = scores.argmax(axis=0), np.arange(count)
    seen = scores[best, each]
    rolls = ranking.rolls.copy()
    if not is_global:
        rolls[:count] = np.where(np.isnan(rolls[:count]), tried[best, each], rolls[:count])
    return replace(ranking, teacher_scores=seen, rolls=rolls)


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


def _row(rolls: IntArray, device: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rolls))[None].to(device)


def _rolls_to_try(rolls: FloatArray, heading_deg: float | None, n_bins: int) -> IntArray:
    """Whole rolls (tries, T) at which the teacher looks at each of T tiles."""
    if not np.isnan(rolls).any():
        return np.rint(rolls).astype(np.int64)[None] % BINS
    if heading_deg is not None:
        known = whole_roll(roll_from_heading(heading_deg, n_bins))
        return np.full((1, len(rolls)), known, dtype=np.int64)
    return np.repeat(np.arange(BINS, dtype=np.int64)[:, None], len(rolls), axis=1)
