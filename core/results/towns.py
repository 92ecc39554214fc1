"""Tables of what ``evaluate`` measured on towns: one town, the mean over towns, against training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from core.results.tables import number, share, table

__all__ = [
    "LEARNED",
    "Report",
    "curve_section",
    "located",
    "mean_section",
    "named",
    "origin",
    "sweep_series",
    "sweep_table",
    "town_section",
    "training_series",
]

Row = Mapping[str, Any]
Report = Mapping[str, Any]
HELP = {
    ("unknown", None): "no help",
    ("known", None): "heading known",
    ("unknown", 200.0): "within 200 m",
    ("known", 200.0): "both",
}
METRES = (
    "median_error_m",
    "median_position_error_m",
    "position_error_90_m",
    "median_heading_error_deg",
)
LEARNED = ((360.0, "crop"), (180.0, "crop"), (90.0, "crop"), (90.0, "photo"), (67.5, "photo"))
"""Views, degrees and kind, whose progress is told."""


def _find(rows: Sequence[Row], **wanted: object) -> Row:
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    return {}


def _kinds(rows: Sequence[Row]) -> list[tuple[float, str]]:
    """Fields of view in degrees and kinds of view, widest first, crops before photo frames."""
    kinds = sorted({(-float(row["fov_deg"]), str(row["view"])) for row in rows})
    return [(-minus, view) for minus, view in kinds]


def named(fov_deg: float, view: str) -> str:
    """What a view is called in a table."""
    return f"{fov_deg:g}° {'photo frame' if view == 'photo' else 'crop'}"


def origin(report: Report) -> str:
    """How a report was made, as a sentence."""
    seed, queries = report.get("seed", 0), report["rows"][0]["queries"]
    return (
        f"`{report['command']}`, {report['date']}, {report['machine']}, seed {seed}, "
        f"{queries} queries, {report['rows'][0]['gallery']} places."
    )


def sweep_table(rows: Sequence[Row], key: str = "within_25_m") -> str:
    """Field of view against help, one cell per kind of help: student / re-ranked (chance)."""
    lines = []
    for fov, view in _kinds(rows):
        cells = [named(fov, view)]
        for heading, radius in HELP:
            same = {"fov_deg": fov, "view": view, "heading": heading, "radius_m": radius}
            student = _find(rows, **same, reranked=False)
            teacher = _find(rows, **same, reranked=True)
            chance = f" ({share(student['chance_25_m'])})" if student else ""
            second = f" / {share(teacher[key])}" if teacher else ""
            cells.append(f"{share(student.get(key))}{second}{chance}")
        lines.append(cells)
    return table(["view", *HELP.values()], lines)


def _details(rows: Sequence[Row]) -> str:
    head = ["view", "re-ranked", "hit@1", "hit@5", "10 m", "25 m", "± s.e.", "50 m", "25 m in 5"]
    head += ["median m", "point m", "in 9 of 10", "heading °"]
    lines = []
    for row in rows:
        if row["heading"] == "known" or row["radius_m"] is not None:
            continue
        shares = ("hit@1", "hit@5", "within_10_m", "within_25_m", "standard_error_25_m")
        lines.append(
            [f"{row['fov_deg']:g}° {row['view']}", "yes" if row["reranked"] else "no"]
            + [share(row.get(key)) for key in (*shares, "within_50_m", "within_25_m@5")]
            + [number(row.get(key)) for key in METRES]
        )
    return table(head, lines)


def town_section(report: Report) -> str:
    """One town: the sweep over fields of view and kinds of help, and all figures without help."""
    rows = report["rows"]
    return f"## {report['data']}\n\n{origin(report)}\n\n{sweep_table(rows)}\n\n{_details(rows)}\n"


def _over(reports: Sequence[Report], key: str, **wanted: object) -> list[float]:
    """One figure of the same row of each town that measured it."""
    found = [_find(report["rows"], **wanted).get(key) for report in reports]
    return [float(value) for value in found if value is not None]


def _pair(of: Mapping[bool, str]) -> str:
    return " / ".join(of[reranked] for reranked in (False, True) if of[reranked])


def _mean(values: Sequence[float]) -> str:
    return share(fmean(values)) if values else ""


def _mean_line(reports: Sequence[Report], fov: float, view: str) -> list[str]:
    """One field of view in the table of means: student / re-ranked in every cell."""

    def both(
        name: str, heading: str = "unknown", radius: float | None = None
    ) -> dict[bool, list[float]]:
        asked = {"fov_deg": fov, "view": view, "heading": heading, "radius_m": radius}
        return {one: _over(reports, name, **asked, reranked=one) for one in (False, True)}

    def middle(name: str) -> str:
        told = {one: number(fmean(values)) if values else "" for one, values in both(name).items()}
        return _pair(told)

    cells = [named(fov, view)]
    for heading, radius in HELP:
        located = both("within_25_m", heading, radius)
        cells.append(_pair({one: _mean(values) for one, values in located.items()}))
        if (heading, radius) == ("unknown", None):
            apart = {one: share(stdev(v)) if len(v) > 1 else "" for one, v in located.items()}
            cells.append(_pair(apart))
    cells.append(_pair({one: _mean(values) for one, values in both("hit@1").items()}))
    angle, point = "median_heading_error_located_deg", "median_position_error_m"
    return [*cells, middle(angle), middle(point)]


def mean_section(reports: Sequence[Report], picture: str | None = None) -> str:
    """The mean over towns, and how far they differ; ``picture``: the sweep, as the page calls it."""
    lines = [_mean_line(reports, fov, view) for fov, view in _kinds(reports[0]["rows"])]
    first, *helped = HELP.values()
    head = ["view", first, "± towns", *helped, "hit@1", "heading °", "point m"]
    towns = ", ".join(str(report["data"]) for report in reports)
    shown = "" if picture is None else f"\n![Located within 25 m by field of view]({picture})\n"
    return (
        f"## Mean over {len(reports)} test towns\n\nOf the sections below ({towns}), every town "
        "counting alike. Student / re-ranked by the teacher, in per cent within 25 m; ± towns: "
        "standard deviation between them. hit@1, heading (median error where the place is right) "
        f"and point (likewise, in metres) without help.\n{shown}\n{table(head, lines)}\n"
    )


def sweep_series(reports: Sequence[Report]) -> tuple[list[float], dict[str, list[float]]]:
    """The mean over towns for a picture: fields of view of crops, and shares within 25 m by name.

    nan where nothing was measured. With help: re-ranked.
    """
    fields = [fov for fov, view in _kinds(reports[0]["rows"]) if view == "crop"]
    series: dict[str, list[float]] = {}
    for (heading, radius), name in HELP.items():
        for reranked in (False, True):
            same = {"view": "crop", "heading": heading, "radius_m": radius, "reranked": reranked}
            each = [_over(reports, "within_25_m", fov_deg=fov, **same) for fov in fields]
            if not any(each) or ((radius or heading == "known") and not reranked):
                continue
            title = {
                "no help": "re-ranked" if reranked else "student",
                "both": "heading known and within 200 m, re-ranked",
            }.get(name, f"{name}, re-ranked")
            series[title] = [fmean(values) if values else float("nan") for values in each]
    return fields, series


def located(report: Report, fov: float, view: str) -> float:
    """Share of queries of a view within 25 m, heading unknown, no help, the student alone."""
    plain = {"heading": "unknown", "radius_m": None, "reranked": False}
    return float(_find(report["rows"], fov_deg=fov, view=view, **plain)["within_25_m"])


def _device(report: Report) -> str:
    """What a student was trained on; reports of before it was told: a processor."""
    return str(report["trained"].get("device") or "cpu")


def _by_training(reports: Sequence[Report]) -> list[Report]:
    return sorted(reports, key=lambda report: (_device(report), report["trained"]["all_steps"]))


def training_series(reports: Sequence[Report]) -> tuple[list[float], dict[str, list[float]]]:
    """Minutes of training on a processor, and shares within 25 m by view, for a picture."""
    ordered = [report for report in _by_training(reports) if _device(report) == "cpu"]
    minutes = [float(report["trained"]["all_minutes"]) for report in ordered]
    return minutes, {
        named(fov, view): [located(report, fov, view) for report in ordered]
        for fov, view in LEARNED
    }


def curve_section(reports: Sequence[Report], picture: str | None = None) -> str:
    """``training-*.json``: the student at several times of its training, on a validation town."""
    ordered = _by_training(reports)
    lines = []
    for report in ordered:
        trained = report["trained"]
        shares = [share(located(report, fov, view)) for fov, view in LEARNED]
        spent = [str(trained["all_steps"]), number(trained["all_minutes"], 0)]
        recipe = [number(trained["offset_m"]), f"{trained.get('elsewhere', 0.0):g}"]
        made = [trained.get("name", "convnet-s"), _device(report)]
        lines.append([*made, *spent, *recipe, *shares])
    first = ordered[0]["rows"][0]
    head = [
        "model",
        "on",
        "steps",
        "minutes",
        "offset m",
        "other tiles",
        *(named(fov, view) for fov, view in LEARNED),
    ]
    commands = "; ".join(f"`{report['command']}`" for report in ordered)
    shown = (
        "" if picture is None else f"\n![Located within 25 m by minutes of training]({picture})\n"
    )
    return (
        "## What more training brings\n\nThe student after so many steps and minutes in all, each time "
        "at the end of a schedule; where one of the two next columns changes, so did the recipe. Minutes "
        "on a GPU (cuda) are not those of two processor cores, and are not in the picture. Offset: "
        "up to so many metres a camera stood from the point that its place was described from, in "
        "training; other tiles: so many for each place of a batch, from anywhere around its places. All "
        "are judged with four viewpoints of a place, at most 4.8 m from any camera. In per "
        f"cent of {first['queries']} queries within 25 m on a **validation** town of "
        f"{first['gallery']} places, heading unknown, no help. {commands}, {ordered[-1]['date']}, "
        f"{ordered[-1]['machine']}.\n{shown}\n{table(head, lines)}\n"
    )
