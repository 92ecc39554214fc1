"""Can the probabilities be trusted? Measured on test towns, which were not used for fitting.

An answer is a distribution over places, the rest of the imagery, and outside of it. A town is searched
for its own photos, where the first place is right or wrong. It is also searched for photos from outside
(``core.evaluation.outside``), for which no place is right. The calibration assumes a mixture of the two
(``OUTSIDE_SHARE``), so it is judged by that mixture. It is also judged by the own photos alone, the
usual case of a visitor. Nothing here changes the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, Float64Array
from core.data.worlds import Town
from core.evaluation.answers import NO_HELP, DescribedTown, Help
from core.evaluation.metrics import (
    accuracy_at_coverage,
    area_under_coverage,
    auroc,
    auroc_standard_error,
    brier_score,
    calibration_error,
    calibration_error_by_chance,
    reliability_points,
)
from core.evaluation.outside import drawn_kinds, drawn_views
from core.evaluation.queries import Queries, town_queries
from core.localization.answer import Answer
from core.polar import BINS

__all__ = [
    "CASES",
    "COVERAGES",
    "MEASURED_BINS",
    "OUTSIDE_SHARE",
    "Stated",
    "measure_trust",
    "mixture_weights",
    "outside_queries",
    "state",
    "trust_row",
]

OUTSIDE_SHARE = 0.1
"""Assumed share of photos from outside the searched imagery."""
MEASURED_BINS = (32, 16, 10, 8, 6)
"""Widths: 360, 180, 112.5, 90 and 67.5 degrees; the last three as photo frames."""
CASES: Mapping[str, Help] = {
    "no help": NO_HELP,
    "compass": Help(heading_known=True),
    "within 200 m": Help(radius_m=200.0),
    "1,000 places": Help(places=1000),
    "100 places": Help(places=100),
}
"""Help given with the photo, or the size of the gallery."""
COVERAGES = tuple(share / 10 for share in range(1, 11))
AREAS = (0.5, 0.9)

Metrics = dict[str, object]


@dataclass(frozen=True)
class Stated:
    """The statements about Q photos, and the truth.

    confidence: (Q,) probability of the first place. outside: (Q,) probability of being outside.
    right: bool (Q,), whether the first place is right. confident: bool (Q,), whether it is called a
    match. kind: (Q,) origin of each photo, "own" for the searched town. held: bool (Q, 2), whether the
    areas of 50 and 90 % contain the camera; drawn: bool (Q, 2), whether there is such an area.
    """

    confidence: Float64Array
    outside: Float64Array
    right: BoolArray
    confident: BoolArray
    kind: tuple[str, ...]
    held: BoolArray
    drawn: BoolArray

    @classmethod
    def joined(cls, parts: Sequence[Stated]) -> Stated:
        """Concatenate several sets of statements."""
        arrays = ("confidence", "outside", "right", "confident", "held", "drawn")
        values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
        return cls(kind=tuple(kind for part in parts for kind in part.kind), **values)

    @property
    def own(self) -> BoolArray:
        """Photos of the town that was searched."""
        return np.array([kind == "own" for kind in self.kind])

    def weights(self) -> Float64Array:
        """Weights (Q,): 1 for own photos; photos from outside have ``OUTSIDE_SHARE`` of the total."""
        return mixture_weights(self.own)


def mixture_weights(own: BoolArray) -> Float64Array:
    """Weights (Q,): 1 for own photos; photos from outside have ``OUTSIDE_SHARE`` of the total."""
    each = OUTSIDE_SHARE / (1 - OUTSIDE_SHARE) * own.sum() / max(int((~own).sum()), 1)
    return np.where(own, 1.0, each)


def outside_queries(
    home: Town, towns: Sequence[Town], bins: int, count: int, seed: int
) -> dict[str, Queries]:
    """About ``count`` photos of one width by kind: of other towns, and pictures without a street.

    Half of them are of other towns. Their places are random points of the searched town: the place
    where a visitor wrongly assumes the photo to be.
    """
    random = np.random.default_rng((seed, bins, 7))

    def misplaced(views: np.ndarray) -> Queries:
        half = home.half_extent_m
        places = random.uniform(-half, half, (len(views), 2))
        return Queries(views, bins, places, random.uniform(0, 360, len(views)))

    found = {}
    if towns:
        each = max(1, round(count / 2 / len(towns)))
        found = {town.name: misplaced(town_queries(town, bins, each, seed).views) for town in towns}
    kinds = drawn_kinds()
    each = max(1, round(count / (2 if towns else 1) / len(kinds)))
    return found | {kind: misplaced(drawn_views(kind, bins, each, seed)) for kind in kinds}


def state(home: DescribedTown, queries: Queries, given: Help, kind: str = "own") -> Stated:
    """The pipeline's statements about photos of one width, of the searched town or of another kind."""
    answers = home.answers(queries, given)
    own = kind == "own"
    cells = [
        _cells_before(home, found, place)
        for found, place in zip(answers.found, queries.places, strict=True)
    ]
    areas = np.array([[_total(found) >= share for share in AREAS] for found in answers.found])
    return Stated(
        confidence=np.array([found.confidence for found in answers.found]),
        outside=np.array([found.outside_probability for found in answers.found]),
        right=np.array([own and right for right in answers.right], bool),
        confident=np.array([found.confident for found in answers.found], bool),
        kind=(kind,) * len(answers),
        held=np.array([[own and before < share for share in AREAS] for before in cells], bool),
        drawn=np.array(areas, bool),
    )


