"""Hard negatives: the places of a town that a student takes for one another.

What re-ranks meets a query's first twenty places, which look alike to the student wherever they are.
Batches drawn at random hold few such pairs, so a teacher's batches are drawn from these lists
(hard negatives by similarity, as Sample4Geo mines them: Deuser et al., ICCV 2023).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from core.data.worlds import Town
from core.evaluation.descriptors import describe_places
from core.models.azimuth import roll_similarity
from core.models.two_branch import TwoBranch
from core.polar import BINS
from core.views import ground_batch

__all__ = ["confusing_places"]

CHUNK = 64


@torch.inference_mode()
def _bins(student: TwoBranch, town: Town, count: int) -> Tensor:
    """Descriptors (N, count * D) of the first ``count`` bins of every panorama.

    Bins of whole panoramas: near the edges a crop's own differ a little.
    """
    parts = []
    for start in range(0, len(town.panoramas), CHUNK):
        panoramas = np.array(town.panoramas[start : start + CHUNK])  # a file's are read-only
        views = ground_batch(panoramas, student.ground_size)
        whole = student.ground_pool(student.ground_map(views), BINS)
        parts.append(F.normalize(whole[:, :count].flatten(1), dim=1))
    return torch.cat(parts)


def confusing_places(
    student: TwoBranch, town: Town, count: int = 40, bins: int = 8, apart_m: float = 28.8
) -> npt.NDArray[np.int64]:
    """Of each of a town's N cameras the others that a view from it is most likely taken for.

    Args:
        student: with azimuth bins, in evaluation mode.
        town: its cameras are the places, each described by the tile around it.
        count: how many, at most all others.
        bins: width of the views; narrow ones are the hard ones.
        apart_m: cameras nearer to each other than this are one place.

    Returns:
        (N, count) indices of cameras, most alike first; where fewer lie far enough, the rest are any.

    """
    views = _bins(student, town, bins)
    limit = town.half_extent_m
    tiles = describe_places(student, town, np.clip(town.places, -limit, limit)[:, None])[:, 0]
    parts = [
        roll_similarity(views[start : start + CHUNK], tiles).amax(dim=2)
        for start in range(0, len(views), CHUNK)
    ]
    alike = torch.cat(parts).float().numpy()
    apart = np.linalg.norm(town.places[:, None] - town.places[None], axis=2)
    alike[apart < apart_m] = -np.inf  # last of all
    order = np.argsort(-alike, axis=1, kind="stable")
    own = np.arange(len(order))[:, None]
    others = order[order != own].reshape(len(order), -1)
    return others[:, :count].astype(np.int64)
