"""Fit the calibration of a student, and of the student with its teacher, on validation towns.

Q photos of one width, K tiles in the ranking of each, T of them scored by the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, Float64Array, Int64Array
from core.data.worlds import TILE_SIDE_M, Town
from core.evaluation.answers import NO_HELP, RIGHT_M, DescribedTown, Help
from core.evaluation.queries import Queries, town_queries
from core.evaluation.trust import mixture_weights, outside_queries
from core.geo import group_places
from core.localization.answer import rank
from core.localization.calibration import LIKELY, Calibration, ViewCalibration
from core.localization.ranking import POOL, RERANKED
from core.localization.refinement import estimated_position, refine_position

__all__ = ["FITTED_BINS", "Rankings", "fit_calibration", "fit_view", "gather"]

FITTED_BINS = (32, 24, 16, 12, 10, 8, 6, 5)
TOLERATED = 0.015
"""Share of the photos of other towns, without help, that may count as confident matches."""
MISSED = 0.01
"""Share of right answers that may fall below a threshold which is raised further than needed."""
SURE = 0.95
"""A threshold is raised no further than this for the sake of photos that were not in the fit."""
ABOUT_OUTSIDE = 0.3
"""Weight of a statement about being outside; a statement about the first place has weight 1."""
IN_RADIUS = 0.9
"""Share of the cameras within the radius around the answered position, if the place is right."""
FITTED_CASES: Mapping[str, tuple[Help, float]] = {
    "no help": (NO_HELP, 1.0),
    "compass": (Help(heading_known=True), 0.3),
    "within 200 m": (Help(radius_m=200.0), 0.3),
    "both": (Help(heading_known=True, radius_m=200.0), 0.15),
    "1,000 places": (Help(places=1000), 0.2),
    "100 places": (Help(places=100), 0.2),
}
"""The help given with the photos of a fit, and the share of the photos that get it."""


@dataclass(frozen=True)
class Rankings:
    """Rankings of Q photos of one width, and the truth.

    similarities (Q, K), -inf where a ranking is shorter; teacher (Q, T), nan where it scored fewer;
    centres (Q, K, 2) of the places and positions (Q, K, 2) that the student estimates in them, metres;
    searched (Q,), number of places; heading_known (Q,); camera (Q, 2), nan for a photo from outside;
    town (Q,), True for a photo of another town; plain (Q,), True without help. The teacher refined one
    position of each photo, before the first place is decided: refined_at (Q,), -1 for none, refined (Q,
    2).
    """

    similarities: Float64Array
    teacher: Float64Array
    centres: Float64Array
    positions: Float64Array
    searched: Float64Array
    heading_known: BoolArray
    camera: Float64Array
    town: BoolArray
    plain: BoolArray
    refined_at: Float64Array
    refined: Float64Array

    @classmethod
    def joined(cls, parts: Sequence[Rankings]) -> Rankings:
        """Concatenate several sets of rankings."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def inside(self) -> BoolArray:
        """Photos of the searched town."""
        return ~np.isnan(self.camera[:, 0])

    @property
    def correct(self) -> BoolArray:
        """Tiles (Q, K) whose estimated position is within ``RIGHT_M`` of the camera."""
        apart = np.linalg.norm(self.positions - self.camera[:, None], axis=2)
        return np.asarray(np.nan_to_num(apart, nan=np.inf) <= RIGHT_M)

    def weights(self) -> Float64Array:
        """Weights (Q,) of photos from inside and outside, as `mixture_weights` has them."""
        return mixture_weights(self.inside)


def gather(
    home: DescribedTown, queries: Queries, given: Help = NO_HELP, kind: str = "own"
) -> Rankings:
    """Rank photos of one width: of the town ("own"), of another town ("town") or of none ("drawn")."""

    def one(at: int) -> tuple[object, ...]:
        return _ranked(home, queries, at, given)

    with ThreadPoolExecutor(home.workers) as pool:
        columns = zip(*pool.map(one, range(len(queries.views))), strict=True)
    stacked = [np.array(column) for column in columns]
    count = len(queries.views)
    own = kind == "own"
    camera = queries.places if own else np.full((count, 2), np.nan)
    similarities, teacher, centres, positions = stacked[:4]
    return Rankings(
        similarities,
        teacher,
        centres,
        positions,
        searched=stacked[4].astype(np.float64),
        heading_known=np.full(count, given.heading_known),
        camera=camera,
        town=np.full(count, kind == "town"),
        plain=np.full(count, given == NO_HELP),
        refined_at=stacked[5],
        refined=stacked[6],
    )