def _total(found: Answer) -> float:
    return float(found.tile_probabilities.sum())


def _cells_before(home: DescribedTown, found: Answer, camera_m: Float64Array) -> float:
    """Probability of the cells before the camera's cell; 1 if the camera's cell is not among them."""
    apart = np.hypot(*(home.references.centres_m[found.rows] - camera_m).T)
    at = int(apart.argmin())
    if apart[at] > np.sqrt(home.references.cell_area_m2 / 2) + 1e-6:
        return 1.0
    own = found.tile_probabilities[at]
    return float(found.tile_probabilities[found.tile_probabilities > own].sum())


def trust_row(stated: Stated, case: str, fov_deg: float | None, seed: int = 0) -> Metrics:
    """All numbers of one case and width, or (``fov_deg`` None) of all widths together.

    Shares are in 0..1. ``own``: the town's own photos. ``mixture``: these and the photos from outside,
    weighted to ``OUTSIDE_SHARE`` of all. AUROC counts every photo once; None if one class is empty.
    ``areas``: of the own photos with such an area, the share whose camera lies in it.

    Args:
        stated: with own photos and photos from outside.
        case: of the row, a name of ``CASES``.
        fov_deg: of the row.
        seed: of the draws that estimate the calibration error by chance.

    """
    own, right, said = stated.own, stated.right, stated.confidence
    return {
        "case": case,
        "fov_deg": fov_deg,
        "own": _quality(said[own], right[own], stated.confident[own], None, seed),
        "mixture": _quality(said, right, stated.confident, stated.weights(), seed),
        "outside": _outside(stated),
        "areas": {f"{100 * share:g}": _held(stated, at) for at, share in enumerate(AREAS)},
        "auroc": {
            "own_or_outside": _area_between(-stated.outside[own], -stated.outside[~own]),
            "right_or_not": _area_between(said[right], said[~right]),
            "right_or_wrong": _area_between(said[right], said[own & ~right]),
        },
    }


def _outside(stated: Stated) -> Metrics:
    away = ~stated.own
    kinds = np.array(stated.kind)
    return {
        "photos": int(away.sum()),
        "mean_confidence": float(stated.confidence[away].mean()),
        "mean_outside_probability": float(stated.outside[away].mean()),
        "confident": float(stated.confident[away].mean()),
        "kinds": {
            kind: {
                "photos": int((kinds == kind).sum()),
                "confident": float(stated.confident[kinds == kind].mean()),
                "mean_outside_probability": float(stated.outside[kinds == kind].mean()),
            }
            for kind in dict.fromkeys(stated.kind)
            if kind != "own"
        },
    }


def _held(stated: Stated, at: int) -> Metrics:
    drawn = stated.own & stated.drawn[:, at]
    held = float(stated.held[drawn, at].mean()) if drawn.any() else None
    return {"photos": int(drawn.sum()), "held": held}


def _quality(
    confidence: Float64Array,
    right: BoolArray,
    confident: BoolArray,
    weights: Float64Array | None,
    seed: int,
) -> Metrics:
    weight = np.ones(len(confidence)) if weights is None else weights
    random = np.random.default_rng(seed)
    covered = accuracy_at_coverage(confidence, right, np.array(COVERAGES), weight)
    given = float(weight[confident].sum())
    return {
        "photos": len(confidence),
        "right": float(np.average(right, weights=weight)),
        "mean_confidence": float(np.average(confidence, weights=weight)),
        "calibration_error": calibration_error(confidence, right, weights=weight),
        "calibration_error_by_chance": calibration_error_by_chance(
            confidence, random, weights=weight
        ),
        "brier_score": brier_score(confidence, right, weight),
        "reliability": [
            asdict(point) for point in reliability_points(confidence, right, weights=weight)
        ],
        "coverage": [
            {"coverage": share, "right": float(found)}
            for share, found in zip(COVERAGES, covered, strict=True)
        ],
        "area_under_coverage": area_under_coverage(confidence, right, weight),
        "confident": {
            "coverage": given / float(weight.sum()),
            "right": float(weight[confident & right].sum()) / given if given else None,
        },
    }


def _area_between(positive: Float64Array, negative: Float64Array) -> Metrics | None:
    if not len(positive) or not len(negative):
        return None
    area = auroc(positive, negative)
    error = auroc_standard_error(area, len(positive), len(negative))
    return {"area": area, "standard_error": error, "of": [len(positive), len(negative)]}


def measure_trust(
    home: DescribedTown,
    other_towns: Sequence[Town],
    count: int = 300,
    seed: int = 0,
    bins: Sequence[int] = MEASURED_BINS,
    cases: Mapping[str, Help] = CASES,
) -> list[Metrics]:
    """A row for each case and width; the last row of a case is for all its widths.

    Args:
        home: a described test town.
        other_towns: towns for photos from outside.
        count: own photos of each width, at most one of each panorama; about as many from outside.
        seed: of the views.
        bins: widths.
        cases: the help given with the photo.

    """
    rows = []
    for case, given in tqdm(cases.items(), desc=f"trust {home.town.name}", leave=False):
        everything = []
        for width in bins:
            own = town_queries(home.town, width, count, seed)
            parts = [state(home, own, given)]
            away = outside_queries(home.town, other_towns, width, count, seed)
            parts += [state(home, queries, given, kind) for kind, queries in away.items()]
            stated = Stated.joined(parts)
            rows.append(trust_row(stated, case, width * 360.0 / BINS, seed))
            everything.append(stated)
        rows.append(trust_row(Stated.joined(everything), case, None, seed))
    return rows
