"""The part of docs/results.md on GeoSSK's parts, each arm's mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from core.results.tables import share, table

__all__ = ["ablation_section"]

FIELDS_DEG = (360.0, 180.0, 90.0)
Row = Mapping[str, Any]


def _by_seed(rows: Sequence[Row], key: str) -> list[float]:
    """A figure of one arm and view, for each seed the mean over towns."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    return [fmean(row[key] for row in rows if row["seed"] == seed) for seed in seeds]


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {share(stdev(values))}" if len(values) > 1 else ""
    return f"{share(fmean(values))}{spread}"


def ablation_section(report: Row) -> str:
    """One report of ``ablate``."""
    lines = []
    for kind, arm in dict.fromkeys((row["kind"], row["arm"]) for row in report["rows"]):
        cells = [f"{kind}: {arm}"]
        for fov in FIELDS_DEG:
            same = [
                row
                for row in report["rows"]
                if (row["kind"], row["arm"], row["fov_deg"]) == (kind, arm, fov)
            ]
            cells += [_cell(_by_seed(same, key)) for key in ("hit@1", "within_25_m")]
        lines.append(cells)
    head = ["arm", *(f"{fov:g}° {what}" for fov in FIELDS_DEG for what in ("hit@1", "25 m"))]
    pupil, noise = report["pupil"], report["noise"]
    began = f"are {pupil} with fresh weights" if pupil else "go on from that of --start"
    wrong = f", {noise:.0%} of the labels wrong" if noise else ""
    title = " and wrong labels" if noise else ""
    subject = f"small students{title}" if pupil else f"part by part{title}"
    towns = ", ".join(dict.fromkeys(row["town"] for row in report["rows"]))
    return (
        f"## GeoSSK: {subject}\n\nEqual budget: {report['steps']} steps of {report['batch']} "
        f"panoramas for every arm, {report['seeds']} seeds{wrong}. Students {began}. Teachers: re-ranked "
        f"rows; students: their own; no help, on {towns}. Mean ± standard deviation over seeds. "
        f"`{report['command']}`, {report['date']}, {report['machine']}.\n\n{table(head, lines)}\n"
    )
