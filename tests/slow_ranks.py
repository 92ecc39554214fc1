"""Ranks by loops over a full list of exact similarities, and small cases to ask them about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """Descriptors drawn from a pool smaller than their number, so that many tie exactly."""

    queries: np.ndarray
    references: np.ndarray
    positives: list[list[int]]
    ignored: list[list[int]]


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def drawn(seed: int, queries: int, references: int, size: int, pool: int) -> Case:
    random = np.random.default_rng(seed)
    kinds = unit(random.normal(size=(pool, size)))
    positives, ignored = [], []
    for _ in range(queries):
        chosen = random.permutation(references)
        right = int(random.integers(1, references + 1))
        aside = int(random.integers(0, references - right + 1))
        positives.append(chosen[:right].tolist())
        ignored.append(chosen[right : right + aside].tolist())
    return Case(
        kinds[random.integers(0, pool, queries)],
        kinds[random.integers(0, pool, references)],
        positives,
        ignored,
    )


def memory_mb(side: int, size: int) -> float:
    """Working memory that makes chunks of about ``side`` rows and columns."""
    return max(9 * side**2 + 16 * side * size, 32 * size + 9) / 1e6


def similarity(case: Case, query: int) -> list[int]:
    """Whole numbers in units of 2^-52: Python's own, of any length, so nothing is rounded."""

    def fixed(row: np.ndarray) -> list[int]:
        return [round(float(value) * 2**26) for value in row]

    asking = fixed(case.queries[query])
    return [sum(a * b for a, b in zip(asking, fixed(row), strict=True)) for row in case.references]


def truth_rank(case: Case, query: int, left_out: list[int]) -> int:
    values, truth = similarity(case, query), case.positives[query][0]
    return sum(
        values[other] >= values[truth]
        for other in range(len(values))
        if other != truth and other not in left_out
    )


def places(case: Case, query: int) -> list[int]:
    """Places of positives in a ranking that puts wrong answers first among equals."""
    values, right = similarity(case, query), set(case.positives[query])
    kept = [other for other in range(len(values)) if other not in case.ignored[query]]
    kept.sort(key=lambda other: (-values[other], other in right))
    return [place for place, other in enumerate(kept) if other in right]


def rank_of_truth(similarity: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rank (Q,) of the true reference in each row of similarities (Q, R); ties count against.

    ``truth``: (Q,) column of the true reference.
    """
    rows = np.arange(len(similarity))
    own = similarity[rows, truth][:, None]
    return np.asarray((~(similarity < own)).sum(axis=1) - 1, dtype=np.int64)


def worst_first_place(similarity: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Column (Q,) of the first place; of several equally good ones the farthest from the truth.

    similarity, distance: (Q, R); distance in metres from the query's camera.
    """
    best = similarity.max(axis=1, keepdims=True)
    tied = np.where(similarity >= best, distance, -np.inf)
    return np.asarray(tied.argmax(axis=1), dtype=np.int64)
