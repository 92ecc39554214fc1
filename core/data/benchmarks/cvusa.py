"""CVUSA: 35,532 training and 8,884 test pairs of a street panorama and an aerial picture.

Workman, Souvenir, Jacobs: *Wide-Area Image Geolocalization with Aerial Reference Imagery*, ICCV 2015;
the aligned subset of Zhai et al., CVPR 2017. Panoramas are 1232 x 224 px and already cropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.data.benchmarks.files import Source, checked_path, read_lines, require_files
from core.data.benchmarks.records import Benchmark, ImageFiles, TrainingPairs, nothing

__all__ = ["load_cvusa", "load_cvusa_pairs"]

SOURCE = Source(
    name="CVUSA",
    tree="bingmap/19/*.jpg, streetview/panos/*.jpg, splits/train-19zl.csv, splits/val-19zl.csv",
    access="Ask its authors by e-mail, through the project page of the Multimodal Vision Research "
    "Laboratory (MVRL) of the University of Kentucky.",
)
AERIAL, GROUND = "bingmap", "streetview"


def load_cvusa(root: str | Path) -> Benchmark:
    """The test pairs; row of the list = identity.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    ground, aerial = _read_split(Path(root), "val-19zl.csv")
    return Benchmark(
        name="CVUSA",
        split="val",
        protocol="CVUSA val: one aerial picture per panorama, the gallery is the aerial pictures of "
        "all test pairs (8,884 as published).",
        queries=ground,
        references=aerial,
        positives=tuple(np.arange(len(ground))[:, None]),
        ignored=nothing(len(ground)),
    )


def load_cvusa_pairs(root: str | Path) -> TrainingPairs:
    """The training pairs, 35,532 as published.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    ground, aerial = _read_split(Path(root), "train-19zl.csv")
    count = len(ground)
    return TrainingPairs("CVUSA", ground, aerial, np.arange(count), np.empty((count, 0), np.int64))


def _read_split(root: Path, file: str) -> tuple[ImageFiles, ImageFiles]:
    aerial, ground = [], []
    for where, line in read_lines(SOURCE, root / "splits" / file):
        columns = line.split(",")
        if len(columns) not in (2, 3) or '"' in line:  # the third, an annotation, is never used
            raise SOURCE.damaged(
                where,
                f"{line[:80]!r}",
                "aerial path, street path and annotation path, split by commas, without quotes",
            )
        aerial.append(_beneath(AERIAL, where, columns[0]))
        ground.append(_beneath(GROUND, where, columns[1]))
    for folder, files in ((AERIAL, aerial), (GROUND, ground)):
        require_files(SOURCE, root / folder, files)
    return ImageFiles(root / GROUND, tuple(ground)), ImageFiles(root / AERIAL, tuple(aerial))


def _beneath(folder: str, where: str, text: str) -> str:
    path = checked_path(SOURCE, where, text.strip())
    if not path.startswith(folder + "/"):  # also what a header line would be
        raise SOURCE.damaged(where, f"the path {path!r}", f"one that begins with {folder}/")
    return path.removeprefix(folder + "/")
