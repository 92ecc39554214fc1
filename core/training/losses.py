"""Losses of the retrieval task: similarities in, one scalar out.

Every function takes similarities with rows = queries (Q) and columns = references (R), larger is
better, and an optional bool matrix ``ignored`` (Q, R): True where a reference also covers the place
of the query (a semi-positive), so that it counts neither for nor against. A true pair is never
ignored, whatever the mask says. Half precision is widened to float32 inside.

Papers: SAIG, https://arxiv.org/abs/2302.01572; L2LTR, https://arxiv.org/abs/2107.00842;
InfoNCE, https://arxiv.org/abs/1807.03748, in the symmetric form of CLIP,
https://arxiv.org/abs/2103.00020; the azimuth match is the idea of DSM,
https://arxiv.org/abs/2005.03860.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "LearnedScale",
    "aligned_columns",
    "exhaustive_triplet",
    "hard_triplet",
    "saig_info_nce",
    "semi_hard_triplet",
    "shift_info_nce",
    "symmetric_info_nce",
]


class LearnedScale(nn.Module):
    """Learned factor in front of the similarities, exp(log_scale) = 1 / temperature, as in CLIP.

    Args:
        temperature: start value, > 0.
        largest: upper bound of the factor; CLIP's 100 keeps the softmax from freezing.

    """

    def __init__(self, temperature: float = 0.07, largest: float = 100.0) -> None:
        super().__init__()
        _check_positive("temperature", temperature)
        _check_positive("largest", largest)
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        """Give the factor, a scalar in (0, largest]."""
        return self.log_scale.clamp(max=math.log(self.largest)).exp()


def exhaustive_triplet(
    similarity: Tensor, alpha: float = 10.0, ignored: Tensor | None = None
) -> Tensor:
    """Soft-margin triplet over all negatives of the batch, as SAIG and L2LTR ship it.

    With D = 2 - 2 S and p_i = D_ii: the mean of log(1 + exp(alpha (p - D))) over both directions,
    divided by B (B - 1) although the B diagonal terms are summed too; they add the constant
    log 2 / (B - 1) and no gradient. With ``ignored``, the divisor is the number of negatives left.

    Args:
        similarity: (B, B) cosines, row i and column i being a pair.
        alpha: steepness of the soft margin, > 0; 10 in both papers.
        ignored: bool (B, B) or None.

    """
    distance, kept = _squared_distances(similarity, ignored)
    _check_positive("alpha", alpha)
    paired = distance.diagonal()
    by_query = F.softplus(alpha * (paired[:, None] - distance))
    by_reference = F.softplus(alpha * (paired[None, :] - distance))
    negatives = (kept.sum() - kept.shape[0]).clamp_min(1)
    return ((by_query + by_reference) * kept).sum() / (2 * negatives)


def hard_triplet(similarity: Tensor, alpha: float = 10.0, ignored: Tensor | None = None) -> Tensor:
    """Soft-margin triplet over the floor(sqrt(B)) hardest negatives of each anchor.

    This is what SAIG ships under the name "Semi-Triplet". Arguments as in ``exhaustive_triplet``.
    """
    distance, kept = _squared_distances(similarity, ignored)
    _check_positive("alpha", alpha)
    rows = _hardest_margin_losses(distance, kept, alpha)
    columns = _hardest_margin_losses(distance.T, kept.T, alpha)
    return 0.5 * (rows + columns)


def semi_hard_triplet(
    similarity: Tensor, alpha: float = 10.0, ignored: Tensor | None = None
) -> Tensor:
    """Soft-margin triplet over one negative per anchor, mined as SAIG's unused code describes it.

    Among the negatives nearer than the positive the farthest one is taken, so the mildest mistake;
    where nothing is nearer, the nearest negative. Arguments as in ``exhaustive_triplet``.
    """
    distance, kept = _squared_distances(similarity, ignored)
    _check_positive("alpha", alpha)
    rows = _mildest_margin_losses(distance, kept, alpha)
    columns = _mildest_margin_losses(distance.T, kept.T, alpha)
    return 0.5 * (rows + columns)


def saig_info_nce(
    similarity: Tensor, temperature: float = 0.02, ignored: Tensor | None = None
) -> Tensor:
    """InfoNCE as SAIG ships it: one cross-entropy per pair over row i and column i together.

    L_i = logsumexp({S_i.} + {S_.i without S_ii}) / t - S_ii / t: 2 B - 1 logits, mean over pairs.

    Args:
        similarity: (B, B) cosines, row i and column i being a pair.
        temperature: t > 0, fixed at 0.02 in the paper's code.
        ignored: bool (B, B) or None.

    """
    _check_square(similarity)
    _check_positive("temperature", temperature)
    logits = _widened(similarity) / temperature
    diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    hidden = _hidden(ignored, diagonal)
    rows = _without(logits, hidden)
    columns = _without(logits.T, hidden.T | diagonal)
    return (torch.cat([rows, columns], dim=1).logsumexp(dim=1) - logits.diagonal()).mean()


def symmetric_info_nce(
    similarity: Tensor,
    scale: Tensor | float,
    true_columns: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Mean of query -> reference and reference -> query cross-entropies, as in CLIP.

    Several queries may share one reference (crops of one panorama): in the second direction each
    of them is scored against the queries of other references only.

    Args:
        similarity: (Q, R).
        scale: factor on the similarities, for instance ``LearnedScale()()``.
        true_columns: int (Q,), the reference of each query; None means 0, 1, 2, ... with Q = R.
        ignored: bool (Q, R) or None.

    """
    if true_columns is None:
        _check_square(similarity)
        true_columns = torch.arange(len(similarity), device=similarity.device)
    azimuth_shifts = similarity.new_zeros(len(similarity))
    return shift_info_nce(similarity[:, :, None], true_columns, azimuth_shifts, scale, ignored)


