"""The section of docs/results.md on GeoSSK's parts: mean and spread of each arm over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from core.results.reports import AblationReport, AblationRow
from core.results.tables import share, table

__all__ = ["ablation_section"]

FIELDS_DEG = (360.0, 180.0, 90.0)
METRICS: dict[str, Callable[[AblationRow], float]] = {
    "hit@1": lambda row: row.hit_at_1,
    "25 m": lambda row: row.within_25_m,
}


def _by_seed(rows: Sequence[AblationRow], metric: Callable[[AblationRow], float]) -> list[float]:
    """A metric of one arm and view: for each seed, the mean over towns."""
    seeds = dict.fromkeys(row.seed for row in rows)
    return [fmean(metric(row) for row in rows if row.seed == seed) for seed in seeds]


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {share(stdev(values))}" if len(values) > 1 else ""
    return f"{share(fmean(values))}{spread}"


def ablation_section(report: AblationReport) -> str:
    """The section of one report of ``ablate``."""
    lines = []
    for kind, arm in dict.fromkeys((row.kind, row.arm) for row in report.rows):
        cells = [f"{kind}: {arm}"]
        for fov in FIELDS_DEG:
            same = [
                row for row in report.rows if (row.kind, row.arm, row.fov_deg) == (kind, arm, fov)
            ]
            cells += [_cell(_by_seed(same, metric)) for metric in METRICS.values()]
        lines.append(cells)
    head = ["arm", *(f"{fov:g}° {what}" for fov in FIELDS_DEG for what in METRICS)]
    student, noise = report.student, report.noise
    began = f"are {student} with fresh weights" if student else "continue that of --start"
    wrong = f", {noise:.0%} of the labels wrong" if noise else ""
    title = " and wrong labels" if noise else ""
    subject = f"small students{title}" if student else f"part by part{title}"
    towns = ", ".join(dict.fromkeys(row.town for row in report.rows))
    return (
        f"## GeoSSK: {subject}\n\nEqual budget: {report.steps} steps of {report.batch} "
        f"panoramas for every arm, {report.seeds} seeds{wrong}. Students {began}. Teachers: re-ranked "
        f"rows; students: their own; no help, on {towns}. Mean ± standard deviation over seeds."
        f"{report.caveat} "
        f"`{report.command}`, {report.date}, {report.machine}.\n\n{table(head, lines)}\n"
    )
