"""Distillation losses: a student learns from an interacting teacher which pairs and parts match.

GeoSSK: "Cross-View Geo-Localization via Learning Correspondence Semantic Similarity Knowledge",
MMM 2025, LNCS 15520, pp. 220-233. Only its abstract is public, so the equations are this
project's reconstruction: SSKD (semantic similarity knowledge distillation) over relations between
images and between local tokens, and IKF (incorrect knowledge filter). A third loss, on descriptors,
follows Distill4Geo (ICONIP 2025).

Scores are (Q, R): rows queries, columns references, larger is better. The teacher's tensors are
detached here. If no row is kept, the loss is zero with a graph, never NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.training.losses import aligned_columns

__all__ = [
    "RelationKnowledge",
    "descriptor_knowledge_loss",
    "filter_incorrect_knowledge",
    "local_knowledge_loss",
    "relation_knowledge_loss",
]


class RelationKnowledge(NamedTuple):
    """Result of ``relation_knowledge_loss``; three scalars.

    ``loss`` carries the gradient; ``kept_rows`` and ``kept_columns`` are the shares, 0 to 1, of the
    queries whose truth the teacher ranks first among the references, and among the queries.
    """

    loss: Tensor
    kept_rows: Tensor
    kept_columns: Tensor


def filter_incorrect_knowledge(
    teacher: Tensor, true_columns: Tensor, temperature: float, ignored: Tensor | None = None
) -> Tensor:
    """Weight of each row of the teacher's scores (IKF).

    A row counts only if the truth scores strictly above every other reference; its weight is then
    the teacher's probability of the truth. So a collapsed teacher teaches nothing. Ignored
    references (semi-positives) are no rivals: ranking one of them first is not an error.

    Args:
        teacher: (Q, R) scores.
        true_columns: int (Q,), the reference of each query.
        temperature: of the softmax that gives the probability, > 0.
        ignored: bool (Q, R) or None.

    Returns:
        Weights (Q,), detached: 0 for a row that is filtered out, else above 1 / R, at most 1.

    """
    _check_temperature(temperature)
    truth = F.one_hot(true_columns, teacher.shape[1]).bool()
    scores = _widened(teacher.detach())
    rivals = scores.masked_fill(truth | _hidden(ignored, truth), -torch.inf).amax(dim=1)
    is_kept = scores[truth] > rivals
    shares = _log_softmax(scores / temperature, _hidden(ignored, truth)).exp()[truth]
    return shares * is_kept


def relation_knowledge_loss(
    student: Tensor,
    teacher: Tensor,
    true_columns: Tensor,
    temperature: float,
    ignored: Tensor | None = None,
    *,
    is_filtered: bool = True,
) -> RelationKnowledge:
    """Teach which images resemble each other (SSKD_relation).

    t^2 KL(softmax(teacher / t) || softmax(student / t)) of every row and of every column, each
    direction averaged with the weights of ``filter_incorrect_knowledge``, then the mean of the two.
    A column is seen once for each query that has it as its truth, without the other queries of
    that reference.

    Args:
        student: (Q, R) scores with gradient.
        teacher: (Q, R) scores of the same pairs.
        true_columns: int (Q,), the reference of each query.
        temperature: t > 0.
        ignored: bool (Q, R), semi-positives that leave both softmaxes, or None. The truth stays.
        is_filtered: False gives all rows and columns one weight (the ablation without IKF); the
            shares are reported all the same.

    """
    _check_temperature(temperature)
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher scores: got {tuple(teacher.shape)}, expected {tuple(student.shape)}. "
            "Score the same pairs with both models."
        )
    truth = F.one_hot(true_columns, student.shape[1]).bool()
    rows, kept_rows = _direction(
        student, teacher, true_columns, temperature, _hidden(ignored, truth), is_filtered
    )
    student_columns, hidden = aligned_columns(student, true_columns, ignored)
    teacher_columns, _ = aligned_columns(teacher, true_columns, ignored)
    diagonal = torch.arange(len(student), device=student.device)
    columns, kept_columns = _direction(
        student_columns, teacher_columns, diagonal, temperature, hidden, is_filtered
    )
    return RelationKnowledge(0.5 * (rows + columns), kept_rows, kept_columns)


def descriptor_knowledge_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Teach the descriptors themselves (after Distill4Geo's cosine embedding loss); a scalar.

    The mean of 1 - cosine between each bin of the student and the same bin of the teacher.

    Args:
        student: (B, n, D) raw bins, or (B, 1, D) whole descriptors, with gradient.
        teacher: (B, n, D) of the same images.

    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher descriptors: got {tuple(teacher.shape)}, expected {tuple(student.shape)}. "
            "Describe the same images by as many numbers with both models."
        )
    similarity = F.cosine_similarity(_widened(student), _widened(teacher.detach()), dim=2)
    return 1 - similarity.mean()


def local_knowledge_loss(
    ground_tokens: Tensor,
    aerial_tokens: Tensor,
    teacher_attention: Tensor,
    gates: Tensor,
    temperature: float,
    pair_weights: Tensor | None = None,
) -> Tensor:
    """Teach which parts of a matched pair correspond (SSKD_local); a scalar.

    KL(teacher attention, heads averaged || softmax over m of cos(G_n, A_m) / t) of every ground
    token n, averaged with the weights gate[n] * pair weight.

    Args:
        ground_tokens: (B, N, C) of the student, with gradient.
        aerial_tokens: (B, M, C) of the student, row b being the true reference of ground row b.
        teacher_attention: (B, H, N, M) per head, or (B, N, M); each last axis sums to 1.
        gates: (B, N) in [0, 1], the teacher's contribution gates of the ground tokens.
        temperature: t > 0.
        pair_weights: (B,) >= 0, for instance from ``filter_incorrect_knowledge``; None means 1.

    """
    _check_temperature(temperature)
    attention = _widened(teacher_attention.detach())
    if attention.ndim == 4:
        attention = attention.mean(dim=1)
    ground = F.normalize(_widened(ground_tokens), dim=2)
    aerial = F.normalize(_widened(aerial_tokens), dim=2)
    logits = (ground @ aerial.transpose(1, 2)) / temperature
    entropy = torch.special.entr(attention).sum(dim=2)
    divergence = -(attention * logits.log_softmax(dim=2)).sum(dim=2) - entropy
    weights = gates.detach().to(divergence.dtype)
    if pair_weights is not None:
        weights = weights * pair_weights.detach()[:, None]
    return _weighted_mean(divergence, weights)


def _direction(
    student: Tensor,
    teacher: Tensor,
    truth: Tensor,
    temperature: float,
    hidden: Tensor,
    is_filtered: bool,
) -> tuple[Tensor, Tensor]:
    """Loss of the rows of (Q, R), and the share of them that the filter keeps; two scalars."""
    weights = filter_incorrect_knowledge(teacher, truth, temperature, hidden)
    kept = (weights > 0).to(weights.dtype).mean()
    expected = _log_softmax(_widened(teacher.detach()) / temperature, hidden)
    given = _log_softmax(_widened(student) / temperature, hidden)
    divergence = (expected.exp() * (expected - given)).sum(dim=1)
    weights = weights if is_filtered else torch.ones_like(weights)
    return temperature**2 * _weighted_mean(divergence, weights), kept


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    # Divided first: with no weight at all the gradient is zero, not infinity times zero.
    shares = weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    return (values * shares).sum()


def _log_softmax(logits: Tensor, hidden: Tensor) -> Tensor:
    """Log-softmax over the last axis; hidden entries get probability 0 and a finite logarithm."""
    return logits.masked_fill(hidden, torch.finfo(logits.dtype).min / 4).log_softmax(dim=-1)


def _hidden(ignored: Tensor | None, truth: Tensor) -> Tensor:
    return torch.zeros_like(truth) if ignored is None else ignored & ~truth


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature}, expected a number above 0.")
