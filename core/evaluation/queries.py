"""Photos of a town with known places and headings: crops of its panoramas, and perspective photos.

Q queries of one width, n azimuth bins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.arrays import Float64Array, Int64Array, UInt8Array
from core.data.transforms import photo_mask
from core.data.worlds import PhotoQueries, Town
from core.photos.canvas import UNSEEN
from core.photos.opening import canvas_of, open_photo
from core.polar import BINS

__all__ = [
    "FRAMED_BINS",
    "Queries",
    "crop_queries",
    "cut_queries",
    "draw_crops",
    "framed",
    "photo_queries",
    "town_queries",
]

FRAMED_BINS = 10
"""Views up to this many bins are also evaluated as photo frames, like visitors' photos."""


@dataclass(frozen=True)
class Queries:
    """Views uint8 (Q, h, w, 3) of n whole bins, with the places (Q, 2) in metres and headings (Q,)."""

    views: UInt8Array
    bins: int
    places: Float64Array
    heading_deg: Float64Array


def draw_crops(town: Town, bins: int, count: int, seed: int) -> tuple[Int64Array, Int64Array]:
    """The panoramas (Q,) to use, and the first pixel column (Q,) of each crop."""
    random = np.random.default_rng((seed, bins))
    chosen = np.sort(random.permutation(len(town.places))[:count])
    return chosen, random.integers(0, town.panoramas.shape[2], len(chosen))


def cut_queries(town: Town, bins: int, chosen: Int64Array, start: Int64Array) -> Queries:
    """Crops of ``bins`` whole bins of the panoramas (Q,), each starting at its pixel column (Q,)."""
    width = town.panoramas.shape[2]
    span = bins * width // BINS
    columns = (start[:, None] + np.arange(span)) % width
    views = np.take_along_axis(town.panoramas[chosen], columns[:, None, :, None], axis=2)
    ahead_deg = (start + span / 2 - width / 2) * 360.0 / width
    return Queries(views, bins, town.places[chosen], (town.heading_deg[chosen] + ahead_deg) % 360.0)


def crop_queries(town: Town, bins: int, count: int, seed: int) -> Queries:
    """One crop of ``bins`` whole bins of each of ``count`` panoramas, at a random heading.

    The crop starts at any pixel column, so its heading is unknown and not aligned with the bins.
    Same seed, same queries.
    """
    return cut_queries(town, bins, *draw_crops(town, bins, count, seed))


def framed(queries: Queries) -> Queries:
    """The same views cut to the frame of a level 4:3 photo; the rest mid-grey."""
    _, height, width, _ = queries.views.shape
    span_deg = queries.bins * 360.0 / BINS
    seen = photo_mask(height, width, span_deg, span_deg, 0.75)
    return replace(queries, views=np.where(seen[None, :, :, None], queries.views, np.uint8(UNSEEN)))


def town_queries(town: Town, bins: int, count: int, seed: int) -> Queries:
    """Views of one width from at most ``count`` panoramas; the narrow ones as photo frames."""
    queries = crop_queries(town, bins, count, seed)
    return framed(queries) if bins <= FRAMED_BINS else queries


def photo_queries(photos: PhotoQueries) -> list[Queries]:
    """A town's perspective photos as the Localizer sees them, one ``Queries`` of one photo each."""
    canvases = [canvas_of(open_photo(file), bins=BINS) for file in photos.files]
    return [
        Queries(
            canvas.image[None],
            canvas.n_bins,
            photos.places[at : at + 1],
            photos.heading_deg[at : at + 1],
        )
        for at, canvas in enumerate(canvases)
    ]
