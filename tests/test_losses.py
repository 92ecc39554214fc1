from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.training import losses
from tests.parity import fill

SQUARE_LOSSES = [
    losses.exhaustive_triplet,
    losses.hard_triplet,
    losses.semi_hard_triplet,
    losses.saig_info_nce,
    lambda s, ignored=None: losses.symmetric_info_nce(s, 20.0, ignored=ignored),
]


def random_similarity(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1


def random_mask(rows: int, columns: int, seed: int = 1, share: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator) < share


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def log_sum_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


# --- the slow versions, from the papers' formulas -----------------------------------------------


def slow_exhaustive(s: Tensor, alpha: float, ignored: Tensor) -> float:
    b, total, negatives = len(s), 0.0, 0
    for i in range(b):
        for j in range(b):
            if i != j and ignored[i, j]:
                continue
            negatives += i != j
            d = 2 - 2 * float(s[i, j])
            for pair in (i, j):
                total += softplus(alpha * (2 - 2 * float(s[pair, pair]) - d))
    return total / 2 / max(negatives, 1)


def slow_mined(s: Tensor, alpha: float, ignored: Tensor, mildest: bool) -> float:
    directions = []
    for matrix, mask in ((s, ignored), (s.T, ignored.T)):
        terms = []
        for i in range(len(s)):
            positive = 2 - 2 * float(matrix[i, i])
            found = sorted(
                2 - 2 * float(matrix[i, j]) for j in range(len(s)) if j != i and not mask[i, j]
            )
            if mildest:
                nearer = [d for d in found if d < positive]
                chosen = nearer[-1:] or found[:1]
            else:
                chosen = found[: math.isqrt(len(s))]
            terms += [softplus(alpha * (positive - d)) for d in chosen]
        directions.append(sum(terms) / max(len(terms), 1))
    return sum(directions) / 2


def slow_saig_info_nce(s: Tensor, temperature: float, ignored: Tensor) -> float:
    total = 0.0
    for i in range(len(s)):
        logits = [float(s[i, i])]
        for j in range(len(s)):
            if j != i and not ignored[i, j]:
                logits.append(float(s[i, j]))
            if j != i and not ignored[j, i]:
                logits.append(float(s[j, i]))
        total += log_sum_exp([v / temperature for v in logits]) - float(s[i, i]) / temperature
    return total / len(s)


def slow_shift(
    s: Tensor, columns: Tensor, azimuth_shifts: Tensor, scale: float, ignored: Tensor
) -> float:
    queries, references, k = s.shape
    total = 0.0
    for q in range(queries):
        true = int(columns[q])
        low = math.floor(azimuth_shifts[q])
        share = float(azimuth_shifts[q]) - low
        positive = (1 - share) * s[q, true, low % k] + share * s[q, true, (low + 1) % k]
        forward, backward = [], []
        for r in range(references):
            for azimuth_shift in range(k):
                if r == true or not ignored[q, r]:
                    forward.append(scale * float(s[q, r, azimuth_shift]))
        for other in range(queries):
            for azimuth_shift in range(k):
                is_other_crop = other != q and int(columns[other]) == true
                if other == q or not (is_other_crop or ignored[other, true]):
                    backward.append(scale * float(s[other, true, azimuth_shift]))
        for logits in (forward, backward):
            total += (log_sum_exp(logits) - scale * float(positive)) / 2
    return total / queries


# --- the published numbers ----------------------------------------------------------------------


def parity_similarity() -> Tensor:
    ground = F.normalize(fill("g", 8, 16), dim=1)
    aerial = F.normalize(fill("s", 8, 16), dim=1)
    return ground @ aerial.T


def test_exhaustive_triplet_equals_the_published_module() -> None:
    value = losses.exhaustive_triplet(parity_similarity(), alpha=10)
    assert float(value) == pytest.approx(2.2625264019, abs=1e-9)


def test_saig_info_nce_equals_the_published_module() -> None:
    value = losses.saig_info_nce(parity_similarity(), temperature=0.02)
    assert float(value) == pytest.approx(15.9864828498, abs=1e-9)


# --- fast against slow --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5, 9, 16])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_square_losses_equal_their_slow_loops(size: int, share: float) -> None:
    s, ignored = random_similarity(size, size, seed=size), random_mask(size, size, share=share)
    hidden = ignored & ~torch.eye(size, dtype=torch.bool)
    got = [float(loss(s, ignored=ignored)) for loss in SQUARE_LOSSES]
    expected = [
        slow_exhaustive(s, 10, hidden),
        slow_mined(s, 10, hidden, mildest=False),
        slow_mined(s, 10, hidden, mildest=True),
        slow_saig_info_nce(s, 0.02, hidden),
        slow_shift(s[:, :, None], torch.arange(size), torch.zeros(size), 20, hidden),
    ]
    assert got == pytest.approx(expected, rel=1e-9)


def test_symmetric_info_nce_is_two_cross_entropies() -> None:
    s, target = random_similarity(7, 7), torch.arange(7)
    rows = F.cross_entropy(20 * s, target)
    columns = F.cross_entropy(20 * s.T, target)
    torch.testing.assert_close(losses.symmetric_info_nce(s, 20.0), (rows + columns) / 2)


@pytest.mark.parametrize("seed", range(4))
def test_shift_info_nce_equals_the_triple_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    s = random_similarity(6, 4, 8, seed=seed)
    columns = torch.tensor([0, 0, 1, 2, 3, 2])
    azimuth_shifts = 8 * torch.rand(6, generator=generator, dtype=torch.float64)
    azimuth_shifts[0], azimuth_shifts[1] = 7.75, 3.0
    ignored = random_mask(6, 4, seed=seed)
    got = losses.shift_info_nce(s, columns, azimuth_shifts, torch.tensor(14.0), ignored)
    assert float(got) == pytest.approx(
        slow_shift(s, columns, azimuth_shifts, 14.0, ignored), rel=1e-9
    )


def test_further_wrong_hypotheses_are_as_those_of_one_more_reference() -> None:
    s, columns = random_similarity(3, 4, 8), torch.arange(3)
    azimuth_shifts = torch.tensor([0.5, 3.0, 7.25])
    whole = losses.shift_info_nce(s, columns, azimuth_shifts, 10.0)
    apart = losses.shift_info_nce(s[:, :3], columns, azimuth_shifts, 10.0, wrong=s[:, 3])
    torch.testing.assert_close(apart, whole)
    none = torch.full((3, 5), -torch.inf, dtype=s.dtype)
    alone = losses.shift_info_nce(s[:, :3], columns, azimuth_shifts, 10.0)
    torch.testing.assert_close(
        losses.shift_info_nce(s[:, :3], columns, azimuth_shifts, 10.0, wrong=none), alone
    )
    assert alone < whole


def test_shift_is_taken_modulo_its_count() -> None:
    s, columns = random_similarity(3, 3, 8), torch.arange(3)
    azimuth_shifts = torch.tensor([-0.25, 7.75, 3.5])
    wrapped = torch.tensor([7.75, 15.75, -4.5])
    first = losses.shift_info_nce(s, columns, azimuth_shifts, 10.0)
    torch.testing.assert_close(first, losses.shift_info_nce(s, columns, wrapped, 10.0))


def test_shift_info_nce_tells_the_heading_apart() -> None:
    s = torch.zeros(2, 2, 4)
    s[0, 0, 1] = s[1, 1, 3] = 1.0
    columns = torch.arange(2)
    right = losses.shift_info_nce(s, columns, torch.tensor([1.0, 3.0]), 10.0)
    wrong = losses.shift_info_nce(s, columns, torch.tensor([2.0, 3.0]), 10.0)
    assert right < 0.01
    assert wrong > 1


def test_crops_of_one_panorama_are_not_each_others_negatives() -> None:
    s = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = losses.symmetric_info_nce(s, 20.0, true_columns=torch.tensor([0, 0, 1]))
    assert loss < 1e-6


# --- what every loss must satisfy ---------------------------------------------------------------


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
def test_ignored_pairs_have_no_gradient_and_no_influence(loss) -> None:
    ignored = random_mask(8, 8)
    s = (0.1 * random_similarity(8, 8)).requires_grad_()
    value = loss(s, ignored=ignored)
    value.backward()
    off_diagonal = ignored & ~torch.eye(8, dtype=torch.bool)
    assert (s.grad[off_diagonal] == 0).all()
    assert s.grad.diagonal().abs().min() > 0
    changed = torch.where(off_diagonal, 1.0, s.detach())
    torch.testing.assert_close(loss(changed, ignored=ignored), value.detach())


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
@pytest.mark.parametrize("size", [1, 6])
def test_nothing_to_compare_with_gives_finite_gradients(loss, size: int) -> None:
    s = random_similarity(size, size).requires_grad_()
    value = loss(s, ignored=torch.ones(size, size, dtype=torch.bool))
    value.backward()
    assert torch.isfinite(value)
    assert (s.grad == 0).all()


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
def test_a_collapsed_model_is_not_rewarded(loss) -> None:
    separated = 2 * torch.eye(8) - 1
    assert loss(torch.ones(8, 8)) > loss(separated) + 0.5


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
def test_order_of_the_pairs_does_not_matter(loss) -> None:
    s, order = random_similarity(8, 8), torch.randperm(8, generator=torch.Generator())
    torch.testing.assert_close(loss(s), loss(s[order][:, order]))


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
def test_half_precision_is_widened(loss) -> None:
    s = random_similarity(8, 8).to(torch.bfloat16)
    value = loss(s)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(s.float()))


