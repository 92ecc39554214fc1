"""Let the teacher look at the student's first places again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from core.data.worlds import Town
from core.evaluation.calibration import RERANKED, ViewCalibration
from core.evaluation.descriptors import Float, Int, Matches, Queries
from core.models.geossk import GeoSSK, Prepared
from core.polar import to_batch
from core.ranking import score_tiles
from core.views import ground_batch

__all__ = ["TownTiles", "combined", "rerank"]


class TownTiles:
    """A town's tiles around standpoints as the teacher sees them, each prepared once and only where it
    is needed.
    """

    def __init__(self, teacher: GeoSSK, town: Town, points: Float) -> None:
        """``points``: the standpoints (R, S, 2) of R places, metres east and north."""
        self.teacher = teacher
        self._town, self._points = town, points
        self._known: dict[tuple[int, int], Prepared] = {}

    @torch.inference_mode()
    def of(self, rows: Int, stands: Int) -> Prepared:
        """The tiles of places by their rows (T,), each around one of its standpoints (T,); half
        precision from the first time on.
        """
        wanted = list(zip(rows.tolist(), stands.tolist(), strict=True))
        missing = [one for one in wanted if one not in self._known]
        if missing:
            size = self.teacher.aerial_size
            centres = np.stack([self._points[one] for one in missing])
            tiles = to_batch(self._town.crop_tiles(centres, size[0]), size)
            prepared = self.teacher.prepare_tiles(tiles).each()
            self._known |= zip(missing, prepared, strict=True)
        return Prepared.joined([self._known[one] for one in wanted])


@torch.inference_mode()
def rerank(
    queries: Queries, matches: Matches, tiles: TownTiles, first: int = RERANKED
) -> npt.NDArray[np.float32]:
    """What the tiles' teacher says of the student's first places of each query: scores (Q, R) of all
    places, -inf where it did not look. It looks from the standpoint that the student finds best.
    """
    teacher = tiles.teacher.eval()
    is_global = teacher.base.bins is None
    scores = np.full(matches.similarity.shape, -np.inf, np.float32)
    order = np.argsort(-matches.similarity, axis=1, kind="stable")[:, :first]
    for index, best in enumerate(order):
        rows = best[np.isfinite(matches.similarity[index, best])]
        view = queries.views[index : index + 1]
        ground = teacher.ground_tokens(ground_batch(view, teacher.ground_size, whole=is_global))
        seen = tiles.of(rows, matches.from_each[index, rows].argmax(axis=1))
        rolls = matches.roll[index, rows]
        near = None if np.isnan(rolls).any() else rolls
        scores[index, rows] = score_tiles(teacher, ground, seen, near)[0]
    return scores


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
