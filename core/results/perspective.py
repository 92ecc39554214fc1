"""The table of what towns' perspective photos came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.results.tables import number, share, table

__all__ = ["perspective_section"]

Row = Mapping[str, Any]
NAMES = {None: "no help", 200.0: "within 200 m"}


def _lines(report: Row) -> list[list[str]]:
    """One line of a town for each kind of help, student / re-ranked in every cell."""
    lines = []
    for radius, name in NAMES.items():
        rows = sorted(
            (row for row in report["photos"] if row["radius_m"] == radius),
            key=lambda row: bool(row["reranked"]),
        )
        if not rows:
            continue
        shares = ("within_10_m", "within_25_m", "standard_error_25_m", "within_50_m")
        numbers = ("median_error_m", "median_heading_error_located_deg")
        cells = [" / ".join(share(row[key]) for row in rows) for key in shares]
        cells += [" / ".join(number(row[key]) for row in rows) for key in numbers]
        lines.append([str(report["data"]), str(rows[0]["photos"]), name, *cells])
    return lines


def perspective_section(reports: Sequence[Row]) -> str:
    """Reports of ``evaluate`` that asked a town's photos too."""
    lines = [line for report in reports for line in _lines(report)]
    head = ["town", "photos", "help", "10 m", "25 m", "± s.e.", "50 m", "median m", "heading °"]
    commands = "; ".join(f"`{report['command']}`" for report in reports)
    return (
        "## Perspective photos, as visitors take them\n\nRendered by a pinhole camera along the street, "
        "52 to 108 degrees wide (told by EXIF to the millimetre), 4:3 or upright 3:4, lifted or lowered "
        "by up to 3 degrees, which nobody tells the program. Student / re-ranked, in per cent; heading: "
        f"median error where the place is right. {commands}, {reports[-1]['date']}.\n\n"
        f"{table(head, lines)}\n"
    )
