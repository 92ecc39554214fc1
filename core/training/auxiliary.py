"""Auxiliary losses of a teacher, from what rendered towns know about each patch of a photo.

A town knows what a patch shows and where that lies. GeoSSK's abstract names no such loss; these are
this project's own, and the card of a model that was trained with them says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.worlds import TILE_SIDE_M
from core.explain.pair import sector_offsets_m

__all__ = ["SPREAD_M", "AuxiliaryWeights", "pointing_loss", "transient_loss"]

SPREAD_M = 3.0
"""Standard deviation, in metres, of the target around a patch's content.

A sector is some ten metres deep and one to seven metres wide."""


@dataclass(frozen=True)
class AuxiliaryWeights:
    """Weights of the auxiliary losses, 0 for none.

    ``pointing``: attention shall point where a patch's content lies. ``transient``: the contribution
    factors of vehicles and sky shall be small, because a tile shows other vehicles and no sky.
    """

    pointing: float = 0.0
    transient: float = 0.0

    def __bool__(self) -> bool:
        """Whether any auxiliary loss is used."""
        return self.pointing > 0 or self.transient > 0


def transient_loss(phi: Tensor, transient: Tensor) -> Tensor:
    """Mean contribution of the patches of each transient kind, summed over the kinds; a scalar.

    A patch with an even share contributes 1. All kinds are penalised together: factors sum to 1, so
    a penalty on vehicles alone would move their share to the sky.

    Args:
        phi: contribution factors (B, N), summing to 1 over an image; values below 0 count as 0.
        transient: int (B, N), 0 for what stays, else a kind from 1 on
            (``core.training.sampling.TRANSIENT``).

    """
    loss = phi.sum() * 0.0
    for kind in transient.unique().tolist():
        if kind:
            loss = loss + (phi[transient == kind] * phi.shape[1]).clamp_min(0).mean()
    return loss


def pointing_loss(attention: Tensor, content: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of attention against the sectors near each patch's content.

    The target of a patch is a Gaussian of the distance from its content to the sectors' centres,
    normalised to sum to 1. Patches with content outside the circle of the polar view have no target.

    Args:
        attention: (B, H, N, M) of true pairs, rows summing to 1; heads are averaged.
        content: (B, N, 2) metres east and north of the tile's centre; NaN where nothing is.

    Returns:
        The loss, and the mean distance in metres from the expected place under attention to the
        content. Where no patch counts they are zero and NaN.

    """
    shown = attention.mean(dim=1)
    sectors = torch.from_numpy(sector_offsets_m(TILE_SIDE_M)).to(shown)
    inside = content.norm(dim=2).lt(TILE_SIDE_M / 2)  # false for NaN
    if not inside.any():
        return shown.sum() * 0.0, float("nan")
    true, shown = content.to(shown)[inside], shown[inside]
    distance = (sectors[None] - true[:, None]).norm(dim=2)
    target = (-distance.square() / (2 * SPREAD_M**2)).softmax(dim=1)
    loss = -(target * shown.clamp_min(1e-9).log()).sum(dim=1).mean()
    error = float((shown.detach() @ sectors - true).norm(dim=1).mean())
    return loss, error
