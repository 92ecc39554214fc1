"""The section of docs/results.md that says whether the confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.results.tables import number, share, table

__all__ = ["trust_section"]

Row = Mapping[str, Any]


def _view(row: Row) -> str:
    return "all widths" if row["fov_deg"] is None else f"{row['fov_deg']:g}°"


def _calibrated(rows: Sequence[Row]) -> str:
    """Own photos beside the mixture: what was said, what was right, and how far they are apart."""
    lines = []
    for row in rows:
        cells = [_view(row)]
        for part in (row["own"], row["mixture"]):
            cells += [share(part["mean_confidence"]), share(part["right"])]
            cells += [
                f"{share(part['calibration_error'])} ({share(part['calibration_error_by_chance'])})"
            ]
            cells += [number(part["brier_score"], 3)]
        lines.append(cells)
    names = ("said", "right", "ECE (luck)", "Brier")
    return table(["view", *names, *(f"mixture: {name}" for name in names)], lines)


def _chosen(rows: Sequence[Row]) -> str:
    """Accuracy of the surest answers, and what the program itself calls a confident match."""
    lines = []
    for row in rows:
        own = row["own"]
        at = {point["coverage"]: point["right"] for point in own["coverage"]}
        cells = [_view(row), *(share(at[covered]) for covered in (0.1, 0.3, 0.5, 1.0))]
        cells += [share(own["area_under_coverage"]), share(own["confident"]["coverage"])]
        cells += [share(own["confident"]["right"]), share(row["strangers"]["false_match_rate"])]
        lines.append(cells)
    head = ["view", "surest 10 %", "30 %", "50 %", "all", "area", "confident", "right of these"]
    return table([*head, "strangers confident"], lines)


def _apart(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        found = (
            row["auroc"][key] for key in ("own_or_elsewhere", "right_or_not", "right_or_wrong")
        )
        lines.append(
            [_view(row)]
            + [
                "" if one is None else f"{one['area']:.3f} ± {one['standard_error']:.3f}"
                for one in found
            ]
        )
    head = [
        "view",
        "own or elsewhere",
        "right or not (wrong, elsewhere)",
        "right or wrong, own only",
    ]
    return table(head, lines)


def trust_section(report: Row, picture: str | None = None) -> str:
    """Markdown of a report of ``trust``.

    Args:
        report: as the command wrote it.
        picture: how the page calls the report's figure, if there is one.
    """
    rows = report["rows"]
    own, strangers = rows[0]["own"]["photos"], rows[0]["strangers"]["photos"]
    models = "the student alone" if report["teacher"] is None else "student and teacher"
    image = (
        "" if picture is None else f"![Reliability, and accuracy against coverage]({picture})\n\n"
    )
    return (
        "## Can the confidence be trusted?\n\n"
        "Confidence is the probability, calibrated on validation towns, that the first place lies "
        f"within 25 m. Here {models} on {report['data']}, for each width {own} photos of its own and "
        f"{strangers} strangers from {', '.join(report['elsewhere'])}, for which no place is right; "
        "up to 112.5° as photo frames, heading unknown, tiles as a gallery cuts them. In the mixture "
        f"strangers weigh {100 * report['strangers_share']:g} % of all, as the calibration assumes. "
        f"`{report['command']}`, {report['date']}, {report['machine']}, seed {report['seed']}.\n\n"
        f"{image}"
        "In per cent: mean confidence, share right, and expected calibration error in ten bins (in "
        "brackets what luck alone would make of it, were every confidence exact).\n\n"
        f"{_calibrated(rows)}\n\n"
        "In per cent, of the town's own photos: right among the surest answers, mean of that over all "
        "coverages; how many the program calls a confident match, and right of these; last, how many "
        f"strangers it calls so.\n\n{_chosen(rows)}\n\n"
        "How well confidence tells photos apart (AUROC ± Hanley and McNeil's standard error, which "
        f"takes photos for independent; 0.5 is chance).\n\n{_apart(rows)}\n"
    )
