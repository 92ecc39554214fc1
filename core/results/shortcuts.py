"""The report of ``shortcuts`` as one table, for docs/results.md and the terminal."""

from __future__ import annotations

from core.results.reports import ShortcutReport
from core.results.tables import aligned, share, table

__all__ = ["shortcut_section", "shortcut_text"]

HEAD = ("what is left", "queries", "hit@1 %", "25 m %", "± s.e.", "chance %")
READING = (
    "Everything else is mid-grey; for colours all pixels are in random order. Ties count against the "
    "model. Sky, weather, season and vehicles of the two captures of a town are independent. The "
    "*outline* of a part is the same mask of patches without its content, so anything that a part gains "
    "beyond its outline would be a shortcut. A tile's corners lie outside the circle of the polar view."
)


def _lines(report: ShortcutReport) -> list[list[str]]:
    lines = []
    for row in report.rows:
        shares = (row.hit_at_1, row.within_25_m, row.standard_error_25_m, row.chance_25_m)
        lines.append([f"{row.of}: {row.left}", str(row.queries), *map(share, shares)])
    return lines


def shortcut_section(report: ShortcutReport) -> str:
    """The section of docs/results.md."""
    return (
        f"## What does retrieval live on? ({report.data})\n\nFull panoramas, heading unknown, the "
        f"student alone. {READING}{report.caveat} `{report.command}`, {report.date}, {report.machine}, "
        f"{report.rows[0].gallery} places.\n\n{table(HEAD, _lines(report))}\n"
    )


def shortcut_text(report: ShortcutReport) -> str:
    """The same table for a terminal."""
    return aligned(HEAD, _lines(report))
