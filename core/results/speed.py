"""The report of ``bench models`` in docs/results.md."""

from __future__ import annotations

from core.results.reports import BenchReport
from core.results.tables import table

__all__ = ["speed_section"]


def speed_section(report: BenchReport) -> str:
    """Encoders compared with their transcription: milliseconds, and the speed-up."""
    return (
        "## The papers' encoders beside a plain transcription\n\nTimed in alternation, same weights, "
        "the transcription in float32. Of work: in processor time, without waiting. At most: the limit "
        "if only multiply-adds took time, at the speed of a large product or convolution. "
        f"Load average of the last minute: {report.load}. "
        f"`{report.command}`, {report.date}, {report.machine}, "
        f"torch {report.torch}.\n\n{_table(report)}\n"
    )


def _table(report: BenchReport) -> str:
    lines = [
        [
            row.model,
            str(row.batch),
            row.precision,
            f"{row.plain_ms:.0f}",
            f"{row.ours_ms:.0f}",
            f"{row.ratio:.2f}",
            "" if row.work_ratio is None else f"{row.work_ratio:.2f}",
            f"{row.ceiling:.2f}",
            f"{row.largest_difference:.1e}",
            f"{row.cosine_error:.1e}",
        ]
        for row in report.rows
    ]
    head = ["model", "batch", "ours in", "plain ms", "ours ms", "times as fast", "of work"]
    return table([*head, "at most", "difference", "1 - cosine"], lines)
