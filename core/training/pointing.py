"""What rendered towns can teach, which know what each patch of a photo shows and where it lies.

Nothing of the kind is in GeoSSK's abstract; these are this project's own auxiliary losses, and a model
that was trained with them says so in its card.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.worlds import TILE_SIDE_M
from core.explain.pair import sector_offsets_m

__all__ = ["SPREAD_M", "Lessons", "passing_loss", "pointing_loss"]

SPREAD_M = 3.0
"""How far from a patch's content a sector's centre may lie and still be right, as a standard deviation:
a sector is some ten metres deep and one to seven wide."""


@dataclass(frozen=True)
class Lessons:
    """Weights of the auxiliary losses: ``pointing`` teaches attention where things are, ``transient`` the
    contribution factors that vehicles and sky count for little: the tile shows others, or none.
    """

    pointing: float = 0.0
    transient: float = 0.0

    def __bool__(self) -> bool:
        """Whether there is anything to teach."""
        return self.pointing > 0 or self.transient > 0


def passing_loss(phi: Tensor, transient: Tensor) -> Tensor:
    """Mean contribution of the patches of each kind that passes, 1 being an even share; their sum.

    Taught of one kind alone, the other takes over what it loses: both are much the same to a sum of 1.

    Args:
        phi: contribution factors (B, N), summing to 1 over an image; below zero is as good as zero.
        transient: int (B, N), 0 for what stays, else a kind from 1 on
            (``core.training.sampling.PASSING``).

    """
    loss = phi.sum() * 0.0
    for kind in transient.unique().tolist():
        if kind:
            loss = loss + (phi[transient == kind] * phi.shape[1]).clamp_min(0).mean()
    return loss


def pointing_loss(attention: Tensor, content: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of attention against the sectors near each patch's content.

    The target of a patch is a Gaussian of the distance from its content to the sectors' centres,
    made to sum to 1. Patches whose content lies outside the circle of the polar view have none.

    Args:
        attention: (B, H, N, M) of true pairs, rows summing to 1; heads are averaged, as they are shown.
        content: (B, N, 2) metres east and north of the tile's centre; nan where nothing is.

    Returns:
        The loss, zero where no patch counts, and the mean distance in metres from the expected
        place under attention to the content (nan then).

    """
    shown = attention.mean(dim=1)
    sectors = torch.from_numpy(sector_offsets_m(TILE_SIDE_M)).to(shown)
    inside = content.norm(dim=2).lt(TILE_SIDE_M / 2)  # nan is not less
    if not inside.any():
        return shown.sum() * 0.0, float("nan")
    true, shown = content.to(shown)[inside], shown[inside]
    distance = (sectors[None] - true[:, None]).norm(dim=2)
    target = (-distance.square() / (2 * SPREAD_M**2)).softmax(dim=1)
    loss = -(target * shown.clamp_min(1e-9).log()).sum(dim=1).mean()
    error = float((shown.detach() @ sectors - true).norm(dim=1).mean())
    return loss, error
