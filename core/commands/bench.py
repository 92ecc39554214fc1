"""``bench``: how long an answer takes on this machine."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from core.errors import PhotoError

__all__ = ["bench"]

EXAMPLES = Path("assets/examples")


def bench(
    photo: Annotated[
        Path | None, typer.Argument(help="Photo to time; by default the first example.")
    ] = None,
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")] = Path("assets/town"),
    student: Annotated[Path, typer.Option(help="Model folder.")] = Path("assets/models/student"),
    teacher: Annotated[Path, typer.Option(help="Model folder.")] = Path("assets/models/teacher"),
    rerank: Annotated[bool, typer.Option(help="With the teacher's second look.")] = True,
    repeat: Annotated[int, typer.Option(help="Runs of each thing.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time locate as a whole process and once warm, side by side."""
    chosen = photo or _first_example()
    from core.bench import bench_record, bench_table, run_bench

    timings = run_bench(chosen, gallery, student, teacher if rerank else None, repeat)
    print(json_module.dumps(bench_record(timings)) if json else bench_table(timings))


def _first_example() -> Path:
    examples = sorted(EXAMPLES.glob("*.jpg"))
    if not examples:
        raise PhotoError(
            f"Examples {EXAMPLES}: got no photo, expected the project's examples. Name a photo, or "
            "run this in the project's folder."
        )
    return examples[0]
