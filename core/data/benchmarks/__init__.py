"""The published benchmarks, read from their published layouts: file lists and arrays, no model.

None is bundled: each needs its authors' permission. The error for a missing one says how to get it.
``BENCHMARKS`` holds the test parts and ``TRAINING_PAIRS`` the training parts, by name. A model trained
on any training part can be measured on any test part. A new benchmark is a file that reads it, and its
lines here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from core.data.benchmarks.classes import load_cars, load_cub, load_products
from core.data.benchmarks.cvact import load_cvact, load_cvact_pairs
from core.data.benchmarks.cvusa import load_cvusa, load_cvusa_pairs
from core.data.benchmarks.records import Benchmark, ImageFiles, TilePlaces, TrainingPairs
from core.data.benchmarks.university import load_university, load_university_pairs
from core.data.benchmarks.vigor import load_vigor, load_vigor_pairs
from core.errors import SettingError

__all__ = [
    "BENCHMARKS",
    "TRAINING_PAIRS",
    "Benchmark",
    "ImageFiles",
    "TilePlaces",
    "TrainingPairs",
    "open_benchmark",
    "open_training_pairs",
]

Opened = TypeVar("Opened")
Loader = Callable[[str | Path], Opened]

BENCHMARKS: dict[str, Loader[Benchmark]] = {
    "cvusa": load_cvusa,
    "cvact-val": partial(load_cvact, split="val"),
    "cvact-test": partial(load_cvact, split="test"),
    "vigor-same": partial(load_vigor, area="same"),
    "vigor-cross": partial(load_vigor, area="cross"),
    "vigor-same-corrected": partial(load_vigor, area="same", corrected=True),
    "vigor-cross-corrected": partial(load_vigor, area="cross", corrected=True),
    "university-drone": partial(load_university, query="drone"),
    "university-satellite": partial(load_university, query="satellite"),
    "cub": load_cub,
    "cars": load_cars,
    "products": load_products,
}

TRAINING_PAIRS: dict[str, Loader[TrainingPairs]] = {
    "cvusa": load_cvusa_pairs,
    "cvact": load_cvact_pairs,
    "vigor-same": partial(load_vigor_pairs, area="same"),
    "vigor-cross": partial(load_vigor_pairs, area="cross"),
    "vigor-same-corrected": partial(load_vigor_pairs, area="same", corrected=True),
    "vigor-cross-corrected": partial(load_vigor_pairs, area="cross", corrected=True),
    "university": load_university_pairs,
}


def open_benchmark(name: str, root: str | Path) -> Benchmark:
    """The test part ``name`` of ``BENCHMARKS`` from the data set's folder.

    Raises:
        SettingError: there is no such name.
        DataError: the data set is missing or not in its published layout.

    """
    return _loader("Benchmark", BENCHMARKS, name)(root)


def open_training_pairs(name: str, root: str | Path) -> TrainingPairs:
    """The training part ``name`` of ``TRAINING_PAIRS``; raises like ``open_benchmark``."""
    return _loader("Training pairs", TRAINING_PAIRS, name)(root)


def _loader(kind: str, loaders: dict[str, Loader[Opened]], name: str) -> Loader[Opened]:
    if name not in loaders:
        raise SettingError(f"{kind}: got {name!r}, expected one of {', '.join(loaders)}.")
    return loaders[name]
