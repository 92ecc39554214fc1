"""How long an answer takes: as a whole process, and once everything is warm.

Numbers depend on machine and load, so they are shown side by side as ratios and not judged.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from core.errors import SettingError
from core.localization.localizer import Localizer

__all__ = ["Timing", "bench_record", "bench_table", "run_bench"]


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of one thing over several runs."""

    what: str
    median_ms: float
    best_ms: float
    worst_ms: float
    runs: int


def run_bench(
    photo: Path, gallery: Path, student: Path, teacher: Path | None, repeat: int = 5
) -> list[Timing]:
    """Time one photo.

    Args:
        photo: a street photo.
        gallery: gallery folder.
        student: model folder.
        teacher: model folder, or None to measure without re-ranking.
        repeat: runs of each thing, at least 1.

    Raises:
        CoreError: the photo, the gallery or a model cannot be used.
        SettingError: ``repeat`` is below 1, or the process fails although the same works here.

    """
    if repeat < 1:
        raise SettingError(f"Repeat: got {repeat}, expected at least 1.")
    folders = ["--gallery", str(gallery), "--student", str(student)]
    folders += ["--no-rerank"] if teacher is None else ["--teacher", str(teacher)]
    whole = [sys.executable, "-m", "core", "locate", str(photo), "--json", *folders]
    started = perf_counter()
    localizer = Localizer.open(gallery, student, teacher)
    opened = perf_counter()
    localizer.locate(photo)
    first = perf_counter()
    found = [localizer.locate(photo).timings_ms for _ in range(repeat)]
    return [
        _of_runs("python alone", repeat, lambda: _process([sys.executable, "-c", "pass"])),
        _of_runs(
            "python and torch", repeat, lambda: _process([sys.executable, "-c", "import torch"])
        ),
        _of_runs("locate, whole process", repeat, lambda: _process(whole)),
        _timing("open gallery and models", [1000 * (opened - started)]),
        _timing("first locate", [1000 * (first - opened)]),
        _timing("warm locate", [steps["total"] for steps in found]),
        *(
            _timing(f"  {step}", [steps[step] for steps in found])
            for step in found[0]
            if step != "total"
        ),
    ]


def _of_runs(what: str, repeat: int, run: Callable[[], float]) -> Timing:
    return _timing(what, [run() for _ in range(repeat)])


def _process(command: Sequence[str]) -> float:
    started = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = 1000 * (perf_counter() - started)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise SettingError(
            f"Process {' '.join(command[1:4])}: got exit code {done.returncode} ({said[-1]}), "
            "expected 0. Run it by itself from the project's folder."
        )
    return elapsed


def _timing(what: str, milliseconds: Sequence[float]) -> Timing:
    return Timing(
        what, median(milliseconds), min(milliseconds), max(milliseconds), len(milliseconds)
    )


def bench_record(timings: Sequence[Timing]) -> dict[str, Any]:
    """All timings as one JSON object, with the machine's processor and Python."""
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "timings": [asdict(timing) for timing in timings],
    }


def bench_table(timings: Sequence[Timing]) -> str:
    """All timings as text; the last column compares the median with a warm locate."""
    warm = next(timing.median_ms for timing in timings if timing.what == "warm locate")
    lines = [f"{'':26}{'median':>10}{'best':>10}{'worst':>10}{'x warm':>9}"]
    lines += [
        f"{timing.what:26}{timing.median_ms:7.1f} ms{timing.best_ms:7.1f} ms"
        f"{timing.worst_ms:7.1f} ms{timing.median_ms / warm:9.2f}"
        for timing in timings
    ]
    return "\n".join(lines)
