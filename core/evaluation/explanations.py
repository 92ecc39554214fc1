"""Are explanations true? Compare attention and contribution factors with the content of each patch.

The demo world records the class and the place of the content of every patch of a panorama. So
explanations can be measured: pointing error, contribution by class, heading error
(docs/geossk.md section 7). Arrays in, metrics out; no model here.

Axes: Q photos of n azimuth bins, N = 4 n patches (row by row from the top), M = 128 sectors of a
tile (``core.explain.pair.sector_offsets_m``). Distances in metres, in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.arrays import BoolArray, FloatArray, IntArray
from core.explain.pair import sector_offsets_m
from core.geo import angle_difference_deg
from core.polar import BIN_DEG, RINGS

__all__ = [
    "GROUPS",
    "Looks",
    "class_metrics",
    "expected_error",
    "group_of",
    "heading_metrics",
    "pointing_metrics",
    "strongest_error",
]

Row = dict[str, object]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "building": ("wall", "roof"),
    "tree": ("tree", "hedge"),
    "road": ("road", "marking", "parking"),
    "pavement": ("pavement", "path"),
    "green": ("grass", "field", "bare"),
    "vehicle": ("vehicle",),
    "sky": ("sky",),
    "other": ("water", "rail", "fence", "furniture"),
}
"""Classes of a world that are reported as one group. A class in no group counts as other."""


@dataclass(frozen=True)
class Looks:
    """Q photos, aligned with their true tiles at the true azimuth shifts, and their patches' truth.

    Attributes:
        attention: (Q, N, M), ground to aerial, rows summing to 1.
        wrong_tile: (Q, N, M), the same photos at the same azimuth shifts, aligned with a tile of
            another place: the attention when there is nothing to find.
        phi: (Q, N), contribution factors, summing to 1 over a photo.
        groups: (Q, N), index into the names of ``GROUPS``.
        offsets_m: (Q, N, 2), where the content lies, east and north of the tile's centre; nan: sky.
        azimuth_deg: (Q, n), true azimuth of the middle of each column of patches.

    """

    attention: FloatArray
    wrong_tile: FloatArray
    phi: FloatArray
    groups: IntArray
    offsets_m: FloatArray
    azimuth_deg: FloatArray

    def inside(self, side_m: float) -> BoolArray:
        """Patches (Q, N) whose content lies within the circle of the tile's polar view."""
        return np.asarray(_length(self.offsets_m) < side_m / 2)  # nan is not less: sky is out


def group_of(class_names: tuple[str, ...]) -> IntArray:
    """Index into the names of ``GROUPS`` of each class of a world (classes,)."""
    names = list(GROUPS)
    known = {name: names.index(group) for group, parts in GROUPS.items() for name in parts}
    return np.array([known.get(name, names.index("other")) for name in class_names])


