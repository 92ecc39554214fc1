"""Would something score well here for a wrong reason? Photos and tiles of which only a part is left.

A rendered town knows what each patch of a panorama shows, so a photo can be reduced to its sky, to its
vehicles, to the bare outline of its sky, or to its colours without their order; a tile to its corners or
its colours. What is left of the recall says what retrieval lives on. Sky and vehicles differ between the
two captures of a town by construction, so alone they must find nothing but by their outline.

Q photos (Q, h, w, 3) uint8 of the full circle, with the classes (Q, 4, 32) of their patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, Float64Array, UInt8Array
from core.data.worlds import PatchTruth, Town, with_truth_of
from core.evaluation.descriptors import (
    Queries,
    cut_queries,
    describe_places,
    describe_views,
    draw_crops,
    match,
    town_grid,
    town_viewpoints,
)
from core.evaluation.metrics import (
    rank_of_truth,
    recall_at,
    share_within,
    standard_error,
    worst_first_place,
)
from core.models.two_branch import TwoBranch
from core.photos.canvas import UNSEEN
from core.polar import BINS

__all__ = ["OF_PHOTOS", "OF_TILES", "measure_shortcuts"]

Random = np.random.Generator
Row = dict[str, object]


def _pixels(patches: BoolArray, views: UInt8Array) -> BoolArray:
    """Patches (Q, 4, 32) as pixels (Q, h, w, 1) of their photos."""
    height, width = views.shape[1] // patches.shape[1], views.shape[2] // patches.shape[2]
    return patches.repeat(height, axis=1).repeat(width, axis=2)[..., None]


def _keep(views: UInt8Array, patches: BoolArray) -> UInt8Array:
    return np.where(_pixels(patches, views), views, np.uint8(UNSEEN))


def _outline(views: UInt8Array, patches: BoolArray) -> UInt8Array:
    return np.where(_pixels(patches, views), np.uint8(255), np.uint8(UNSEEN)).repeat(3, axis=3)


def _shuffled(views: UInt8Array, random: Random) -> UInt8Array:
    """All pixels of each picture at places drawn by lot."""
    flat = views.reshape(len(views), -1, 3)
    order = np.stack([random.permutation(flat.shape[1]) for _ in flat])
    return np.take_along_axis(flat, order[..., None], axis=1).reshape(views.shape)


def _shuffled_rows(views: UInt8Array, random: Random) -> UInt8Array:
    """The pixels of each row of each picture at places drawn by lot: no azimuth is left."""
    order = np.argsort(random.random(views.shape[:3]), axis=2)
    return np.take_along_axis(views, order[..., None], axis=2)


OF_PHOTOS: Mapping[str, Callable[[UInt8Array, BoolArray, BoolArray, Random], UInt8Array]] = {
    "whole": lambda views, sky, cars, random: views,
    "sky only": lambda views, sky, cars, random: _keep(views, sky),
    "outline of the sky only": lambda views, sky, cars, random: _outline(views, sky),
    "without sky": lambda views, sky, cars, random: _keep(views, ~sky),
    "vehicles only": lambda views, sky, cars, random: _keep(views, cars),
    "outline of vehicles only": lambda views, sky, cars, random: _outline(views, cars),
    "without vehicles": lambda views, sky, cars, random: _keep(views, ~cars),
    "colours only": lambda views, sky, cars, random: _shuffled(views, random),
    "colours of each row only": lambda views, sky, cars, random: _shuffled_rows(views, random),
}
"""What is left of photos: of views, where they show sky, where vehicles, and a generator."""


def _corners(tiles: UInt8Array, random: Random) -> UInt8Array:
    """Only what lies outside the circle of the polar view."""
    side = tiles.shape[1]
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    outside = np.hypot(axis[:, None], axis[None]) > 1
    return np.where(outside[None, ..., None], tiles, np.uint8(UNSEEN))


OF_TILES: Mapping[str, Callable[[UInt8Array, Random], UInt8Array]] = {
    "corners only": _corners,
    "colours only": _shuffled,
}
"""What is left of tiles (n, S, S, 3), photos being whole."""


class _Changed:
    """A town whose tiles are changed as they are cut."""

    def __init__(
        self, town: Town, change: Callable[[UInt8Array, Random], UInt8Array], seed: int
    ) -> None:
        self._town, self._change = town, change
        self._random = np.random.default_rng(seed)

    def crop_tiles(self, centres: Float64Array, pixels: int) -> UInt8Array:
        return self._change(self._town.crop_tiles(centres, pixels), self._random)


def measure_shortcuts(
    town: Town, truth: PatchTruth, student: TwoBranch, count: int = 300, seed: int = 0
) -> list[Row]:
    """Recall of full panoramas at unknown heading for each thing that is left of photos or tiles.

    Photos that show no vehicle are left out where only vehicles are left.

    Args:
        town: with its imagery.
        truth: what the patches of this very town's panoramas show.
        student: in evaluation mode.
        count: panoramas, at most as many as there are.
        seed: of the panoramas and of every order that is drawn.

    Raises:
        WorldError: the truth of another number of panoramas.

    """
    with_truth_of(town, truth)  # refuses another town's
    chosen, _ = draw_crops(town, BINS, count, seed)
    queries = cut_queries(town, BINS, chosen, np.zeros(len(chosen), np.int64))
    names = np.array(truth.class_names)[truth.class_id[chosen]]
    sky, cars = names == "sky", names == "vehicle"
    centres = town_grid(town)
    points = town_viewpoints(centres)
    places = describe_places(student, town, points)
    rows = []
    for name, change in tqdm(OF_PHOTOS.items(), desc="shortcuts", leave=False):
        left = change(queries.views, sky, cars, np.random.default_rng((seed, 1)))
        shown = (
            cars.any(axis=(1, 2)) if name.endswith("vehicles only") else np.full(len(cars), True)
        )
        asked = _some(replace(queries, views=np.ascontiguousarray(left)), shown)
        rows.append({"of": "photo", "left": name, **_figures(student, asked, places, centres)})
    for name, cut in OF_TILES.items():
        # Any: it offers the one thing that describing places asks of a town.
        changed = describe_places(student, _Changed(town, cut, seed), points)  # type: ignore[arg-type]
        rows.append({"of": "tile", "left": name, **_figures(student, queries, changed, centres)})
    return rows


def _some(queries: Queries, shown: BoolArray) -> Queries:
    return replace(
        queries,
        views=queries.views[shown],
        places=queries.places[shown],
        heading_deg=queries.heading_deg[shown],
    )


def _figures(student: TwoBranch, queries: Queries, places: object, centres: Float64Array) -> Row:
    if not len(queries.views):
        empty = ("hit@1", "within_25_m", "standard_error_25_m", "chance_25_m")
        return {"queries": 0, "gallery": len(centres), **dict.fromkeys(empty)}
    matches = match(describe_views(student, queries), places, bins=student.bins)  # type: ignore[arg-type]
    distance = np.linalg.norm(queries.places[:, None] - centres[None], axis=2)
    ranks = rank_of_truth(matches.similarity, distance.argmin(axis=1))
    first = worst_first_place(matches.similarity, distance)
    near = share_within(distance[np.arange(len(first)), first], 25)
    return {
        "queries": len(first),
        "gallery": len(centres),
        "hit@1": recall_at(ranks, 1),
        "within_25_m": near,
        "standard_error_25_m": standard_error(near, len(first)),
        "chance_25_m": float((distance <= 25).mean()),
    }
