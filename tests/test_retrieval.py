"""Benchmark figures by hand and by loops: run alone with ``pytest tests/test_retrieval.py``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingError
from core.evaluation.retrieval import (
    average_precision,
    earth_metres,
    plane_metres,
    score_classes,
    score_metres,
    score_positives,
    score_truth,
    score_within,
)
from core.geo import distance_m
from core.records import Place
from tests import slow_ranks
from tests.slow_ranks import Case, drawn, memory_mb, unit

# From the first: 1, 0.96, 0.8, 0.6, 0.28, 0.
FAN = np.array([[1, 0], [0.96, 0.28], [0.8, 0.6], [0.6, 0.8], [0.28, 0.96], [0, 1]], np.float32)


def test_recalls_and_hit_rate_by_hand() -> None:
    """Ranks 0, 2, 5; the second is a hit once the two before it are left out."""
    queries = FAN[[0, 0, 0]]
    scores = score_truth(queries, FAN, [[0], [2], [5]], [[1], [0, 1], [1]])
    assert scores.values == {
        "recall@1": 1 / 3,
        "recall@5": 2 / 3,
        "recall@10": 1.0,
        "recall@1%": 1 / 3,
        "hit_rate": 2 / 3,
    }
    assert (scores.queries, scores.references) == (3, 6)
    assert "k for 1 % = 1 of 6" in scores.protocol
    assert scores.protocol.endswith("ties against the model")
    assert "hit_rate" not in score_truth(queries, FAN, [[0], [2], [5]]).values


def test_the_protocol_names_the_k_of_one_percent() -> None:
    random = np.random.default_rng(0)
    references = unit(random.normal(size=(8884, 4)))
    scores = score_truth(references[:1], references, [[0]])
    assert "k for 1 % = 89 of 8,884" in scores.protocol
    assert scores.values["recall@1"] == 1


def slow_average_precision(places: list[int], references: int) -> float:
    """Walk down the ranking, adding a trapezoid whenever recall grows (Market-1501's compute_AP)."""
    area, found, earlier = 0.0, 0, 1.0
    for place in range(references):
        found += place in places
        precision = found / (place + 1)
        if place in places:
            area += (earlier + precision) / 2 / len(places)
        earlier = precision
    return area


@given(st.sets(st.integers(0, 30), min_size=1))
def test_average_precision_equals_the_walk(places: set[int]) -> None:
    ordered = sorted(places)
    expected = slow_average_precision(ordered, 31)
    assert average_precision(np.array(ordered)) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([0, 1, 2])) == 1
    assert average_precision(np.array([1])) == pytest.approx((0 + 1 / 2) / 2)
    assert average_precision(np.array([0, 3])) == pytest.approx((1 + (1 / 3 + 2 / 4) / 2) / 2)


@pytest.mark.parametrize("side", [2, 5, 40])
def test_positives_equal_the_loops(side: int) -> None:
    case = drawn(3, 23, 17, 4, 11)
    scores = score_positives(
        case.queries, case.references, case.positives, case.ignored, memory_mb(side, 4)
    )
    places = [slow_ranks.places(case, query) for query in range(23)]
    expected = [slow_average_precision(own, 17) for own in places]
    assert scores.values["ap"] == pytest.approx(np.mean(expected), abs=1e-12)
    for k in (1, 5, 10):
        assert scores.values[f"recall@{k}"] == np.mean([own[0] < k for own in places])
    assert "University-1652" in scores.protocol


def test_any_reference_near_the_query_counts() -> None:
    """The second query's own tile is third, but one 5 m from it, on the border, is first."""
    at = np.array([[0.0, 0.0], [100.0, 0.0]])
    tiles = np.array([[103.0, 4.0], [50, 0], [100, 0], [0, 0], [0, 6], [9, 9]])
    scores = score_within(FAN[[0, 0]], FAN, at, tiles)
    assert scores.values["recall@1"] == 0.5
    assert scores.values["recall@5"] == 1
    assert "within 5 m" in scores.protocol
    nearer = score_within(FAN[[0, 0]], FAN, at, tiles, radius_m=4.9)
    assert nearer.values["recall@1"] == 0
    with pytest.raises(SettingError, match="Query 0: got no reference within 5 m"):
        score_within(FAN[:1], FAN, at[:1] - 40, tiles)
    with pytest.raises(SettingError, match="Reference places"):
        score_within(FAN[:2], FAN, at, tiles[:3])


