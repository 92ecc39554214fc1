"""Exact search against a plain matrix product, ties, subsets, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import GalleryError, SettingError
from core.gallery.faiss_index import FLAT_8BIT, FaissIndex
from core.gallery.index import engine_of


def unit(rows: int, size: int = 24, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def index_of(descriptors: np.ndarray, kind: str = FLAT_8BIT) -> FaissIndex:
    return FaissIndex.build([descriptors], kind)


def slow_search(stored: np.ndarray, query: np.ndarray, k: int, rows: list[int]) -> list[int]:
    """Best first, ties by row, one comparison at a time."""
    scored = [(-float(np.float32(stored[row]) @ query), row) for row in rows]
    return [row for _, row in sorted(scored)[:k]]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 60),
    k=st.integers(1, 70),
    seed=st.integers(0, 1000),
    subset=st.none() | st.lists(st.integers(0, 59), max_size=30),
)
def test_search_is_the_slow_search(rows: int, k: int, seed: int, subset: list[int] | None) -> None:
    index = index_of(unit(rows, seed=seed))
    stored, queries = index.reconstruct(range(rows)), unit(3, seed=seed + 1)
    chosen = None if subset is None else [row for row in subset if row < rows]
    similarities, found = index.search(queries, k, chosen)
    candidates = sorted(set(range(rows) if chosen is None else chosen))
    assert found.shape == similarities.shape == (3, min(k, len(candidates)))
    for query, row, similarity in zip(queries, found, similarities, strict=True):
        assert list(row) == slow_search(stored, query, k, candidates)
        np.testing.assert_allclose(similarity, stored[row] @ query, atol=1e-5)


def test_ties_go_by_row_even_where_the_list_ends() -> None:
    stored = unit(200)
    stored[[3, 40, 41, 42, 150, 199]] = stored[3]
    index = index_of(stored)
    for k in range(1, 8):
        _, rows = index.search(stored[3:4], k)
        assert list(rows[0][:6]) == [3, 40, 41, 42, 150, 199][:k]
    _, rows = index.search(stored[3:4], 2, rows=[199, 150, 41, 7])
    assert list(rows[0]) == [41, 150]


def test_a_collapsed_gallery_is_in_the_order_of_its_rows() -> None:
    index = index_of(np.repeat(unit(1), 500, axis=0))
    _, rows = index.search(unit(2, seed=5), 10)
    np.testing.assert_array_equal(rows, [range(10)] * 2)


def test_search_repeats_itself() -> None:
    index, queries = index_of(unit(3000, 384)), unit(40, 384, 9)
    first = index.search(queries, 20)
    one_by_one = [index.search(query[None], 20) for query in queries]
    np.testing.assert_array_equal(first[1], np.concatenate([rows for _, rows in one_by_one]))


def test_stored_are_within_half_a_step_of_8_bits() -> None:
    descriptors = unit(50, 33)
    descriptors[:, 7] = 0.25  # a number that is the same everywhere
    index = index_of(descriptors)
    step = np.ptp(descriptors, axis=0) / 255
    stored = index.reconstruct(range(50))
    assert (np.abs(stored - descriptors) <= step / 2 + 1e-6).all()
    np.testing.assert_array_equal(index.reconstruct([4, 2, 2]), stored[[4, 2, 2]])
    assert index.reconstruct([]).shape == (0, 33)
    assert (len(index), index.size, index.is_exact) == (50, 33, True)


def test_file_keeps_everything_and_its_bytes(tmp_path: Path) -> None:
    descriptors = unit(300, 48)
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    index_of(descriptors).save(a)
    FaissIndex.build([descriptors[:100], descriptors[100:]]).save(b)
    assert [file.name for file in a.iterdir()] == list(FaissIndex.files) == ["index.faiss"]
    assert (a / "index.faiss").read_bytes() == (b / "index.faiss").read_bytes()
    assert (a / "index.faiss").stat().st_size < 300 * 48 + 1000
    opened = FaissIndex.open(a)
    queries = unit(5, 48, 3)
    np.testing.assert_array_equal(
        opened.search(queries, 7)[1], index_of(descriptors).search(queries, 7)[1]
    )


def test_rounding_moves_similarities_by_a_thousandth() -> None:
    descriptors, queries = unit(2000, 768), unit(20, 768, 5)
    index = index_of(descriptors)
    moved = queries @ (index.reconstruct(range(2000)) - descriptors).T
    assert 0 < np.abs(moved).max() < 2e-3


@pytest.mark.parametrize("kind", ["HNSW16,SQfp16", "IVF4,SQfp16"])
def test_factory_kinds_search_subsets_and_reconstruct(tmp_path: Path, kind: str) -> None:
    descriptors = unit(400, 16)
    index = index_of(descriptors, kind)
    index.save(tmp_path)
    index = FaissIndex.open(tmp_path, kind)
    similarities, rows = index.search(descriptors[:5], 3)
    np.testing.assert_array_equal(rows[:, 0], range(5))
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert not index.is_exact
    _, rows = index.search(descriptors[:5], 3, rows=np.arange(0, 400, 2))
    assert (rows % 2 == 0).any()
    assert set(rows[rows >= 0] % 2) == {0}
    np.testing.assert_allclose(index.reconstruct([7]), descriptors[7:8], atol=0.01)


def test_impossible_requests_are_refused() -> None:
    index = index_of(unit(10))
    for queries in (unit(2, 25), unit(1)[0], np.full((1, 24), np.nan)):
        with pytest.raises(SettingError, match="Query descriptors"):
            index.search(queries, 1)
    with pytest.raises(SettingError, match="Number of places"):
        index.search(unit(1), 0)
    for rows in ([10], [-1]):
        with pytest.raises(SettingError, match="expected 0 to 9"):
            index.search(unit(1), 1, rows=rows)
        with pytest.raises(SettingError, match="expected 0 to 9"):
            index.reconstruct(rows)
    with pytest.raises(SettingError, match="index_factory"):
        index_of(unit(10), "NoSuchIndex")


def test_unusable_descriptors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="not finite"):
        index_of(np.full((3, 4), np.nan))
    with pytest.raises(GalleryError, match="got none"):
        FaissIndex.build([])
    with pytest.raises(GalleryError, match="one size"):
        FaissIndex.build([unit(3, 4), unit(3, 5)])
    (tmp_path / "index.faiss").write_bytes(b"no index at all")
    with pytest.raises(GalleryError, match="cannot read"):
        FaissIndex.open(tmp_path)


def test_faiss_builds_every_kind_that_no_other_engine_names() -> None:
    assert engine_of(FLAT_8BIT) is FaissIndex
    assert engine_of("HNSW32,SQfp16") is FaissIndex
