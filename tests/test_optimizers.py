from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from core.training.optimizers import (
    SharpnessAware,
    WeightAverage,
    build_cosine_schedule,
    cosine_factor,
    frozen_batch_statistics,
)
from tests.parity import fill

START = [0.8580105845, -0.1332753394, -0.7219695505, -0.1235811999, -0.8538288060, -0.6045670514]
ASCENDED = [1.9671485436, -0.1313917421, -1.2958447700, -0.1216934676, -1.8780822069, -0.9114490223]


def bowl(weights: Tensor) -> Tensor:
    return ((weights - 0.3) ** 2).sum() + weights.sin().sum()


def bowl_gradient(weights: Tensor) -> Tensor:
    return 2 * (weights - 0.3) + weights.cos()


def parity_parameter() -> nn.Parameter:
    return nn.Parameter(fill("w", 2, 3))


def test_asam_climbs_as_the_published_module_does() -> None:
    weights = parity_parameter()
    torch.testing.assert_close(weights.detach().flatten().tolist(), START, atol=1e-9, rtol=0)
    asam = SharpnessAware(torch.optim.AdamW([weights], lr=1e-4), rho=2.0, is_adaptive=True)
    bowl(weights).backward()
    asam.ascend()
    torch.testing.assert_close(weights.detach().flatten().tolist(), ASCENDED, atol=1e-9, rtol=0)


def test_asam_steps_from_the_start_with_the_gradient_of_the_summit() -> None:
    weights, twin = parity_parameter(), parity_parameter()
    asam = SharpnessAware(
        torch.optim.AdamW([weights], lr=1e-4, weight_decay=0.03), rho=2.0, is_adaptive=True
    )
    base = torch.optim.AdamW([twin], lr=1e-4, weight_decay=0.03)

    def closure() -> Tensor:
        loss = bowl(weights)
        loss.backward()
        return loss

    loss = asam.step(closure)
    twin.grad = bowl_gradient(torch.tensor(ASCENDED, dtype=torch.float64).reshape(2, 3))
    base.step()
    assert loss.item() == pytest.approx(bowl(parity_parameter().detach()).item())
    torch.testing.assert_close(weights.detach(), twin.detach(), atol=1e-12, rtol=0)


def test_sam_climbs_a_step_of_length_rho() -> None:
    weights, bias = parity_parameter(), nn.Parameter(fill("b", 4))
    unused = nn.Parameter(torch.ones(2))
    start = torch.cat([weights.detach().flatten(), bias.detach()])
    sam = SharpnessAware(torch.optim.SGD([weights, bias, unused], lr=0.1), rho=0.05)
    (bowl(weights) + bowl(bias)).backward()
    gradient = torch.cat([weights.grad.flatten(), bias.grad])
    sam.ascend()
    moved = torch.cat([weights.detach().flatten(), bias.detach()]) - start
    torch.testing.assert_close(moved, 0.05 * gradient / gradient.norm())
    assert (unused == 1).all()


def test_clipping_bounds_the_step_and_not_the_climb() -> None:
    climbs, steps = [], []
    for clip_norm in (None, 0.1):
        weights = parity_parameter()
        optimizer = torch.optim.SGD([weights], lr=1.0)
        sam = SharpnessAware(optimizer, rho=0.05, clip_norm=clip_norm)
        bowl(weights).backward()
        sam.ascend()
        climbs.append(weights.detach().clone())
        optimizer.zero_grad()
        bowl(weights).backward()
        sam.descend()
        steps.append((weights.detach() - fill("w", 2, 3)).norm().item())
    torch.testing.assert_close(climbs[0], climbs[1], atol=1e-6, rtol=0)
    assert steps[1] == pytest.approx(0.1, rel=1e-4)
    assert steps[0] > 1


