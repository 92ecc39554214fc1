"""Attention that is taught where things are: run alone with ``pytest tests/test_pointing.py``."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.data.worlds import TILE_SIDE_M
from core.explain.pair import sector_offsets_m
from core.models import build_model
from core.models.geossk import GeoSSK
from core.training.auxiliary import (
    SPREAD_M,
    AuxiliaryWeights,
    pointing_loss,
    transient_loss,
)
from core.training.objectives import TeacherObjective
from core.training.sampling import Batch, SamplingConfig, TownBatches
from tests.towns import telling_town, with_truth

SECTORS = torch.from_numpy(sector_offsets_m(TILE_SIDE_M))


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (2, 3, 5, 128) and content (2, 5, 2), some of it sky and some outside the circle."""
    random = torch.Generator().manual_seed(seed)
    attention = torch.randn(2, 3, 5, 128, generator=random).softmax(dim=3)
    content = 40 * torch.rand(2, 5, 2, generator=random) - 20
    content[0, 0], content[1, 2] = math.nan, torch.tensor([60.0, 0.0])
    return attention, content


def test_it_is_the_slow_sum_over_patches_that_have_a_place() -> None:
    attention, content = drawn()
    losses, errors = [], []
    for pair in range(2):
        for patch in range(5):
            if (pair, patch) in {(0, 0), (1, 2)}:
                continue
            shown = [
                sum(float(attention[pair, h, patch, m]) for h in range(3)) / 3 for m in range(128)
            ]
            far = [
                math.dist(SECTORS[m].tolist(), content[pair, patch].tolist()) for m in range(128)
            ]
            weights = [math.exp(-(d**2) / (2 * SPREAD_M**2)) for d in far]
            losses.append(
                -sum(w / sum(weights) * math.log(a) for w, a in zip(weights, shown, strict=True))
            )
            where = [
                sum(a * float(SECTORS[m, axis]) for m, a in enumerate(shown)) for axis in (0, 1)
            ]
            errors.append(math.dist(where, content[pair, patch].tolist()))
    loss, error = pointing_loss(attention, content)
    assert float(loss) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert error == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_attention_at_the_content_costs_least() -> None:
    content = SECTORS[None, 40:45].clone()
    right = torch.full((1, 1, 5, 128), 1e-6)
    right[0, 0, range(5), range(40, 45)] = 1.0
    wrong = right.roll(16, dims=3)  # the other side of the tile
    near, far = pointing_loss(right, content), pointing_loss(wrong, content)
    assert float(near[0]) < float(far[0])
    assert near[1] < 0.1
    assert far[1] > 20


def test_photos_of_nothing_near_teach_nothing() -> None:
    attention, content = drawn()
    attention.requires_grad_()
    nothing, error = pointing_loss(attention, torch.full_like(content, math.nan))
    assert math.isnan(error)
    nothing.backward()
    assert not attention.grad.any()


def metrics_of_steps(
    taught: TeacherObjective, optimizer: torch.optim.Optimizer, batch: Batch, steps: int
) -> list[dict[str, float]]:
    """Train on one batch; the metrics of each step."""
    log = []
    for _ in range(steps):
        loss, metrics = taught(batch, torch.Generator().manual_seed(0), "cpu")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(metrics)
    return log


def test_a_teacher_learns_to_point_on_a_town_that_tells() -> None:
    torch.manual_seed(0)
    teacher = GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4))
    sampling = SamplingConfig(batch=8, widths=((32, 1.0),), every_crop=False)
    batch = TownBatches([with_truth(telling_town())], sampling, 128, 0).batch(0)
    taught = TeacherObjective(teacher, AuxiliaryWeights(pointing=1.0)).train()
    optimizer = torch.optim.Adam([teacher.azimuth_bias], 0.5)
    log = metrics_of_steps(taught, optimizer, batch, 4)
    assert log[-1]["pointing"] < log[0]["pointing"] - 0.1
    assert log[-1]["pointing_m"] < log[0]["pointing_m"]
    untaught = TeacherObjective(teacher)
    assert "pointing" not in untaught(batch, torch.Generator().manual_seed(0), "cpu")[1]


def test_transient_loss_is_the_mean_share_of_each_kind() -> None:
    phi = torch.tensor([[0.4, 0.3, -0.1, 0.4], [0.1, 0.2, 0.3, 0.4]])
    transient = torch.tensor([[1, 0, 1, 2], [2, 0, 0, 1]])
    vehicles, sky = (4 * 0.4 + 0 + 4 * 0.4) / 3, (4 * 0.4 + 4 * 0.1) / 2
    assert float(transient_loss(phi, transient)) == pytest.approx(vehicles + sky)
    none = transient_loss(phi.requires_grad_(), torch.zeros_like(transient))
    none.backward()
    assert float(none.detach()) == 0
    assert not phi.grad.any()


def test_a_teacher_learns_that_vehicles_count_for_little() -> None:
    torch.manual_seed(0)
    teacher = GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4))
    sampling = SamplingConfig(batch=8, widths=((32, 1.0),), every_crop=False, extra_negatives=0.0)
    town = with_truth(telling_town())
    kinds = town.truth.class_id.copy()
    kinds[:, 1, ::3] = 2
    truth = replace(town.truth, class_id=kinds, class_names=("sky", "wall", "vehicle"))
    batch = TownBatches([replace(town, truth=truth)], sampling, 128, 0).batch(0)
    assert (batch.transient == 1).sum() == 8 * 11
    taught = TeacherObjective(teacher, AuxiliaryWeights(transient=30.0)).train()
    optimizer = torch.optim.Adam(teacher.base.ground_pool.parameters(), 1e-3)
    log = metrics_of_steps(taught, optimizer, batch, 8)
    assert log[-1]["transient"] < 0.7 * log[0]["transient"]
