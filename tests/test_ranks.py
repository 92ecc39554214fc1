"""Ranks by chunks against loops: run alone with ``pytest tests/test_ranks.py``."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingError
from core.evaluation.metrics import recall_at
from core.evaluation.ranks import (
    best_ranks,
    first_place_errors_m,
    positive_places,
    truth_ranks,
)
from tests import slow_ranks
from tests.slow_ranks import Case, drawn, memory_mb, rank_of_truth, unit, worst_first_place


def asked(case: Case) -> tuple:
    return case.queries, case.references, case.positives, case.ignored


def away(place: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.abs(places - place).sum(axis=1)


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 9),
    references=st.integers(1, 13),
    pool=st.integers(1, 12),
    side=st.integers(1, 20),
)
def test_ranks_equal_the_loops_whatever_the_chunk(seed, queries, references, pool, side) -> None:
    case = drawn(seed, queries, references, 3, pool)
    chunk_mb = memory_mb(side, 3)
    every = range(queries)
    found = truth_ranks(*asked(case), chunk_mb)
    assert found.among_all.tolist() == [slow_ranks.truth_rank(case, q, []) for q in every]
    assert found.without_ignored.tolist() == [
        slow_ranks.truth_rank(case, q, case.ignored[q]) for q in every
    ]
    places = [slow_ranks.places(case, q) for q in every]
    assert [own.tolist() for own in positive_places(*asked(case), chunk_mb)] == places
    assert best_ranks(*asked(case), chunk_mb).tolist() == [own[0] for own in places]


@given(seed=st.integers(0, 2**32 - 1), pool=st.integers(1, 12), side=st.integers(1, 20))
def test_first_places_equal_the_loop_whatever_the_chunk(seed, pool, side) -> None:
    case = drawn(seed, 7, 11, 3, pool)
    random = np.random.default_rng(seed)
    at, tiles = random.normal(size=(7, 2)), random.normal(size=(11, 2))
    errors = first_place_errors_m(
        case.queries, case.references, at, tiles, away, memory_mb(side, 3)
    )
    for query in range(7):
        values = slow_ranks.similarity(case, query)
        first = [tile for tile, value in zip(tiles, values, strict=True) if value == max(values)]
        assert errors[query] == max(np.abs(tile - at[query]).sum() for tile in first)


def test_ranks_are_those_of_the_full_float32_matrix() -> None:
    random = np.random.default_rng(0)
    references = unit(random.normal(size=(300, 64)))
    truth = random.integers(0, 300, 200)
    queries = unit(references[truth] + 0.25 * random.normal(size=(200, 64)))
    matrix = queries @ references.T
    ranks = truth_ranks(queries, references, truth[:, None], None, memory_mb(77, 64)).among_all
    assert 0.1 < np.mean(ranks == 0) < 0.9
    assert ranks.tolist() == rank_of_truth(matrix, truth).tolist()
    places = random.normal(size=(500, 2))
    distance = np.stack([away(place, places[200:]) for place in places[:200]])
    errors = first_place_errors_m(
        queries, references, places[:200], places[200:], away, memory_mb(77, 64)
    )
    column = worst_first_place(matrix, distance)
    assert errors.tolist() == distance[np.arange(200), column].tolist()


def test_ranks_by_hand() -> None:
    """Similarities 1, 0.8, 0.6, 0.6, 0: the truth ties with a wrong one and follows an ignored."""
    references = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0.6, -0.8], [0, 1]], np.float32)
    asked_by_hand = (references[:1], references, [[2, 4]], [[0]])
    ranks = truth_ranks(*asked_by_hand)
    assert (ranks.among_all.item(), ranks.without_ignored.item()) == (3, 2)
    assert best_ranks(*asked_by_hand).item() == 2
    assert positive_places(*asked_by_hand)[0].tolist() == [2, 3]


def test_a_collapsed_model_ranks_last() -> None:
    same = np.repeat(unit(np.ones((1, 16))), 50, axis=0)
    own = np.arange(50)[:, None]
    places = np.arange(100.0).reshape(50, 2)
    assert (truth_ranks(same, same, own, None, memory_mb(7, 16)).among_all == 49).all()
    assert (best_ranks(same, same, own, None, memory_mb(7, 16)) == 49).all()
    errors = first_place_errors_m(same, same, places, places, away, memory_mb(7, 16))
    assert errors.tolist() == [max(196 - 4 * i, 4 * i) for i in range(50)]


def test_working_memory_stays_below_the_bound() -> None:
    random = np.random.default_rng(0)
    descriptors = unit(random.normal(size=(1500, 8)))
    places = random.normal(size=(1500, 2))
    lists = [np.array([i, (i + 1) % 1500]) for i in range(1500)]
    aside = [np.array([(i + 2) % 1500]) for i in range(1500)]
    for call in (
        lambda: truth_ranks(descriptors, descriptors, lists, aside, 1.0),
        lambda: best_ranks(descriptors, descriptors, lists, aside, 1.0),
        lambda: positive_places(descriptors, descriptors, lists, aside, 1.0),
        lambda: first_place_errors_m(descriptors, descriptors, places, places, away, 1.0),
    ):
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1e6 + 1500 * 600  # the lists end to end, not the 18 MB of a matrix


@pytest.mark.parametrize(
    ("positives", "ignored", "words"),
    [
        ([[0], [1]], None, "Positives: got 2 lists, expected one for each of 3 queries"),
        ([[0], [], [1]], None, "Positives of query 1: got none, expected at least one"),
        ([[0], [1], [4]], None, "Positives of query 2: got index 4, expected 0 to 3"),
        ([[0], [-1], [1]], None, "Positives of query 1: got index -1"),
        ([[0], [0.5], [1]], None, "Positives of query 1: got float64"),
        ([[0], 1, [1]], None, r"Positives of query 1: got int64 of shape \(\)"),
        ([[0], [1, 1], [1]], None, "Query 1: got reference 1 twice"),
        ([[0], [1], [2]], [[], []], "Ignored references: got 2 lists"),
        ([[0], [1], [2]], [[], [], [9]], "Ignored references of query 2: got index 9"),
        ([[0], [1], [2]], [[], [3, 1], []], "Query 1: got reference 1 twice"),
    ],
)
def test_bad_lists_are_refused(positives, ignored, words: str) -> None:
    descriptors = unit(np.random.default_rng(0).normal(size=(4, 3)))
    for ranks in (truth_ranks, best_ranks, positive_places):
        with pytest.raises(SettingError, match=words):
            ranks(descriptors[:3], descriptors, positives, ignored)


def test_places_must_fit_the_descriptors() -> None:
    descriptors = unit(np.random.default_rng(0).normal(size=(4, 3)))
    good, short = np.zeros((4, 2)), np.zeros((3, 2))
    with pytest.raises(SettingError, match=r"Reference places: got shape \(3, 2\)"):
        first_place_errors_m(descriptors, descriptors, good, short, away)
    with pytest.raises(SettingError, match="Query places"):
        first_place_errors_m(descriptors, descriptors, good * np.nan, good, away)


def test_ranks_count_what_is_at_least_as_good() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.1], [0.3, 0.6, 0.6]])
    assert rank_of_truth(similarity, np.array([0, 1, 0])).tolist() == [0, 1, 2]


def test_a_collapsed_model_scores_nothing() -> None:
    ranks = rank_of_truth(np.ones((5, 200)), np.arange(5))
    assert recall_at(ranks, 1) == 0
    assert recall_at(ranks, 199) == 0


def test_not_a_number_never_wins() -> None:
    similarity = np.array([[np.nan, 0.5, 0.1]])
    assert rank_of_truth(similarity, np.array([1])).tolist() == [1]
    assert rank_of_truth(similarity, np.array([0])).tolist() == [2]


def test_of_tied_first_places_the_farthest_counts() -> None:
    similarity = np.array([[0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    distance = np.array([[3.0, 400.0, 900.0], [3.0, 400.0, 900.0]])
    assert worst_first_place(similarity, distance).tolist() == [1, 2]
