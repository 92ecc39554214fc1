"""CVACT: street panoramas of Canberra with aerial pictures and UTM positions.

Liu, Li: *Lending Orientation to Neural Networks for Cross-view Geo-localization*, CVPR 2019.
35,532 training and 8,884 validation pairs in ANU_data_small, 92,802 test pairs in ANU_data_test.
Panoramas are 1664 x 832 px; only the middle half of the height is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.arrays import Float64Array, Int64Array
from core.data.benchmarks.files import Source, are_there, checked_name, read_mat, whole_numbers
from core.data.benchmarks.records import Benchmark, ImageFiles, TrainingPairs, nothing

__all__ = ["HIT_RADIUS_M", "load_cvact", "load_cvact_pairs"]

HIT_RADIUS_M = 5.0
"""CVACT_test: an aerial picture within this distance of the query counts as found (RecallGeo.m)."""

SOURCE = Source(
    name="CVACT",
    tree="ACT_data.mat, ANU_data_small/{streetview/ID_grdView.jpg, satview_polish/ID_satView_polish.jpg}"
    " and ANU_data_test/ with the same two folders",
    access="Request the pictures as the README of the repository Liumouliu/OriCNN says; "
    "ACT_data.mat lies in that repository.",
)

Split = Literal["train", "val", "test"]
SETS: dict[Split, tuple[str, str, str]] = {
    "train": ("trainSet", "trainInd", "ANU_data_small"),
    "val": ("valSet", "valInd", "ANU_data_small"),
    "test": ("valSetAll", "valInd", "ANU_data_test"),
}
PROTOCOLS = {
    "val": "CVACT_val: one aerial picture per panorama, the gallery is the aerial pictures of all "
    "validation pairs (8,884 as published).",
    "test": "CVACT_test: any aerial picture within 5 m (UTM) of the panorama counts as found, the "
    "gallery is the aerial pictures of all test pairs (92,802 as published).",
}


@dataclass(frozen=True)
class _Pairs:
    """Pairs on disk: pictures, (N, 2) metres, and the number of missing listed pairs."""

    ground: ImageFiles
    aerial: ImageFiles
    xy_m: Float64Array
    skipped: int


def load_cvact(root: str | Path, split: Literal["val", "test"]) -> Benchmark:
    """The validation or the test pairs; those with a missing picture are skipped and counted.

    Raises:
        DataError: the data set is not there, or ACT_data.mat is not as published.

    """
    pairs = _read_pairs(Path(root), split)
    count = len(pairs.ground)
    own = tuple(np.arange(count)[:, None])
    return Benchmark(
        name="CVACT",
        split=split,
        protocol=PROTOCOLS[split],
        queries=pairs.ground,
        references=pairs.aerial,
        positives=own if split == "val" else _all_near(pairs.xy_m),
        ignored=nothing(count),
        skipped=pairs.skipped,
        query_xy_m=pairs.xy_m,
        reference_xy_m=pairs.xy_m,
    )


def load_cvact_pairs(root: str | Path) -> TrainingPairs:
    """The training pairs; those with a missing picture are skipped and counted.

    Raises:
        DataError: the data set is not there, or ACT_data.mat is not as published.

    """
    pairs = _read_pairs(Path(root), "train")
    count = len(pairs.ground)
    none = np.empty((count, 0), np.int64)
    return TrainingPairs("CVACT", pairs.ground, pairs.aerial, np.arange(count), none, pairs.skipped)


def _all_near(xy_m: Float64Array) -> tuple[Int64Array, ...]:
    """Rows within 5 m of each row, its own first."""
    from scipy.spatial import cKDTree  # the command line lists the benchmarks and must start fast

    found = cKDTree(xy_m).query_ball_point(xy_m, HIT_RADIUS_M)
    return tuple(
        np.asarray([own, *sorted(set(near) - {own})], dtype=np.int64)
        for own, near in enumerate(found)
    )


def _read_pairs(root: Path, split: Split) -> _Pairs:
    path = root / "ACT_data.mat"
    group, field, folder = SETS[split]
    mat = read_mat(SOURCE, path, ("panoIds", "utm", group))
    ids, utm = _pano_ids(path, mat["panoIds"]), np.asarray(mat["utm"])
    if utm.shape != (len(ids), 2) or utm.dtype.kind not in "iuf" or not np.isfinite(utm).all():
        got = f"utm {utm.shape} of {utm.dtype}"
        raise SOURCE.damaged(path, got, f"{len(ids)} x 2 numbers, one row per panorama")
    rows = _rows(path, mat[group], group, field, len(ids))
    ground = [f"{ids[row]}_grdView.jpg" for row in rows]
    aerial = [f"{ids[row]}_satView_polish.jpg" for row in rows]
    ground_root, aerial_root = root / folder / "streetview", root / folder / "satview_polish"
    # Distributed archives lack some listed pictures; TransGeo and Sample4Geo leave them out too.
    kept = np.flatnonzero(are_there(ground_root, ground) & are_there(aerial_root, aerial))
    if not len(kept):
        raise SOURCE.missing(ground_root / ground[0])
    return _Pairs(
        ImageFiles(ground_root, tuple(ground[k] for k in kept), keeps_middle_half=True),
        ImageFiles(aerial_root, tuple(aerial[k] for k in kept)),
        utm[rows[kept]].astype(np.float64),
        len(rows) - len(kept),
    )


def _pano_ids(path: Path, values: object) -> list[str]:
    """Panorama names, from a character matrix or a cell array of strings."""
    cells = [np.asarray(value).ravel() for value in np.asarray(values).ravel()]
    if not cells or not all(len(cell) == 1 and cell.dtype.kind == "U" for cell in cells):
        raise SOURCE.damaged(path, "panoIds that are no strings", "one string per panorama")
    return [checked_name(SOURCE, f"{path}, panoIds", str(cell[0]).strip()) for cell in cells]


def _rows(path: Path, record: object, group: str, field: str, count: int) -> Int64Array:
    """0-based rows of a split out of MATLAB's 1-based ones."""
    where = f"{path}, {group}.{field}"
    try:
        values = np.asarray(record)[field][0][0]
    except (IndexError, ValueError, TypeError) as error:
        raise SOURCE.damaged(path, f"no field {group}.{field}", "a struct with it") from error
    numbers = whole_numbers(SOURCE, where, values)
    outside = numbers[(numbers < 1) | (numbers > count)]
    if len(outside):
        raise SOURCE.damaged(where, f"the index {outside[0]}", f"indices from 1 to {count}")
    return numbers - 1
