"""A teacher's scores of aligned pairs: each tile is rotated so that it lies under its view.

T tiles, one view of n azimuth bins. At an azimuth shift of s bins the view's first bin lies over bin s of
the tile's polar view. The tile is rotated by what s lacks to a whole bin, and the pair is compared bin by
bin. A mirrored pair is as good a pair: the best tiles are compared a second time in the mirror, and their
score is the mean of both.
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
"""Tiles that are compared in the mirror too, the best at first; on a validation town as good as ten."""


@torch.inference_mode()
def aligned_scores(
    teacher: GeoSSK,
    view: Tensor,
    tiles: Tensor,
    azimuth_shifts: Float32Array | None,
    mirrored: int = MIRRORED,
) -> tuple[Float32Array, Float32Array]:
    """Scores (T,) of T tiles, cosines in [-1, 1], and the whole azimuth shifts (T,) they were aligned at.

    Args:
        teacher: in evaluation mode.
        view: (1, 3, H, w) in [0, 1], of n bins; the full canvas for a global teacher.
        tiles: (T, 3, S, S) in [0, 1].
        azimuth_shifts: (T,) in [0, 32), to the nearest whole bin of which an azimuth teacher aligns; it
            may correct each by one bin. None to try all. A global teacher ignores them.
        mirrored: how many of the best tiles are compared in the mirror too.

    """
    whole = rotations = None
    if azimuth_shifts is not None and teacher.base.bins is not None:
        wanted = torch.from_numpy(azimuth_shifts).to(view)
        whole = wanted.round().long()
        rotations = wanted - whole
    scores, aligned = _scores(teacher, view, tiles, whole, rotations)
    best = scores.topk(min(mirrored, len(scores))).indices
    if len(best):
        back = None
        if teacher.base.bins is not None:
            bins = view.shape[3] * BINS // teacher.ground_size[1]
            back = -aligned[best] - bins  # the first bin of a mirrored view is its last
        turned = None if rotations is None else -rotations[best]
        again = _scores(teacher, view.flip(3), tiles[best].flip(3), back, turned)[0]
        scores = scores.index_put((best,), (scores[best] + again) / 2)
    return scores.float().cpu().numpy(), aligned.float().cpu().numpy()


def _scores(
    teacher: GeoSSK, view: Tensor, tiles: Tensor, whole: Tensor | None, rotations: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores and whole azimuth shifts (T,) of one view with T tiles rotated by so many bins (T,)."""
    device = view.device.type
    # Encoding is nearly all of the work, and what the branches were trained in is exact enough for it.
    with torch.autocast(device, torch.bfloat16, enabled=computes_in_bfloat16(device)):
        ground, aerial = teacher.ground_tokens(view), teacher.aerial_tokens(tiles, rotations)
    near = None if whole is None else whole[None] % BINS
    scores, aligned = teacher.scores_near(ground.float(), aerial.float(), near)
    return scores[0], aligned[0]