def test_resumed_run_continues_exactly() -> None:
    def run(count: int, weights: nn.Parameter, sam: SharpnessAware) -> None:
        def closure() -> Tensor:
            loss = bowl(weights)
            loss.backward()
            return loss

        for _ in range(count):
            sam.step(closure)

    def fresh(start: Tensor) -> tuple[nn.Parameter, SharpnessAware]:
        weights = nn.Parameter(start.clone())
        return weights, SharpnessAware(torch.optim.AdamW([weights], lr=0.1), 0.05)

    whole, sam = fresh(fill("w", 6))
    run(6, whole, sam)
    half, sam = fresh(fill("w", 6))
    run(3, half, sam)
    resumed, second = fresh(half.detach())
    second.load_state_dict(sam.state_dict())
    run(3, resumed, second)
    assert torch.equal(whole, resumed)


def normed_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


@pytest.mark.parametrize("is_still", [True, False])
def test_batch_statistics_follow_the_first_pass_only_when_asked(is_still: bool) -> None:
    model, reference, images = normed_model(), normed_model(), torch.rand(16, 4)
    sam = SharpnessAware(
        torch.optim.SGD(model.parameters(), lr=0.1),
        rho=0.5,
        still_statistics=model if is_still else None,
    )

    def closure() -> Tensor:
        loss = model(images).square().mean()
        loss.backward()
        return loss

    sam.step(closure)
    reference(images)
    same = torch.equal(model[1].running_mean, reference[1].running_mean)
    assert same == is_still
    assert model[1].num_batches_tracked.item() == (1 if is_still else 2)


def test_frozen_statistics_still_normalise_by_the_batch_and_thaw_after_an_error() -> None:
    model, images = normed_model(), torch.rand(16, 4)
    expected = model(images)
    with frozen_batch_statistics(model):
        torch.testing.assert_close(model(images), expected)
    with pytest.raises(RuntimeError, match="shape"), frozen_batch_statistics(model):
        model(torch.rand(16, 5))
    model(images)
    assert model[1].num_batches_tracked.item() == 2


def test_schedule_warms_up_then_falls_to_its_floor() -> None:
    assert cosine_factor(0, 100, 10) == 0
    assert cosine_factor(5, 100, 10) == 0.5
    assert cosine_factor(10, 100, 10) == 1
    assert cosine_factor(55, 100, 10) == pytest.approx(0.5)
    assert cosine_factor(100, 100, 10, floor=1e-6) == pytest.approx(1e-6)
    assert cosine_factor(500, 100, 10, floor=1e-6) == pytest.approx(1e-6)
    assert cosine_factor(25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    values = [cosine_factor(step, 100, 10) for step in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_schedule_drives_the_optimizer() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_cosine_schedule(optimizer, total_steps=4, warmup_steps=2)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 1, 2, 1, 0])


def test_average_follows_its_recurrence_and_leaves_the_model_alone() -> None:
    model = normed_model()
    average = WeightAverage(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    for n in range(12):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model[1].num_batches_tracked.add_(1)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    own = model[0].weight.detach().clone()
    with average.applied(model):
        torch.testing.assert_close(model[0].weight.detach(), expected)
        assert model[1].num_batches_tracked.item() == 12
    assert torch.equal(model[0].weight, own)


def test_average_resumes() -> None:
    model = normed_model()
    first, second = WeightAverage(model), WeightAverage(model)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    first.update(model)
    second.load_state_dict(first.state_dict())
    assert second.updates == 1
    assert all(torch.equal(first.average[k], v) for k, v in second.average.items())
    with pytest.raises(ValueError, match="other keys"):
        second.load_state_dict({"average": {}, "updates": 0})


def test_wrong_knobs_are_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="rho"):
        SharpnessAware(optimizer, rho=0.0)
    with pytest.raises(ValueError, match="clip_norm"):
        SharpnessAware(optimizer, clip_norm=-1.0)
    with pytest.raises(ValueError, match="warm-up"):
        build_cosine_schedule(optimizer, total_steps=5, warmup_steps=6)
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(nn.Linear(1, 1), decay=1.0)
