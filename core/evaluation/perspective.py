"""A town's perspective photos, asked as visitors ask theirs: a field of view from EXIF, a camera that was
not level, a frame that is no whole number of bins.

The rows of ``core.evaluation.report`` are cut from panoramas, whose cameras were level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.arrays import Float32Array, Float64Array, Int64Array
from core.data.worlds import PhotoQueries
from core.evaluation.descriptors import Matches, Queries, describe_views, match
from core.evaluation.metrics import share_within, standard_error, worst_first_place
from core.evaluation.pools import DescribedTown
from core.evaluation.report import EQUAL, Row, within_radius
from core.evaluation.rerank import combined, rerank
from core.geo import angle_difference_deg
from core.localization.calibration import Calibration
from core.photos.canvas import GroundCanvas
from core.photos.opening import canvas_of, open_photo
from core.polar import BINS

__all__ = ["NEAR_M", "photo_queries", "photo_rows"]

NEAR_M = 200.0
"""Radius around the camera that the rows with a known neighbourhood search."""


@dataclass(frozen=True)
class _First:
    """First places of many photos: metres from their cameras, and degrees from their headings."""

    error_m: Float64Array
    heading_error_deg: Float64Array


def photo_queries(photos: PhotoQueries) -> list[Queries]:
    """The photos as the Localizer sees them, those of one width together, narrowest first."""
    canvases = [canvas_of(open_photo(file), bins=BINS) for file in photos.files]
    widths = np.array([canvas.n_bins for canvas in canvases])
    return [
        _of_width(photos, canvases, np.flatnonzero(widths == width))
        for width in sorted(set(widths))
    ]


def _of_width(photos: PhotoQueries, canvases: list[GroundCanvas], chosen: Int64Array) -> Queries:
    views = np.stack([canvases[at].image for at in chosen])
    bins = canvases[chosen[0]].n_bins
    return Queries(views, bins, photos.places[chosen], photos.heading_deg[chosen])


def _first(
    scores: Float32Array,
    matches: Matches,
    distance: Float64Array,
    queries: Queries,
) -> _First:
    index = np.arange(len(scores))
    first = worst_first_place(scores, distance)
    turned = -180.0 + (matches.azimuth_shift[index, first] + queries.bins / 2) * 360.0 / BINS
    wrong = np.asarray(angle_difference_deg(turned, queries.heading_deg), np.float64)
    return _First(distance[index, first], wrong)


def _answers(
    described: DescribedTown,
    queries: Queries,
    radius_m: float | None,
    calibration: Calibration | None,
) -> Iterator[_First]:
    """First places of the student, then those re-ranked where there is a teacher."""
    distance = np.linalg.norm(queries.places[:, None] - described.centres[None], axis=2)
    student = described.student
    matches = match(describe_views(student, queries), described.descriptors, bins=student.bins)
    matches = within_radius(matches, distance, radius_m)
    yield _first(matches.similarity, matches, distance, queries)
    if described.reranker is not None:
        view = EQUAL if calibration is None else calibration.at(queries.bins)
        scores = combined(matches.similarity, rerank(queries, matches, described.reranker), view)
        yield _first(scores, matches, distance, queries)


def _row(found: list[_First], reranked: bool, radius_m: float | None) -> Row:
    error = np.concatenate([first.error_m for first in found])
    heading = np.concatenate([first.heading_error_deg for first in found])[error <= 25]
    within = {f"within_{metres}_m": share_within(error, metres) for metres in (10, 25, 50)}
    return {
        "radius_m": radius_m,
        "reranked": reranked,
        "photos": len(error),
        **within,
        "standard_error_25_m": standard_error(within["within_25_m"], len(error)),
        "median_error_m": float(np.median(error)),
        "median_heading_error_located_deg": float(np.median(heading)) if len(heading) else None,
    }


def photo_rows(
    described: DescribedTown, photos: PhotoQueries, calibration: Calibration | None = None
) -> list[Row]:
    """How many photos are placed, in the whole town and within ``NEAR_M`` of the camera, by the student
    and, with a teacher, re-ranked. ``calibration``: the teacher's.
    """
    asked = photo_queries(photos)
    rows: list[Row] = []
    for radius in (None, NEAR_M):
        answers = [list(_answers(described, queries, radius, calibration)) for queries in asked]
        kinds = zip(*answers, strict=True)
        rows += [_row(list(found), bool(kind), radius) for kind, found in enumerate(kinds)]
    return rows