def _length(vectors: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def expected_error(attention: FloatArray, offsets_m: FloatArray, side_m: float) -> FloatArray:
    """Distance (..., N) from the expected place under attention (..., N, M) to the true place."""
    return _length(attention @ sector_offsets_m(side_m).astype(np.float64) - offsets_m)


def _sector_distance(offsets_m: FloatArray, side_m: float) -> FloatArray:
    """Distance (..., N, M) from every sector's centre to the true place (..., N, 2)."""
    return _length(sector_offsets_m(side_m) - offsets_m[..., None, :])


def strongest_error(attention: FloatArray, offsets_m: FloatArray, side_m: float) -> FloatArray:
    """Distance (..., N) from the centre of the strongest sector to the true place.

    Ties count against attention: of equally strong sectors the farthest counts.
    """
    strongest = attention >= attention.max(axis=-1, keepdims=True)
    distance = _sector_distance(offsets_m, side_m)
    return np.asarray(np.where(strongest, distance, -np.inf).max(axis=-1))


def _bearing_error(looks: Looks, inside: BoolArray) -> FloatArray:
    """Error (Q, N) of a guess from each patch's true azimuth and the mean distance of its row.

    The mean distance of a row comes from the truth of the same patches, which favours this guess.
    It is the geometric baseline: it never uses the tile.
    """
    columns = looks.azimuth_deg.shape[1]
    rows = np.repeat(np.arange(RINGS), columns)
    away = np.where(inside, _length(looks.offsets_m), 0.0)
    radius = np.array(
        [away[:, rows == r].sum() / max(1, inside[:, rows == r].sum()) for r in range(RINGS)]
    )
    azimuth = np.radians(np.tile(looks.azimuth_deg, (1, RINGS)))
    guess = radius[rows][:, None] * np.stack([np.sin(azimuth), np.cos(azimuth)], axis=-1)
    return _length(guess - looks.offsets_m)


def _guesses(looks: Looks, side_m: float, inside: BoolArray) -> dict[str, FloatArray]:
    """Errors (Q, N) of attention and of its baselines, by name; nan where there is no truth."""
    truth = looks.offsets_m
    # In float64 uniform attention points exactly at the centre of the symmetric tile.
    even = np.full(looks.attention.shape[-1], 1.0 / looks.attention.shape[-1])
    distance = _sector_distance(truth, side_m)
    return {
        "attention": expected_error(looks.attention, truth, side_m),
        "attention, another tile": expected_error(looks.wrong_tile, truth, side_m),
        "uniform attention": _length(even @ sector_offsets_m(side_m).astype(np.float64) - truth),
        "tile's centre": _length(truth),
        "own azimuth": _bearing_error(looks, inside),
        "strongest sector": strongest_error(looks.attention, truth, side_m),
        "strongest sector, another tile": strongest_error(looks.wrong_tile, truth, side_m),
        "nearest sector": distance.min(axis=-1),
        "sector drawn by attention": (looks.attention * distance).sum(axis=-1),
        "sector drawn evenly": distance.mean(axis=-1),
    }


def _mean_and_error(values: FloatArray, chosen: BoolArray) -> tuple[float, float | None]:
    """Mean over chosen patches (Q, N), and its standard error with photos as the sampling unit.

    Patches of one photo are correlated, so the error is that of a ratio of sums over photos (Cochran,
    "Sampling Techniques", section 6.3). None for fewer than two photos.
    """
    values = np.where(chosen, values, 0.0)
    counts = chosen.sum(axis=1)
    mean = float(values.sum() / counts.sum())
    photos = int((counts > 0).sum())
    if photos < 2:
        return mean, None
    rest = values.sum(axis=1) - mean * counts
    return mean, float(np.sqrt((rest**2).sum() * photos / (photos - 1)) / counts.sum())


def pointing_metrics(looks: Looks, side_m: float) -> list[Row]:
    """Median and mean error of attention and of every baseline, all over the same patches.

    The patches are those whose content lies inside the circle of the tile's polar view. The metrics
    are None without such a patch. ``side_m``: side of the tile.
    """
    inside = looks.inside(side_m)
    rows: list[Row] = []
    for name, errors in _guesses(looks, side_m, inside).items():
        row: Row = {"guess": name, "median_m": None, "mean_m": None, "standard_error_m": None}
        if inside.any():
            mean, error = _mean_and_error(errors, inside)
            row |= {"median_m": float(np.median(errors[inside])), "mean_m": mean}
            row["standard_error_m"] = error
        rows.append(row)
    return rows


def class_metrics(looks: Looks, side_m: float) -> list[Row]:
    """For each group of classes: its contribution N * phi (1 is the even share), and its pointing.

    ``beside_row``: the contribution minus the mean of all patches in the same row of the canvas. Sky
    is high and road is low, so a plain mean may only reflect the height; this difference does not.
    Patches and photos are counted. The metrics of a group without patches are None.
    """
    share = looks.phi * looks.phi.shape[1]
    by_row = share.reshape(len(share), RINGS, -1)
    beside = (by_row - by_row.mean(axis=(0, 2), keepdims=True)).reshape(share.shape)
    inside = looks.inside(side_m)
    errors = {
        "attention": expected_error(looks.attention, looks.offsets_m, side_m),
        "own_azimuth": _bearing_error(looks, inside),
    }
    rows: list[Row] = []
    for number, name in enumerate(GROUPS):
        chosen = looks.groups == number
        row: Row = {"class": name, "patches": int(chosen.sum())}
        row["photos"] = int(chosen.any(axis=1).sum())
        for key, values in (("contribution", share), ("beside_row", beside)):
            mean, error = _mean_and_error(values, chosen) if chosen.any() else (None, None)
            row |= {key: mean, f"{key}_standard_error": error}
        placed = chosen & inside
        row["patches_in_tile"] = int(placed.sum())
        for key, values in errors.items():
            row[f"{key}_median_m"] = float(np.median(values[placed])) if placed.any() else None
        rows.append(row)
    return rows


def heading_metrics(truth_deg: FloatArray, found_deg: Mapping[str, FloatArray]) -> list[Row]:
    """Median error and share within one bin (11.25 degrees) of headings (Q,) by their source.

    ``truth_deg``: (Q,). A random guess has a median of 90 degrees.
    """
    rows: list[Row] = []
    for source, headings in found_deg.items():
        wrong = angle_difference_deg(headings, truth_deg)
        rows.append(
            {
                "source": source,
                "median_deg": float(np.median(wrong)),
                "within_a_bin": float(np.mean(wrong <= BIN_DEG)),
            }
        )
    return rows