def _ranked(home: DescribedTown, queries: Queries, at: int, given: Help) -> tuple[object, ...]:
    """Similarities, scores, centres, positions, number of places, refined index and position."""
    references, models, view = home.references, home.models, queries.views[at]
    evidence = home.evidence(queries.places[at], float(queries.heading_deg[at]), given)
    ranking = rank(references, models, view, evidence)
    count = len(ranking.rows)
    positions = np.stack([estimated_position(references, ranking, place) for place in range(count)])
    best, refined = -1, np.full(2, np.nan)
    if models.refines and models.teacher is not None and not np.isnan(ranking.azimuth_shifts[0]):
        scored = len(ranking.teacher_scores)
        best = int((ranking.similarities[:scored] + ranking.teacher_scores).argmax())
        shift = float(ranking.azimuth_shifts[best])
        refined = refine_position(references, models.teacher, view, shift, positions[best])
    return (
        _padded(ranking.similarities, POOL, -np.inf),
        _padded(ranking.teacher_scores, RERANKED, np.nan),
        _padded(references.centres_m[ranking.rows], POOL, np.nan),
        _padded(positions, POOL, np.nan),
        ranking.searched,
        best,
        refined,
    )


def _padded(values: np.ndarray, length: int, filling: float) -> Float64Array:
    missing = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values.astype(np.float64), missing, constant_values=filling)


def fit_view(rankings: Rankings, bins: int, paired: bool) -> ViewCalibration:
    """Fit one width: the order of the tiles, the probabilities, and the threshold of a match."""
    scores = _filled(rankings) if paired else np.zeros_like(rankings.similarities)
    share = _teacher_share(rankings, scores) if paired else 0.0
    pools = _Pools.of(rankings, share, scores)
    view = _truest(rankings, pools, bins, share)
    firsts = pools.firsts(view.student, view.rest, view.outside, view.growth, view.compass)
    leaders = pools.leaders[np.arange(len(pools.leaders)), firsts.group]
    at = np.arange(len(leaders))
    right = rankings.correct[at, leaders] & rankings.inside & rankings.plain
    others = rankings.town & rankings.plain
    threshold = _threshold(firsts.probability[right], firsts.probability[others])
    estimated = np.linalg.norm(rankings.positions[at, leaders] - rankings.camera, axis=1)
    refined = np.linalg.norm(rankings.refined - rankings.camera, axis=1)
    refined = np.where(rankings.refined_at == leaders, refined, estimated)
    own = rankings.inside & rankings.plain
    return replace(
        view,
        threshold=threshold,
        located=float(right.sum() / max(int(own.sum()), 1)),
        radius_m=_radius(estimated[right]),
        refined_radius_m=_radius(refined[right]) if paired else None,
    )


def _threshold(right: Float64Array, others: Float64Array) -> float:
    """From which probability on a first place is a confident match.

    So high that hardly any photo of another town passes. Where nearly all right answers are higher
    still, as
    those of panoramas, it is raised to them: few photos of other towns stand for many.

    Args:
        right: probabilities of the right first places of the towns' own photos.
        others: of the first places of photos of other towns.

    """
    if not len(others):
        return LIKELY
    passed = float(np.quantile(others, 1 - TOLERATED))
    reached = float(np.quantile(right, MISSED)) if len(right) else LIKELY
    return max(LIKELY, passed, min(reached, SURE))


def _filled(rankings: Rankings) -> Float64Array:
    """Teacher's scores (Q, K); tiles without a score get the lowest score given."""
    lowest = np.nanmin(rankings.teacher, axis=1, keepdims=True)
    scores = np.repeat(lowest, rankings.similarities.shape[1], axis=1)
    scored = rankings.teacher.shape[1]
    scores[:, :scored] = np.where(np.isnan(rankings.teacher), lowest, rankings.teacher)
    return scores


