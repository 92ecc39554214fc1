"""Fit the calibration of a student, and of the student with its teacher, on validation towns.

Q photos of one width, K tiles in the ranking of each, T of them scored by the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, Float64Array
from core.data.worlds import Town
from core.evaluation.answers import NO_HELP, RIGHT_M, DescribedTown, Help
from core.evaluation.queries import Queries, town_queries
from core.evaluation.trust import OUTSIDE_SHARE, outside_queries
from core.geo import group_places
from core.localization.answer import rank
from core.localization.calibration import CONFIDENT, Calibration, ViewCalibration
from core.localization.ranking import POOL, RERANKED
from core.localization.refinement import estimated_position, refine_position

__all__ = ["FITTED_BINS", "Rankings", "fit_calibration", "fit_view", "gather"]

FITTED_BINS = (32, 24, 16, 12, 10, 8, 6, 5)
PASSING = 0.01
"""Share of the photos of other towns, without help, that a confident match lets pass."""
IN_RADIUS = 0.9
"""Share of the cameras within the radius of the answered position, where the place is right."""
FITTED_CASES: Mapping[str, tuple[Help, float]] = {
    "no help": (NO_HELP, 1.0),
    "compass": (Help(heading_known=True), 0.3),
    "within 200 m": (Help(radius_m=200.0), 0.3),
    "both": (Help(heading_known=True, radius_m=200.0), 0.15),
    "1,000 places": (Help(places=1000), 0.2),
    "100 places": (Help(places=100), 0.2),
}
"""What is known beside the photos of a fit, and the share of the photos that are asked so."""


@dataclass(frozen=True)
class Rankings:
    """Rankings of Q photos of one width, beside the truth.

    similarities (Q, K), -inf where a ranking is shorter; teacher (Q, T), nan where it scored fewer;
    centres (Q, K, 2) of the places and positions (Q, K, 2) that the student estimates in them, metres;
    searched (Q,) places; heading_known (Q,); camera (Q, 2), nan for a photo from outside; town (Q,), of
    another town; plain (Q,), without help. The teacher refined one position of each, before anybody knows
    which place will be first: refined_at (Q,), -1 for none, and refined (Q, 2).
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
        """One after another."""
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
        """Weights (Q,) that make photos from outside ``OUTSIDE_SHARE`` of all."""
        inside = self.inside
        each = OUTSIDE_SHARE / (1 - OUTSIDE_SHARE) * inside.sum() / max(int((~inside).sum()), 1)
        return np.where(inside, 1.0, each)


def gather(
    home: DescribedTown, queries: Queries, given: Help = NO_HELP, kind: str = "own"
) -> Rankings:
    """Rank photos of one width, of the town itself ("own"), of another ("town") or of none ("drawn")."""

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
    """Similarities, scores, centres, positions, places searched, what was refined, and to where."""
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
    """One width: how tiles are ordered, how sure that is, and what counts as a match."""
    teacher = _filled(rankings) if paired else np.zeros_like(rankings.similarities)
    share = _teacher_share(rankings, teacher) if paired else 0.0
    pool = np.where(np.isfinite(rankings.similarities), rankings.similarities, 0) + share * teacher
    view = _likeliest(rankings, pool, bins, share)
    firsts = _firsts(rankings, view)
    own = rankings.inside & rankings.plain
    others = rankings.town & rankings.plain
    threshold = CONFIDENT
    if others.any():
        threshold = max(CONFIDENT, float(np.quantile(firsts.probability[others], 1 - PASSING)))
    right = firsts.right & own
    return replace(
        view,
        threshold=threshold,
        located=float(firsts.right[own].mean()),
        radius_m=_radius(firsts.estimated_m[right]),
        refined_radius_m=_radius(firsts.refined_m[right]) if paired else None,
    )


def _filled(rankings: Rankings) -> Float64Array:
    """Teacher's scores (Q, K), tiles it has not scored having the lowest it gave."""
    lowest = np.nanmin(rankings.teacher, axis=1, keepdims=True)
    scores = np.repeat(lowest, rankings.similarities.shape[1], axis=1)
    scored = rankings.teacher.shape[1]
    scores[:, :scored] = np.where(np.isnan(rankings.teacher), lowest, rankings.teacher)
    return scores


