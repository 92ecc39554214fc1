"""Tables of ``evaluate`` on towns: one town, the mean over towns, and progress with training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from core.errors import DataError
from core.results.reports import Kind, TownReport, TownRow, TrainingReport
from core.results.tables import number, share, table

__all__ = [
    "LEARNED",
    "curve_section",
    "located",
    "mean_section",
    "named",
    "origin",
    "row_of",
    "sweep_series",
    "sweep_table",
    "town_section",
    "training_series",
]

Metric = Callable[[TownRow], float | None]
HELP = {
    ("unknown", None): "no help",
    ("known", None): "heading known",
    ("unknown", 200.0): "within 200 m",
    ("known", 200.0): "both",
}
LEARNED = ((360.0, "crop"), (180.0, "crop"), (90.0, "crop"), (90.0, "photo"), (67.5, "photo"))
"""Views in the tables of training: degrees and kind."""


def _find(rows: Sequence[TownRow], kind: Kind) -> TownRow | None:
    return next((row for row in rows if row.kind == kind), None)


def _views(rows: Sequence[TownRow]) -> list[tuple[float, str]]:
    """Fields of view in degrees and kinds of view, widest first, crops before photo frames."""
    views = sorted({(-row.fov_deg, row.view) for row in rows})
    return [(-minus, view) for minus, view in views]


def named(fov_deg: float, view: str) -> str:
    """The name of a view in a table."""
    return f"{fov_deg:g}° {'photo frame' if view == 'photo' else 'crop'}"


def origin(report: TownReport) -> str:
    """How a report was made, as a sentence."""
    return (
        f"`{report.command}`, {report.date}, {report.machine}, seed {report.seed}, "
        f"{report.rows[0].queries} queries, {report.rows[0].gallery} places."
    )


def sweep_table(rows: Sequence[TownRow]) -> str:
    """A row per field of view, a cell per kind of help: student / re-ranked (chance)."""
    lines = []
    for fov, view in _views(rows):
        cells = [named(fov, view)]
        for heading, radius in HELP:
            student = _find(rows, Kind(fov, view, heading, radius))
            teacher = _find(rows, Kind(fov, view, heading, radius, reranked=True))
            first = share(student.within_25_m) if student else ""
            second = f" / {share(teacher.within_25_m)}" if teacher else ""
            chance = f" ({share(student.chance_25_m)})" if student else ""
            cells.append(f"{first}{second}{chance}")
        lines.append(cells)
    return table(["view", *HELP.values()], lines)


def _details(rows: Sequence[TownRow]) -> str:
    head = ["view", "re-ranked", "hit@1", "hit@5", "10 m", "25 m", "± s.e.", "50 m", "25 m in 5"]
    head += ["median m", "point m", "in 9 of 10", "heading °"]
    lines = []
    for row in rows:
        if row.heading == "known" or row.radius_m is not None:
            continue
        shares = (
            *(row.hit_at_1, row.hit_at_5, row.within_10_m, row.within_25_m),
            *(row.standard_error_25_m, row.within_50_m, row.within_25_m_at_5),
        )
        errors = (
            *(row.median_error_m, row.median_position_error_m, row.position_error_90_m),
            row.median_heading_error_deg,
        )
        cells = [f"{row.fov_deg:g}° {row.view}", "yes" if row.reranked else "no"]
        lines.append([*cells, *map(share, shares), *map(number, errors)])
    return table(head, lines)


def town_section(report: TownReport) -> str:
    """One town: the sweep over fields of view and kinds of help, and all numbers without help."""
    rows = report.rows
    return f"## {report.data}\n\n{origin(report)}\n\n{sweep_table(rows)}\n\n{_details(rows)}\n"


def _over(reports: Sequence[TownReport], metric: Metric, kind: Kind) -> list[float]:
    """One metric of the same row of every town that has it."""
    rows = [_find(report.rows, kind) for report in reports]
    found = [metric(row) for row in rows if row is not None]
    return [value for value in found if value is not None]


def _pair(of: Mapping[bool, str]) -> str:
    return " / ".join(of[reranked] for reranked in (False, True) if of[reranked])


def _mean(values: Sequence[float]) -> str:
    return share(fmean(values)) if values else ""


def _mean_line(reports: Sequence[TownReport], fov: float, view: str) -> list[str]:
    """One field of view in the table of means: student / re-ranked in every cell."""

    def both(
        metric: Metric, heading: str = "unknown", radius: float | None = None
    ) -> dict[bool, list[float]]:
        kinds = {one: Kind(fov, view, heading, radius, one) for one in (False, True)}
        return {one: _over(reports, metric, kind) for one, kind in kinds.items()}

    def middle(metric: Metric) -> str:
        means = {one: number(fmean(v)) if v else "" for one, v in both(metric).items()}
        return _pair(means)

    cells = [named(fov, view)]
    for heading, radius in HELP:
        located = both(lambda row: row.within_25_m, heading, radius)
        cells.append(_pair({one: _mean(values) for one, values in located.items()}))
        if (heading, radius) == ("unknown", None):
            apart = {one: share(stdev(v)) if len(v) > 1 else "" for one, v in located.items()}
            cells.append(_pair(apart))
    first = both(lambda row: row.hit_at_1)
    cells.append(_pair({one: _mean(values) for one, values in first.items()}))
    angle = middle(lambda row: row.median_heading_error_located_deg)
    return [*cells, angle, middle(lambda row: row.median_position_error_m)]


def mean_section(reports: Sequence[TownReport], picture: str | None = None) -> str:
    """The mean over towns and their spread; ``picture``: path of the sweep's picture for the page."""
    lines = [_mean_line(reports, fov, view) for fov, view in _views(reports[0].rows)]
    first, *helped = HELP.values()
    head = ["view", first, "± towns", *helped, "hit@1", "heading °", "point m"]
    towns = ", ".join(report.data for report in reports)
    shown = "" if picture is None else f"\n![Located within 25 m by field of view]({picture})\n"
    return (
        f"## Mean over {len(reports)} test towns\n\nMean of the sections below ({towns}), with equal "
        "weights. Student / re-ranked by the teacher, in per cent within 25 m; ± towns: standard "
        "deviation between towns. Without help: hit@1, heading (median error if the place is right) "
        f"and point (the same, in metres).\n{shown}\n{table(head, lines)}\n"
    )


