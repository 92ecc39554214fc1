"""core.training.memory: tiles of earlier steps as wrong answers, beside the slow loop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from core.polar import BINS
from core.training.memory import TileMemory

SIZE = 3


def tiles(count: int, seed: int) -> torch.Tensor:
    """Descriptors (count, 32 * 3) of unit bins, exact in bfloat16's few digits."""
    generator = torch.Generator().manual_seed(seed)
    bins = F.normalize(torch.randn(count, BINS, SIZE, generator=generator), dim=2) / BINS**0.5
    return bins.flatten(1).bfloat16().float()


def views(count: int, bins: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = F.normalize(torch.randn(count, bins * SIZE, generator=generator), dim=1)
    return drawn.bfloat16().float().requires_grad_()


@pytest.mark.parametrize("bins", [8, 32])
def test_wrong_hypotheses_equal_the_slow_loop(bins: int) -> None:
    memory = TileMemory(2, BINS * SIZE, capacity=16, hardest=1000)
    known, queries = tiles(6, 1), views(3, bins, 2)
    centres = torch.tensor([[0.0, 0], [50, 0], [0, 50], [50, 50], [100, 0], [0, 100]])
    places = torch.tensor([[1.0, 0], [60, 0], [500, 500]])
    memory.add(1, known, centres)
    found = memory.wrong(1, queries, places, apart_m=15.0)
    assert found is not None
    assert found.shape == (3, 6 * BINS)
    for q in range(3):
        slow = []
        for r in range(6):
            if (centres[r] - places[q]).norm() < 15:
                continue
            laid = known[r].view(BINS, SIZE)
            for azimuth_shift in range(BINS):
                aligned = torch.stack(
                    [laid[(azimuth_shift + i) % BINS] for i in range(bins)]
                ).flatten()
                slow.append(float(queries[q].detach() @ aligned) * (BINS / bins) ** 0.5)
        got = found[q][found[q].isfinite()].detach().sort().values
        torch.testing.assert_close(got, torch.tensor(sorted(slow)), atol=1e-5, rtol=0)


def test_the_hardest_give_a_gradient_to_the_views_alone() -> None:
    memory = TileMemory(1, BINS * SIZE, capacity=16, hardest=5)
    queries = views(2, 8, 3)
    memory.add(0, tiles(9, 4), torch.zeros(9, 2))
    few = memory.wrong(0, queries, torch.full((2, 2), 99.0), 10.0)
    memory.hardest = 9 * BINS
    every = memory.wrong(0, queries, torch.full((2, 2), 99.0), 10.0)
    assert few is not None
    assert every is not None
    # Chosen in bfloat16: those with a hundredth between them may change places.
    torch.testing.assert_close(few, every.topk(5, dim=1).values, atol=1e-2, rtol=0)
    few.sum().backward()
    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0
    assert not any(buffer.requires_grad for buffer in memory.buffers())


def test_towns_are_apart_and_the_oldest_go() -> None:
    memory = TileMemory(2, BINS * SIZE, capacity=4, hardest=1000)
    queries, place = views(1, 32, 5), torch.tensor([[999.0, 0.0]])
    assert memory.wrong(0, queries, place, 10.0) is None
    many = tiles(6, 6)
    memory.add(0, many[:3], torch.arange(3)[:, None].expand(3, 2).float())
    memory.add(0, many[3:], torch.arange(3, 6)[:, None].expand(3, 2).float())
    assert memory.wrong(1, queries, place, 10.0) is None
    assert sorted(memory.centres[0, :, 0].tolist()) == [2, 3, 4, 5]
    torch.testing.assert_close(memory.described[0, 0].float(), many[4])
    found = memory.wrong(0, queries, place, 10.0)
    assert found is not None
    assert found.shape == (1, 4 * BINS)


def test_what_covers_the_place_is_no_wrong_answer() -> None:
    memory = TileMemory(1, BINS * SIZE, capacity=4)
    memory.add(0, tiles(2, 7), torch.zeros(2, 2))
    found = memory.wrong(0, views(1, 8, 8), torch.tensor([[3.0, 4.0]]), 10.0)
    assert found is not None
    assert found.isneginf().all()
