"""Does the model use shortcuts? Measure recall when only a part of each photo or tile is kept.

The content of each patch of a rendered panorama is known. So a photo can be reduced to its sky, to its
vehicles, to the outline of its sky, or to its shuffled colours; a tile to its corners or its shuffled
colours. The remaining recall shows what retrieval relies on. Sky and vehicles differ between the two
captures of a town by construction. So they must find nothing, except by their outline.

Q photos (Q, h, w, 3) uint8 of the full circle, with the classes (Q, 4, 32) of their patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, UInt8Array
from core.data.worlds import PatchTruth, Town, with_truth_of
from core.evaluation.answers import RIGHT_M, DescribedTown
from core.evaluation.metrics import recall_at, share_within, standard_error
from core.evaluation.queries import Queries, cut_queries, draw_crops
from core.evaluation.towns import TownReferences
from core.localization.answer import Models
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
    """All pixels of each picture in random order."""
    flat = views.reshape(len(views), -1, 3)
    order = np.stack([random.permutation(flat.shape[1]) for _ in flat])
    return np.take_along_axis(flat, order[..., None], axis=1).reshape(views.shape)


def _shuffled_rows(views: UInt8Array, random: Random) -> UInt8Array:
    """The pixels of each row of each picture in random order: no azimuth is left."""
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
"""Reductions of photos: functions of views, their sky mask, their vehicle mask, and a generator."""


def _corners(tiles: UInt8Array, random: Random) -> UInt8Array:
    """Keep only the part outside the circle of the polar view."""
    side = tiles.shape[1]
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    outside = np.hypot(axis[:, None], axis[None]) > 1
    return np.where(outside[None, ..., None], tiles, np.uint8(UNSEEN))


OF_TILES: Mapping[str, Callable[[UInt8Array, Random], UInt8Array]] = {
    "corners only": _corners,
    "colours only": _shuffled,
}
"""Reductions of tiles (n, S, S, 3); the photos stay whole."""


def _changed(
    cut: Callable[[UInt8Array, Random], UInt8Array], random: Random, tiles: UInt8Array
) -> UInt8Array:
    return cut(tiles, random)


def measure_shortcuts(
    town: Town,
    truth: PatchTruth,
    models: Models,
    count: int = 300,
    seed: int = 0,
    workers: int = 1,
) -> list[Row]:
    """Recall of full panoramas at unknown heading, for each reduction of photos or tiles.

    When only vehicles are kept, photos without a vehicle are left out.

    Args:
        town: with its imagery.
        truth: the content of the patches of this town's panoramas.
        models: a student, alone.
        count: panoramas, at most as many as there are.
        seed: of the panoramas and of every random order.
        workers: photos answered at a time.

    Raises:
        WorldError: the truth has another number of panoramas.

    """
    with_truth_of(town, truth)  # refuse the truth of another town
    chosen, _ = draw_crops(town, BINS, count, seed)
    queries = cut_queries(town, BINS, chosen, np.zeros(len(chosen), np.int64))
    names = np.array(truth.class_names)[truth.class_id[chosen]]
    sky, cars = names == "sky", names == "vehicle"
    whole = DescribedTown(town, TownReferences.describe(town, models.student), models, workers)
    rows = []
    for name, change in tqdm(OF_PHOTOS.items(), desc="shortcuts", leave=False):
        left = change(queries.views, sky, cars, np.random.default_rng((seed, 1)))
        shown = (
            cars.any(axis=(1, 2)) if name.endswith("vehicles only") else np.full(len(cars), True)
        )
        some = _some(replace(queries, views=np.ascontiguousarray(left)), shown)
        rows.append({"of": "photo", "left": name, **_metrics(whole, some)})
    for name, cut in OF_TILES.items():
        changed = partial(_changed, cut, np.random.default_rng(seed))
        places = TownReferences.describe(town, models.student, change=changed)
        rows.append(
            {"of": "tile", "left": name, **_metrics(replace(whole, references=places), queries)}
        )
    return rows


def _some(queries: Queries, shown: BoolArray) -> Queries:
    return replace(
        queries,
        views=queries.views[shown],
        places=queries.places[shown],
        heading_deg=queries.heading_deg[shown],
    )


def _metrics(described: DescribedTown, queries: Queries) -> Row:
    centres = described.references.centres_m
    if not len(queries.views):
        empty = ("hit@1", "within_25_m", "standard_error_25_m", "chance_25_m")
        return {"queries": 0, "gallery": len(centres), **dict.fromkeys(empty)}
    answers = described.answers(queries)
    near = share_within(answers.error_m, RIGHT_M)
    distance = np.linalg.norm(queries.places[:, None] - centres[None], axis=2)
    return {
        "queries": len(answers),
        "gallery": len(centres),
        "hit@1": recall_at(answers.rank, 1),
        "within_25_m": near,
        "standard_error_25_m": standard_error(near, len(answers)),
        "chance_25_m": float((distance <= RIGHT_M).mean()),
    }