def sweep_series(reports: Sequence[TownReport]) -> tuple[list[float], dict[str, list[float]]]:
    """The mean over towns for a picture: fields of view of crops, and shares within 25 m by name.

    nan if not measured. The series with help are re-ranked.
    """
    fields = [fov for fov, view in _views(reports[0].rows) if view == "crop"]
    series: dict[str, list[float]] = {}
    for (heading, radius), name in HELP.items():
        for reranked in (False, True):
            kinds = [Kind(fov, "crop", heading, radius, reranked) for fov in fields]
            each = [_over(reports, lambda row: row.within_25_m, kind) for kind in kinds]
            if not any(each) or ((radius or heading == "known") and not reranked):
                continue
            title = {
                "no help": "re-ranked" if reranked else "student",
                "both": "heading known and within 200 m, re-ranked",
            }.get(name, f"{name}, re-ranked")
            series[title] = [fmean(values) if values else float("nan") for values in each]
    return fields, series


def row_of(report: TownReport, fov: float, view: str) -> TownRow:
    """The row of a view with heading unknown, no help, the student alone.

    Raises:
        DataError: the report has none.

    """
    row = _find(report.rows, Kind(fov, view))
    if row is None:
        raise DataError(
            f"Results {report.file}: got no row of the student alone at {named(fov, view)} without "
            "help, expected one. Measure again."
        )
    return row


def located(report: TownReport, fov: float, view: str) -> float:
    """Share of queries of a view within 25 m, heading unknown, no help, the student alone."""
    return row_of(report, fov, view).within_25_m


def _device(report: TrainingReport) -> str:
    """The device that a student was trained on."""
    return report.trained.device or "cpu"


def _by_training(reports: Sequence[TrainingReport]) -> list[TrainingReport]:
    return sorted(reports, key=lambda report: (_device(report), report.trained.all_steps))


def training_series(
    reports: Sequence[TrainingReport],
) -> tuple[list[float], dict[str, list[float]]]:
    """Minutes of training on a processor, and shares within 25 m by view, for a picture."""
    ordered = [report for report in _by_training(reports) if _device(report) == "cpu"]
    minutes = [report.trained.all_minutes for report in ordered]
    return minutes, {
        named(fov, view): [located(report, fov, view) for report in ordered]
        for fov, view in LEARNED
    }


def curve_section(reports: Sequence[TrainingReport], picture: str | None = None) -> str:
    """``training-*.json``: the student at several times of its training, on a validation town."""
    ordered = _by_training(reports)
    lines = []
    for report in ordered:
        trained = report.trained
        shares = [share(located(report, fov, view)) for fov, view in LEARNED]
        spent = [str(trained.all_steps), number(trained.all_minutes, 0)]
        recipe = [number(trained.offset_m), f"{trained.extra_negatives:g}"]
        made = [trained.name, _device(report)]
        lines.append([*made, *spent, *recipe, *shares])
    first = ordered[0].rows[0]
    head = [
        "model",
        "on",
        "steps",
        "minutes",
        "offset m",
        "other tiles",
        *(named(fov, view) for fov, view in LEARNED),
    ]
    commands = "; ".join(f"`{report.command}`" for report in ordered)
    shown = (
        "" if picture is None else f"\n![Located within 25 m by minutes of training]({picture})\n"
    )
    return (
        "## What more training brings\n\nThe student after all its steps and minutes, each time at the "
        "end of a schedule; a change in the next two columns means another recipe. Minutes on a GPU "
        "(cuda) differ from those on two processor cores, and are not in the picture. Offset: largest "
        "distance in training, in metres, from a camera to the point that its place was described from. "
        "Other tiles: number for each place of a batch, from anywhere around its places. All are "
        "measured with four viewpoints of a place, at most 4.8 m from any camera. In per "
        f"cent of {first.queries} queries within 25 m on a **validation** town of "
        f"{first.gallery} places, heading unknown, no help.{ordered[-1].caveat} {commands}, "
        f"{ordered[-1].date}, "
        f"{ordered[-1].machine}.\n{shown}\n{table(head, lines)}\n"
    )