def _teacher_share(rankings: Rankings, teacher: Float64Array) -> float:
    """How much the teacher's score counts beside the student's similarity.

    What leaves the right tiles least often without a share of the softmax over the ranking: the mean
    square of what they lack. By likelihood a few photos of which the teacher is wrong and sure would
    decide it; their number, not their degree, is what matters to the order. A weak pull to counting
    alike and to a sharpness of 20 keeps both finite where every photo is right.
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


def _likeliest(rankings: Rankings, pool: Float64Array, bins: int, share: float) -> ViewCalibration:
    """Sharpness and the four numbers of rest and outside that make what is true most likely.

    True is: one of the right tiles; the rest, where none of them is in the ranking; outside.
    """
    usable = np.isfinite(rankings.similarities)
    counts = usable.sum(axis=1)
    logits = np.where(usable, pool, -np.inf)
    ordered = np.sort(np.where(usable, pool, np.inf), axis=1)
    tail = np.array([row[: max(1, n // 4)].mean() for row, n in zip(ordered, counts, strict=True)])
    others = rankings.searched - counts
    log_others = np.where(others > 0, np.log(np.maximum(others, 1)), -np.inf)
    log_searched = np.log(rankings.searched)
    right, inside, weight = rankings.correct, rankings.inside, rankings.weights()
    found = right.any(axis=1)

    def surprise(x: Float64Array) -> float:
        sharp = np.exp(x[0])
        rest = log_others + sharp * tail + x[1]
        outside = x[2] * sharp + x[3] * log_searched + x[4] * rankings.heading_known
        together = np.concatenate([sharp * logits, rest[:, None], outside[:, None]], axis=1)
        together -= together.max(axis=1, keepdims=True)
        likely = np.exp(together)
        likely /= likely.sum(axis=1, keepdims=True)
        truth = np.where(right, likely[:, :-2], 0).sum(axis=1)
        truth = np.where(inside, np.where(found, truth, likely[:, -2]), likely[:, -1])
        pull = (x[0] - np.log(30)) ** 2 + x[1] ** 2 + (x[3] - 1) ** 2 + x[4] ** 2
        mean = (weight * -np.log(np.maximum(truth, 1e-9))).sum() / weight.sum()
        return float(mean + 1e-4 * pull)

    from scipy.optimize import minimize

    start = np.array([np.log(30), 0.0, float(np.median(pool[:, 0])), 1.0, 0.0])
    x = minimize(surprise, start, method="L-BFGS-B").x
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


@dataclass(frozen=True)
class _Firsts:
    """First places of Q photos: probability, rightness, and metres from the camera of the position that
    the student estimates and of the one that the teacher refined.
    """

    probability: Float64Array
    right: BoolArray
    estimated_m: Float64Array
    refined_m: Float64Array


def _firsts(rankings: Rankings, view: ViewCalibration) -> _Firsts:
    """The first places as the pipeline finds them, before caution."""
    found = [_first(rankings, view, at) for at in range(len(rankings.searched))]
    at = np.arange(len(found))
    leaders = np.array([leader for leader, _ in found])
    positions = rankings.positions[at, leaders]
    estimated = np.linalg.norm(positions - rankings.camera, axis=1)
    refined = np.linalg.norm(rankings.refined - rankings.camera, axis=1)
    refined = np.where(rankings.refined_at == leaders, refined, estimated)
    return _Firsts(
        np.array([probability for _, probability in found]),
        np.asarray(np.nan_to_num(estimated, nan=np.inf) <= RIGHT_M),
        estimated,
        refined,
    )


def _first(rankings: Rankings, view: ViewCalibration, at: int) -> tuple[int, float]:
    """Which tile leads the first place of one photo, and how probable the place is."""
    from core.data.worlds import TILE_SIDE_M

    count = int(np.isfinite(rankings.similarities[at]).sum())
    scores = rankings.teacher[at][~np.isnan(rankings.teacher[at])]
    logits = view.logits(rankings.similarities[at, :count], scores)
    searched, known = int(rankings.searched[at]), bool(rankings.heading_known[at])
    tiles = view.distribution(logits, searched, known).tiles
    groups = group_places(rankings.centres[at, :count], logits, TILE_SIDE_M / 2)
    shares = [float(tiles[list(group)].sum()) for group in groups]
    best = int(np.argmax(shares))
    return groups[best][0], shares[best]


def _radius(errors_m: Float64Array) -> float | None:
    """Within which ``IN_RADIUS`` of the cameras stood."""
    return float(np.quantile(errors_m, IN_RADIUS)) if len(errors_m) else None


def fit_calibration(
    towns: Sequence[DescribedTown],
    other_towns: Sequence[Town] = (),
    count: int = 100,
    seed: int = 1,
    bins: Sequence[int] = FITTED_BINS,
    done: Callable[[int, Rankings], None] = lambda bins, rankings: None,
) -> tuple[Calibration, Calibration | None]:
    """Calibration of the student alone, and with the teacher re-ranking.

    Views up to 10 bins are photo frames (``town_queries``). Each town is asked its own photos, as many of
    the others and of ``other_towns``, and pictures that show no street.

    Args:
        towns: validation towns, described, all by the same models; never a test town.
        other_towns: more towns of photos from outside, of another style for instance.
        count: queries per town and width without help; fewer with help (``FITTED_CASES``).
        seed: of the queries; not the one of the evaluation.
        bins: widths to fit.
        done: called with each width and its rankings.

    """
    paired = towns[0].models.teacher is not None
    alone: list[ViewCalibration] = []
    together: list[ViewCalibration] = []
    for width in tqdm(bins, desc="calibrate"):
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
            asked = max(1, round(count * portion))
            parts.append(gather(home, town_queries(home.town, bins, asked, seed), given))
            away = outside_queries(home.town, others, bins, asked, seed)
            names = {other.name for other in others}
            parts += [
                gather(home, queries, given, "town" if kind in names else "drawn")
                for kind, queries in away.items()
            ]
    return Rankings.joined(parts)
