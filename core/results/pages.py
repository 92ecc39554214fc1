"""Figures for people: docs/results.md and the README's table, written from measured JSON alone.

``make results`` measures and then calls ``write_results``; no figure in the two files is typed by
hand. Between the README's two markers everything is replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.results.ablation import ablation_section
from core.results.explanations import explanation_section
from core.results.perspective import perspective_section
from core.results.seen import seen_section
from core.results.shortcuts import shortcut_section
from core.results.students import students_section
from core.results.tables import table
from core.results.towns import (
    curve_section,
    mean_section,
    origin,
    sweep_table,
    town_section,
)
from core.results.trust import trust_section

__all__ = ["END", "START", "SWEEP", "TRAINING", "read_reports", "reports_of", "write_results"]

START = "<!-- results: written by `make results`, do not edit -->"
END = "<!-- end of results -->"

SWEEP, TRAINING = "sweep.png", "training.png"
"""Pictures beside the JSON: the mean of the towns by field of view, the student by training."""

Row = Mapping[str, Any]


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """All reports of a folder, each with its ``file``, by name.

    Raises:
        DataError: one is no JSON, or there is none.

    """
    reports = []
    for path in sorted(folder.glob("*.json")):
        try:
            reports.append({**json.loads(path.read_text(encoding="utf-8")), "file": path.name})
        except json.JSONDecodeError as error:
            raise DataError(f"Results {path}: got no JSON ({error}). Measure again.") from error
    if not reports:
        raise DataError(f"Results {folder}: got no JSON files, expected some. Run: make results")
    return reports


def reports_of(reports: Sequence[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    """Those reports whose file's name starts so."""
    return [report for report in reports if report["file"].startswith(start)]


def _speed(report: Mapping[str, Any]) -> str:
    """Contests of ``bench models``, as many times as fast as the transcription."""
    lines = [
        [
            row["model"],
            str(row["batch"]),
            row["precision"],
            f"{row['plain_ms']:.0f}",
            f"{row['ours_ms']:.0f}",
            f"{row['ratio']:.2f}",
            "" if row["work_ratio"] is None else f"{row['work_ratio']:.2f}",
            f"{row['ceiling']:.2f}",
            f"{row['largest_difference']:.1e}",
            f"{row['cosine_error']:.1e}",
        ]
        for row in report["rows"]
    ]
    head = ["model", "batch", "ours in", "plain ms", "ours ms", "times as fast", "of work"]
    return table([*head, "at most", "difference", "1 - cosine"], lines)


def _beside(picture: Path, page: Path) -> str | None:
    """How a page calls a picture, or None if there is none."""
    return Path(os.path.relpath(picture, page.parent)).as_posix() if picture.is_file() else None


def _speed_section(report: Row) -> str:
    return (
        "## The papers' encoders beside a plain transcription\n\nTurn by turn, same weights, "
        "the plain one in float32; of work: in processor time, without the waiting; at most: "
        "what multiply-adds alone would allow, at the speed of a large product or convolution. "
        f"Processes that wanted to run in the last minute: {report['load']}. "
        f"`{report['command']}`, {report['date']}, {report['machine']}, "
        f"torch {report['torch']}.\n\n{_speed(report)}\n"
    )


def write_results(folder: str | Path, page: str | Path, readme: str | Path) -> None:
    """Write docs/results.md, and the table between the README's markers, from measured JSON.

    Args:
        folder: JSON files of ``evaluate`` (``town-*.json``; ``training-*.json`` of the student at
            several times; ``seen-*.json`` of it on towns it learned from and on others;
            ``student-*.json`` of other students on one town), ``pointing``
            (``explanations.json``), ``shortcuts``, ``ablate`` (``ablation*.json``), ``bench models``
            (``bench-models.json``) and ``trust`` (``trust.json``); pictures beside them.
        page: Markdown file to write.
        readme: Markdown file with the two markers.

    Raises:
        DataError: no JSON, or no markers.
    """
    reports = read_reports(Path(folder))
    towns = reports_of(reports, "town-")
    if not towns:
        raise DataError(f"Results {folder}: got no town-*.json, expected one. Run: make results")
    parts = [
        "# Results\n\nWritten by `make results` from the JSON in `docs/results/`; not edited by hand. "
        "All towns are rendered (synthetic); the test towns were never trained or tuned on. "
        "Cells: student / re-ranked by the teacher (chance level), in per cent of queries whose first "
        "place lies within 25 m of the camera. Point: how far the answered point is from the camera, "
        "in metres, where the first place is right (the median, and nine of ten within).\n"
    ]
    beside = partial(_beside, page=Path(page))
    if len(towns) > 1:
        parts.append(mean_section(towns, beside(Path(folder) / SWEEP)))
    pictured = [report for report in towns if report.get("photos")]
    parts += [perspective_section(pictured)] if pictured else []
    parts += [town_section(report) for report in towns]
    training = reports_of(reports, "training-")
    if training:
        parts.append(curve_section(training, beside(Path(folder) / TRAINING)))
    seen = reports_of(reports, "seen-")
    parts += [seen_section(seen)] if seen else []
    students = reports_of(reports, "student-")
    parts += [students_section(students)] if students else []
    sections: dict[str, Callable[[Row], str]] = {
        "bench-models.json": _speed_section,
        "explanations.json": explanation_section,
        "shortcuts.json": shortcut_section,
        "trust.json": partial(trust_section, picture=beside(Path(folder) / "trust.png")),
    }
    parts += [ablation_section(report) for report in reports_of(reports, "ablation")]
    parts += [sections[r["file"]](r) for r in reports if r["file"] in sections]
    Path(page).write_text("\n".join(parts), encoding="utf-8")
    _write_readme(Path(readme), towns[0])


def _write_readme(readme: Path, demo: Row) -> None:
    """Put the demo town's table between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise DataError(f"README {readme}: got no result markers, expected {START!r} and {END!r}.")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    block = f"{START}\n{sweep_table(demo['rows'])}\n\n{origin(demo)}\n{END}"
    readme.write_text(before + block + after, encoding="utf-8")
