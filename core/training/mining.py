"""Hard negatives: where in a town a student takes a camera to be that it is not.

What re-ranks meets a query's first twenty places, which look alike to the student wherever they are.
Batches drawn at random hold few such tiles, so a teacher's are drawn from these lists (hard negatives
by similarity, as Sample4Geo mines them: Deuser et al., ICCV 2023).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.arrays import Float64Array
from core.data.worlds import GRID_STEP_M, Town
from core.evaluation.descriptors import describe_places, town_grid
from core.models.azimuth import shift_similarity
from core.models.two_branch import TwoBranch
from core.photos.views import ground_batch
from core.polar import BINS

__all__ = ["STEP_M", "confusing_points"]

STEP_M = 1.5 * GRID_STEP_M
"""Between the points that are searched; with those of a gallery it would take twice as long."""
CHUNK = 64


@torch.inference_mode()
def _bins(student: TwoBranch, town: Town, count: int, device: str) -> Tensor:
    """Descriptors (N, count * D) of the first ``count`` bins of every panorama.

    Bins of whole panoramas: near the edges a crop's own differ a little.
    """
    parts = []
    for start in range(0, len(town.panoramas), CHUNK):
        panoramas = np.array(town.panoramas[start : start + CHUNK])  # a file's are read-only
        views = ground_batch(panoramas, student.ground_size, device)
        whole = student.ground_pool(student.ground_map(views), BINS)
        parts.append(F.normalize(whole[:, :count].flatten(1), dim=1).cpu())
    return torch.cat(parts)


def confusing_points(
    student: TwoBranch,
    town: Town,
    count: int = 20,
    bins: int = 8,
    apart_m: float = GRID_STEP_M,
    device: str = "cpu",
) -> Float64Array:
    """Where in a town the views from each of its N cameras are most likely taken to be from.

    Args:
        student: with azimuth bins, in evaluation mode.
        town: searched on a grid of its own, ``STEP_M`` wide.
        count: how many points of it, at most all.
        bins: width of the views; narrow ones are the hard ones.
        apart_m: points nearer to a camera than this are its own place.
        device: where the student is, as torch names it.

    Returns:
        (N, count, 2) metres east and north, most alike first; where fewer lie far enough from a
        camera, the rest are any.

    """
    views, grid = _bins(student, town, bins, device), town_grid(town, STEP_M)
    tiles = describe_places(student, town, grid[:, None], device)[:, 0]
    parts = [
        shift_similarity(views[start : start + CHUNK], tiles).amax(dim=2)
        for start in range(0, len(views), CHUNK)
    ]
    alike = torch.cat(parts).float().numpy()
    apart = np.linalg.norm(town.places[:, None] - grid[None], axis=2)
    alike[apart < apart_m] = -np.inf  # last of all
    order = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return np.asarray(grid[order])
