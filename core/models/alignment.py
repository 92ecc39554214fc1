"""A teacher's scores of one ground view with several tiles, each pair aligned by its azimuth shift.

T tiles, one ground view of n azimuth bins. At an azimuth shift of s bins the view's first bin lies
over bin s of the tile's polar view. The polar view is rotated by the residual s - round(s), so that
the pair can be compared bin by bin.

A pair in which both images are mirrored is as true a pair. So the best tiles are compared a second
time mirrored, and their score is the mean of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.arrays import Float32Array
from core.devices import computes_in_bfloat16
from core.models.geossk import GeoSSK
from core.polar import BINS

__all__ = ["MIRRORED", "aligned_scores"]

MIRRORED = 6
"""Tiles that are compared mirrored too, those with the best scores.

On a validation town six were as good as ten.
"""


@torch.inference_mode()
def aligned_scores(
    teacher: GeoSSK,
    view: Tensor,
    tiles: Tensor,
    azimuth_shifts: Float32Array | None,
    mirrored: int = MIRRORED,
) -> tuple[Float32Array, Float32Array]:
    """Scores of one ground view with T tiles.

    Args:
        teacher: in evaluation mode.
        view: (1, 3, H, w) in [0, 1], of n bins; the full canvas for a global teacher.
        tiles: (T, 3, S, S) in [0, 1].
        azimuth_shifts: (T,) in [0, 32), an estimate for each pair. An azimuth teacher aligns at the
            nearest whole one or one bin beside it. None to try all. A global teacher ignores them.
        mirrored: how many of the best tiles are compared mirrored too.

    Returns:
        Scores (T,), cosines in [-1, 1], and the whole azimuth shifts (T,) of the alignments.

    """
    whole = rotations = None
    if azimuth_shifts is not None and teacher.base.bins is not None:
        estimated = torch.from_numpy(azimuth_shifts).to(view)
        whole = estimated.round().long()
        rotations = estimated - whole
    scores, aligned = _scores(teacher, view, tiles, whole, rotations)
    best = scores.topk(min(mirrored, len(scores))).indices
    if len(best):
        mirrored_shifts = None
        if teacher.base.bins is not None:
            bins = view.shape[3] * BINS // teacher.ground_size[1]
            mirrored_shifts = -aligned[best] - bins  # the first bin of a mirrored view is its last
        back = None if rotations is None else -rotations[best]
        flipped = view.flip(3), tiles[best].flip(3)
        again = _scores(teacher, *flipped, mirrored_shifts, back)[0]
        scores = scores.index_put((best,), (scores[best] + again) / 2)
    return scores.float().cpu().numpy(), aligned.float().cpu().numpy()


def _scores(
    teacher: GeoSSK, view: Tensor, tiles: Tensor, whole: Tensor | None, rotations: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores and whole azimuth shifts (T,) of one view with T tiles.

    ``whole``: (T,), azimuth shifts to search near. ``rotations``: (T,), residual, in bins.
    """
    device = view.device.type
    # Encoding is nearly all of the work, and bfloat16 is exact enough: the branches trained in it.
    with torch.autocast(device, torch.bfloat16, enabled=computes_in_bfloat16(device)):
        ground, aerial = teacher.ground_tokens(view), teacher.aerial_tokens(tiles, rotations)
    near = None if whole is None else whole[None] % BINS
    scores, aligned = teacher.scores_near(ground.float(), aerial.float(), near)
    return scores[0], aligned[0]
