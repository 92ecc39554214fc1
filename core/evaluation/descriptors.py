"""Describe a town's grid of places and its queries with a model; find first places.

The protocol: a query is matched with every place of the grid, from all its viewpoints, at every azimuth shift
where the model keeps azimuth; nothing is known of its heading unless a row says so.

Q queries, R places, S viewpoints of a place, D values of a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.data.transforms import photo_mask
from core.data.worlds import GRID_STEP_M, TILE_SIDE_M, Town
from core.gallery.viewpoints import VIEWPOINTS, cell_viewpoints, over_viewpoints
from core.geo import grid_centres
from core.models.azimuth import shift_similarity
from core.models.two_branch import TwoBranch
from core.photos.canvas import UNSEEN
from core.photos.views import ground_batch
from core.polar import BINS, to_batch

__all__ = [
    "FRAMED_BINS",
    "Matches",
    "Queries",
    "crop_queries",
    "cut_queries",
    "describe_places",
    "describe_views",
    "draw_crops",
    "framed",
    "match",
    "place_offsets",
    "town_grid",
    "town_viewpoints",
]

CHUNK = 64
FRAMED_BINS = 10
"""Views up to so many bins are asked as photo frames too, as visitors' photos are."""


@dataclass(frozen=True)
class Queries:
    """Views (Q, H, w, 3) uint8 of n whole bins, with the places (Q, 2) in metres and headings."""

    views: UInt8Array
    bins: int
    places: Float64Array
    heading_deg: Float64Array


@dataclass(frozen=True)
class Matches:
    """Similarities (Q, R) of places, over their viewpoints (Q, R, S), each at its best azimuth shift, and the
    azimuth shift (Q, R) in bins, fractional, of the best viewpoint.

    A global model knows no azimuth shifts: they are nan.
    """

    similarity: Float32Array
    azimuth_shift: Float32Array
    viewpoint_similarities: Float32Array


def town_grid(town: Town, step_m: float = GRID_STEP_M) -> Float64Array:
    """Places (R, 2) of a town's gallery, metres east and north; rows north to south."""
    limit = town.half_extent_m
    return grid_centres(-limit, -limit, limit, limit, step_m)


def place_offsets(viewpoints: int) -> Float64Array:
    """So many viewpoints (S, 2) of a place of the grid, east and north, in half sides of its tile."""
    return cell_viewpoints(viewpoints) * GRID_STEP_M / (TILE_SIDE_M / 2)


def town_viewpoints(centres: Float64Array, viewpoints: int = VIEWPOINTS) -> Float64Array:
    """Points (R, S, 2) from which a town's places (R, 2) are described, as ``build_gallery`` has them:
    none beyond the outermost places.
    """
    low, high = centres.min(axis=0), centres.max(axis=0)
    return np.clip(centres[:, None] + cell_viewpoints(viewpoints) * GRID_STEP_M, low, high)


def draw_crops(town: Town, bins: int, count: int, seed: int) -> tuple[Int64Array, Int64Array]:
    """Which panoramas (Q,) are asked, and at which pixel column (Q,) of each the crop starts."""
    random = np.random.default_rng((seed, bins))
    chosen = np.sort(random.permutation(len(town.places))[:count])
    return chosen, random.integers(0, town.panoramas.shape[2], len(chosen))


def cut_queries(town: Town, bins: int, chosen: Int64Array, start: Int64Array) -> Queries:
    """Crops of ``bins`` whole bins of the panoramas (Q,), each from its pixel column (Q,) on."""
    width = town.panoramas.shape[2]
    span = bins * width // BINS
    columns = (start[:, None] + np.arange(span)) % width
    views = np.take_along_axis(town.panoramas[chosen], columns[:, None, :, None], axis=2)
    turn = (start + span / 2 - width / 2) * 360.0 / width
    return Queries(views, bins, town.places[chosen], (town.heading_deg[chosen] + turn) % 360.0)


def crop_queries(town: Town, bins: int, count: int, seed: int) -> Queries:
    """One crop of ``bins`` whole bins of each of ``count`` panoramas, at a random heading.

    The crop starts anywhere (to the pixel), so its heading is unknown to the model and to the grid
    of bins. Same seed, same queries.
    """
    return cut_queries(town, bins, *draw_crops(town, bins, count, seed))


