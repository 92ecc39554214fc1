"""Answer a photo: a canvas and references in, a distribution over places out.

``answer`` serves the page, the command line, the API and every measurement on rendered towns. It works in
metres; ``core.localization.localizer`` converts degrees to metres and back.

K tiles in a ranking; metres east and north of the references' origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from core.arrays import Float64Array, Int64Array, UInt8Array
from core.geo import group_places
from core.localization.calibration import (
    Calibration,
    Distribution,
    ViewCalibration,
)
from core.localization.ranking import RERANKED, Ranking, describe_view, rank_tiles, rerank
from core.localization.references import References
from core.localization.refinement import estimated_position, refine_position
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.views import canvas_bins
from core.polar import heading_from_shift

__all__ = [
    "NOTHING_KNOWN",
    "Answer",
    "Evidence",
    "FoundPlace",
    "Models",
    "answer",
    "conclude",
    "rank",
]

Lap = Callable[[str], None]


@dataclass(frozen=True)
class Evidence:
    """What is known beside the photo. It conditions the distribution; None means unknown.

    ``heading_deg``: of the photo's centre, clockwise from north. ``rows``: int64 (n,) rows of the
    possible places, in ascending order, at least one.
    """

    heading_deg: float | None = None
    rows: Int64Array | None = None


NOTHING_KNOWN = Evidence()


@dataclass(frozen=True)
class Models:
    """A student, its re-ranking teacher if any, and their calibration; in evaluation mode."""

    student: TwoBranch
    teacher: GeoSSK | None = None
    calibration: Calibration = field(default_factory=Calibration)
    device: str = "cpu"

    @property
    def refines(self) -> bool:
        """Whether there is a teacher with azimuth bins: it can refine positions and explain pairs."""
        return self.teacher is not None and self.teacher.base.bins is not None


@dataclass(frozen=True)
class FoundPlace:
    """One distinct place of an answer.

    ``row``: of its best tile. ``position_m``: (2,) estimated camera position. ``radius_m``: on
    validation towns nine of ten cameras stood within it, if the place was right; None if not measured.
    ``probability``: that the camera stood there, neighbouring tiles included. ``teacher_score``: cosine,
    None if the teacher gave none. ``azimuth_shift``: bins in [0, 32), None if unknown.
    """

    row: int
    position_m: Float64Array
    radius_m: float | None
    probability: float
    similarity: float
    teacher_score: float | None
    heading_deg: float | None
    azimuth_shift: float | None


@dataclass(frozen=True)
class Answer:
    """A distribution over distinct places (best first), the rest of the imagery, and outside of it.

    All probabilities sum to 1. ``confident``: the first place reaches the calibration's threshold.
    ``rows``: int64 (K,) rows of the ranked tiles, best first. ``tile_probabilities``: (K,) the share
    that each tile adds to its place. ``area_50_m2``, ``area_90_m2``: the smallest areas of whole grid
    cells with 50 and 90 % of the probability; None if all tiles together have less.
    """

    places: tuple[FoundPlace, ...]
    confident: bool
    rest_probability: float
    outside_probability: float
    rows: Int64Array
    tile_probabilities: Float64Array
    area_50_m2: float | None
    area_90_m2: float | None

    @property
    def confidence(self) -> float:
        """Probability of the first place."""
        return self.places[0].probability


def _no_lap(_step: str) -> None:
    """Measure no time."""


def answer(
    references: References,
    models: Models,
    canvas: UInt8Array,
    evidence: Evidence = NOTHING_KNOWN,
    lap: Lap = _no_lap,
) -> Answer:
    """Find where the photo on a canvas was taken.

    Args:
        references: the places to search.
        models: the student that described the references, and the teacher that re-ranks.
        canvas: uint8 (h, w, 3) of whole azimuth bins.
        evidence: what is known beside the photo.
        lap: called with the name of each step as it ends.

    """
    ranking = rank(references, models, canvas, evidence, lap)
    return conclude(references, models, canvas, evidence, ranking, lap)


def rank(
    references: References,
    models: Models,
    canvas: UInt8Array,
    evidence: Evidence = NOTHING_KNOWN,
    lap: Lap = _no_lap,
) -> Ranking:
    """The tiles most similar to the photo; the teacher, if any, scores the first of them."""
    student, device = models.student, models.device
    descriptor = describe_view(student, canvas, device)
    lap("describe")
    bins = canvas_bins(canvas) if student.bins else None
    ranking = rank_tiles(references, descriptor, bins, evidence.heading_deg, evidence.rows)
    lap("search")
    if models.teacher is not None:
        seen = range(min(RERANKED, len(ranking.rows)))
        points = np.stack([estimated_position(references, ranking, at) for at in seen])
        tiles = references.tiles_at(points)
        heading = evidence.heading_deg
        ranking = rerank(ranking, models.teacher, canvas, tiles, heading, device)
    lap("rerank")
    return ranking


def conclude(
    references: References,
    models: Models,
    canvas: UInt8Array,
    evidence: Evidence,
    ranking: Ranking,
    lap: Lap = _no_lap,
) -> Answer:
    """The answer that follows from a ranking: distinct places with their probabilities."""
    bins = canvas_bins(canvas)
    view = models.calibration.at(bins)
    logits = view.logits(ranking.similarities, ranking.teacher_scores)
    found = view.distribution(logits, ranking.searched, evidence.heading_deg is not None)
    side_m = references.tile_side_m
    groups = group_places(references.centres_m[ranking.rows], logits, side_m / 2)
    shares = [float(found.tiles[list(group)].sum()) for group in groups]
    order = np.argsort([-share for share in shares], kind="stable")
    places = [
        _place(references, ranking, groups[at][0], shares[at], view, evidence, bins) for at in order
    ]
    if models.refines and places[0].azimuth_shift is not None:
        places[0] = _refined(references, models, canvas, places[0], view)
    lap("position")
    best = np.argsort(-logits, kind="stable")
    return Answer(
        places=tuple(places),
        confident=places[0].probability >= view.threshold,
        rest_probability=found.rest,
        outside_probability=found.outside,
        rows=ranking.rows[best],
        tile_probabilities=found.tiles[best],
        area_50_m2=_area(found, 0.5, references.cell_area_m2),
        area_90_m2=_area(found, 0.9, references.cell_area_m2),
    )


def _place(
    references: References,
    ranking: Ranking,
    at: int,
    probability: float,
    view: ViewCalibration,
    evidence: Evidence,
    bins: int,
) -> FoundPlace:
    """The place at one position of the ranking."""
    shift, heading = float(ranking.azimuth_shifts[at]), evidence.heading_deg
    is_known, is_seen = not math.isnan(shift), at < len(ranking.teacher_scores)
    if heading is None and is_known:
        heading = heading_from_shift(shift, bins)
    return FoundPlace(
        row=int(ranking.rows[at]),
        position_m=estimated_position(references, ranking, at),
        radius_m=view.radius_m,
        probability=probability,
        similarity=float(ranking.similarities[at]),
        teacher_score=float(ranking.teacher_scores[at]) if is_seen else None,
        heading_deg=heading,
        azimuth_shift=shift if is_known else None,
    )


def _refined(
    references: References,
    models: Models,
    canvas: UInt8Array,
    place: FoundPlace,
    view: ViewCalibration,
) -> FoundPlace:
    """The place with the camera position that the teacher refines."""
    assert models.teacher is not None
    assert place.azimuth_shift is not None
    shift, estimate = place.azimuth_shift, place.position_m
    position = refine_position(references, models.teacher, canvas, shift, estimate, models.device)
    radius_m = view.radius_m if view.refined_radius_m is None else view.refined_radius_m
    return replace(place, position_m=position, radius_m=radius_m)


def _area(found: Distribution, share: float, cell_area_m2: float) -> float | None:
    """The smallest area in square metres whose cells have the given share of the probability."""
    held = np.cumsum(np.sort(found.tiles)[::-1])
    if not len(held) or held[-1] < share:
        return None
    return float((np.searchsorted(held, share) + 1) * cell_area_m2)
