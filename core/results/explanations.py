"""The report of ``pointing`` for people: three tables, in docs/results.md and at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.results.tables import aligned, number, share, table

__all__ = ["explanation_section", "explanation_text"]

Row = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
Cells = Mapping[str, Callable[[Row], str]]

POINTING: Cells = {
    "median m": lambda row: number(row["median_m"]),
    "mean m": lambda row: _with_error(row["mean_m"], row["standard_error_m"], 2),
}
CONTRIBUTION: Cells = {
    "patches": lambda row: str(row["patches"]),
    "CF": lambda row: _with_error(row["contribution"], row["contribution_standard_error"], 2),
    "beside its row": lambda row: _with_error(
        row["beside_row"], row["beside_row_standard_error"], 2
    ),
}
POINTING_BY_CLASS: Cells = {
    "patches": lambda row: str(row["patches_in_tile"]),
    "attention m": lambda row: number(row["attention_median_m"]),
    "own azimuth m": lambda row: number(row["own_azimuth_median_m"]),
}
HEADING: Cells = {
    "median °": lambda row: number(row["median_deg"]),
    "within 11.25° %": lambda row: share(row["within_a_bin"]),
}
TABLES = (
    ("pointing", "guess", POINTING),
    ("classes", "class", CONTRIBUTION),
    ("classes", "class", POINTING_BY_CLASS),
    ("headings", "source", HEADING),
)
TITLES = (
    "Pointing error: from where a patch attends to where its content lies",
    "Contribution factor times the number of patches (1: the even share), by class",
    "Pointing error by class, median",
    "Heading error, the true place given (chance: 90°)",
)
READING = (
    "All errors are over the same patches, those whose content lies inside the circle of the tile's "
    "polar view. *Attention* and *uniform attention* are the expected place under a row; an even row "
    "points at the tile's centre, so the two baselines are one. *Another tile*: the same photo met "
    "with a foreign tile at the same azimuth shift, which is what attention does where there is nothing to be "
    "found. *Own azimuth*: the true azimuth of the patch, at the average distance of its row of "
    "patches, taken from the truth itself: what geometry can guess without a look at the tile. "
    "*Nearest sector*: the least error that a whole sector can have.",
    "*Beside its row*: less the mean of all patches in the same row of the canvas, since sky lies "
    "high and road low. Standard errors have photos as the sampling unit.",
    "",
    "The student finds its azimuth shift by itself. *Attention alone* is the mean of attention met at all 32 "
    "azimuth shifts, so that none is given. *Another tile at the true azimuth shift*: what the given azimuth shift alone tells, "
    "where there is nothing to be found.",
)


def _with_error(value: object, error: object, digits: int) -> str:
    around = f" ± {number(error, digits)}" if error is not None else ""
    return number(value, digits) + around


def _across(rows: Sequence[Row], part: str, label: str, cells: Cells) -> Table:
    """One line for each label, the cells of every field of view side by side."""
    head = [label, *(f"{row['fov_deg']:g}° {title}" for row in rows for title in cells)]
    lines = []
    for index, first in enumerate(rows[0][part]):
        shown = [write(row[part][index]) for row in rows for write in cells.values()]
        lines.append([str(first[label]), *shown])
    return head, lines


def _tables(report: Row) -> list[Table]:
    return [_across(report["rows"], *parts) for parts in TABLES]


def _counts(report: Row) -> str:
    return "; ".join(
        f"{row['fov_deg']:g}°: {row['queries']} photos, {row['patches']} patches, "
        f"{row['patches_in_tile']} of them inside the tile's circle"
        for row in report["rows"]
    )


def explanation_section(report: Row) -> str:
    """The section of docs/results.md: what was measured and how, and its tables."""
    groups = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in report["groups"].items())
    parts = [
        f"## Are the explanations true? ({report['data']})\n",
        f"`{report['command']}`, {report['date']}, {report['machine']}, seed {report['seed']}. "
        f"{_counts(report)}. {report['protocol']}\n",
    ]
    for title, reading, (head, lines) in zip(TITLES, READING, _tables(report), strict=True):
        parts.append(f"**{title}**\n")
        parts += [f"{reading}\n"] if reading else []
        parts.append(f"{table(head, lines)}\n")
    parts.append(f"Classes told as one: {groups}.\n")
    return "\n".join(parts)


def explanation_text(report: Row) -> str:
    """The same tables for a terminal."""
    parts = [f"{_counts(report)}."]
    for title, (head, lines) in zip(TITLES, _tables(report), strict=True):
        parts.append(f"{title}\n{aligned(head, lines)}")
    return "\n\n".join(parts)
