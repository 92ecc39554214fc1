"""Similarity in chunks: run alone with ``pytest tests/test_chunks.py``."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from core.errors import SettingError
from core.evaluation.chunks import (
    _chunk_side,
    check_descriptors,
    pair_similarity,
    similarity_chunks,
)
from tests.slow_ranks import drawn, memory_mb, similarity, unit


def whole(queries: np.ndarray, references: np.ndarray, chunk_mb: float) -> np.ndarray:
    matrix = np.full((len(queries), len(references)), np.nan)
    for rows, columns, chunk in similarity_chunks(queries, references, chunk_mb):
        assert np.isnan(matrix[rows, columns]).all()
        matrix[rows, columns] = chunk
    return matrix


@pytest.mark.parametrize("side", [1, 3, 7, 50])
def test_chunks_cover_the_matrix_once_and_exactly(side: int) -> None:
    case = drawn(0, 11, 17, 5, 9)
    matrix = whole(case.queries, case.references, memory_mb(side, 5))
    assert matrix.tolist() == [similarity(case, query) for query in range(11)]
    rows, columns = np.divmod(np.arange(11 * 17), 17)
    pairs = pair_similarity(case.queries, case.references, rows, columns, memory_mb(side, 5))
    assert pairs.tolist() == matrix.ravel().tolist()


def test_similarity_is_the_cosine_to_within_a_float32_product() -> None:
    random = np.random.default_rng(0)
    queries, references = (unit(random.normal(size=(40, 384))) for _ in range(2))
    exact = queries.astype(np.float64) @ references.astype(np.float64).T
    np.testing.assert_allclose(whole(queries, references, 1) * 2.0**-52, exact, atol=5e-8, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 384, 3072])
def test_the_largest_sums_are_exact(size: int) -> None:
    """All of one sign and as long as is let through: no sum of whole numbers reaches 2^53."""
    longest = np.full((2, size), 1.0009 / size**0.5, np.float32)
    check_descriptors(longest, longest)
    unit_steps = round(float(longest[0, 0]) * 2**26)
    assert unit_steps**2 * size < 2**53
    assert (whole(longest, longest, 1) == unit_steps**2 * size).all()


def test_equal_descriptors_tie_wherever_they_stand() -> None:
    random = np.random.default_rng(0)
    queries = unit(random.normal(size=(67, 96)))
    references = np.repeat(unit(random.normal(size=(1, 96))), 131, axis=0)
    matrix = whole(queries, references, memory_mb(29, 96))
    assert (matrix == matrix[:, :1]).all()


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "chunk_mb"), [(8, 0.5), (128, 2.0)])
def test_working_memory_stays_below_the_bound(size: int, chunk_mb: float) -> None:
    random = np.random.default_rng(0)
    queries, references = (unit(random.normal(size=(1500, size))) for _ in range(2))
    rows = np.arange(1500)
    few = 0.2e6  # indices, lengths, buffers and the interpreter's own
    bound = chunk_mb * 1e6 + few

    def compare() -> None:
        for _, _, chunk in similarity_chunks(queries, references, chunk_mb):
            assert (chunk < np.inf).all()

    assert 4 * bound < 8 * 1500**2
    assert bound / 2 < peak_bytes(compare) < bound
    assert peak_bytes(lambda: pair_similarity(queries, references, rows, rows, chunk_mb)) < bound
    assert peak_bytes(lambda: check_descriptors(queries, references)) < few


@pytest.mark.parametrize("size", [384, 768, 4096])
def test_a_city_sized_chunk_is_large_and_fits(size: int) -> None:
    side = _chunk_side(size, 128)
    assert 9 * side**2 + 16 * side * size <= 128e6 < 9 * (side + 1) ** 2 + 16 * (side + 1) * size
    assert 1000 < side < 92_802


def faulty(**changes: object) -> np.ndarray:
    values = unit(np.random.default_rng(0).normal(size=(4, 3)))
    for row, value in changes.items():
        values[int(row[1:])] = value
    return values


@pytest.mark.parametrize(
    ("queries", "references", "words"),
    [
        (faulty(_2=np.nan), faulty(), "Query descriptor 2: got a value that is not finite"),
        (faulty(), faulty(_1=np.inf), "Reference descriptor 1: got a value that is not finite"),
        (faulty(), faulty(_3=0.0), "Reference descriptor 3: got length 0"),
        (faulty(_0=(3.0, 0.0, 4.0)), faulty(), "Query descriptor 0: got length 5"),
        (faulty()[0], faulty(), r"Query descriptors: got float32 of shape \(3,\)"),
        (faulty()[:0], faulty(), r"Query descriptors: got float32 of shape \(0, 3\)"),
        (faulty(), np.eye(3, dtype=int), "Reference descriptors: got int64"),
        (faulty(), np.eye(4, dtype=np.float32), "got 3 values per query and 4 per reference"),
    ],
)
def test_bad_descriptors_are_refused(queries, references, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        check_descriptors(queries, references)


@pytest.mark.parametrize("chunk_mb", [0.0, -1.0, float("nan"), 1e-4])
def test_too_little_memory_is_refused(chunk_mb: float) -> None:
    with pytest.raises(SettingError, match=r"chunk_mb: got .*, expected at least 0\.000105"):
        next(similarity_chunks(faulty(), faulty(), chunk_mb))