def class_case(seed: int, classes: int, pool: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.concatenate([np.arange(classes)] * 2 + [np.zeros(3, int)]))
    kinds = unit(random.normal(size=(pool, 3)))
    return kinds[random.integers(0, pool, len(labels))], labels


@given(st.integers(0, 999), st.integers(2, 8), st.integers(1, 20), st.integers(1, 25))
def test_classes_equal_the_loop(seed: int, classes: int, pool: int, side: int) -> None:
    descriptors, labels = class_case(seed, classes, pool)
    ranks = []
    for query, label in enumerate(labels):
        values = slow_ranks.similarity(Case(descriptors, descriptors, [], []), query)
        others = [other for other in range(len(labels)) if other != query]
        best = max(values[other] for other in others if labels[other] == label)
        ranks.append(sum(values[o] >= best for o in others if labels[o] != label))
    scores = score_classes(descriptors, labels, memory_mb(side, 3))
    assert scores.values == {f"recall@{k}": np.mean(np.array(ranks) < k) for k in (1, 2, 4, 8)}


def test_class_names_will_do_and_lone_pictures_are_refused() -> None:
    labels = np.array(["wren", "owl", "wren", "owl"])
    assert score_classes(FAN[[0, 4, 1, 5]], labels).values["recall@1"] == 1
    with pytest.raises(SettingError, match="Class owl: got one picture"):
        score_classes(FAN[:3], labels[:3])
    with pytest.raises(SettingError, match=r"Labels: got shape \(4,\), expected \(3,\)"):
        score_classes(FAN[:3], labels)


def test_metres_by_hand() -> None:
    """First places 0 m, 30 m and, of a tied pair, the farther one at 100 m."""
    references = FAN[[0, 3, 5, 5]]
    at = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    tiles = np.array([[0.0, 0.0], [18.0, 24.0], [1.0, 0.0], [60.0, 80.0]])
    scores = score_metres(FAN[[0, 3, 5]], references, at, tiles, plane_metres, (25, 30, 0.5))
    assert scores.values == {
        "mean_error_m": pytest.approx(130 / 3),
        "median_error_m": 30,
        "within_25_m": pytest.approx(1 / 3),
        "within_30_m": pytest.approx(2 / 3),
        "within_0.5_m": pytest.approx(1 / 3),
    }
    assert "farthest of tied" in scores.protocol


def test_metres_on_the_earth_are_geodesic() -> None:
    """San Francisco to two places, one of them Chicago: no plane holds both."""
    places = np.array([[37.78, -122.41], [41.88, -87.63]])
    metres = earth_metres(np.array([37.77, -122.42]), places)
    own = Place(37.77, -122.42)
    expected = [distance_m(own, Place(lat, lon)) for lat, lon in places.tolist()]
    np.testing.assert_allclose(metres, expected, rtol=1e-12)


def test_a_collapsed_model_scores_nothing() -> None:
    same = np.repeat(FAN[:1], 40, axis=0)
    own = np.arange(40)[:, None]
    places = 1000.0 * np.hstack([own, own])
    aside = [[(i + 1) % 40] for i in range(40)]
    figures = [
        *score_truth(same, same, own, aside).values.values(),
        score_positives(same, same, own).values["recall@10"],
        *score_within(same, same, places, places).values.values(),
        *score_classes(same, np.arange(40) // 2).values.values(),
        score_metres(same, same, places, places, plane_metres).values["within_50_m"],
    ]
    assert set(figures) == {0.0}
