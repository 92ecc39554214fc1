"""One town, one model, one table: located within r metres at every field of view.

``core.results.reports.TownRow`` lists what a row holds. A query is a crop of a panorama at a random heading; a row of
view "photo" keeps of that crop what a level 4:3 photo of its field of view would show. Every row
carries its chance level. Nothing here is ever tuned on a test town.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from core.arrays import Float32Array, Float64Array
from core.data.worlds import Town
from core.evaluation.descriptors import (
    FRAMED_BINS,
    Matches,
    Queries,
    crop_queries,
    describe_views,
    framed,
    match,
)
from core.evaluation.metrics import (
    rank_of_truth,
    recall_at,
    share_within,
    standard_error,
    worst_first_place,
)
from core.evaluation.pools import DescribedTown
from core.evaluation.rerank import Reranker, believed_camera, combined, rerank
from core.gallery.viewpoints import VIEWPOINTS
from core.geo import angle_difference_deg
from core.localization.calibration import POOL, Calibration, ViewCalibration
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import BINS

__all__ = [
    "EQUAL",
    "FIELDS_OF_VIEW",
    "Row",
    "Setting",
    "evaluate_town",
    "settings_for",
    "town_rows",
    "within_radius",
]

FIELDS_OF_VIEW = (32, 24, 16, 10, 8, 6)
"""Bins of the standard rows: 360, 270, 180, 112.5 (for 120), 90 and 67.5 (for 70) degrees."""

EQUAL = ViewCalibration(bins=32, student=1.0, teacher=1.0, slope=1.0, intercept=0.0)
"""Re-ranking by similarity and teacher's score alike, where nothing has been fitted."""

Row = dict[str, object]


@dataclass(frozen=True)
class Setting:
    """What a row knows: bins of view, crop or photo frame, heading, radius around the camera."""

    bins: int
    view: str = "crop"
    heading_known: bool = False
    radius_m: float | None = None


def settings_for(fields: Sequence[int] = FIELDS_OF_VIEW) -> list[Setting]:
    """All rows of a report: every field of view without help, with a compass, a radius, and both.

    Views of up to ``FRAMED_BINS`` (112.5 degrees) come as photo frames too, without help and with both.
    """
    rows = [
        Setting(bins, "crop", known, radius)
        for bins in fields
        for known in (False, True)
        for radius in (None, 200.0)
    ]
    framed_fields = [bins for bins in fields if bins <= FRAMED_BINS]
    rows += [Setting(bins, "photo") for bins in framed_fields]
    return rows + [Setting(bins, "photo", True, 200.0) for bins in framed_fields]


def within_radius(matches: Matches, distance: Float64Array, radius_m: float | None) -> Matches:
    """The matches without places farther than ``radius_m`` from each camera; all of them for None."""
    if radius_m is None:
        return matches
    near = distance <= radius_m
    return replace(
        matches,
        similarity=np.where(near, matches.similarity, -np.inf),
        viewpoint_similarities=np.where(near[..., None], matches.viewpoint_similarities, -np.inf),
    )


def _figures(
    setting: Setting,
    scores: Float32Array,
    azimuth_shifts: Float32Array,
    distance: Float64Array,
    queries: Queries,
) -> Row:
    """Everything a row says, from final scores, azimuth shifts and distances, each (Q, R)."""
    index = np.arange(len(scores))
    truth = distance.argmin(axis=1)
    ranks = rank_of_truth(scores, truth)
    first = worst_first_place(scores, distance)
    error = distance[index, first]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    near = np.take_along_axis(distance, order, axis=1).min(axis=1)
    figures: Row = {f"hit@{k}": recall_at(ranks, k) for k in (1, 5, 10)}
    figures |= {f"within_{r}_m": share_within(error, r) for r in (10, 25, 50)}
    figures["within_25_m@5"] = share_within(near, 25)
    figures["standard_error_hit@1"] = standard_error(recall_at(ranks, 1), len(scores))
    figures["standard_error_25_m"] = standard_error(share_within(error, 25), len(scores))
    figures["median_error_m"] = float(np.median(error))
    # Of the first place; nothing to say if it is known, or if the model knows no azimuth shifts.
    figures["median_heading_error_deg"] = None
    if not setting.heading_known and not np.isnan(azimuth_shifts).all():
        turned = -180.0 + (azimuth_shifts[index, first] + queries.bins / 2) * 360.0 / BINS
        wrong = angle_difference_deg(turned, queries.heading_deg)
        figures["median_heading_error_deg"] = float(np.median(wrong))
        right = error <= 25
        figures["median_heading_error_located_deg"] = (
            float(np.median(wrong[right])) if right.any() else None
        )
    return figures


