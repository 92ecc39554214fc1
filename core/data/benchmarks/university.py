"""University-1652: buildings seen by a drone, a satellite and from the street.

Zheng, Wei, Yang: *University-1652: A Multi-view Multi-source Benchmark for Drone-based
Geo-localization*, ACM MM 2020. 701 buildings to train, 701 others to test among 250 distractors;
54 drone pictures and one satellite picture per building. Folder name = building.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from core.arrays import Int64Array
from core.data.benchmarks.files import Source, class_folders
from core.data.benchmarks.records import Benchmark, ImageFiles, TrainingPairs, nothing

__all__ = ["load_university", "load_university_pairs"]

SOURCE = Source(
    name="University-1652",
    tree="train/{drone,satellite,street,google}/ID/*.jpg, test/{query_drone,gallery_drone,"
    "query_satellite,gallery_satellite,query_street,gallery_street}/ID/*.jpg",
    access="Send the request form (Request.md) of the repository layumi/University1652-Baseline.",
)

Folders = dict[str, tuple[str, ...]]
View = Literal["drone", "satellite"]


def load_university(root: str | Path, query: View) -> Benchmark:
    """Drone pictures against satellite pictures, or the other way round.

    ``query``: "drone" locates a target (drone -> satellite, one positive), "satellite" navigates
    (satellite -> drone, all drone pictures of the building are positives).

    Raises:
        DataError: the data set is missing, or a building has queries but no reference.

    """
    test = Path(root) / "test"
    reference = "satellite" if query == "drone" else "drone"
    query_root, reference_root = test / f"query_{query}", test / f"gallery_{reference}"
    queries = class_folders(SOURCE, query_root)
    references = class_folders(SOURCE, reference_root)
    alone = [building for building in queries if building not in references]
    if alone:
        raise SOURCE.missing(reference_root / alone[0])
    rows = _rows_of(references)
    positives = tuple(rows[building] for building, files in queries.items() for _ in files)
    return Benchmark(
        name="University-1652",
        split=f"{query}->{reference}",
        protocol=f"University-1652 {query} -> {reference}: R@K counts the first picture of the "
        "building, AP all of them; the gallery holds distractors.",
        queries=ImageFiles(query_root, _flat(queries.values())),
        references=ImageFiles(reference_root, _flat(references.values())),
        positives=positives,
        ignored=nothing(len(positives)),
    )


def load_university_pairs(root: str | Path) -> TrainingPairs:
    """Every training drone picture with its building's (first) satellite picture.

    Raises:
        DataError: the data set is missing, or a building has drone pictures only.

    """
    train = Path(root) / "train"
    drone = class_folders(SOURCE, train / "drone")
    satellite = class_folders(SOURCE, train / "satellite")
    alone = [building for building in drone if building not in satellite]
    if alone:
        raise SOURCE.missing(train / "satellite" / alone[0])
    rows = _rows_of(satellite)
    aerial_of = [rows[building][0] for building, files in drone.items() for _ in files]
    return TrainingPairs(
        "University-1652",
        ImageFiles(train / "drone", _flat(drone.values())),
        ImageFiles(train / "satellite", _flat(satellite.values())),
        np.asarray(aerial_of, dtype=np.int64),
        np.empty((len(aerial_of), 0), np.int64),
    )


def _flat(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(file for files in groups for file in files)


def _rows_of(folders: Folders) -> dict[str, Int64Array]:
    """Each building's rows in the flat list."""
    rows, first = {}, 0
    for building, files in folders.items():
        rows[building] = np.arange(first, first + len(files))
        first += len(files)
    return rows
