"""Explanations as arrays: run alone with ``pytest tests/test_explain.py``."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.errors import SettingError
from core.explain.pair import (
    explain_pair,
    ground_patch_at,
    heading_from_attention,
    patch_box,
    sector_at,
    sector_mask,
    sector_offsets_m,
)
from core.polar import heading_from_shift

TILE = np.random.default_rng(1).integers(0, 255, (256, 256, 3), dtype=np.uint8)


class LookingTeacher:
    """Every patch attends to its own azimuth in the ring of its row."""

    ground_size = (64, 256)
    aerial_size = (128, 128)
    base = SimpleNamespace(bins=32)

    def __init__(self):
        self.turns = []

    def ground_tokens(self, images):
        self.ground_shape = tuple(images.shape)
        return torch.zeros(1, 4 * images.shape[-1] // 8, 3)

    def scores_near(self, ground_tokens, aerial_tokens, azimuth_shifts):
        return torch.full(azimuth_shifts.shape, 0.5), azimuth_shifts

    def aerial_tokens(self, tiles, turns):
        self.tile_shape = tuple(tiles.shape)
        self.turns.append(float(turns))
        return torch.zeros(1, 128, 3)

    def attention(self, ground_tokens, aerial_tokens, azimuth_shifts):
        """By content alone: the same at whatever azimuth shift the pair is met."""
        return self.looks[None, None].expand(len(azimuth_shifts), 2, -1, -1)

    def interact(self, ground_tokens, aerial_tokens, azimuth_shift):
        count = ground_tokens.shape[1]
        bins = count // 4
        patch = torch.arange(count)
        sector = (patch // bins) * 32 + (azimuth_shift + patch % bins) % 32
        self.looks = attention = torch.nn.functional.one_hot(sector, 128).float()
        back = torch.full((128, count), 1 / count)
        return SimpleNamespace(
            ground_to_aerial=torch.stack([attention, attention]),
            aerial_to_ground=torch.stack([back, back]),
            phi_ground=torch.full((count,), 1 / count),
            phi_aerial=torch.full((128,), 1 / 128),
        )


class CoarseTeacher(LookingTeacher):
    def aerial_tokens(self, tiles, turns):
        return torch.zeros(1, 64, 3)


def canvas(n_bins: int) -> np.ndarray:
    return np.full((128, 16 * n_bins, 3), 90, np.uint8)


@pytest.mark.parametrize("n_bins", [32, 16, 5])
def test_explanation_has_the_promised_shapes(n_bins):
    teacher = LookingTeacher()
    seen = explain_pair(teacher, canvas(n_bins), TILE, azimuth_shift=35)
    assert teacher.ground_shape == (1, 3, 64, 8 * n_bins)
    assert teacher.tile_shape == (1, 3, 128, 128)
    assert seen.ground_grid == (4, n_bins)
    assert seen.ground_to_aerial.shape == (4 * n_bins, 128)
    assert seen.aerial_to_ground.shape == (128, 4 * n_bins)
    np.testing.assert_allclose(seen.ground_to_aerial.sum(axis=1), 1)
    assert (seen.azimuth_shift, seen.rotation, teacher.turns[0]) == (3, 0, 0)
    assert seen.heading_deg == heading_from_shift(3, n_bins)
    assert seen.mask.all()
    assert seen.teacher_score == 0.5


def test_between_two_shifts_the_sectors_turn_under_the_patches():
    teacher = LookingTeacher()
    seen = explain_pair(teacher, canvas(8), TILE, azimuth_shift=31.75)
    assert (seen.azimuth_shift, seen.rotation) == (31.75, -0.25)
    assert teacher.turns == [-0.25, -0.25, 0.25]  # to attend, to score, and in the mirror
    assert seen.ground_to_aerial[0].argmax() == 0  # the whole azimuth shift is 32, which is 0
    # Just west of south lies the first azimuth bin, and turned by a part of one still the last.
    assert sector_at(127, 240) % 32 == 0
    assert sector_at(127, 240, turn=0.4) % 32 == 31


@pytest.mark.parametrize(("n_bins", "azimuth_shift"), [(32, 7), (5, 31), (16, 0), (8, 30.6)])
def test_attention_alone_gives_the_heading(n_bins, azimuth_shift):
    seen = explain_pair(LookingTeacher(), canvas(n_bins), TILE, azimuth_shift)
    error = (
        seen.attention_heading_deg - heading_from_shift(azimuth_shift, n_bins) + 180
    ) % 360 - 180
    assert abs(error) < 0.01


def test_attention_between_two_bins_gives_the_angle_between():
    sharp = np.zeros((4, 8, 4, 32))
    for column in range(8):
        sharp[:, column, :, (5 + column) % 32] = 0.5
        sharp[:, column, :, (6 + column) % 32] = 0.5
    heading = heading_from_attention(sharp.reshape(32, 128))
    assert heading == pytest.approx(heading_from_shift(5.5, 8))


def test_a_teacher_with_another_grid_is_refused():
    with pytest.raises(SettingError, match="64 tile tokens, expected 20 and 128"):
        explain_pair(CoarseTeacher(), canvas(5), TILE, 0)


@pytest.mark.parametrize("patch", [0, 4, 7, 19])
def test_the_middle_of_a_patch_is_that_patch(patch):
    left, top, right, bottom = patch_box(patch, (300, 700), 5)
    assert ground_patch_at((left + right) / 2, (top + bottom) / 2, (300, 700), 5) == patch


def test_points_beyond_the_canvas_count_to_the_nearest_patch():
    assert ground_patch_at(-5, -5, (128, 80), 5) == 0
    assert ground_patch_at(80, 128, (128, 80), 5) == 19


def test_sectors_by_hand():
    # Just north of the centre: innermost ring, the bin that begins at north.
    assert sector_at(128, 110) == 3 * 32 + 16
    # Far in the east: outermost ring, the bin that begins at 90 degrees.
    assert sector_at(250, 129) == 0 * 32 + 24
    assert sector_at(0, 0) is None
    assert sector_at(-3, 10) is None
    assert sector_at(10, 256) is None


def test_sector_masks_tile_the_circle():
    masks = np.stack([sector_mask(sector, 128) for sector in range(128)])
    covered = masks.sum(axis=0)
    assert covered.max() == 1
    radius = np.hypot(*np.meshgrid(np.arange(128) - 63.5, np.arange(128) - 63.5))
    assert np.array_equal(covered == 1, radius < 64)


def test_sector_centres_lie_in_their_sectors():
    offsets = sector_offsets_m(76.8)
    for sector, (east, north) in enumerate(offsets):
        assert sector_at(128 + east / 0.3, 128 - north / 0.3) == sector