@pytest.mark.parametrize("loss", SQUARE_LOSSES)
def test_gradients_are_exact(loss) -> None:
    s = random_similarity(4, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(loss, (s,))


def test_shift_gradients_are_exact_and_reach_the_scale() -> None:
    scale = losses.LearnedScale(0.1).double()
    s = random_similarity(3, 2, 4).requires_grad_()
    azimuth_shifts = torch.tensor([0.25, 3.5, 2.0], dtype=torch.float64)
    columns = torch.tensor([0, 0, 1])

    def loss(similarity: Tensor, log_scale: Tensor) -> Tensor:
        return losses.shift_info_nce(similarity, columns, azimuth_shifts, log_scale.exp())

    assert torch.autograd.gradcheck(loss, (s, scale.log_scale))


def test_learned_scale_starts_at_its_temperature_and_is_bounded() -> None:
    scale = losses.LearnedScale(0.05)
    assert scale().item() == pytest.approx(20)
    with torch.no_grad():
        scale.log_scale.fill_(50.0)
    assert scale().item() == pytest.approx(100)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, B\)"):
        losses.exhaustive_triplet(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="alpha"):
        losses.exhaustive_triplet(torch.zeros(2, 2), alpha=0)
    with pytest.raises(ValueError, match="temperature"):
        losses.LearnedScale(-1)
