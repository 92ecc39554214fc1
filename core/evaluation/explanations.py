"""Are explanations true? Attention and contribution factors beside what each patch really shows.

The demo world knows for every patch of a panorama which class it shows and where that lies, so an
explanation is measured instead of admired: pointing error, contribution by class, heading error
(docs/geossk.md section 7). Arrays in, figures out; no model here.

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
"""Classes of a world that are told as one; a name that stands nowhere counts as other."""


@dataclass(frozen=True)
class Looks:
    """Q photos, each met with its true tile at its true azimuth shift, and the truth about their patches.

    Attributes:
        attention: (Q, N, M), ground to aerial, rows summing to 1.
        wrong_tile: (Q, N, M), the same photos at the same azimuth shifts met with a tile of another
            place: what remains of attention when there is nothing to be found.
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
    """Distance (..., N) from the expected place under attention (..., N, M) to the true one."""
    return _length(attention @ sector_offsets_m(side_m).astype(np.float64) - offsets_m)


def _sector_distance(offsets_m: FloatArray, side_m: float) -> FloatArray:
    """Distance (..., N, M) from every sector's centre to the true place (..., N, 2)."""
    return _length(sector_offsets_m(side_m) - offsets_m[..., None, :])


def strongest_error(attention: FloatArray, offsets_m: FloatArray, side_m: float) -> FloatArray:
    """Distance (..., N) from the centre of the strongest sector to the true place.

    Ties count against attention: of equally strong sectors the farthest is taken.
    """
    strongest = attention >= attention.max(axis=-1, keepdims=True)
    distance = _sector_distance(offsets_m, side_m)
    return np.asarray(np.where(strongest, distance, -np.inf).max(axis=-1))


def _bearing_error(looks: Looks, inside: BoolArray) -> FloatArray:
    """Error (Q, N) of who knows each patch's azimuth and how far its row of patches looks on average.

    The average distance of a row is taken from the truth of these very patches, which favours
    this guess: attention has to beat what geometry knows without a look at the tile.
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
    """Errors (Q, N) of attention and of what it must beat, by name; nan where there is no truth."""
    truth = looks.offsets_m
    # Floats as exact as the tile is symmetric: an even share then points at its very centre.
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

    Patches of one photo are alike, so the error is that of a ratio of sums over photos (Cochran,
    "Sampling Techniques", section 6.3); None for fewer than two photos.
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
    """Median and mean error of attention and of every guess beside it, all over the same patches.

    The patches are those whose content lies inside the circle of the tile's polar view. Without
    one there are no figures: None. ``side_m``: side of the tile.
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
    """For each group of classes its contribution, N * phi (1 is the even share), and its pointing.

    ``beside_row``: the same less the mean of all patches of the same row of the canvas. Sky is
    high and road is low, so a bare mean may only say where a class lies; this does not.
    Patches and photos are counted; a group that is nowhere has None for figures.
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

    ``truth_deg``: (Q,). A guess that knows nothing has a median of 90 degrees.
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
