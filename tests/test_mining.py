"""Places that look alike to a student: against a slow search, one camera at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.data.worlds import load_town
from core.polar import BINS
from core.training.mining import confusing_places
from core.training.sampling import SamplingConfig, TownBatches


@pytest.fixture(scope="module")
def town(tiny_world):
    return load_town(tiny_world)


def slow_likeness(student, town, bins: int) -> np.ndarray:
    """Likeness (N, N) of the first bins of each panorama with the tile around every camera."""
    with torch.inference_mode():
        views = torch.from_numpy(np.array(town.panoramas)).permute(0, 3, 1, 2).float() / 255
        view = student.ground_pool(student.ground_map(views), BINS).numpy()[:, :bins]
        places = np.clip(town.places, -town.half_extent_m, town.half_extent_m)
        tiles = torch.from_numpy(town.crop_tiles(places, 128)).permute(0, 3, 1, 2).float() / 255
        tile = student.describe_aerial(tiles).numpy().reshape(len(tiles), BINS, -1)
    alike = np.empty((len(view), len(tile)))
    for i, bins_seen in enumerate(view):
        asked = bins_seen / np.linalg.norm(bins_seen)
        for j, told in enumerate(tile):
            sums = [
                sum(float(asked[b] @ told[(roll + b) % BINS]) for b in range(bins))
                for roll in range(BINS)
            ]
            alike[i, j] = max(sums)
    return alike


def test_the_most_alike_come_first_and_neighbours_never(town, tiny_student):
    found = confusing_places(tiny_student, town, count=5, bins=8, apart_m=28.8)
    alike = slow_likeness(tiny_student, town, 8)
    apart = np.linalg.norm(town.places[:, None] - town.places[None], axis=2)
    for own, others in enumerate(found):
        assert own not in others
        allowed = np.flatnonzero(apart[own] >= 28.8)
        best = allowed[np.argsort(-alike[own, allowed])][:5]
        np.testing.assert_allclose(alike[own, others], alike[own, best], atol=1e-5)


def test_more_than_there_are_gives_all_others_once(town, tiny_student):
    found = confusing_places(tiny_student, town, count=500)
    assert found.shape == (24, 23)
    for own, others in enumerate(found):
        assert sorted([own, *others]) == list(range(24))


def test_hard_batches_hold_what_looks_like_their_first_place(town):
    confusing = np.array([[(own + step) % 24 for step in (3, 7, 11, 13)] for own in range(24)])
    config = SamplingConfig(batch=4, widths=((32, 1.0),), hard_share=1.0, every_crop=False)
    batches = TownBatches([town], replace(config, mirror=False), 128, 0, [confusing])
    for step in range(5):
        batch = batches.batch(step)
        shown = [int(np.argmin([_unlike(view, p) for p in town.panoramas])) for view in batch.views]
        assert len(set(shown)) == 4
        assert set(shown[1:]) <= set(confusing[shown[0]])


def _unlike(view: np.ndarray, panorama: np.ndarray) -> float:
    """How far the two pictures' sorted pixels differ, whichever way they were turned."""
    one, other = (np.sort(image.reshape(-1, 3), axis=0).astype(float) for image in (view, panorama))
    return float(np.abs(one - other).mean())
