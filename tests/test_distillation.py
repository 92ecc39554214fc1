from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.training.distillation import (
    descriptor_knowledge_loss,
    filter_incorrect_knowledge,
    local_knowledge_loss,
    relation_knowledge_loss,
)


def random_scores(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1


def random_mask(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.3


def softmax(values: list[float], temperature: float) -> list[float]:
    top = max(values)
    powers = [math.exp((v - top) / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def slow_list(
    student: list[float], teacher: list[float], temperature: float
) -> tuple[float, float, bool]:
    """KL, the teacher's share of the truth (the first entry), and whether it ranks first."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return divergence, p[0], all(teacher[0] > other for other in teacher[1:])


def slow_relation(
    student: Tensor, teacher: Tensor, columns: list[int], t: float, ignored: Tensor, filtered: bool
) -> tuple[float, float, float]:
    queries, references = student.shape
    directions: list[list[tuple[float, float, bool]]] = [[], []]
    for i, true in enumerate(columns):
        row = [(i, true)]
        row += [(i, r) for r in range(references) if r != true and not ignored[i, r]]
        column = [(i, true)]
        column += [(q, true) for q in range(queries) if columns[q] != true and not ignored[q, true]]
        for entries, found in zip((row, column), directions, strict=True):
            values = [[float(m[e]) for e in entries] for m in (student, teacher)]
            found.append(slow_list(values[0], values[1], t))
    losses, kept = [], []
    for found in directions:
        weights = [(share if first else 0.0) if filtered else 1.0 for _, share, first in found]
        total = sum(w * kl for w, (kl, _, _) in zip(weights, found, strict=True))
        losses.append(t * t * total / sum(weights) if sum(weights) else 0.0)
        kept.append(sum(first for _, _, first in found) / len(found))
    return sum(losses) / 2, kept[0], kept[1]


def test_filter_on_a_matrix_made_by_hand() -> None:
    teacher = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 0.0], [1.0, 3.0, 3.0]])
    truth = torch.tensor([0, 1, 2])
    weights = filter_incorrect_knowledge(teacher, truth, temperature=1.0)
    right = math.exp(2) / (math.exp(2) + math.e + 1)
    torch.testing.assert_close(weights, torch.tensor([right, 0.0, 0.0]))


def test_a_semi_positive_is_no_rival() -> None:
    teacher = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 0.0], [1.0, 3.0, 3.0]])
    ignored = torch.tensor([[False, False, False], [True, False, False], [False, True, True]])
    weights = filter_incorrect_knowledge(teacher, torch.tensor([0, 1, 2]), 1.0, ignored)
    expected = torch.tensor([0.6652, math.exp(4) / (math.exp(4) + 1), 1 / (1 + math.exp(-2))])
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=0)


def test_a_collapsed_teacher_teaches_nothing() -> None:
    student = random_scores(5, 5).requires_grad_()
    found = relation_knowledge_loss(student, torch.ones(5, 5), torch.arange(5), 0.1)
    found.loss.backward()
    assert (found.loss.item(), found.kept_rows.item(), found.kept_columns.item()) == (0, 0, 0)
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_a_model_distilled_into_itself_has_nothing_to_learn() -> None:
    scores = random_scores(6, 6) + 2 * torch.eye(6)
    student = scores.clone().requires_grad_()
    found = relation_knowledge_loss(student, scores, torch.arange(6), 0.1, random_mask(6, 6))
    found.loss.backward()
    assert found.loss.item() == pytest.approx(0, abs=1e-14)
    assert student.grad.abs().max() < 1e-12
    assert found.kept_rows.item() == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("filtered", [True, False])
def test_relation_equals_its_slow_loop(seed: int, filtered: bool) -> None:
    columns = [0, 0, 1, 2, 3, 3]
    truth = torch.tensor(columns)
    teacher = random_scores(6, 5, seed=seed) + F.one_hot(truth, 5)
    student, ignored = random_scores(6, 5, seed=seed + 50), random_mask(6, 5, seed)
    found = relation_knowledge_loss(student, teacher, truth, 0.3, ignored, is_filtered=filtered)
    expected = slow_relation(student, teacher, columns, 0.3, ignored, filtered)
    assert [float(v) for v in found] == pytest.approx(expected, rel=1e-9)
    assert 0 < expected[1] <= 1


def test_ignored_pairs_have_no_influence() -> None:
    teacher, student = random_scores(5, 5) + 2 * torch.eye(5), random_scores(5, 5, seed=2)
    ignored = random_mask(5, 5) & ~torch.eye(5, dtype=torch.bool)
    first = relation_knowledge_loss(student, teacher, torch.arange(5), 0.2, ignored)
    moved = [torch.where(ignored, 9.0, m) for m in (student, teacher)]
    second = relation_knowledge_loss(*moved, torch.arange(5), 0.2, ignored)
    torch.testing.assert_close(first, second)


def test_wrong_rows_teach_nothing_and_right_ones_do() -> None:
    teacher = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.0, 0.1, 0.9]])
    student = torch.zeros(3, 3, requires_grad=True)
    found = relation_knowledge_loss(student, teacher, torch.arange(3), 0.1)
    (row_gradient,) = torch.autograd.grad(found.loss, student)
    assert found.kept_rows.item() == pytest.approx(2 / 3)
    assert found.kept_columns.item() == 1
    only_columns = relation_knowledge_loss(student.T, teacher.T, torch.arange(3), 0.1)
    torch.testing.assert_close(only_columns.loss, found.loss)
    assert row_gradient.abs().sum() > 0


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = (random_scores(4, 4) + torch.eye(4)).requires_grad_()
    attention = random_scores(2, 3, 4, 5).softmax(3).requires_grad_()
    gates = torch.rand(2, 4, requires_grad=True)
    ground, aerial = (random_scores(2, n, 8, seed=n).requires_grad_() for n in (4, 5))
    student = random_scores(4, 4, seed=3).requires_grad_()
    loss = relation_knowledge_loss(student, teacher, torch.arange(4), 0.2).loss
    (loss + local_knowledge_loss(ground, aerial, attention, gates, 0.1)).backward()
    assert teacher.grad is None
    assert attention.grad is None
    assert gates.grad is None
    assert all(t.grad.abs().sum() > 0 for t in (student, ground, aerial))


def test_descriptors_equal_their_slow_loop() -> None:
    student, teacher = random_scores(3, 4, 6), random_scores(3, 4, 6, seed=5)
    total = 0.0
    for image in range(3):
        for n in range(4):
            own, known = student[image, n], teacher[image, n]
            cosine = float(own @ known / (own.norm() * known.norm()))
            total += (1 - cosine) / 12
    assert float(descriptor_knowledge_loss(student, teacher)) == pytest.approx(total)
    assert float(descriptor_knowledge_loss(student, 3 * student)) == pytest.approx(0, abs=1e-6)
    taught, known = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    descriptor_knowledge_loss(taught, known).backward()
    assert known.grad is None
    assert taught.grad is not None
    with pytest.raises(ValueError, match="teacher descriptors: got"):
        descriptor_knowledge_loss(student, teacher[:, :3])


def slow_local(
    ground: Tensor, aerial: Tensor, attention: Tensor, gates: Tensor, t: float, pairs: list[float]
) -> float:
    total = weight_sum = 0.0
    for b in range(len(ground)):
        for n in range(ground.shape[1]):
            cosines = [
                float(ground[b, n] @ a / (ground[b, n].norm() * a.norm())) for a in aerial[b]
            ]
            q = softmax(cosines, t)
            p = [float(attention[b, :, n, m].mean()) for m in range(aerial.shape[1])]
            kl = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)
            weight = float(gates[b, n]) * pairs[b]
            total, weight_sum = total + weight * kl, weight_sum + weight
    return total / weight_sum


@pytest.mark.parametrize("seed", range(3))
def test_local_equals_its_slow_loop(seed: int) -> None:
    ground, aerial = random_scores(3, 4, 8, seed=seed), random_scores(3, 6, 8, seed=seed + 9)
    attention = (5 * random_scores(3, 2, 4, 6, seed=seed)).softmax(3)
    attention[:, :, :, 0] = 0
    attention = attention / attention.sum(3, keepdim=True)
    gates, pairs = random_scores(3, 4, seed=7).abs(), [0.9, 0.0, 0.4]
    got = local_knowledge_loss(
        ground, aerial, attention, gates, 0.2, torch.tensor(pairs, dtype=torch.float64)
    )
    assert float(got) == pytest.approx(slow_local(ground, aerial, attention, gates, 0.2, pairs))


def test_local_is_zero_where_the_student_already_attends_so() -> None:
    ground, aerial = random_scores(2, 4, 8), random_scores(2, 6, 8, seed=4)
    cosines = torch.cosine_similarity(ground[:, :, None], aerial[:, None], dim=3)
    attention = (cosines / 0.1).softmax(2)
    loss = local_knowledge_loss(ground, aerial, attention, torch.ones(2, 4), 0.1)
    assert float(loss) == pytest.approx(0, abs=1e-12)


def test_local_without_any_weight_is_zero() -> None:
    ground = random_scores(2, 4, 8).requires_grad_()
    attention = torch.full((2, 4, 6), 1 / 6)
    loss = local_knowledge_loss(ground, random_scores(2, 6, 8), attention, torch.zeros(2, 4), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert (ground.grad == 0).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        relation_knowledge_loss(torch.zeros(2, 2), torch.zeros(2, 2), torch.arange(2), 0.0)
    with pytest.raises(ValueError, match="same pairs"):
        relation_knowledge_loss(torch.zeros(2, 2), torch.zeros(2, 3), torch.arange(2), 1.0)
