"""Fit the calibration of a student, and of the student with its teacher, on validation towns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from core.data.worlds import Town
from core.evaluation.pools import (
    RIGHT_M,
    DescribedTown,
    FirstPlaces,
    Pools,
    first_places,
    joined,
)
from core.gallery.viewpoints import VIEWPOINTS
from core.localization.calibration import (
    Calibration,
    ViewCalibration,
    fit_confidence,
    fit_factors,
)
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch

__all__ = ["FITTED_BINS", "STRANGERS", "fit_calibration"]

STRANGERS = 0.1
"""Share of all photos that are taken to come from elsewhere, where there is a town to draw them from."""
IN_RADIUS = 0.9
"""Share of the cameras that stand within the radius of the answered point, where the place is right."""
FITTED_BINS = (32, 24, 16, 12, 10, 8, 6, 5)


def _fit_view(pools: Pools, foreign: Pools | None, bins: int, paired: bool) -> ViewCalibration:
    """One width: factors, then confidence, then what counts as a match: more likely right than not,
    and no more than 2 % of the photos of another town.
    """
    correct = pools.distances <= RIGHT_M
    student, teacher = fit_factors(pools.similarities, pools.teacher if paired else None, correct)
    view = ViewCalibration(bins, student, teacher, 1.0, 0.0)
    own = first_places(pools, view)
    view = replace(
        view,
        located=float(np.mean(own.right)),
        radius_m=_radius(own.believed_m, own.right),
        closer_m=_radius(own.errors_m, own.right) if paired else None,
    )
    if foreign is None:
        return _sure(view, own, [1.0] * len(own.right))
    said = first_places(foreign, view)
    each = STRANGERS / (1 - STRANGERS) * len(own.right) / len(said.right)
    view = _sure(view, own + said, [1.0] * len(own.right) + [each] * len(said.right))
    confidences = list(map(view.confidence, said.shares, said.alike))
    return replace(view, threshold=max(0.5, float(np.quantile(confidences, 0.98))))


def _radius(errors_m: Sequence[float], right: Sequence[bool]) -> float | None:
    """Within which ``IN_RADIUS`` of the cameras stood, where the place was right."""
    near = [metres for metres, is_right in zip(errors_m, right, strict=True) if is_right]
    return float(np.quantile(near, IN_RADIUS)) if near else None


def _sure(view: ViewCalibration, firsts: FirstPlaces, weights: list[float]) -> ViewCalibration:
    """The view with the confidence that fits so many first places."""
    fitted = fit_confidence(firsts.shares, firsts.alike, firsts.right, weights)
    return replace(view, slope=fitted[0], likeness=fitted[1], intercept=fitted[2])


def fit_calibration(
    student: TwoBranch,
    teacher: GeoSSK | None,
    towns: Sequence[Town],
    count: int = 300,
    seed: int = 1,
    bins: Sequence[int] = FITTED_BINS,
    viewpoints: int = VIEWPOINTS,
) -> tuple[Calibration, Calibration | None]:
    """Calibration of the student alone, and with the teacher re-ranking.

    Views up to 10 bins are photo frames (``pools.town_queries``). With two towns or more, each
    town is also asked about half as many photos of the others, where none has a right answer: they
    count as ``STRANGERS`` of all photos, and set from which confidence on an answer is a match.

    Args:
        student: whose similarities are to become probabilities.
        teacher: its teacher, or None.
        towns: validation towns; never a test town.
        count: queries per town and width.
        seed: of the queries; not the one of the evaluation.
        bins: widths to fit.
        viewpoints: from how many each place is described; as the galleries to be searched.
    """
    described = [DescribedTown(student, teacher, town, viewpoints) for town in towns]
    alone: list[ViewCalibration] = []
    paired: list[ViewCalibration] = []
    for width in tqdm(bins, desc="calibrate"):
        own = joined([home.pools(home.town, width, count, seed) for home in described])
        strangers = [
            home.pools(other, width, max(1, count // (2 * len(towns) - 2)), seed)
            for home in described
            for other in towns
            if other is not home.town
        ]
        foreign = joined(strangers) if strangers else None
        alone.append(_fit_view(own, foreign, width, paired=False))
        if teacher is not None:
            paired.append(_fit_view(own, foreign, width, paired=True))
    together = Calibration(tuple(paired), viewpoints) if paired else None
    return Calibration(tuple(alone), viewpoints), together