def framed(queries: Queries) -> Queries:
    """The same views cut to the frame of a level 4:3 photo; the rest mid-grey."""
    _, height, width, _ = queries.views.shape
    span_deg = queries.bins * 360.0 / BINS
    seen = photo_mask(height, width, span_deg, span_deg, 0.75)
    return replace(queries, views=np.where(seen[None, :, :, None], queries.views, np.uint8(UNSEEN)))


@torch.inference_mode()
def describe_places(
    model: TwoBranch, town: Town, points: Float64Array, device: str = "cpu"
) -> Tensor:
    """Descriptors (R, S, D) float32 of the tiles around the viewpoints (R, S, 2) of places."""
    model.eval()
    pixels = model.aerial_size[0]
    flat = points.reshape(-1, 2)
    parts = []
    for start in range(0, len(flat), CHUNK):
        tiles = town.crop_tiles(flat[start : start + CHUNK], pixels)
        batch = to_batch(tiles, model.aerial_size, device)
        parts.append(model.describe_aerial(batch).float().cpu())
    return torch.cat(parts).unflatten(0, points.shape[:2])


@torch.inference_mode()
def describe_views(model: TwoBranch, queries: Queries, device: str = "cpu") -> Tensor:
    """Descriptors float32 of the views: (Q, n * D) of n azimuth bins, (Q, D) of a global model."""
    model.eval()
    parts = []
    for start in range(0, len(queries.views), CHUNK):
        views = queries.views[start : start + CHUNK]
        batch = ground_batch(views, model.ground_size, device, whole=model.bins is None)
        parts.append(model.describe_ground(batch).float().cpu())
    return torch.cat(parts)


def match(
    queries: Tensor,
    places: Tensor,
    heading_deg: Float64Array | None = None,
    bins: int | None = BINS,
) -> Matches:
    """Best similarity over all azimuth shifts, or at the known heading (linear between its two azimuth shifts).

    ``places``: descriptors (R, S, D). ``bins``: azimuth bins of each; None for global ones, which are
    compared as they are and for which a heading says nothing.
    """
    viewpoints = places.shape[1]
    flat = places.flatten(0, 1)
    if bins is None:
        viewpoint_similarities = (queries @ flat.T).unflatten(1, (-1, viewpoints)).numpy()
        similarity = over_viewpoints(viewpoint_similarities)
        return Matches(similarity, np.full_like(similarity, np.nan), viewpoint_similarities)
    count = queries.shape[1] * bins // flat.shape[1]
    best, azimuth_shift = [], []
    for start in range(0, len(queries), 16):
        curve = shift_similarity(queries[start : start + 16], flat, bins)
        if heading_deg is None:
            top, at = _peak(curve)
        else:
            wanted = torch.as_tensor(heading_deg[start : start + 16], dtype=torch.float32)
            at = ((wanted + 180.0) * bins / 360.0 - count / 2) % bins
            top = _at_shift(curve, at)
            at = at[:, None].expand_as(top)
        top, at = (told.unflatten(1, (-1, viewpoints)) for told in (top, at))
        best.append(top.numpy())
        azimuth_shift.append(at.gather(2, top.argmax(dim=2, keepdim=True))[..., 0].numpy())
    viewpoint_similarities = np.concatenate(best)
    return Matches(
        over_viewpoints(viewpoint_similarities),
        np.concatenate(azimuth_shift).astype(np.float32),
        viewpoint_similarities,
    )


def _peak(curve: Tensor) -> tuple[Tensor, Tensor]:
    top, at = curve.max(dim=2)
    bins = curve.shape[2]
    left = curve.gather(2, ((at - 1) % bins)[..., None])[..., 0]
    right = curve.gather(2, ((at + 1) % bins)[..., None])[..., 0]
    bend = left - 2 * top + right
    shift = torch.where(bend < 0, 0.5 * (left - right) / bend, torch.zeros_like(top))
    return top, (at + shift) % bins


def _at_shift(curve: Tensor, azimuth_shift: Tensor) -> Tensor:
    low = azimuth_shift.floor().long() % curve.shape[2]
    share = (azimuth_shift - azimuth_shift.floor())[:, None]
    rows = torch.arange(len(curve))
    high = (low + 1) % curve.shape[2]
    return curve[rows, :, low] * (1 - share) + curve[rows, :, high] * share
