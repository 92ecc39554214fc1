"""Tiles in the order of a photo: the student's search, then the teacher's second look.

K tiles in a ranking, T <= K of them seen by the teacher, n azimuth bins in the photo's canvas; S
standpoints of a place in the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.devices import computes_in_bfloat16
from core.gallery.viewpoints import over_standpoints
from core.localization.calibration import ViewCalibration
from core.localization.refinement import between_steps
from core.localization.search import (
    InnerProductIndex,
    roll_from_heading,
    search_all_rolls,
    search_places,
)
from core.models.geossk import GeoSSK
from core.photos.views import canvas_bins, ground_batch
from core.polar import BINS, to_batch

__all__ = [
    "Ranking",
    "in_order",
    "look_again",
    "rank_tiles",
    "score_tiles",
    "step_closer",
]

TWICE = 6
"""So many tiles, the best at first sight, are looked at in the mirror too: on a validation town as good
as ten."""

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
        from_each: float32 (K, S), the student's similarities of each place's standpoints.

    """

    rows: IntArray
    similarities: FloatArray
    teacher_scores: FloatArray
    rolls: FloatArray
    from_each: FloatArray


def rank_tiles(
    index: InnerProductIndex,
    descriptor: FloatArray,
    n_bins: int | None,
    k: int,
    heading_deg: float | None = None,
    rows: IntArray | None = None,
    standpoints: int = 1,
) -> Ranking:
    """The k best tiles of a photo, as the student has it.

    Args:
        index: inner-product index over tile descriptors.
        descriptor: (n * D,) of n azimuth bins, or (D,) of a global student.
        n_bins: n, or None for a global student, which knows no rolls.
        k: how many tiles at most.
        heading_deg: of the photo's centre, where known: only that roll is tried.
        rows: gallery rows to search; all by default.
        standpoints: S, descriptors of a place in the index, one after another.

    """
    unseen = np.empty(0, dtype=np.float32)
    if n_bins is None:
        best, curves = search_places(index, descriptor[None], k, standpoints, rows)
        from_each = curves[:, :, 0]
        similarities = over_standpoints(from_each)
        order = np.argsort(-similarities, kind="stable")[:k]
        rolls = np.full(len(order), np.nan, dtype=np.float32)
        return Ranking(best[order], similarities[order], unseen, rolls, from_each[order])
    wanted = None if heading_deg is None else [roll_from_heading(heading_deg, n_bins)]
    found = search_all_rolls(index, descriptor, n_bins, k, rows, wanted, standpoints=standpoints)
    known = found.rows[0] >= 0
    return Ranking(
        rows=found.rows[0][known],
        similarities=found.similarities[0][known],
        teacher_scores=unseen,
        rolls=found.rolls[0][known],
        from_each=found.from_each[0][known],
    )


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
        tiles: uint8 (S, S, 3) each, of the first T places around the points where the student
            believes the camera in them.
        heading_deg: where known; used for rolls that the student does not know.
        device: where the teacher is.

    Each tile is met at the student's roll. A global student knows none: then the roll that the
    teacher's own descriptors find best becomes the tile's, unless the teacher is global too.

    """
    count = len(tiles)
    if not count:
        return ranking
    view = ground_batch([canvas], teacher.ground_size, device, whole=teacher.base.bins is None)
    seen = to_batch(tiles, teacher.aerial_size, device)
    rolls = ranking.rolls[:count]
    unknown = bool(np.isnan(rolls).any())
    if unknown and heading_deg is not None:
        rolls = np.full_like(rolls, roll_from_heading(heading_deg, canvas_bins(canvas)))
        unknown = False
    scores, met = score_tiles(teacher, view, seen, None if unknown else rolls)
    if teacher.base.bins is None:
        rolls = ranking.rolls[:count]
    elif unknown:
        rolls = met
    return replace(
        ranking, teacher_scores=scores, rolls=np.concatenate([rolls, ranking.rolls[count:]])
    )


def score_tiles(
    teacher: GeoSSK, view: Tensor, tiles: Tensor, rolls: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Teacher's scores (T,) of T tiles, and the whole rolls (T,) at which it met them.

    Who knows of a pair how it lies can lay its two views over one another: every tile's polar view is
    turned by what its roll lacks to a whole one, so that its bins lie under those of the view. And a
    pair is as good in the mirror: the ``TWICE`` best at first sight are looked at both ways, and the mean
    is the score.

    Args:
        teacher: in evaluation mode.
        view: (1, 3, H, w) in [0, 1], of n bins or a full canvas.
        tiles: (T, 3, S, S) in [0, 1].
        rolls: (T,) in [0, 32) at which an azimuth teacher meets them, or None where nobody knows
            any; a global teacher asks for none.

    """
    near = turns = None
    if rolls is not None and teacher.base.bins is not None:
        near, turns = _whole_and_rest(torch.from_numpy(rolls).to(view))
    scores, met = _scores(teacher, view, tiles, near, turns)
    best = scores.topk(min(TWICE, len(scores))).indices
    back = None
    if teacher.base.bins is not None:
        bins = view.shape[3] * BINS // teacher.ground_size[1]
        back = -met[best] - bins  # the first bin of a mirrored view is its last
    turns = None if turns is None else -turns[best]
    again = _scores(teacher, view.flip(3), tiles[best].flip(3), back, turns)[0]
    scores = scores.index_put((best,), (scores[best] + again) / 2)
    return scores.float().cpu().numpy(), met.cpu().numpy().astype(np.float32)


@torch.inference_mode()
def step_closer(
    teacher: GeoSSK,
    canvas: UInt8Image,
    roll: float,
    points: npt.NDArray[np.float64],
    tiles: UInt8Image,
    device: str = "cpu",
) -> npt.NDArray[np.float64]:
    """Where the camera probably stood, (2,) in metres, as the teacher sees it.

    Args:
        teacher: with azimuth bins, in evaluation mode.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        roll: at which the place was found, in [0, 32).
        points: (P, 2) in metres, see ``position.steps_around``.
        tiles: uint8 (P, S, S, 3), cut around them.
        device: where the teacher is.
    """
    view = ground_batch([canvas], teacher.ground_size, device)
    near, turns = _whole_and_rest(torch.full((len(tiles),), roll, device=device))
    seen = to_batch(tiles, teacher.aerial_size, device)
    scores = _scores(teacher, view, seen, near, turns)[0]
    return between_steps(points, scores.float().cpu().numpy())


def _whole_and_rest(rolls: Tensor) -> tuple[Tensor, Tensor]:
    """The whole rolls (T,) nearest to rolls (T,), and what these lack to them."""
    near = rolls.round().long()
    return near, rolls - near


def _scores(
    teacher: GeoSSK, view: Tensor, tiles: Tensor, near: Tensor | None, turns: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores and rolls (T,) of one view with T tiles that are turned, met near rolls (T,)."""
    device = view.device.type
    # Encoding is nearly all of the work, and what the branches were trained in is exact enough for it.
    with torch.autocast(device, torch.bfloat16, enabled=computes_in_bfloat16(device)):
        ground, aerial = teacher.ground_tokens(view), teacher.aerial_tokens(tiles, turns)
    whole = None if near is None else near[None] % BINS
    scores, met = teacher.scores_near(ground.float(), aerial.float(), whole)
    return scores[0], met[0]


def in_order(ranking: Ranking, view: ViewCalibration) -> tuple[Ranking, npt.NDArray[np.float64]]:
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
        rolls=ranking.rolls[order],
        from_each=ranking.from_each[order],
    )
    return ordered, logits[order]
