from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.training.optimizers import SharpnessAware
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
    second.optimizer.load_state_dict(sam.optimizer.state_dict())
    run(3, resumed, second)
    assert torch.equal(whole, resumed)


def test_both_passes_move_the_batch_statistics() -> None:
    """As in SAIG's code."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    images = torch.rand(16, 4)
    sam = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)

    def closure() -> Tensor:
        loss = model(images).square().mean()
        loss.backward()
        return loss

    sam.step(closure)
    assert model[1].num_batches_tracked.item() == 2


def test_wrong_knobs_are_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="rho"):
        SharpnessAware(optimizer, rho=0.0)
    with pytest.raises(ValueError, match="clip_norm"):
        SharpnessAware(optimizer, clip_norm=-1.0)