def _teacher_share(rankings: Rankings, teacher: Float64Array) -> float:
    """The weight of the teacher's score; the student's similarity has weight 1.

    It minimises the mean square of 1 minus the right tiles' share of the softmax over the ranking.
    Likelihood would let a few photos decide on which the teacher is confidently wrong. For the order,
    the number of such photos matters, not the degree. A weak prior on equal weights and on a sharpness
    of 20 keeps both finite if every photo is right.
    """
    kept = rankings.correct.any(axis=1)
    right = rankings.correct[kept]
    similarities, scores = rankings.similarities[kept], teacher[kept]

    def lacking(wanted: Float64Array) -> float:
        logits = np.exp(wanted[0]) * (similarities + np.exp(wanted[1]) * scores)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = np.where(right, weights, 0).sum(axis=1) / weights.sum(axis=1)
        pull = (wanted[0] - np.log(20)) ** 2 + wanted[1] ** 2
        return float(np.square(1 - shares).mean() + 1e-3 * pull)

    from scipy.optimize import minimize  # fitting is rare; answering must start fast

    found = minimize(lacking, np.log([20.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-3})
    return float(np.exp(found.x[1]))


@dataclass(frozen=True)
class _First:
    """Of each of Q photos: the group of tiles of the first place, its probability, that of outside."""

    group: Int64Array
    probability: Float64Array
    outside: Float64Array


@dataclass(frozen=True)
class _Pools:
    """The parts of the distribution of Q photos, for one weight of the teacher.

    logits (Q, K) of sharpness 1, -inf where a ranking is shorter; tail (Q,), the mean of their last
    quarter; groups (Q, K), the distinct place of each tile; leaders (Q, K), the best tile of each
    place; log_others (Q,), log of the number of places outside the ranking; log_searched (Q,), log of
    the number of all places; heading_known (Q,).
    """

    logits: Float64Array
    tail: Float64Array
    groups: Int64Array
    leaders: Int64Array
    log_others: Float64Array
    log_searched: Float64Array
    heading_known: BoolArray

    @classmethod
    def of(cls, rankings: Rankings, share: float, scores: Float64Array) -> _Pools:
        """The pools of rankings; the teacher's scores (Q, K) count ``share`` times a similarity."""
        usable = np.isfinite(rankings.similarities)
        counts = usable.sum(axis=1)
        pool = np.where(usable, rankings.similarities, 0) + share * scores
        logits = np.where(usable, pool, -np.inf)
        groups, leaders = np.zeros(pool.shape, np.int64), np.zeros(pool.shape, np.int64)
        tail = np.zeros(len(pool))
        for at, count in enumerate(counts):
            own = pool[at, :count]
            tail[at] = np.sort(own)[: max(1, count // 4)].mean()
            places = group_places(rankings.centres[at, :count], own, TILE_SIDE_M / 2)
            for number, members in enumerate(places):
                groups[at, list(members)] = number
                leaders[at, number] = members[0]
        others = rankings.searched - counts
        log_others = np.where(others > 0, np.log(np.maximum(others, 1)), -np.inf)
        log_searched = np.log(rankings.searched)
        return cls(logits, tail, groups, leaders, log_others, log_searched, rankings.heading_known)

    def firsts(
        self, sharp: float, rest: float, outside: float, growth: float, compass: float
    ) -> _First:
        """First places, computed as in ``ViewCalibration.distribution`` and the pipeline."""
        others = self.log_others + sharp * self.tail + rest
        away = outside + growth * self.log_searched + compass * self.heading_known
        together = np.concatenate([sharp * self.logits, others[:, None], away[:, None]], axis=1)
        weights = np.exp(together - together.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        count, tiles = self.groups.shape
        slots = self.groups + tiles * np.arange(count)[:, None]
        places = np.bincount(slots.ravel(), weights[:, :-2].ravel(), count * tiles)
        places = places.reshape(count, tiles)
        return _First(places.argmax(axis=1), places.max(axis=1), weights[:, -1])


def _truest(rankings: Rankings, pools: _Pools, bins: int, share: float) -> ViewCalibration:
    """Fit the sharpness and the numbers of rest and outside by maximum likelihood.

    Two statements are scored: the probability that the first place is right, and the probability that
    the photo is from outside. A weak prior keeps numbers stable if few photos affect them. The search
    uses no derivatives and starts twice, because the first place changes in jumps.
    """
    at, inside, weight = np.arange(len(pools.tail)), rankings.inside, rankings.weights()
    correct = rankings.correct

    def surprise(x: Float64Array) -> float:
        sharp = float(np.exp(x[0]))
        firsts = pools.firsts(sharp, x[1], x[2] * sharp, x[3], x[4])
        right = correct[at, pools.leaders[at, firsts.group]]
        first = np.clip(firsts.probability, 1e-6, 1 - 1e-6)
        away = np.clip(firsts.outside, 1e-6, 1 - 1e-6)
        each = -np.log(np.where(right, first, 1 - first))
        each -= ABOUT_OUTSIDE * np.log(np.where(inside, 1 - away, away))
        pull = (x[0] - np.log(30)) ** 2 + 0.1 * x[1] ** 2 + (x[3] - 1) ** 2 + 0.1 * x[4] ** 2
        return float((weight * each).sum() / weight.sum() + 1e-4 * pull)

    from scipy.optimize import minimize  # fitting is rare; answering must start fast

    level = float(np.median(pools.logits[:, 0]))
    starts = [np.array([np.log(sharp), -1.0, level, 1.0, -1.0]) for sharp in (30, 50)]
    options = {"maxfev": 1500, "xatol": 1e-3, "fatol": 1e-6}
    found = [minimize(surprise, x, method="Nelder-Mead", options=options) for x in starts]
    x = min(found, key=lambda one: float(one.fun)).x
    sharp = float(np.exp(x[0]))
    return ViewCalibration(
        bins,
        student=sharp,
        teacher=sharp * share,
        rest=float(x[1]),
        outside=float(x[2] * sharp),
        growth=float(x[3]),
        compass=float(x[4]),
    )


def _radius(errors_m: Float64Array) -> float | None:
    """The radius that holds a share ``IN_RADIUS`` of the cameras."""
    return float(np.quantile(errors_m, IN_RADIUS)) if len(errors_m) else None


def fit_calibration(
    towns: Sequence[DescribedTown],
    other_towns: Sequence[Town] = (),
    count: int = 100,
    seed: int = 1,
    bins: Sequence[int] | None = None,
    done: Callable[[int, Rankings], None] = lambda bins, rankings: None,
) -> tuple[Calibration, Calibration | None]:
    """Calibration of the student alone, and with the teacher re-ranking.

    Views up to 10 bins are photo frames (``town_queries``). Each town is searched for its own photos,
    for as many photos of the other towns and of ``other_towns``, and for pictures that show no street.

    Args:
        towns: validation towns, described, all by the same models; never a test town.
        other_towns: more towns for photos from outside, of another style for instance.
        count: queries per town and width without help; fewer with help (``FITTED_CASES``).
        seed: of the queries; use another one than in the evaluation.
        bins: widths to fit; ``FITTED_BINS`` by default.
        done: called with each width and its rankings.

    """
    paired = towns[0].models.teacher is not None
    alone: list[ViewCalibration] = []
    together: list[ViewCalibration] = []
    for width in tqdm(bins or FITTED_BINS, desc="calibrate"):
        rankings = _of_width(towns, other_towns, width, count, seed)
        done(width, rankings)
        alone.append(fit_view(rankings, width, paired=False))
        if paired:
            together.append(fit_view(rankings, width, paired=True))
    viewpoints = len(towns[0].references.viewpoints_m)
    both = Calibration(tuple(together), viewpoints) if paired else None
    return Calibration(tuple(alone), viewpoints), both


def _of_width(
    towns: Sequence[DescribedTown], other_towns: Sequence[Town], bins: int, count: int, seed: int
) -> Rankings:
    parts = []
    for home in towns:
        others = [other.town for other in towns if other is not home] + list(other_towns)
        for given, portion in FITTED_CASES.values():
            amount = max(1, round(count * portion))
            parts.append(gather(home, town_queries(home.town, bins, amount, seed), given))
            away = outside_queries(home.town, others, bins, amount, seed)
            names = {other.name for other in others}
            parts += [
                gather(home, queries, given, "town" if kind in names else "drawn")
                for kind, queries in away.items()
            ]
    return Rankings.joined(parts)
