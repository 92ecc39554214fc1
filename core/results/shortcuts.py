"""The report of ``shortcuts`` for people: one table, in docs/results.md and at the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.results.tables import aligned, share, table

__all__ = ["shortcut_section", "shortcut_text"]

HEAD = ("what is left", "queries", "hit@1 %", "25 m %", "± s.e.", "chance %")
KEYS = ("hit@1", "within_25_m", "standard_error_25_m", "chance_25_m")
READING = (
    "Everything else is mid-grey, or its pixels lie at places drawn by lot (colours). Ties count against "
    "the model. Sky, weather, season and vehicles of the two captures of a town are independent; the "
    "*outline* of a part is the same mask of patches without anything in it, so what a part has beyond "
    "its outline would be a shortcut. A tile's corners lie outside the circle of the polar view."
)


def _lines(report: Mapping[str, Any]) -> list[list[str]]:
    return [
        [f"{row['of']}: {row['left']}", str(row["queries"]), *(share(row[key]) for key in KEYS)]
        for row in report["rows"]
    ]


def shortcut_section(report: Mapping[str, Any]) -> str:
    """The section of docs/results.md."""
    return (
        f"## What does retrieval live on? ({report['data']})\n\nFull panoramas, heading unknown, the "
        f"student alone. {READING} `{report['command']}`, {report['date']}, {report['machine']}, "
        f"{report['rows'][0]['gallery']} places.\n\n{table(HEAD, _lines(report))}\n"
    )


def shortcut_text(report: Mapping[str, Any]) -> str:
    """The same table for a terminal."""
    return aligned(HEAD, _lines(report))
