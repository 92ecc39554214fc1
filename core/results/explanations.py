"""The report of ``pointing`` as four tables, for docs/results.md and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.results.reports import (
    ClassRow,
    ExplanationReport,
    ExplanationRow,
    HeadingRow,
    PointingRow,
)
from core.results.tables import aligned, number, share, table

__all__ = ["explanation_section", "explanation_text"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Part(Generic[T]):
    """One table: a line for each row of a part of the report.

    ``cells``: by column title, the cell of a row at one field of view; ``reading``: how to read it.
    """

    title: str
    label: str
    rows: Callable[[ExplanationRow], tuple[T, ...]]
    name: Callable[[T], str]
    cells: Mapping[str, Callable[[T], str]]
    reading: str = ""

    def lines(self, report: ExplanationReport) -> tuple[list[str], list[list[str]]]:
        """Head and lines, the cells of every field of view side by side."""
        head = [f"{row.fov_deg:g}° {title}" for row in report.rows for title in self.cells]
        lines = []
        for same in zip(*(self.rows(row) for row in report.rows), strict=True):
            shown = [write(one) for one in same for write in self.cells.values()]
            lines.append([self.name(same[0]), *shown])
        return [self.label, *head], lines


def _with_error(value: float | None, error: float | None) -> str:
    around = f" ± {number(error, 2)}" if error is not None else ""
    return number(value, 2) + around


POINTING = _Part[PointingRow](
    "Pointing error: from where a patch attends to where its content lies",
    "guess",
    lambda row: row.pointing,
    lambda row: row.guess,
    {
        "median m": lambda row: number(row.median_m),
        "mean m": lambda row: _with_error(row.mean_m, row.standard_error_m),
    },
    "All errors are over the same patches: their content lies inside the circle of the tile's polar "
    "view. *Attention* and *uniform attention*: the expected place under a row of attention; a uniform "
    "row points at the tile's centre, so these two baselines agree. *Another tile*: the same photo "
    "aligned with the tile of another place at the same azimuth shift, so there is nothing to find. *Own "
    "azimuth*: the patch's true azimuth at the mean distance of its row of patches, from the truth "
    "itself: the geometric guess without the tile. *Nearest sector*: the smallest error that a whole "
    "sector can have.",
)
CONTRIBUTION = _Part[ClassRow](
    "Contribution factor times the number of patches (1: the even share), by class",
    "class",
    lambda row: row.classes,
    lambda row: row.group,
    {
        "patches": lambda row: str(row.patches),
        "CF": lambda row: _with_error(row.contribution, row.contribution_standard_error),
        "beside its row": lambda row: _with_error(row.beside_row, row.beside_row_standard_error),
    },
    "*Beside its row*: minus the mean of all patches in the same row of the canvas, since sky is "
    "high and road is low. Standard errors have photos as the sampling unit.",
)
POINTING_BY_CLASS = _Part[ClassRow](
    "Pointing error by class, median",
    "class",
    lambda row: row.classes,
    lambda row: row.group,
    {
        "patches": lambda row: str(row.patches_in_tile),
        "attention m": lambda row: number(row.attention_median_m),
        "own azimuth m": lambda row: number(row.own_azimuth_median_m),
    },
)
HEADING = _Part[HeadingRow](
    "Heading error, the true place given (chance: 90°)",
    "source",
    lambda row: row.headings,
    lambda row: row.source,
    {
        "median °": lambda row: number(row.median_deg),
        "within 11.25° %": lambda row: share(row.within_a_bin),
    },
    "The student finds its azimuth shift by itself. *Attention alone*: the mean of attention aligned "
    "at all 32 azimuth shifts, so none is given. *Another tile at the true azimuth shift*: the result of "
    "the given azimuth shift alone, since there is nothing to find.",
)
PARTS: Sequence[_Part[PointingRow] | _Part[ClassRow] | _Part[HeadingRow]] = (
    POINTING,
    CONTRIBUTION,
    POINTING_BY_CLASS,
    HEADING,
)


def _counts(report: ExplanationReport) -> str:
    return "; ".join(
        f"{row.fov_deg:g}°: {row.queries} photos, {row.patches} patches, "
        f"{row.patches_in_tile} of them inside the tile's circle"
        for row in report.rows
    )


def explanation_section(report: ExplanationReport) -> str:
    """The section of docs/results.md: the measurement, its protocol and its tables."""
    groups = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in report.groups.items())
    parts = [
        f"## Are the explanations true? ({report.data})\n",
        f"`{report.command}`, {report.date}, {report.machine}, seed {report.seed}. "
        f"{_counts(report)}. {report.protocol}\n",
    ]
    for part in PARTS:
        head, lines = part.lines(report)
        parts.append(f"**{part.title}**\n")
        parts += [f"{part.reading}\n"] if part.reading else []
        parts.append(f"{table(head, lines)}\n")
    parts.append(f"Classes counted as one: {groups}.\n")
    return "\n".join(parts)


def explanation_text(report: ExplanationReport) -> str:
    """The same tables for a terminal."""
    parts = [f"{_counts(report)}."]
    parts += [f"{part.title}\n{aligned(*part.lines(report))}" for part in PARTS]
    return "\n\n".join(parts)
