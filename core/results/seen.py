"""The student on its training towns and on other towns: would more towns help?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from core.results.reports import SeenReport
from core.results.tables import share, table
from core.results.towns import LEARNED, located, named

__all__ = ["seen_section"]


def _is_learned(report: SeenReport) -> bool:
    """Training towns lie in a folder of that name (``world towns --part train``)."""
    return Path(report.data).parent.name == "train"


def _mean(reports: Sequence[SeenReport], title: str) -> list[str]:
    cells = []
    for fov, view in LEARNED:
        shares = [located(report, fov, view) for report in reports]
        spread = f" ± {share(stdev(shares))}" if len(shares) > 1 else ""
        cells.append(share(fmean(shares)) + spread)
    return [title, "", *cells]


def seen_section(reports: Sequence[SeenReport]) -> str:
    """``seen-*.json``: one student on its training towns and on others, rendered by one recipe."""
    learned = [report for report in reports if _is_learned(report)]
    others = [report for report in reports if not _is_learned(report)]
    lines = [
        [
            Path(report.data).name,
            "yes" if _is_learned(report) else "no",
            *(share(located(report, fov, view)) for fov, view in LEARNED),
        ]
        for report in [*learned, *others]
    ]
    lines += [_mean(learned, "mean ± s.d.: learned from")] if learned else []
    lines += [_mean(others, "mean ± s.d.: others")] if others else []
    first = reports[0]
    commands = "; ".join(f"`{report.command}`" for report in reports)
    return (
        f"## Would more towns help?\n\n{first.model} on towns of its training "
        f"({first.trained.towns} in all) and on validation towns, rendered by the same recipe and as "
        "large. On the training towns nearly all queries are training panoramas. A student that had "
        "memorised its towns would do better on them; then more towns would help. "
        f"In per cent of {first.rows[0].queries} queries within 25 m, {first.rows[0].gallery} "
        f"places, heading unknown, no help; ± is between towns.{first.caveat} {commands}, {first.date}, "
        f"{first.machine}.\n\n"
        f"{table(['town', 'learned from', *(named(fov, view) for fov, view in LEARNED)], lines)}\n"
    )
