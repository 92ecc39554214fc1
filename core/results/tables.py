"""Cells and tables of measured numbers, as Markdown and as aligned text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "number", "share", "table"]


def share(value: float | None) -> str:
    """A share in [0, 1] in per cent; empty if not measured."""
    return "" if value is None else f"{100 * value:.1f}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with the given number of digits; empty if not measured."""
    return "" if value is None else f"{value:.{digits}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same for a terminal: aligned columns, "-" for a value that was not measured."""
    cells = [list(head), *([cell or "-" for cell in line] for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    first = [line[0].ljust(widths[0]) for line in cells]
    rest = [
        [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        for line in cells
    ]
    return "\n".join("  ".join([name, *line]) for name, line in zip(first, rest, strict=True))
