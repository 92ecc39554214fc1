"""Hard negatives: points of a town whose tiles a student finds most similar to a camera's view.

A teacher re-ranks a query's first twenty places, which all look similar to the student. Random
batches hold few such tiles, so a teacher's extra negatives are drawn from these points (hard
negatives by similarity, as in Sample4Geo: Deuser et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from core.arrays import Float64Array
from core.data.worlds import GRID_STEP_M, Town
from core.evaluation.descriptors import describe_places, town_grid
from core.models.azimuth import shift_similarity
from core.models.two_branch import TwoBranch
from core.photos.views import ground_batch
from core.polar import BINS

__all__ = ["STEP_M", "hard_negative_points", "mine_hard_negatives"]

STEP_M = 1.5 * GRID_STEP_M
"""Between the points of the searched grid; a gallery's own grid would take twice as long."""
CHUNK = 64


@torch.inference_mode()
def _bins(student: TwoBranch, town: Town, count: int, device: str) -> Tensor:
    """Descriptors (N, count * D) of the first ``count`` bins of every panorama.

    They are cut from the bins of whole panoramas; near its edges a crop's own bins differ a little.
    """
    parts = []
    for start in range(0, len(town.panoramas), CHUNK):
        panoramas = np.array(town.panoramas[start : start + CHUNK])  # a file's are read-only
        views = ground_batch(panoramas, student.ground_size, device)
        whole = student.ground_pool(student.ground_map(views), BINS)
        parts.append(F.normalize(whole[:, :count].flatten(1), dim=1).cpu())
    return torch.cat(parts)


def hard_negative_points(
    student: TwoBranch,
    town: Town,
    count: int = 20,
    bins: int = 8,
    apart_m: float = GRID_STEP_M,
    device: str = "cpu",
) -> Float64Array:
    """Points of a town whose tiles are most similar to the view of each of its N cameras.

    Args:
        student: with azimuth bins, in evaluation mode.
        town: searched on a grid of its own, ``STEP_M`` wide.
        count: how many points per camera, at most all of the grid.
        bins: width of the views in bins; narrow views are the hard ones.
        apart_m: points nearer to a camera than this are its own place.
        device: where the student is, as torch names it.

    Returns:
        (N, count, 2) metres east and north, most similar first. A camera's own place comes last,
        and only if the grid has too few other points.

    """
    views, grid = _bins(student, town, bins, device), town_grid(town, STEP_M)
    tiles = describe_places(student, town, grid[:, None], device)[:, 0]
    parts = [
        shift_similarity(views[start : start + CHUNK], tiles).amax(dim=2)
        for start in range(0, len(views), CHUNK)
    ]
    similarity = torch.cat(parts).float().numpy()
    apart = np.linalg.norm(town.places[:, None] - grid[None], axis=2)
    similarity[apart < apart_m] = -np.inf  # last of all
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return np.asarray(grid[order])


def mine_hard_negatives(
    student: TwoBranch, towns: Sequence[Town], device: str = "cpu"
) -> list[Float64Array]:
    """``hard_negative_points`` of each town; an empty list for a student without azimuth bins."""
    if student.bins is None:
        return []
    student.eval().to(device)
    return [
        hard_negative_points(student, town, device=device)
        for town in tqdm(towns, desc="hard negatives")
    ]
