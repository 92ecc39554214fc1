"""Search under azimuth shifts: run alone with ``pytest tests/test_search.py``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingError
from core.gallery.faiss_index import FaissIndex
from core.gallery.viewpoints import SHARPNESS, over_viewpoints
from core.localization.search import search_all_shifts, shift_queries
from core.polar import heading_from_shift, refine_shift, shift_from_heading


class ExactIndex:
    """Slow inner-product index, -1 where it has no more rows, as FAISS answers."""

    def reconstruct(self, rows):
        return self.descriptors[rows]

    def __init__(self, descriptors: np.ndarray) -> None:
        self.descriptors = descriptors

    def search(self, queries, k, rows=None):
        rows = np.arange(len(self.descriptors)) if rows is None else rows
        similarities = queries @ self.descriptors[rows].T
        order = np.argsort(-similarities, axis=1)[:, :k]
        missing = ((0, 0), (0, k - order.shape[1]))
        found = np.pad(np.take_along_axis(similarities, order, 1), missing, constant_values=-9)
        return found, np.pad(rows[order], missing, constant_values=-1)


def tile_descriptors(count: int, depth: int = 6, seed: int = 0) -> np.ndarray:
    bins = np.random.default_rng(seed).normal(size=(count, 32, depth)).astype(np.float32)
    bins /= np.linalg.norm(bins, axis=2, keepdims=True) * np.sqrt(32)
    return bins.reshape(count, -1)


def crop_of(tile: np.ndarray, azimuth_shift: int, n_bins: int) -> np.ndarray:
    """The unit query that sees bins azimuth shift .. azimuth shift + n_bins - 1 of a tile."""
    bins = tile.reshape(32, -1)[(azimuth_shift + np.arange(n_bins)) % 32].ravel()
    return bins / np.linalg.norm(bins)


def test_heading_convention_by_hand():
    # A whole canvas at azimuth shift 0 looks north; content moved right by one bin turns it left.
    assert heading_from_shift(0, 32) == 0.0
    assert heading_from_shift(31, 32) == pytest.approx(360 - 11.25)
    # Two bins around north begin at bin 15.
    assert heading_from_shift(15, 2) == 0.0
    assert heading_from_shift(23, 2) == 90.0


@given(st.floats(0, 359.99), st.integers(1, 32))
def test_shift_and_heading_are_inverse(heading, n_bins):
    azimuth_shift = shift_from_heading(heading, n_bins)
    assert 0 <= azimuth_shift < 32
    difference = abs(heading_from_shift(azimuth_shift, n_bins) - heading)
    assert min(difference, 360 - difference) < 1e-6


def test_shifted_queries_equal_the_slow_loop():
    query = np.random.default_rng(1).normal(size=5 * 3).astype(np.float32)
    shifted = shift_queries(query, 5)
    slow = np.zeros((32, 32, 3), np.float32)
    for azimuth_shift in range(32):
        for i in range(5):
            slow[azimuth_shift, (azimuth_shift + i) % 32] = query.reshape(5, 3)[i] * np.sqrt(32 / 5)
    np.testing.assert_allclose(shifted, slow.reshape(32, -1), rtol=1e-6)


def test_shift_between_two_mixes_their_similarities():
    tiles, query = tile_descriptors(4), crop_of(tile_descriptors(4)[2], 31, 7)
    whole = shift_queries(query, 7) @ tiles.T
    between = shift_queries(query, 7, azimuth_shifts=[31.25]) @ tiles.T
    np.testing.assert_allclose(between[0], 0.75 * whole[31] + 0.25 * whole[0], atol=1e-6)


def test_parabola_finds_the_vertex_and_wraps_around():
    azimuth_shifts = np.arange(32)
    distance = np.minimum(np.abs(azimuth_shifts - 31.7), 32 - np.abs(azimuth_shifts - 31.7))
    assert refine_shift(1 - distance**2) == pytest.approx(31.7)
    assert refine_shift(np.ones(32)) == 0.0


@pytest.mark.parametrize("n_bins", [32, 16, 5, 1])
def test_crop_finds_its_tile_and_its_heading(n_bins):
    tiles = tile_descriptors(50)
    matches = search_all_shifts(ExactIndex(tiles), crop_of(tiles[17], 29, n_bins), n_bins, 5)
    assert matches.rows[0, 0] == 17
    assert matches.similarities[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert abs(matches.azimuth_shifts[0, 0] - 29) <= 0.5
    assert len(set(matches.rows[0])) == 5
    assert np.all(np.diff(matches.similarities[0]) <= 0)


def test_search_equals_brute_force_over_tiles_and_shifts():
    tiles = tile_descriptors(40)
    queries = np.stack([crop_of(t, 3, 9) for t in tile_descriptors(6, seed=5)])
    matches = search_all_shifts(ExactIndex(tiles), queries, 9, 7)
    for query, similarities, rows in zip(queries, matches.similarities, matches.rows, strict=True):
        best = (shift_queries(query, 9) @ tiles.T).max(axis=0)
        np.testing.assert_array_equal(rows, np.argsort(-best)[:7])
        np.testing.assert_allclose(similarities, np.sort(best)[::-1][:7], rtol=1e-5)


def test_known_heading_and_rows_narrow_the_search():
    tiles = tile_descriptors(20)
    query = crop_of(tiles[3], 10, 6)
    index = ExactIndex(tiles)
    known = search_all_shifts(index, query, 6, 20, azimuth_shifts=[shift_from_heading(33.75, 6)])
    assert known.azimuth_shifts[0] == pytest.approx(np.full(20, 16.0))
    assert known.similarities[0, 0] < 0.99
    near = search_all_shifts(index, query, 6, 4, rows=[5, 9])
    assert set(near.rows[0, :2]) == {5, 9}
    assert list(near.rows[0, 2:]) == [-1, -1]
    assert np.all(np.isneginf(near.similarities[0, 2:]))


def test_shifts_may_differ_by_query():
    tiles = tile_descriptors(20)
    queries = np.stack([crop_of(tiles[3], 10, 6), crop_of(tiles[4], 20, 6)])
    matches = search_all_shifts(ExactIndex(tiles), queries, 6, 1, azimuth_shifts=[[10], [20]])
    assert matches.rows.ravel().tolist() == [3, 4]
    np.testing.assert_allclose(matches.similarities, 1, rtol=1e-5)


def test_an_inexact_index_that_finds_too_few_is_survived():
    class Forgetful(ExactIndex):
        def search(self, queries, k, rows=None):
            similarities, found = super().search(queries, k, rows)
            found[:, 1:], similarities[:, 1:] = -1, -np.inf
            return similarities, found

    tiles = tile_descriptors(20)
    matches = search_all_shifts(Forgetful(tiles), crop_of(tiles[3], 10, 6), 6, 19)
    assert matches.rows[0, 0] == 3
    found = matches.rows[0] >= 0
    assert 1 < found.sum() <= 19
    assert np.all(np.isneginf(matches.similarities[0][~found]))


def test_a_gallery_smaller_than_k():
    tiles = tile_descriptors(3)
    matches = search_all_shifts(FaissIndex.build([tiles]), crop_of(tiles[1], 4, 8), 8, 10)
    assert sorted(matches.rows[0, :3]) == [0, 1, 2]
    assert np.all(matches.rows[0, 3:] == -1)
    assert matches.azimuth_shifts[0, 0] == pytest.approx(4, abs=0.5)


def test_wrong_sizes_say_what_to_do():
    with pytest.raises(SettingError, match="10 values in 3 bins"):
        shift_queries(np.ones(10), 3)
    with pytest.raises(SettingError, match="33 bins"):
        shift_queries(np.ones(33), 33)


def test_places_with_viewpoints_equal_brute_force():
    """S descriptors of a place lie one after another; a place scores by all of them."""
    tiles = tile_descriptors(60).reshape(15, 4, -1)
    query = crop_of(tile_descriptors(3, seed=5)[1], 3, 9)
    curves = shift_queries(query, 9) @ tiles.reshape(60, -1).T  # 32, 60
    viewpoint_similarities = curves.max(axis=0).reshape(15, 4)
    index = ExactIndex(tiles.reshape(60, -1))
    matches = search_all_shifts(index, query, 9, 15, viewpoints=4)
    score = np.log(np.exp(SHARPNESS * viewpoint_similarities).mean(axis=1)) / SHARPNESS
    np.testing.assert_array_equal(matches.rows[0], np.argsort(-score))
    np.testing.assert_allclose(matches.similarities[0], np.sort(score)[::-1], rtol=1e-5)
    np.testing.assert_allclose(
        matches.viewpoint_similarities[0], viewpoint_similarities[matches.rows[0]], rtol=1e-5
    )
    for place, azimuth_shift in zip(matches.rows[0], matches.azimuth_shifts[0], strict=True):
        best = curves[:, 4 * place + viewpoint_similarities[place].argmax()]
        assert azimuth_shift == pytest.approx(refine_shift(best), abs=1e-3)


def test_few_places_of_many_are_the_best_of_all():
    """The one with the best viewpoint need not be first: another may have several good ones."""
    tiles = tile_descriptors(2400).reshape(600, 4, -1)
    query = crop_of(tile_descriptors(3, seed=6)[1], 3, 9)
    viewpoint_similarities = (
        (shift_queries(query, 9) @ tiles.reshape(2400, -1).T).max(axis=0).reshape(600, 4)
    )
    best = np.argsort(-over_viewpoints(viewpoint_similarities))[:20]
    matches = search_all_shifts(ExactIndex(tiles.reshape(2400, -1)), query, 9, 20, viewpoints=4)
    assert list(matches.rows[0][:10]) == list(best[:10])
    assert list(best[:10]) != list(np.argsort(-viewpoint_similarities.max(axis=1))[:10])
    tiles = tiles[:15]
    few = search_all_shifts(
        ExactIndex(tiles.reshape(60, -1)), query, 9, 6, rows=[2, 11], viewpoints=4
    )
    assert set(few.rows[0][:2]) == {2, 11}
    assert few.viewpoint_similarities.shape == (1, 6, 4)
    assert np.isneginf(few.viewpoint_similarities[0, 2:]).all()


def test_a_view_from_one_viewpoint_finds_its_place_and_says_which():
    tiles = tile_descriptors(60).reshape(15, 4, -1)
    matches = search_all_shifts(
        ExactIndex(tiles.reshape(60, -1)), crop_of(tiles[9, 2], 20, 16), 16, 5, viewpoints=4
    )
    assert matches.rows[0, 0] == 9
    assert matches.viewpoint_similarities[0, 0].argmax() == 2
    assert abs(matches.azimuth_shifts[0, 0] - 20) <= 0.5