def _position_figures(
    scores: Float32Array,
    matches: Matches,
    centres: Float64Array,
    distance: Float64Array,
    queries: Queries,
    reranker: Reranker | None = None,
) -> Row:
    """How far the answered point is from the camera, where the first place is right: median and
    ninth decile in metres. ``reranker``: steps closer, as the Localizer lets a teacher do.
    """
    first = worst_first_place(scores, distance)
    errors = []
    for query, place in enumerate(first):
        if distance[query, place] <= 25:
            pool = np.argsort(-scores[query], kind="stable")[:POOL]
            at = int(np.flatnonzero(pool == place)[0])
            found = believed_camera(centres[pool], matches.viewpoint_similarities[query, pool], at)
            if reranker is not None:
                azimuth_shift = float(matches.azimuth_shift[query, place])
                found = reranker.refine_position(queries.views[query], azimuth_shift, found)
            errors.append(float(np.hypot(*(found - queries.places[query]))))
    return {
        "median_position_error_m": float(np.median(errors)) if errors else None,
        "position_error_90_m": float(np.quantile(errors, 0.9)) if errors else None,
    }


def _chance(distance: Float64Array, radius_m: float | None) -> float:
    allowed = distance <= (radius_m or np.inf)
    return float((((distance <= 25) & allowed).sum(axis=1) / allowed.sum(axis=1)).mean())


def _row(setting: Setting, queries: Queries, places: int, reranked: bool) -> Row:
    return {
        "fov_deg": queries.bins * 360.0 / BINS,
        "view": setting.view,
        "heading": "known" if setting.heading_known else "unknown",
        "radius_m": setting.radius_m,
        "reranked": reranked,
        "queries": len(queries.views),
        "gallery": places,
    }


def _rows_of(
    setting: Setting,
    described: DescribedTown,
    calibration: Calibration | None,
    count: int,
    seed: int,
) -> Iterator[Row]:
    student, centres = described.student, described.centres
    queries = crop_queries(described.town, setting.bins, count, seed)
    if setting.view == "photo":
        queries = framed(queries)
    distance = np.linalg.norm(queries.places[:, None] - centres[None], axis=2)
    heading = queries.heading_deg if setting.heading_known else None
    matches = match(describe_views(student, queries), described.descriptors, heading, student.bins)
    matches = within_radius(matches, distance, setting.radius_m)
    chance = {"chance_25_m": _chance(distance, setting.radius_m)}
    row = _row(setting, queries, len(centres), False)
    found = _position_figures(matches.similarity, matches, centres, distance, queries)
    figures = _figures(setting, matches.similarity, matches.azimuth_shift, distance, queries)
    yield row | figures | found | chance
    reranker = described.reranker
    if reranker is not None:
        view = EQUAL if calibration is None else calibration.at(setting.bins)
        scores = combined(matches.similarity, rerank(queries, matches, reranker), view)
        row = _row(setting, queries, len(centres), True)
        found = _position_figures(scores, matches, centres, distance, queries, reranker)
        yield (
            row
            | _figures(setting, scores, matches.azimuth_shift, distance, queries)
            | found
            | chance
        )


def town_rows(
    described: DescribedTown,
    calibration: Calibration | None = None,
    settings: Sequence[Setting] | None = None,
    count: int = 600,
    seed: int = 0,
) -> list[Row]:
    """All rows of one town; with a teacher every setting has a second, re-ranked row.

    ``calibration``: the teacher's, fitted on validation towns; without one similarity and teacher's
    score weigh the same. A known heading is no help to a global student: it has no such rows.
    """
    bins = described.student.bins
    asked = [s for s in settings or settings_for() if bins or not s.heading_known]
    rows: list[Row] = []
    for setting in tqdm(asked, desc=f"evaluate {described.town.name}", leave=False):
        rows += _rows_of(setting, described, calibration, count, seed)
    return rows


def evaluate_town(
    town: Town,
    student: TwoBranch,
    teacher: GeoSSK | None = None,
    *,
    calibration: Calibration | None = None,
    settings: Sequence[Setting] | None = None,
    count: int = 600,
    seed: int = 0,
    viewpoints: int = VIEWPOINTS,
) -> list[Row]:
    """Describe a town, each place from so many ``viewpoints``, and give its rows: see ``town_rows``."""
    described = DescribedTown(student, teacher, town, viewpoints)
    return town_rows(described, calibration, settings, count, seed)
