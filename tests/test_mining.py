"""Hard negatives of a student, against a slow search, one camera at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.data.worlds import load_town
from core.evaluation.descriptors import town_grid
from core.polar import BINS
from core.training.mining import STEP_M, hard_negative_points
from core.training.sampling import SamplingConfig, TownBatches


@pytest.fixture(scope="module")
def town(tiny_world):
    return load_town(tiny_world)


def slow_similarity(student, town, grid: np.ndarray, bins: int) -> np.ndarray:
    """Similarities (N, R) of the first bins of each panorama with the tile around every point."""
    with torch.inference_mode():
        views = torch.from_numpy(np.array(town.panoramas)).permute(0, 3, 1, 2).float() / 255
        view = student.ground_pool(student.ground_map(views), BINS).numpy()[:, :bins]
        tiles = torch.from_numpy(town.crop_tiles(grid, 128)).permute(0, 3, 1, 2).float() / 255
        tile = student.describe_aerial(tiles).numpy().reshape(len(tiles), BINS, -1)
    similarity = np.empty((len(view), len(tile)))
    for i, bins_seen in enumerate(view):
        query = bins_seen / np.linalg.norm(bins_seen)
        for j, bins_of in enumerate(tile):
            sums = [
                sum(float(query[b] @ bins_of[(azimuth_shift + b) % BINS]) for b in range(bins))
                for azimuth_shift in range(BINS)
            ]
            similarity[i, j] = max(sums)
    return similarity


def rows_of(points: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - grid[None], axis=2).argmin(axis=1)


def test_the_most_similar_come_first_and_the_own_place_never(town, tiny_student):
    grid = town_grid(town, STEP_M)
    found = hard_negative_points(tiny_student, town, count=3, bins=8)
    similarity = slow_similarity(tiny_student, town, grid, 8)
    apart = np.linalg.norm(town.places[:, None] - grid[None], axis=2)
    for own, points in enumerate(found):
        rows = rows_of(points, grid)
        assert apart[own, rows].min() >= 19.2
        allowed = np.flatnonzero(apart[own] >= 19.2)
        best = allowed[np.argsort(-similarity[own, allowed])][:3]
        np.testing.assert_allclose(similarity[own, rows], similarity[own, best], atol=1e-5)


def test_more_than_there_are_gives_all_points_once(town, tiny_student):
    grid = town_grid(town, STEP_M)
    found = hard_negative_points(tiny_student, town, count=500)
    assert found.shape == (len(town.places), len(grid), 2)
    for points in found:
        assert sorted(rows_of(points, grid)) == list(range(len(grid)))


def test_batches_hold_the_hard_negatives_of_their_places(town):
    """One point for each camera, recognised by the tile around it."""
    random = np.random.default_rng(0)
    limit = town.half_extent_m
    hard = random.uniform(-limit, limit, (len(town.places), 1, 2))
    config = SamplingConfig(
        batch=4, widths=((32, 1.0),), extra_negatives=1.0, every_crop=False, mirror=False
    )
    batches = TownBatches([town], config, 128, 0, [hard])
    around = town.crop_tiles(hard[:, 0], 128)
    for step in range(5):
        batch = batches.batch(step)
        assert len(batch.tiles) == 8
        cameras = [
            int(np.argmin([_unlike(view, p) for p in town.panoramas])) for view in batch.views
        ]
        others = {tile.tobytes() for tile in batch.tiles[4:]}
        assert others == {around[camera].tobytes() for camera in cameras}


def _unlike(view: np.ndarray, panorama: np.ndarray) -> float:
    """How far the two pictures' sorted pixels differ, whichever way they were turned."""
    one, other = (np.sort(image.reshape(-1, 3), axis=0).astype(float) for image in (view, panorama))
    return float(np.abs(one - other).mean())
