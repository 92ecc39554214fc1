"""A memory of tile descriptors from earlier steps, used as extra negatives.

A batch holds some hundred tiles and a gallery thousands, so a batch alone makes an easy task.
Descriptors change slowly. Those of earlier steps therefore still serve as negatives ("Cross-Batch
Memory for Embedding Learning", Wang et al., CVPR 2020), at the cost of one matrix product. Each town
has its own memory, because tiles of one town are similar and it is known which of them cover a place.

Q views of n azimuth bins, R tiles, M remembered tiles of a town, E hypotheses (tile, azimuth shift).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.azimuth import shift_similarity
from core.polar import BINS

__all__ = ["TileMemory"]


class TileMemory(nn.Module):
    """The last ``capacity`` tiles of each of ``towns``, in buffers, so that checkpoints hold them.

    ``dim``: of a tile's descriptor. ``hardest``: E, how many hypotheses each view is compared with.
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
        """Store tiles (R, D) with their centres (R, 2) in metres; the oldest are overwritten."""
        capacity = self.described.shape[1]
        at = (self.written[town] + torch.arange(len(tiles), device=tiles.device)) % capacity
        self.described[town, at] = tiles.to(self.described.dtype)
        self.centres[town, at] = centres.to(self.centres)
        self.written[town] += len(tiles)

    def wrong(self, town: int, views: Tensor, places: Tensor, apart_m: float) -> Tensor | None:
        """Similarities (Q, E) of views with the most similar remembered hypotheses.

        Args:
            town: whose tiles.
            views: (Q, n * D) unit descriptors with gradient; the tiles get none.
            places: (Q, 2) of their cameras in metres.
            apart_m: tiles nearer to the camera also cover its place; their similarities are -inf.

        Returns:
            None while the memory is empty.

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
        columns = (
            azimuth_shift[..., None] + torch.arange(bins, device=azimuth_shift.device)
        ) % BINS
        aligned = known.unflatten(1, (BINS, -1))[tile[..., None], columns].flatten(2)
        similarity = (aligned.to(views.dtype) @ views[..., None])[..., 0] * (BINS / bins) ** 0.5
        return similarity.masked_fill(value.isinf(), -torch.inf)