def shift_info_nce(
    similarity: Tensor,
    true_columns: Tensor,
    true_shifts: Tensor,
    scale: Tensor | float,
    ignored: Tensor | None = None,
    wrong: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE over all (reference, azimuth shift) hypotheses, for azimuth descriptors.

    The positive of a query is its reference at its true azimuth shift, interpolated linearly between
    the two nearest whole shifts. The other shifts of the true reference are negatives, which teaches
    the heading. Query -> reference: one softmax over all R * K logits of a row. Reference -> query:
    one softmax over all (query, shift) logits of the column, without other queries of that reference.

    Args:
        similarity: (Q, R, K) over K azimuth shifts.
        true_columns: int (Q,), the reference of each query.
        true_shifts: float (Q,), the true azimuth shift in bins, taken modulo K.
        scale: factor on the similarities, for instance ``LearnedScale()()``.
        ignored: bool (Q, R) or None.
        wrong: (Q, E), similarities of further wrong hypotheses of each query, -inf for none.

    """
    logits = _widened(similarity) * scale
    queries, azimuth_shifts = torch.arange(len(logits), device=logits.device), logits.shape[2]
    floor = true_shifts.floor()
    lower = floor.long() % azimuth_shifts
    share = (true_shifts - floor).to(logits.dtype)
    matched = logits[queries, true_columns]
    positive = torch.lerp(
        matched[queries, lower], matched[queries, (lower + 1) % azimuth_shifts], share
    )
    pairs = logits.logsumexp(dim=2)
    truth = F.one_hot(true_columns, pairs.shape[1]).bool()
    rivals = _without(pairs, _hidden(ignored, truth))
    if wrong is not None:
        rivals = torch.cat([rivals, _widened(wrong) * scale], dim=1)
    forward = rivals.logsumexp(dim=1)
    columns, hidden = aligned_columns(pairs, true_columns, ignored)
    backward = _without(columns, hidden).logsumexp(dim=1)
    return 0.5 * (forward + backward).mean() - positive.mean()


def aligned_columns(
    scores: Tensor, true_columns: Tensor, ignored: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Re-order a (Q, R) matrix by reference: one row per query, its truth on the diagonal.

    Args:
        scores: (Q, R).
        true_columns: int (Q,), the reference of each query.
        ignored: bool (Q, R) or None.

    Returns:
        Scores (Q, Q), where [i, q] is the score of query q with the reference of query i, and a
        bool (Q, Q) that hides the ignored ones and the other queries of the same reference.

    """
    columns = scores.T[true_columns]
    diagonal = torch.eye(len(columns), dtype=torch.bool, device=scores.device)
    hidden = true_columns[:, None] == true_columns[None, :]
    if ignored is not None:
        hidden = hidden | ignored.T[true_columns]
    return columns, hidden & ~diagonal


def _hardest_margin_losses(distance: Tensor, kept: Tensor, alpha: float) -> Tensor:
    """Average over the floor(sqrt(B)) nearest kept negatives of each row of (B, B); a scalar."""
    count = math.isqrt(len(distance))
    candidates, chosen = _negatives(distance, kept).topk(count, dim=1, largest=False)
    found = torch.isfinite(candidates)
    margins = distance.diagonal()[:, None] - distance.gather(1, chosen)
    return (F.softplus(alpha * margins) * found).sum() / found.sum().clamp_min(1)


def _mildest_margin_losses(distance: Tensor, kept: Tensor, alpha: float) -> Tensor:
    """Average over one mined negative of each row of (B, B); a scalar."""
    paired = distance.diagonal()
    candidates = _negatives(distance, kept)
    nearest = candidates.argmin(dim=1)
    nearer = candidates < paired[:, None]
    mildest = candidates.masked_fill(~nearer, -torch.inf).argmax(dim=1)
    chosen = torch.where(nearer.any(dim=1), mildest, nearest)[:, None]
    found = torch.isfinite(candidates.gather(1, chosen))
    margins = paired[:, None] - distance.gather(1, chosen)
    return (F.softplus(alpha * margins) * found).sum() / found.sum().clamp_min(1)


def _squared_distances(similarity: Tensor, ignored: Tensor | None) -> tuple[Tensor, Tensor]:
    """D = 2 - 2 S (B, B), and bool (B, B): the pairs that count, the diagonal included."""
    _check_square(similarity)
    diagonal = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return 2 - 2 * _widened(similarity), ~_hidden(ignored, diagonal)


def _negatives(distance: Tensor, kept: Tensor) -> Tensor:
    """Distances (B, B) for mining, without gradient: infinite on the diagonal and where ignored."""
    diagonal = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    return distance.detach().masked_fill(~kept | diagonal, torch.inf)


def _hidden(ignored: Tensor | None, truth: Tensor) -> Tensor:
    """The ignored mask with the true pairs taken out of it; bool, the shape of ``truth``."""
    return torch.zeros_like(truth) if ignored is None else ignored & ~truth


def _without(logits: Tensor, hidden: Tensor) -> Tensor:
    """Logits with the hidden ones so low that a softmax gives them exactly nothing.

    Finite, because a row that is hidden altogether must give gradient zero and never NaN.
    """
    return logits.masked_fill(hidden, torch.finfo(logits.dtype).min / 4)


def _widened(similarity: Tensor) -> Tensor:
    return similarity.to(torch.promote_types(similarity.dtype, torch.float32))


def _check_square(similarity: Tensor) -> None:
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(
            f"similarity: got shape {tuple(similarity.shape)}, expected (B, B). "
            "Row i and column i must be a pair."
        )


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: got {value}, expected a number above 0.")
