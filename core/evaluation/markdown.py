"""Figures as cells, and cells as a table of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["number", "share", "table"]


def share(value: object) -> str:
    """A share in 0..1 in per cent with one digit; empty for None."""
    return "" if value is None else f"{100 * float(str(value)):.1f}"


def number(value: object, digits: int = 1) -> str:
    """A number with so many digits; empty for None."""
    return "" if value is None else f"{float(str(value)):.{digits}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells below a head; the first column to the left, all others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
