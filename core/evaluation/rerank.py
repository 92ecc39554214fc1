"""Let the teacher look at the student's first places again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.data.worlds import Town
from core.evaluation.calibration import RERANKED, ViewCalibration
from core.evaluation.descriptors import Float, Matches, Queries
from core.models.geossk import GeoSSK, Prepared
from core.polar import to_batch
from core.ranking import found_rolls, score_places
from core.views import ground_batch

__all__ = ["Reranked", "TownPlaces", "combined", "rerank"]


@dataclass(frozen=True)
class Reranked:
    """What a teacher says of the first T places of Q queries.

    scores: float32 (Q, R) of all places, -inf where it did not look. standpoints: float32 (Q, R, S),
    likewise, what the scores were made of.
    """

    scores: npt.NDArray[np.float32]
    standpoints: npt.NDArray[np.float32]


class TownPlaces:
    """A town's places as the teacher sees them, prepared once and only where they are needed."""

    def __init__(self, teacher: GeoSSK, town: Town, centres: Float) -> None:
        self.teacher = teacher
        self._town, self._centres = town, centres
        self._known: dict[int, Prepared] = {}

    def _tiles(self, rows: list[int]) -> Tensor:
        size = self.teacher.aerial_size
        return to_batch(self._town.crop_tiles(self._centres[rows], size[0]), size)

    @torch.inference_mode()
    def middles_of(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Tokens (len(rows), M, C) of places by their row, seen from the middle of each."""
        return self.teacher.aerial_tokens(self._tiles(rows.tolist()))

    @torch.inference_mode()
    def of(self, rows: npt.NDArray[np.int64]) -> Prepared:
        """Places by their row, from every standpoint; half precision from the first time on."""
        missing = [int(row) for row in rows if int(row) not in self._known]
        if missing:
            places = self.teacher.prepare_places(self._tiles(missing))
            self._known |= zip(missing, places.each(len(self.teacher.standpoints)), strict=True)
        return Prepared.joined([self._known[int(row)] for row in rows])


@torch.inference_mode()
def rerank(
    queries: Queries, matches: Matches, places: TownPlaces, first: int = RERANKED
) -> Reranked:
    """What the places' teacher says of the student's first places of each query."""
    teacher = places.teacher.eval()
    is_global = teacher.base.bins is None
    scores = np.full(matches.similarity.shape, -np.inf, np.float32)
    shape = (*scores.shape, len(teacher.standpoints))
    standpoints = np.full(shape, -np.inf, np.float32)
    order = np.argsort(-matches.similarity, axis=1, kind="stable")[:, :first]
    for index, best in enumerate(order):
        rows = best[np.isfinite(matches.similarity[index, best])]
        view = queries.views[index : index + 1]
        ground = teacher.ground_tokens(ground_batch(view, teacher.ground_size, whole=is_global))
        rolls = matches.roll[index, rows]
        if not is_global and np.isnan(rolls).any():
            rolls = found_rolls(teacher, ground, places.middles_of(rows))
        told = score_places(teacher, ground, places.of(rows), rolls)
        scores[index, rows], standpoints[index, rows] = told
    return Reranked(scores, standpoints)


def combined(
    similarity: npt.NDArray[np.float32],
    teacher: npt.NDArray[np.float32],
    view: ViewCalibration,
) -> npt.NDArray[np.float32]:
    """Final scores (Q, R): the logits that the Localizer orders by.

    ``teacher``: (Q, R), -inf where it did not look; such places count as if they had the lowest
    score it gave for that query.
    """
    lowest = np.where(np.isfinite(teacher), teacher, np.inf).min(axis=1, keepdims=True)
    filled = np.where(np.isfinite(teacher), teacher, lowest)
    return (view.student * similarity + view.teacher * filled).astype(np.float32)
