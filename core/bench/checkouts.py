"""How long a warm answer takes in two checkouts, this one and another, in one run.

Each is asked in a process of its own, in its own folder, by the public Python API, which stays the same
from one version to the next. They take turns, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from core.errors import SettingError

__all__ = ["Beside", "compare_checkouts"]

_SCRIPT = """
import glob, json, sys, time
sys.path.insert(0, ".")
from core.localizer import Localizer
photos = sorted(glob.glob("assets/examples/*.jpg"))
localizer = Localizer.open("assets/town", "assets/models/student", "assets/models/teacher")
localizer.locate(photos[0])
spent = []
for photo in photos:
    started = time.perf_counter()
    localizer.locate(photo)
    spent.append(1000 * (time.perf_counter() - started))
print(json.dumps(spent))
"""


@dataclass(frozen=True)
class Beside:
    """Median milliseconds of a warm answer here and in the other checkout; ``ratio``: other / here."""

    here_ms: float
    other_ms: float
    ratio: float
    photos: int
    rounds: int


def compare_checkouts(other: Path, here: Path = Path(), rounds: int = 3) -> Beside:
    """Ask both checkouts their own demo town, in turns.

    Args:
        other: folder of the other checkout, with its assets.
        here: folder of this one.
        rounds: how often each is asked all examples.

    Raises:
        SettingError: one of them cannot answer.

    """
    spent: dict[Path, list[float]] = {here: [], other: []}
    for _ in range(rounds):
        for folder in (here, other):
            spent[folder] += _spent(folder)
    mine, theirs = median(spent[here]), median(spent[other])
    return Beside(mine, theirs, theirs / mine, len(spent[here]) // rounds, rounds)


def _spent(folder: Path) -> list[float]:
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise SettingError(
            f"Checkout {folder}: got no answer ({said[-1]}), expected one about its demo town. Name the "
            "folder of a checkout with assets."
        )
    return [float(one) for one in json.loads(done.stdout.splitlines()[-1])]
