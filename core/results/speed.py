"""The report of ``bench models`` in docs/results.md."""

from __future__ import annotations

from core.results.reports import BenchReport
from core.results.tables import table

__all__ = ["speed_section"]


def speed_section(report: BenchReport) -> str:
    """Encoders compared with their transcription: milliseconds, and the speed-up."""
    return (
        "## The papers' encoders beside a plain transcription\n\nTurn by turn, same weights, "
        "the plain one in float32; of work: in processor time, without the waiting; at most: "
        "what multiply-adds alone would allow, at the speed of a large product or convolution. "
        f"Processes that wanted to run in the last minute: {report.load}. "
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
