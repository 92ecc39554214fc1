"""Whether a student knows the towns it learned from better than others: would more of them help?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from core.results.tables import share, table
from core.results.towns import LEARNED, Report, located, named

__all__ = ["seen_section"]


def _is_learned(report: Report) -> bool:
    """Towns to learn from lie in a folder of that name (``world towns --part train``)."""
    return Path(report["data"]).parent.name == "train"


def _mean(reports: Sequence[Report], title: str) -> list[str]:
    cells = []
    for fov, view in LEARNED:
        shares = [located(report, fov, view) for report in reports]
        spread = f" ± {share(stdev(shares))}" if len(shares) > 1 else ""
        cells.append(share(fmean(shares)) + spread)
    return [title, "", *cells]


def seen_section(reports: Sequence[Report]) -> str:
    """``seen-*.json``: one student on towns it learned from and on others, grown alike."""
    learned = [report for report in reports if _is_learned(report)]
    others = [report for report in reports if not _is_learned(report)]
    lines = [
        [
            Path(report["data"]).name,
            "yes" if _is_learned(report) else "no",
            *(share(located(report, fov, view)) for fov, view in LEARNED),
        ]
        for report in [*learned, *others]
    ]
    lines += [_mean(learned, "mean ± s.d.: learned from")] if learned else []
    lines += [_mean(others, "mean ± s.d.: others")] if others else []
    first, model = reports[0]["rows"][0], reports[0]["model"]
    commands = "; ".join(f"`{report['command']}`" for report in reports)
    return (
        f"## Would more towns help?\n\n{model} on towns that it learned from "
        f"({reports[0]['trained']['towns']} in all), asked panoramas that it was shown, but for a few, "
        "and on validation towns that it never saw, grown alike and as large. A student that had learned "
        "its towns by heart would do better on the first; more towns would then help. In per cent of "
        f"{first['queries']} queries within 25 m, {first['gallery']} places, heading unknown, no help; "
        f"± is between towns. {commands}, {reports[0]['date']}, {reports[0]['machine']}.\n\n"
        f"{table(['town', 'learned from', *(named(fov, view) for fov, view in LEARNED)], lines)}\n"
    )
