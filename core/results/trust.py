"""The section of docs/results.md on trust: do the probabilities come true?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.results.tables import number, share, table

__all__ = ["trust_section"]

Row = Mapping[str, Any]


def _view(row: Row) -> str:
    return "all widths" if row["fov_deg"] is None else f"{row['fov_deg']:g}°"


def _calibrated(rows: Sequence[Row], named: Sequence[str]) -> str:
    """Own photos and the mixture: mean confidence, share right, and calibration error."""
    lines = []
    for row, name in zip(rows, named, strict=True):
        cells = [name]
        for part in (row["own"], row["mixture"]):
            cells += [share(part["mean_confidence"]), share(part["right"])]
            cells += [
                f"{share(part['calibration_error'])} ({share(part['calibration_error_by_chance'])})"
            ]
            cells += [number(part["brier_score"], 3)]
        lines.append(cells)
    names = ("said", "right", "ECE (luck)", "Brier")
    return table(["", *names, *(f"mixture: {name}" for name in names)], lines)


def _chosen(rows: Sequence[Row], named: Sequence[str]) -> str:
    """Accuracy of the most confident answers, and of the confident matches."""
    lines = []
    for row, name in zip(rows, named, strict=True):
        own = row["own"]
        at = {point["coverage"]: point["right"] for point in own["coverage"]}
        cells = [name, *(share(at[covered]) for covered in (0.1, 0.3, 0.5, 1.0))]
        cells += [share(own["area_under_coverage"]), share(own["confident"]["coverage"])]
        cells += [share(own["confident"]["right"]), share(row["outside"]["confident"])]
        lines.append(cells)
    head = ["", "surest 10 %", "30 %", "50 %", "all", "area", "confident", "right of these"]
    return table([*head, "from outside, confident"], lines)


def _apart(rows: Sequence[Row], named: Sequence[str]) -> str:
    keys = ("own_or_outside", "right_or_not", "right_or_wrong")
    lines = []
    for row, name in zip(rows, named, strict=True):
        found = (row["auroc"][key] for key in keys)
        cells = [
            "" if one is None else f"{one['area']:.3f} ± {one['standard_error']:.3f}"
            for one in found
        ]
        lines.append([name, *cells])
    head = ["own or outside", "right or not (wrong, outside)", "right or wrong, own only"]
    return table(["", *head], lines)


def _kinds(row: Row) -> str:
    """Each kind of photo from outside, all widths together."""
    lines = [
        [kind, str(one["photos"]), share(one["confident"]), share(one["mean_outside_probability"])]
        for kind, one in row["outside"]["kinds"].items()
    ]
    return table(["from", "photos", "confident", "mean probability of being outside"], lines)


def _areas(rows: Sequence[Row], named: Sequence[str]) -> str:
    """Share of the cameras inside the stated areas."""
    lines = []
    for row, name in zip(rows, named, strict=True):
        cells = [name]
        for size in ("50", "90"):
            one = row["areas"][size]
            held = "" if one["held"] is None else share(one["held"])
            cells += [held, str(one["photos"])]
        lines.append(cells)
    return table(["", "in the 50 % area", "of", "in the 90 % area", "of"], lines)


def trust_section(report: Row, others: Sequence[Row] = (), picture: str | None = None) -> str:
    """Markdown of reports of ``trust``.

    Args:
        report: of the first town, as the command wrote it.
        others: reports of further towns; only their totals are shown.
        picture: path of the first report's figure for the page, if there is one.

    """
    rows = report["rows"]
    plain = [row for row in rows if row["case"] == rows[0]["case"]]
    totals = [row for row in rows if row["fov_deg"] is None]
    widths, cases = [_view(row) for row in plain], [row["case"] for row in totals]
    own, outside = rows[0]["own"]["photos"], rows[0]["outside"]["photos"]
    models = "the student alone" if report["teacher"] is None else "student and teacher"
    image = (
        "" if picture is None else f"![Reliability, and accuracy against coverage]({picture})\n\n"
    )
    return (
        "## Can the probabilities be trusted?\n\n"
        "The probability of the first place is the probability that the answered position lies within "
        f"25 m of the camera; it is calibrated on validation towns. Here {models} on {report['data']}. "
        f"For each width {own} own photos of the town and {outside} from outside: of "
        f"{', '.join(report['other_towns'])}, sample pictures from Python packages, textures and rooms. "
        "No place is right for them. Views up to 112.5° are photo frames. In the mixture photos from "
        "outside weigh "
        f"{100 * report['outside_share']:g} % of all, as the calibration assumes. Confident is an "
        "answer that reaches its width's threshold (docs/probability.md). "
        f"`{report['command']}`, {report['date']}, {report['machine']}, seed {report['seed']}.\n\n"
        f"{image}"
        "In per cent: mean confidence, share right, and expected calibration error in ten bins (in "
        "brackets the error by chance if every confidence were exact). Heading unknown, all "
        f"places:\n\n{_calibrated(plain, widths)}\n\n"
        "All widths together, by the help given with the photo and by the size of the gallery:\n\n"
        f"{_calibrated(totals, cases)}\n\n"
        "In per cent, of the town's own photos: right among the most confident answers, and its mean "
        "over all coverages; share of confident matches, and right among these. Last: share of confident "
        f"matches among photos from outside.\n\n{_chosen(plain, widths)}\n\n"
        f"{_chosen(totals, cases)}\n\n"
        f"By kind, all widths, no help, in per cent:\n\n{_kinds(plain[-1])}\n\n"
        "How well the probabilities separate photos (AUROC ± Hanley and McNeil's standard error, which "
        "assumes independent photos; 0.5 is chance): own from outside by the probability of being "
        f"outside, the others by that of the first place.\n\n{_apart(plain, widths)}\n\n"
        "Cameras within the areas with 50 and 90 % of the probability, in per cent of the own photos "
        f"with such an area:\n\n{_areas(totals, cases)}\n"
        + "".join(_other(other) for other in others)
    )


def _other(report: Row) -> str:
    """The totals of another town."""
    totals = [row for row in report["rows"] if row["fov_deg"] is None]
    cases = [row["case"] for row in totals]
    return (
        f"\n{report['data']}, all widths together. `{report['command']}`, {report['date']}, "
        f"{report['machine']}, seed {report['seed']}.\n\n{_calibrated(totals, cases)}\n\n"
        f"{_chosen(totals, cases)}\n"
    )
