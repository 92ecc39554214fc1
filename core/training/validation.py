"""How well a model finds places on towns that were kept aside; training's one door to evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.data.worlds import Town
from core.evaluation.report import Setting, evaluate_town
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch

__all__ = ["town_rows", "validation_metrics"]

SETTINGS = (Setting(32), Setting(16), Setting(8))


def town_rows(
    town: Town, student: TwoBranch, teacher: GeoSSK | None, count: int
) -> list[dict[str, Any]]:
    """Rows of ``evaluate_town`` at 360, 180 and 90 degrees, with ``count`` queries at most."""
    return evaluate_town(town, student, teacher, settings=SETTINGS, count=count)


def validation_metrics(
    student: TwoBranch, towns: Sequence[Town], teacher: GeoSSK | None = None, count: int = 200
) -> dict[str, float]:
    """Mean over towns of the share within 25 m at 360, 180 and 90 degrees, and of hit@1."""
    metrics: dict[str, list[float]] = {}
    for town in towns:
        for row in town_rows(town, student, teacher, count):
            name = f"{row['fov_deg']:.0f}{'_reranked' if row['reranked'] else ''}"
            metrics.setdefault(f"within_25_m_{name}", []).append(float(str(row["within_25_m"])))
            metrics.setdefault(f"hit@1_{name}", []).append(float(str(row["hit@1"])))
    return {name: float(np.mean(values)) for name, values in metrics.items()}
