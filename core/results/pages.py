"""docs/results.md and the README's table, written from measured JSON alone.

``make results`` measures and then calls ``write_results``; no number in the two files is typed by
hand. Everything between the README's two markers is replaced.
"""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import DataError
from core.results.ablation import ablation_section
from core.results.explanations import explanation_section
from core.results.perspective import perspective_section
from core.results.reading import read_reports
from core.results.reports import TownReport
from core.results.seen import seen_section
from core.results.shortcuts import shortcut_section
from core.results.speed import speed_section
from core.results.students import students_section
from core.results.towns import (
    curve_section,
    mean_section,
    origin,
    sweep_table,
    town_section,
)
from core.results.trust import trust_section

__all__ = ["END", "START", "SWEEP", "TRAINING", "write_results"]

START = "<!-- results: written by `make results`, do not edit -->"
END = "<!-- end of results -->"

SWEEP, TRAINING = "sweep.png", "training.png"
"""Pictures beside the JSON: the mean of the towns by field of view, and the student by training."""


def _beside(picture: Path, page: Path) -> str | None:
    """A picture's path for a link in the page, or None if there is no picture."""
    return Path(os.path.relpath(picture, page.parent)).as_posix() if picture.is_file() else None


def write_results(folder: str | Path, page: str | Path, readme: str | Path) -> None:
    """Write docs/results.md, and the table between the README's markers, from measured JSON.

    Args:
        folder: JSON files of ``evaluate`` (``town-*.json``; ``training-*.json`` of the student at
            several times; ``seen-*.json`` of the student on training towns and other towns;
            ``student-*.json`` of other students on one town), ``pointing``
            (``explanations.json``), ``shortcuts``, ``ablate`` (``ablation*.json``), ``bench models``
            (``bench-models.json``) and ``trust`` (``trust-*.json``); pictures beside them.
        page: Markdown file to write.
        readme: Markdown file with the two markers.

    Raises:
        DataError: there is no JSON, the JSON has another form, or the markers are missing.
    """
    folder, page = Path(folder), Path(page)
    reports = read_reports(folder)
    towns = reports.towns
    if not towns:
        raise DataError(f"Results {folder}: got no town-*.json, expected one. Run: make results")
    parts = [
        "# Results\n\nWritten by `make results` from the JSON in `docs/results/`; not edited by hand. "
        "All towns are rendered (synthetic); the test towns were never trained or tuned on. "
        "Cells: student / re-ranked by the teacher (chance level), in per cent of queries whose "
        "answered position lies within 25 m of the camera, by the pipeline of the page. Point: the "
        "distance from that position to the camera, in metres, if it is right (the median, and the limit "
        "for nine of ten).\n"
    ]
    if len(towns) > 1:
        parts.append(mean_section(towns, _beside(folder / SWEEP, page)))
    pictured = [report for report in towns if report.photos]
    parts += [perspective_section(pictured)] if pictured else []
    parts += [town_section(report) for report in towns]
    if reports.training:
        parts.append(curve_section(reports.training, _beside(folder / TRAINING, page)))
    parts += [seen_section(reports.seen)] if reports.seen else []
    parts += [students_section(reports.students)] if reports.students else []
    parts += [ablation_section(report) for report in reports.ablations]
    parts += [speed_section(report) for report in reports.bench]
    parts += [explanation_section(report) for report in reports.explanations]
    parts += [shortcut_section(report) for report in reports.shortcuts]
    picture = _beside(folder / "trust.png", page)
    if reports.trust:
        parts.append(trust_section(reports.trust[0], reports.trust[1:], picture))
    page.write_text("\n".join(parts), encoding="utf-8")
    _write_readme(Path(readme), towns[0])


def _write_readme(readme: Path, demo: TownReport) -> None:
    """Put the demo town's table between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise DataError(f"README {readme}: got no result markers, expected {START!r} and {END!r}.")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    block = f"{START}\n{sweep_table(demo.rows)}\n\n{origin(demo)}\n{END}"
    readme.write_text(before + block + after, encoding="utf-8")
