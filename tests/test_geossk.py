"""The teacher: exact contribution factors, pairs that do not know of each other, a slow oracle."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from core.errors import SettingError
from core.models import build_model
from core.models.geossk import (
    GeoSSK,
    GeoSSKConfig,
    contribution_factor,
)
from core.polar import BINS

CHANNELS, ROWS = 128, 4


def make_teacher(pooling: str = "azimuth", **switches: bool) -> GeoSSK:
    torch.manual_seed(0)
    base = build_model("convnet-s", pooling, (64, 256), (64, 64), dim=6, polar=True)
    teacher = GeoSSK(base, GeoSSKConfig(**switches)).eval()
    with torch.no_grad():
        teacher.output.weight.normal_(std=0.3)
        teacher.azimuth_bias.normal_(std=0.5)
        teacher.kappa.fill_(0.7)
        teacher.beta.fill_(0.2)
    return teacher


def tokens(count: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, ROWS * columns, CHANNELS, generator=generator)


def slow_summands(teacher: GeoSSK, x: torch.Tensor, pool: torch.nn.Module) -> torch.Tensor:
    """Each token's summand of its descriptor, at the image's own scale."""
    if teacher.base.bins is None:
        parts = x / len(x)
    else:
        columns = len(x) // ROWS
        weight = pool.project.weight
        parts = torch.stack([weight[:, :, n // columns, 0] @ token for n, token in enumerate(x)])
    return parts / math.sqrt(float((parts**2).mean()))


def slow_score(
    teacher: GeoSSK, ground: torch.Tensor, aerial: torch.Tensor, azimuth_shift: int, count: int
) -> float:
    """docs/geossk.md section 4 for one pair, token by token: form G', A', pool them, take the cosine."""
    heads = teacher.config.heads
    width = CHANNELS // heads
    phi_g, phi_a = teacher.factors(ground[None], aerial[None])
    gate_g, gate_a = teacher.gate(phi_g)[0], teacher.gate(phi_a)[0]

    def value(x: torch.Tensor) -> torch.Tensor:
        return teacher.value(teacher.norm(x)).view(len(x), heads, width)

    def interacted(mine, theirs, gate_mine, gate_theirs, is_ground):
        pools = teacher.base.ground_pool, teacher.base.aerial_pool
        own, other = pools if is_ground else pools[::-1]
        q = teacher.query(slow_summands(teacher, mine, own)).unflatten(1, (heads, -1))
        k = teacher.key(slow_summands(teacher, theirs, other)).unflatten(1, (heads, -1))
        v = value(theirs)
        columns = len(mine) // ROWS
        result = mine.clone()
        for n in range(len(mine)):
            message = torch.zeros(heads, width)
            for h in range(heads):
                logits = []
                for m in range(len(theirs)):
                    logit = q[n, h] @ k[m, h] / math.sqrt(q.shape[2]) + gate_theirs[m].log()
                    row_n, col_n = divmod(n, columns)
                    row_m, col_m = divmod(m, len(theirs) // ROWS)
                    if teacher.base.bins and is_ground:
                        logit += teacher.azimuth_bias[
                            h, row_n, row_m, (col_m - col_n - azimuth_shift) % BINS
                        ]
                    elif teacher.base.bins:
                        logit += teacher.azimuth_bias[
                            h, row_m, row_n, (col_n - col_m - azimuth_shift) % BINS
                        ]
                    logits.append(logit)
                attention = torch.stack(logits).softmax(0)
                message[h] = attention @ v[:, h]
            result[n] += gate_mine[n] * (teacher.output.weight @ message.flatten())
        return result

    new_g = interacted(ground, aerial, gate_g, gate_a, True)
    new_a = interacted(aerial, ground, gate_a, gate_g, False)
    if teacher.base.bins is None:
        return float(F.cosine_similarity(new_g.mean(0), new_a.mean(0), dim=0))
    bins_g = teacher.base.ground_pool.contributions(new_g, count).sum(0)
    bins_a = teacher.base.aerial_pool.contributions(new_a, BINS).sum(0)
    aligned = bins_a[(azimuth_shift + torch.arange(count)) % BINS]
    aligned = F.normalize(aligned, dim=1) / count**0.5
    return float((F.normalize(bins_g.flatten(), dim=0) * aligned.flatten()).sum())


@pytest.mark.parametrize("switches", [{}, {"contribution": False}])
@pytest.mark.parametrize("count", [3, 32])
@torch.no_grad()
def test_fast_scores_equal_the_slow_per_token_loop(switches: dict[str, bool], count: int) -> None:
    teacher = make_teacher(**switches)
    ground, aerial = tokens(2, count, 1), tokens(2, BINS, 2)
    azimuth_shifts = torch.tensor([[0, 5], [30, 17]])
    fast = teacher.pair_scores(ground, aerial, azimuth_shifts)
    for q, r in ((0, 1), (1, 0)) if count == 3 else ((1, 1),):
        slow = slow_score(teacher, ground[q], aerial[r], int(azimuth_shifts[q, r]), count)
        assert float(fast[q, r]) == pytest.approx(slow, abs=2e-5)


@torch.no_grad()
def test_global_teacher_equals_the_slow_loop_too() -> None:
    teacher = make_teacher("gap")
    ground, aerial = tokens(2, 3, 3), tokens(2, 4, 4)
    fast = teacher.pair_scores(ground, aerial)
    assert float(fast[1, 0]) == pytest.approx(
        slow_score(teacher, ground[1], aerial[0], 0, 3), abs=2e-5
    )


@torch.no_grad()
def test_a_score_does_not_depend_on_the_other_pairs() -> None:
    teacher = make_teacher()
    ground, aerial = tokens(3, 8, 5), tokens(4, BINS, 6)
    azimuth_shifts = torch.randint(0, BINS, (3, 4), generator=torch.Generator().manual_seed(0))
    together = teacher.pair_scores(ground, aerial, azimuth_shifts)
    alone = teacher.pair_scores(ground[1:2], aerial[2:3], azimuth_shifts[1:2, 2:3])
    assert float(together[1, 2]) == pytest.approx(float(alone), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("near", [True, False])
def test_tiles_are_aligned_at_the_best_shift_near_the_given_one(near: bool) -> None:
    teacher = make_teacher()
    ground = tokens(2, 8, 5)
    tiles = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    given = torch.tensor([[0, 5, 31], [30, 17, 2]])
    aerial = teacher.aerial_tokens(tiles)
    scores, azimuth_shifts = teacher.scores_near(ground, aerial, given if near else None)
    for q in range(2):
        for r in range(3):
            seen = teacher.aerial_tokens(tiles[r : r + 1])
            curve = teacher.plain_similarity(ground[q : q + 1], seen)[0, 0]
            steps = (-1, 0, 1) if near else range(BINS)
            allowed = [(int(given[q, r]) + step) % BINS for step in steps]
            best = max(allowed, key=lambda azimuth_shift, curve=curve: float(curve[azimuth_shift]))
            assert int(azimuth_shifts[q, r]) == best
            pair = teacher.pair_scores(ground[q : q + 1], seen, torch.tensor([[best]]))
            assert float(scores[q, r]) == pytest.approx(float(pair), abs=2e-5)


@torch.no_grad()
def test_a_global_teacher_knows_no_shifts() -> None:
    torch.manual_seed(2)
    base = build_model("convnet-s", "gap", (64, 256), (64, 64), dim=6, polar=False)
    teacher = GeoSSK(base).eval()
    tiles = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    ground = tokens(2, BINS, 1)
    scores, azimuth_shifts = teacher.scores_near(ground, teacher.aerial_tokens(tiles))
    assert not azimuth_shifts.any()
    torch.testing.assert_close(scores, teacher.pair_scores(ground, teacher.aerial_tokens(tiles)))


@torch.no_grad()
def test_at_step_zero_the_teacher_is_its_plain_model() -> None:
    torch.manual_seed(1)
    teacher = GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (64, 64), dim=6)).eval()
    ground, aerial = tokens(3, 8, 7), tokens(2, BINS, 8)
    curve = teacher.plain_similarity(ground, aerial)
    scores = teacher.pair_scores(ground, aerial, curve.argmax(2))
    assert torch.allclose(scores, curve.amax(2), atol=1e-6)


@torch.no_grad()
def test_without_interaction_the_teacher_is_plain_whatever_its_weights() -> None:
    teacher = make_teacher(interaction=False)
    ground, aerial = tokens(2, 32, 7), tokens(2, BINS, 8)
    curve = teacher.plain_similarity(ground, aerial)
    scores, attention = teacher.scores_and_attention(ground, aerial, curve.argmax(2))
    assert torch.allclose(scores, curve.amax(2), atol=1e-6)
    assert attention is None


@pytest.mark.parametrize("equal_bins", [True, False])
def test_contribution_factors_sum_to_one_and_find_the_distractor(equal_bins: bool) -> None:
    parts = torch.rand(5, ROWS, 9, 6) + 0.2
    parts[:, 2] *= -0.3
    phi = contribution_factor(parts, equal_bins)
    assert torch.allclose(phi.sum(1), torch.ones(5), atol=1e-5)
    assert (phi.view(5, ROWS, 9)[:, 2] < 0).all()


def test_mean_pooling_gives_the_formula_of_the_page() -> None:
    """phi_n = G_n . g / (N |g|^2) with g the mean token (docs/geossk.md section 3)."""
    ground = tokens(2, 3, 9)
    phi, _ = make_teacher("gap").factors(ground, ground)
    mean = ground.mean(1)
    for n in range(12):
        expected = (ground[0, n] @ mean[0]) / (12 * mean[0] @ mean[0])
        assert float(phi[0, n]) == pytest.approx(float(expected), rel=1e-4)


def test_equal_tokens_share_equally() -> None:
    ground = torch.ones(1, 12, CHANNELS) * torch.randn(CHANNELS)
    phi, _ = make_teacher("gap").factors(ground, ground)
    assert torch.allclose(phi, torch.full((1, 12), 1 / 12), atol=1e-6)


def test_gates_lie_in_the_open_unit_interval_and_rise_with_phi() -> None:
    teacher = make_teacher()
    phi = torch.linspace(-0.2, 0.3, 40)[None]
    gate = teacher.gate(phi)
    assert ((gate > 0) & (gate < 1)).all()
    assert (gate.diff() >= 0).all()
    assert (make_teacher(contribution=False).gate(phi) == 1).all()


@torch.no_grad()
def test_attention_rows_sum_to_one() -> None:
    teacher = make_teacher()
    ground, aerial = tokens(1, 5, 10), tokens(1, BINS, 11)
    seen = teacher.interact(ground, aerial, 29)
    assert seen.ground_to_aerial.shape == (2, 20, 128)
    assert seen.aerial_to_ground.shape == (2, 128, 20)
    assert torch.allclose(seen.ground_to_aerial.sum(2), torch.ones(2, 20), atol=1e-5)
    assert torch.allclose(seen.aerial_to_ground.sum(2), torch.ones(2, 128), atol=1e-5)


@torch.no_grad()
def test_rotating_the_tile_rotates_the_attention_with_it() -> None:
    """Aerial tokens and azimuth shift both moved by 7 columns: the same but for the columns."""
    teacher = make_teacher()
    ground, aerial = tokens(1, 6, 12), tokens(1, BINS, 13)
    rotated = aerial.unflatten(1, (ROWS, BINS)).roll(7, dims=2).flatten(1, 2)
    before, after = teacher.interact(ground, aerial, 4), teacher.interact(ground, rotated, 11)
    scores = [
        float(teacher.pair_scores(ground, tile, torch.tensor([[azimuth_shift]])))
        for tile, azimuth_shift in ((aerial, 4), (rotated, 11))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    expected = before.ground_to_aerial.unflatten(2, (ROWS, BINS)).roll(7, dims=3)
    assert torch.allclose(after.ground_to_aerial.unflatten(2, (ROWS, BINS)), expected, atol=1e-5)
    expected = before.aerial_to_ground.unflatten(1, (ROWS, BINS)).roll(7, dims=2)
    assert torch.allclose(after.aerial_to_ground.unflatten(1, (ROWS, BINS)), expected, atol=1e-5)


def test_the_teacher_cannot_be_indexed() -> None:
    assert not [name for name in dir(make_teacher()) if name.startswith("describe")]


def test_missing_shifts_are_refused() -> None:
    with pytest.raises(SettingError, match="one azimuth shift for each of 2 x 3 pairs"):
        make_teacher().pair_scores(tokens(2, 4, 1), tokens(3, BINS, 2))


@torch.no_grad()
def test_attention_begins_as_similarity() -> None:
    """Before any training a token attends to its own copy among the other view's tokens."""
    torch.manual_seed(1)
    base = build_model("convnet-s", "gap", (64, 256), (64, 64), polar=True)
    teacher = GeoSSK(base, GeoSSKConfig(contribution=False)).eval()
    ground, order = tokens(1, 3, 9), torch.randperm(3 * ROWS)
    seen = teacher.interact(ground, ground[:, order])
    back = torch.argsort(order)
    assert (seen.ground_to_aerial.argmax(dim=2) == back).all()
    assert (seen.aerial_to_ground.argmax(dim=2) == order).all()
