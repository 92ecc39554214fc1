"""Students with the papers' encoders on a town, side by side: their training and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.results.reports import StudentReport
from core.results.tables import number, share, table
from core.results.towns import row_of

__all__ = ["students_section", "training_record"]

FIELDS_DEG = (360.0, 180.0, 90.0)


def training_record(config: Mapping[str, Any]) -> dict[str, Any]:
    """A report's record of the student's training, from the config of its model folder."""
    model, trained = config["model"], config.get("training", {})
    runs = [trained]
    while "before" in runs[-1]:
        runs.append(runs[-1]["before"])
    # Configs of older models have the sampling inside the loop, and another name for extra negatives.
    sampling = trained.get("sampling") or trained.get("loop", {}).get("sampling", {})
    extra = sampling.get("extra_negatives", sampling.get("elsewhere", 0.0))
    return {
        "name": config["name"],
        "pooling": model.get("pooling", "gap"),
        "ground_size": model.get("ground_size"),
        "went_on": "before" in trained,
        "device": trained.get("loop", {}).get("device"),
        "steps": trained.get("loop", {}).get("steps"),
        "minutes": trained.get("minutes"),
        "all_steps": sum(run.get("loop", {}).get("steps", 0) for run in runs),
        "all_minutes": round(sum(run.get("minutes") or 0.0 for run in runs), 1),
        "offset_m": sampling.get("offset_m"),
        "elsewhere": extra,
        "towns": len(trained.get("towns", ())),
    }


def students_section(reports: Sequence[StudentReport]) -> str:
    """The section of docs/results.md on ``student-*.json``: reports of ``evaluate`` on one town."""
    head = ["model", "descriptor", "canvas px", "towns", "steps", "minutes"]
    head += [f"{field:g}° {what}" for field in FIELDS_DEG for what in ("hit@1", "25 m")]
    lines = [_line(report) for report in reports]
    first = reports[0]
    commands = "; ".join(f"`{report.command}`" for report in reports)
    return (
        "## The papers' encoders as students, with small budgets\n\nTrained on rendered towns for the "
        "few steps and minutes below. In per cent of "
        f"{first.rows[0].queries} queries on {first.data}, heading unknown, no help; chance is "
        f"{share(first.rows[0].chance_25_m)} within 25 m. Places described from {_viewpoints(reports)}. "
        f"The shipped student's numbers are above.{first.caveat} "
        f"{commands}, {first.date}, {first.machine}.\n\n"
        f"{table([*head, 'heading °'], lines)}\n"
    )


def _viewpoints(reports: Sequence[StudentReport]) -> str:
    """The number of viewpoints from which a place was described, in words."""
    counts = sorted({report.viewpoints for report in reports})
    return " or ".join("their centres alone" if one == 1 else f"{one} viewpoints" for one in counts)


def _line(report: StudentReport) -> list[str]:
    trained = report.trained
    canvas = " x ".join(str(pixels) for pixels in trained.ground_size or ())
    start = " (went on)" if trained.went_on else ""
    cells = [trained.name, trained.pooling, canvas, str(trained.towns), f"{trained.steps}{start}"]
    cells.append(number(trained.minutes, 0))
    for field in FIELDS_DEG:
        row = row_of(report, field, "crop")
        cells += [share(row.hit_at_1), share(row.within_25_m)]
    return [*cells, number(row_of(report, 360.0, "crop").median_heading_error_deg)]
