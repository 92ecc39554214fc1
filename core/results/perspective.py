"""The table of towns' perspective photos."""

from __future__ import annotations

from collections.abc import Sequence

from core.results.reports import TownReport
from core.results.tables import number, share, table

__all__ = ["perspective_section"]

NAMES = {None: "no help", 200.0: "within 200 m"}


def _lines(report: TownReport) -> list[list[str]]:
    """One line of a town for each kind of help, student / re-ranked in every cell."""
    lines = []
    for radius, name in NAMES.items():
        rows = sorted(
            (row for row in report.photos if row.radius_m == radius), key=lambda row: row.reranked
        )
        if not rows:
            continue
        cells = [
            [
                *map(share, (row.within_10_m, row.within_25_m, row.standard_error_25_m)),
                share(row.within_50_m),
                number(row.median_error_m),
                number(row.median_heading_error_located_deg),
            ]
            for row in rows
        ]
        both = [" / ".join(column) for column in zip(*cells, strict=True)]
        lines.append([report.data, str(rows[0].photos), name, *both])
    return lines


def perspective_section(reports: Sequence[TownReport]) -> str:
    """Reports of ``evaluate`` on towns that have photos too."""
    lines = [line for report in reports for line in _lines(report)]
    head = ["town", "photos", "help", "10 m", "25 m", "± s.e.", "50 m", "median m", "heading °"]
    commands = "; ".join(f"`{report.command}`" for report in reports)
    return (
        "## Perspective photos, as visitors take them\n\nRendered by a pinhole camera along the street, "
        "52 to 108 degrees wide (EXIF gives the focal length to the millimetre), 4:3 or upright 3:4, "
        "lifted or lowered by up to 3 degrees; the program does not get this tilt. Student / re-ranked, "
        "in per cent; heading: "
        f"median error if the place is right. {commands}, {reports[-1].date}.\n\n"
        f"{table(head, lines)}\n"
    )
