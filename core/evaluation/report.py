"""One town, one model, one table: located within r metres at every field of view.

The pipeline of the page answers every photo. Its position is compared with the true camera. A
query is a crop of a panorama at a random heading. In rows of view "photo" only the part of the crop
remains that a level 4:3 photo of its field of view would show. Every row has its chance level. Nothing
here is tuned on a test town. ``core.results.reports.TownRow`` lists the values of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from core.arrays import Float64Array
from core.data.worlds import PhotoQueries, Town
from core.evaluation.answers import NO_HELP, RIGHT_M, Answers, DescribedTown, Help
from core.evaluation.metrics import recall_at, share_within, standard_error
from core.evaluation.queries import FRAMED_BINS, Queries, crop_queries, framed, photo_queries
from core.evaluation.towns import TownReferences
from core.gallery.viewpoints import VIEWPOINTS
from core.localization.answer import Models
from core.localization.calibration import Calibration, ViewCalibration
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import BIN_DEG

__all__ = [
    "FIELDS_OF_VIEW",
    "NEAR_M",
    "Row",
    "Setting",
    "evaluate_town",
    "photo_rows",
    "settings_for",
    "town_rows",
]

FIELDS_OF_VIEW = (32, 24, 16, 10, 8, 6)
"""Bins of the standard rows: 360, 270, 180, 112.5 (for 120), 90 and 67.5 (for 70) degrees."""
NEAR_M = 200.0
"""Radius around the camera of the rows with a known neighbourhood."""

Row = dict[str, object]


@dataclass(frozen=True)
class Setting:
    """The setting of a row: bins of view, crop or photo frame, heading, radius around the camera."""

    bins: int
    view: str = "crop"
    heading_known: bool = False
    radius_m: float | None = None

    @property
    def help(self) -> Help:
        """The help given with the photo."""
        return Help(self.heading_known, self.radius_m)


def settings_for(fields: Sequence[int] = FIELDS_OF_VIEW) -> list[Setting]:
    """The settings of a report: every field of view without help, with a compass, a radius, and both.

    Views up to ``FRAMED_BINS`` (112.5 degrees) also come as photo frames, without help and with both.
    """
    rows = [
        Setting(bins, "crop", known, radius)
        for bins in fields
        for known in (False, True)
        for radius in (None, NEAR_M)
    ]
    framed_fields = [bins for bins in fields if bins <= FRAMED_BINS]
    rows += [Setting(bins, "photo") for bins in framed_fields]
    return rows + [Setting(bins, "photo", True, NEAR_M) for bins in framed_fields]


def _metrics(answers: Answers, heading_known: bool) -> Row:
    """All metrics of a row, from its answers."""
    error, count = answers.error_m, len(answers)
    metrics: Row = {f"hit@{k}": recall_at(answers.rank, k) for k in (1, 5, 10)}
    metrics |= {f"within_{metres}_m": share_within(error, metres) for metres in (10, 25, 50)}
    metrics["standard_error_hit@1"] = standard_error(recall_at(answers.rank, 1), count)
    metrics["standard_error_25_m"] = standard_error(share_within(error, RIGHT_M), count)
    metrics["median_error_m"] = float(np.median(error))
    near = error[error <= RIGHT_M]
    metrics["median_position_error_m"] = float(np.median(near)) if len(near) else None
    metrics["position_error_90_m"] = float(np.quantile(near, 0.9)) if len(near) else None
    # No heading error if the heading is given, or if the model estimates none.
    metrics["median_heading_error_deg"] = None
    wrong = answers.heading_error_deg
    if not heading_known and not np.isnan(wrong).any():
        located = wrong[error <= RIGHT_M]
        metrics["median_heading_error_deg"] = float(np.median(wrong))
        metrics["median_heading_error_located_deg"] = (
            float(np.median(located)) if len(located) else None
        )
    return metrics


def _within_of_first(answers: Answers, places: Float64Array, count: int = 5) -> float:
    """Share of photos with at least one of the first places within ``RIGHT_M`` of the camera."""
    nearest = [
        min(float(np.hypot(*(place.position_m - camera))) for place in one.places[:count])
        for one, camera in zip(answers.found, places, strict=True)
    ]
    return share_within(np.array(nearest), RIGHT_M)


def _chance(described: DescribedTown, queries: Queries, radius_m: float | None) -> float:
    """Share of the searched places within ``RIGHT_M`` of the camera, mean over photos."""
    references = described.references
    distance = np.linalg.norm(queries.places[:, None] - references.centres_m[None], axis=2)
    allowed = distance <= (radius_m or np.inf)
    return float((((distance <= RIGHT_M) & allowed).sum(axis=1) / allowed.sum(axis=1)).mean())


def _rows_of(
    setting: Setting, towns: Sequence[DescribedTown], count: int, seed: int
) -> Iterator[Row]:
    queries = crop_queries(towns[0].town, setting.bins, count, seed)
    if setting.view == "photo":
        queries = framed(queries)
    row: Row = {
        "fov_deg": setting.bins * BIN_DEG,
        "view": setting.view,
        "heading": "known" if setting.heading_known else "unknown",
        "radius_m": setting.radius_m,
        "queries": len(queries.views),
        "gallery": len(towns[0].references.centres_m),
        "chance_25_m": _chance(towns[0], queries, setting.radius_m),
    }
    for described in towns:
        answers = described.answers(queries, setting.help)
        metrics = _metrics(answers, setting.heading_known)
        metrics["within_25_m@5"] = _within_of_first(answers, queries.places)
        yield {**row, "reranked": described.reranks, **metrics}


def town_rows(
    towns: Sequence[DescribedTown],
    settings: Sequence[Setting] | None = None,
    count: int = 600,
    seed: int = 0,
) -> list[Row]:
    """All rows of one town: one for each setting and each way of answering.

    A global student cannot use a known heading, so it has no such rows.

    Args:
        towns: the town with the student alone, and with the re-ranking teacher if there is one.
        settings: of the rows; ``settings_for()`` by default.
        count: queries of each width, at most as many as there are panoramas.
        seed: of the queries.

    """
    bins = towns[0].models.student.bins
    wanted = [s for s in settings or settings_for() if bins or not s.heading_known]
    rows: list[Row] = []
    for setting in tqdm(wanted, desc=f"evaluate {towns[0].town.name}", leave=False):
        rows += _rows_of(setting, towns, count, seed)
    return rows


def photo_rows(towns: Sequence[DescribedTown], photos: PhotoQueries) -> list[Row]:
    """Share of located perspective photos, searched everywhere and within ``NEAR_M`` of the camera.

    The photos are like a visitor's: the field of view comes from EXIF, the camera was not level, the
    frame is not a whole number of bins. ``towns``: as for ``town_rows``.
    """
    queries = photo_queries(photos)
    return [
        _photo_row(described, queries, given)
        for given in (NO_HELP, Help(radius_m=NEAR_M))
        for described in towns
    ]


def _photo_row(described: DescribedTown, queries: Sequence[Queries], given: Help) -> Row:
    answers = Answers.joined([described.answers(one, given) for one in queries])
    metrics = _metrics(answers, heading_known=False)
    kept = [name for name in metrics if not name.startswith(("hit", "standard_error_hit"))]
    return {
        "radius_m": given.radius_m,
        "reranked": described.reranks,
        "photos": len(answers),
        **{name: metrics[name] for name in kept},
    }


def evaluate_town(
    town: Town,
    student: TwoBranch,
    teacher: GeoSSK | None = None,
    *,
    settings: Sequence[Setting] | None = None,
    count: int = 600,
    seed: int = 0,
    viewpoints: int = VIEWPOINTS,
) -> list[Row]:
    """Describe a town and return its rows, for models without a calibration.

    A teacher's score counts as much as the student's similarity. See ``town_rows``.
    """
    references = TownReferences.describe(town, student, viewpoints)
    ways = [Models(student.eval())]
    if teacher is not None:
        equal = Calibration((ViewCalibration(bins=32, student=20.0, teacher=20.0),))
        ways.append(Models(student, teacher.eval(), equal))
    towns = [DescribedTown(town, references, models) for models in ways]
    return town_rows(towns, settings, count, seed)
