"""Similarity of azimuth bins over circular azimuth shifts, in torch.

``core/localization/search.py`` does the same in numpy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import SettingError
from core.polar import BINS

__all__ = ["shift_similarity"]


def shift_similarity(queries: Tensor, tiles: Tensor, bins: int = BINS) -> Tensor:
    """Similarity of every query with every tile at every azimuth shift.

    Args:
        queries: (Q, n * D) unit descriptors of views of n bins.
        tiles: (R, bins * D) tile descriptors, every bin of length sqrt(1 / bins).
        bins: bins of a full circle, K.

    Returns:
        (Q, R, K), at most 1. At azimuth shift r, bin i of the query is compared with bin
        (r + i) mod K of the tile. The factor sqrt(K / n) makes a perfect match 1 for every field of
        view.

    Raises:
        SettingError: the two do not have bins of one size.

    """
    size = tiles.shape[1] // bins
    count = queries.shape[1] // size
    if queries.shape[1] % size or not 1 <= count <= bins:
        raise SettingError(
            f"Query descriptors: got {queries.shape[1]} values, expected 1 to {bins} bins of {size}."
        )
    around = torch.arange(bins, device=tiles.device)
    if len(queries) < len(tiles):  # the smaller side is copied, once for every azimuth shift
        padded = queries.new_zeros(len(queries), bins, size)
        padded[:, :count] = queries.view(len(queries), count, size)
        laid = padded[:, (around[None, :] - around[:, None]) % bins].flatten(2)
        flat = (laid.flatten(0, 1) @ tiles.T).view(len(queries), bins, len(tiles)).transpose(1, 2)
    else:
        compared = (around[:, None] + around[None, :count]) % bins
        windows = tiles.view(len(tiles), bins, size)[:, compared].flatten(2)
        flat = (queries @ windows.flatten(0, 1).T).view(len(queries), len(tiles), bins)
    curve: Tensor = flat * (bins / count) ** 0.5
    return curve
