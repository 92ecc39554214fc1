"""A memory of tiles: how the towns' tiles were described in earlier steps, as further negatives.

A batch holds some hundred tiles, a gallery thousands, and a model that is right among a hundred learns
little from them. Descriptors change slowly, so those of earlier steps still serve as wrong answers
("Cross-Batch Memory for Embedding Learning", Wang et al., CVPR 2020), at the cost of one product.
Each town has its own part: tiles of one town look alike, and which of them cover a place is known.

Q views of n azimuth bins, R tiles, M tiles remembered of a town, E hypotheses (a tile at an azimuth
shift).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.azimuth import shift_similarity
from core.polar import BINS

__all__ = ["TileMemory"]


class TileMemory(nn.Module):
    """The last ``capacity`` tiles of each of ``towns``, in buffers: a stopped run goes on with them.

    ``dim``: of a tile's descriptor. ``hardest``: E, how many hypotheses a view is told.
    """

    described: Tensor
    centres: Tensor
    written: Tensor

    def __init__(self, towns: int, dim: int, capacity: int = 1024, hardest: int = 64) -> None:
        super().__init__()
        self.hardest = hardest
        self.register_buffer("described", torch.zeros(towns, capacity, dim, dtype=torch.bfloat16))
        self.register_buffer("centres", torch.zeros(towns, capacity, 2))
        self.register_buffer("written", torch.zeros(towns, dtype=torch.long))

    @torch.no_grad()
    def add(self, town: int, tiles: Tensor, centres: Tensor) -> None:
        """Remember tiles (R, D) around centres (R, 2) in metres, in the place of the oldest."""
        capacity = self.described.shape[1]
        at = (self.written[town] + torch.arange(len(tiles), device=tiles.device)) % capacity
        self.described[town, at] = tiles.to(self.described.dtype)
        self.centres[town, at] = centres.to(self.centres)
        self.written[town] += len(tiles)

    def wrong(self, town: int, views: Tensor, places: Tensor, apart_m: float) -> Tensor | None:
        """Similarities (Q, E) of views with the remembered tiles and azimuth shifts that they are most
        like.

        Args:
            town: whose tiles.
            views: (Q, n * D) unit descriptors with gradient; none reaches the tiles.
            places: (Q, 2) of their cameras in metres.
            apart_m: nearer tiles cover a place too and are left out: their similarities are -inf.

        Returns:
            None before anything is remembered.

        """
        count = min(int(self.written[town]), self.described.shape[1])
        if not count:
            return None
        known = self.described[town, :count]
        with torch.no_grad():
            curve = shift_similarity(views.to(known.dtype), known)
            covers = torch.cdist(places.to(self.centres), self.centres[town, :count]) < apart_m
            curve = curve.masked_fill(covers[..., None], -torch.inf).flatten(1)
            value, best = curve.topk(min(self.hardest, curve.shape[1]), dim=1)
        bins = views.shape[1] * BINS // known.shape[1]
        tile, azimuth_shift = best // BINS, best % BINS
        meets = (azimuth_shift[..., None] + torch.arange(bins, device=azimuth_shift.device)) % BINS
        laid = known.unflatten(1, (BINS, -1))[tile[..., None], meets].flatten(2).to(views.dtype)
        told = (laid @ views[..., None])[..., 0] * (BINS / bins) ** 0.5
        return told.masked_fill(value.isinf(), -torch.inf)
