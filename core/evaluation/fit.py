"""Fit the calibration of a student, and of the student with its teacher, on validation towns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from core.data.worlds import TILE_SIDE_M, Town
from core.evaluation.calibration import (
    POOL,
    Calibration,
    ViewCalibration,
    fit_confidence,
    fit_factors,
    probabilities,
)
from core.evaluation.descriptors import (
    crop_queries,
    describe_places,
    describe_views,
    match,
    town_grid,
)
from core.evaluation.report import framed
from core.evaluation.rerank import TownPlaces, rerank
from core.geo import group_places
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch

__all__ = ["FITTED_BINS", "STRANGERS", "fit_calibration"]

STRANGERS = 0.1
"""Share of all photos that are taken to come from elsewhere, where there is a town to draw them from."""
FITTED_BINS = (32, 24, 16, 12, 10, 8, 6, 5)


@dataclass(frozen=True)
class _Pools:
    """The pools of many queries: similarities (Q, K), teacher (Q, T), distances to the camera
    (Q, K) and places (Q, K, 2), all in metres.
    """

    similarities: npt.NDArray[np.float64]
    teacher: npt.NDArray[np.float64]
    distances: npt.NDArray[np.float64]
    places: npt.NDArray[np.float64]


class _Described:
    """A validation town described once: its places, their descriptors, what the teacher sees of them."""

    def __init__(self, student: TwoBranch, teacher: GeoSSK | None, town: Town) -> None:
        self.student, self.town = student, town
        self.centres = town_grid(town)
        self.descriptors = describe_places(student, town, self.centres)
        self.seen = None if teacher is None else TownPlaces(teacher, town, self.centres)

    def pools(self, asked: Town, bins: int, count: int, seed: int) -> _Pools:
        """The pools of ``count`` queries of one width, taken from this town or from another."""
        queries = crop_queries(asked, bins, count, seed)
        if bins <= 10:
            queries = framed(queries)
        matches = match(
            describe_views(self.student, queries), self.descriptors, bins=self.student.bins
        )
        order = np.argsort(-matches.similarity, axis=1, kind="stable")[:, :POOL]
        seen = np.empty((len(order), 0))
        if self.seen is not None:
            scores = rerank(queries, matches, self.seen).scores
            scores = np.take_along_axis(scores, order, axis=1)
            seen = scores[:, : int(np.isfinite(scores[0]).sum())].astype(np.float64)
        places = self.centres[order]
        distance = np.linalg.norm(queries.places[:, None] - places, axis=2)
        if asked is not self.town:
            distance = np.full_like(distance, np.inf)
        similarities = np.take_along_axis(matches.similarity, order, axis=1)
        return _Pools(similarities.astype(np.float64), seen, distance, places)


def _joined(parts: Sequence[_Pools]) -> _Pools:
    return _Pools(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("similarities", "teacher", "distances", "places")
        )
    )


@dataclass(frozen=True)
class _Firsts:
    """First places of many queries: their shares, neighbours merged, similarities, rightness."""

    shares: list[float]
    similarities: list[float]
    right: list[bool]

    def __add__(self, other: _Firsts) -> _Firsts:
        return _Firsts(
            self.shares + other.shares,
            self.similarities + other.similarities,
            self.right + other.right,
        )


def _firsts(pools: _Pools, view: ViewCalibration) -> _Firsts:
    found = _Firsts([], [], [])
    for query in range(len(pools.similarities)):
        seen = pools.teacher[query] if view.teacher else np.empty(0)
        logits = view.logits(pools.similarities[query], seen)
        shares = probabilities(logits)
        groups = group_places(pools.places[query], logits, TILE_SIDE_M / 2)
        merged = [float(shares[list(group)].sum()) for group in groups]
        best = int(np.argmax(merged))
        first = groups[best][0]
        found.shares.append(merged[best])
        found.similarities.append(float(pools.similarities[query, first]))
        found.right.append(bool(pools.distances[query, first] <= 25))
    return found


def _fit_view(pools: _Pools, foreign: _Pools | None, bins: int, paired: bool) -> ViewCalibration:
    """One width: factors, then confidence, then what counts as a match: more likely right than not,
    and no more than 2 % of the photos of another town.
    """
    correct = pools.distances <= 25
    student, teacher = fit_factors(pools.similarities, pools.teacher if paired else None, correct)
    view = ViewCalibration(bins, student, teacher, 1.0, 0.0)
    own = _firsts(pools, view)
    if foreign is None:
        return _sure(view, own, [1.0] * len(own.right))
    said = _firsts(foreign, view)
    each = STRANGERS / (1 - STRANGERS) * len(own.right) / len(said.right)
    view = _sure(view, own + said, [1.0] * len(own.right) + [each] * len(said.right))
    confidences = list(map(view.confidence, said.shares, said.similarities))
    return replace(view, threshold=max(0.5, float(np.quantile(confidences, 0.98))))


def _sure(view: ViewCalibration, firsts: _Firsts, weights: list[float]) -> ViewCalibration:
    """The view with the confidence that fits so many first places."""
    fitted = fit_confidence(firsts.shares, firsts.similarities, firsts.right, weights)
    return replace(view, slope=fitted[0], likeness=fitted[1], intercept=fitted[2])


def fit_calibration(
    student: TwoBranch,
    teacher: GeoSSK | None,
    towns: Sequence[Town],
    count: int = 300,
    seed: int = 1,
    bins: Sequence[int] = FITTED_BINS,
) -> tuple[Calibration, Calibration | None]:
    """Calibration of the student alone, and with the teacher re-ranking.

    Views up to 10 bins are photo frames, as visitors' photos are. With two towns or more, each
    town's photos are also asked of the others, where none has a right answer: they count as
    ``STRANGERS`` of all photos, and set from which confidence on an answer is called a match.

    Args:
        student: whose similarities are to become probabilities.
        teacher: its teacher, or None.
        towns: validation towns; never a test town.
        count: queries per town and width.
        seed: of the queries; not the one of the evaluation.
        bins: widths to fit.
    """
    described = [_Described(student, teacher, town) for town in towns]
    alone: list[ViewCalibration] = []
    paired: list[ViewCalibration] = []
    for width in tqdm(bins, desc="calibrate"):
        own = _joined([home.pools(home.town, width, count, seed) for home in described])
        strangers = [
            home.pools(other, width, max(1, count // 3), seed)
            for home in described
            for other in towns
            if other is not home.town
        ]
        foreign = _joined(strangers) if strangers else None
        alone.append(_fit_view(own, foreign, width, paired=False))
        if teacher is not None:
            paired.append(_fit_view(own, foreign, width, paired=True))
    return Calibration(tuple(alone)), Calibration(tuple(paired)) if paired else None
