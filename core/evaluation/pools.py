"""What an answer is made from: a town's places described once, and pools of tiles for its queries.

The steps are those of ``core.localization.localizer``, for many queries of a town at a time: the student's pool,
the teacher's scores of its first tiles, calibrated logits, neighbours merged into places. Fitting a
calibration and measuring whether it can be trusted both come through here. Q queries, K tiles in a
pool, T <= K of them seen by the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from core.arrays import Float32Array, Float64Array, Int64Array
from core.data.worlds import TILE_SIDE_M, Town
from core.evaluation.descriptors import (
    FRAMED_BINS,
    Queries,
    crop_queries,
    describe_places,
    describe_views,
    framed,
    match,
    town_grid,
    town_viewpoints,
)
from core.evaluation.rerank import Reranker, believed_camera, rerank
from core.gallery.viewpoints import VIEWPOINTS
from core.geo import group_places
from core.localization.calibration import POOL, ViewCalibration, probabilities
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch

__all__ = [
    "RIGHT_M",
    "DescribedTown",
    "FirstPlaces",
    "Pools",
    "first_places",
    "joined",
    "town_queries",
]

RIGHT_M = 25.0
"""A place is right within so many metres of the camera."""


@dataclass(frozen=True)
class Pools:
    """The pools of many queries: similarities (Q, K), teacher (Q, T), distances to the camera
    (Q, K), places (Q, K, 2) and cameras (Q, 2), all in metres; viewpoint_similarities (Q, K, S), what the
    similarities were made of. The teacher stepped closer in one place of each pool, before anybody
    knows how much its word will count: closer_in (Q,), -1 for none, and where it came to (Q, 2).
    """

    similarities: Float64Array
    teacher: Float64Array
    distances: Float64Array
    places: Float64Array
    cameras: Float64Array
    viewpoint_similarities: Float64Array
    closer_in: Int64Array
    closer: Float64Array


def town_queries(town: Town, bins: int, count: int, seed: int) -> Queries:
    """Views of one width from at most ``count`` panoramas; the narrow ones as photo frames."""
    queries = crop_queries(town, bins, count, seed)
    return framed(queries) if bins <= FRAMED_BINS else queries


class DescribedTown:
    """A town described once: its places, their descriptors, what the teacher sees of them."""

    def __init__(
        self,
        student: TwoBranch,
        teacher: GeoSSK | None,
        town: Town,
        viewpoints: int = VIEWPOINTS,
    ) -> None:
        self.student, self.town = student, town
        self.centres = town_grid(town)
        points = town_viewpoints(self.centres, viewpoints)
        self.descriptors = describe_places(student, town, points)
        self.reranker = None if teacher is None else Reranker(teacher, town, self.centres)

    def pools(self, asked: Town, bins: int, count: int, seed: int) -> Pools:
        """The pools of ``count`` queries of one width, taken from this town or from another.

        No place is right for a query from another town: its distances are infinite.
        """
        queries = town_queries(asked, bins, count, seed)
        matches = match(
            describe_views(self.student, queries), self.descriptors, bins=self.student.bins
        )
        order = np.argsort(-matches.similarity, axis=1, kind="stable")[:, :POOL]
        seen = np.empty((len(order), 0))
        if self.reranker is not None:
            scores = np.take_along_axis(rerank(queries, matches, self.reranker), order, axis=1)
            looked = int(np.isfinite(scores[0]).sum())
            seen = scores[:, :looked].astype(np.float64)
        places = self.centres[order]
        distance = np.linalg.norm(queries.places[:, None] - places, axis=2)
        if asked is not self.town:
            distance = np.full_like(distance, np.inf)
        similarities = np.take_along_axis(matches.similarity, order, axis=1)
        pools = Pools(
            similarities.astype(np.float64),
            seen,
            distance,
            places,
            queries.places,
            np.take_along_axis(matches.viewpoint_similarities, order[:, :, None], axis=1).astype(
                np.float64
            ),
            np.full(len(order), -1),
            np.full((len(order), 2), np.nan),
        )
        if self.reranker is None or asked is not self.town:
            return pools
        return _stepped(
            pools, queries, np.take_along_axis(matches.azimuth_shift, order, axis=1), self.reranker
        )


def _stepped(
    pools: Pools, queries: Queries, azimuth_shifts: Float32Array, reranker: Reranker
) -> Pools:
    """The pools, the teacher having stepped closer in the place that is best by similarity and score
    alike; ``azimuth_shifts``: (Q, K).
    """
    looked = pools.teacher.shape[1]
    best = (pools.similarities[:, :looked] + pools.teacher).argmax(axis=1)
    closer = [
        reranker.refine_position(
            queries.views[query], float(azimuth_shifts[query, at]), _believed(pools, query, at)
        )
        for query, at in enumerate(best)
    ]
    return replace(pools, closer_in=best, closer=np.stack(closer))


def _believed(pools: Pools, query: int, at: int) -> Float64Array:
    """Where (2,) the student believes a query's camera in one place of its pool."""
    return believed_camera(pools.places[query], pools.viewpoint_similarities[query], at)


def joined(parts: Sequence[Pools]) -> Pools:
    """One after another."""
    names = [field.name for field in fields(Pools)]
    return Pools(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class FirstPlaces:
    """First places of many queries: their shares, neighbours merged, how like the photos they are,
    rightness, and how many metres from the camera the point is that is answered, and the one where the
    student believed it.
    """

    shares: list[float]
    alike: list[float]
    right: list[bool]
    errors_m: list[float]
    believed_m: list[float]

    def __add__(self, other: FirstPlaces) -> FirstPlaces:
        return FirstPlaces(
            self.shares + other.shares,
            self.alike + other.alike,
            self.right + other.right,
            self.errors_m + other.errors_m,
            self.believed_m + other.believed_m,
        )


def first_places(pools: Pools, view: ViewCalibration) -> FirstPlaces:
    """The first place of each query; a view without a factor for the teacher does not ask it."""
    found = FirstPlaces([], [], [], [], [])
    for query in range(len(pools.similarities)):
        seen = pools.teacher[query] if view.teacher else np.empty(0)
        logits = view.logits(pools.similarities[query], seen)
        shares = probabilities(logits)
        groups = group_places(pools.places[query], logits, TILE_SIDE_M / 2)
        merged = [float(shares[list(group)].sum()) for group in groups]
        best = int(np.argmax(merged))
        first = groups[best][0]
        found.shares.append(merged[best])
        found.alike.append(float(view.alike(logits)[first]))
        found.right.append(bool(pools.distances[query, first] <= RIGHT_M))
        believed = _believed(pools, query, first)
        stepped = view.teacher and first == pools.closer_in[query]
        point = pools.closer[query] if stepped else believed
        found.errors_m.append(float(np.hypot(*(point - pools.cameras[query]))))
        found.believed_m.append(float(np.hypot(*(believed - pools.cameras[query]))))
    return found
