"""Signs and axes: a wrong one is silent everywhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.errors import SettingError
from core.polar import (
    BINS,
    polar_view,
    rotated_back,
    sector_map,
    to_batch,
)
from tests.canvases import shift_canvas, tile_to_polar


def tile_with_mark(azimuth_deg: float, radius: float = 0.6, side: int = 256) -> np.ndarray:
    """A black tile with one white blob at a bearing from its centre."""
    tile = np.zeros((side, side, 3), np.uint8)
    x = side / 2 + np.sin(np.radians(azimuth_deg)) * radius * side / 2
    y = side / 2 - np.cos(np.radians(azimuth_deg)) * radius * side / 2
    tile[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 255
    return tile


@pytest.mark.parametrize(
    ("azimuth_deg", "column"), [(0, 256), (90, 384), (-90, 128), (45, 320), (-135, 64)]
)
def test_a_mark_at_a_bearing_lands_in_its_column(azimuth_deg: float, column: int) -> None:
    polar = tile_to_polar(tile_with_mark(azimuth_deg)).astype(float).sum(axis=(0, 2))
    centre = (polar * (np.arange(512) + 0.5)).sum() / polar.sum()
    assert abs(centre - column) < 3


def test_rows_are_radius_with_the_edge_on_top() -> None:
    polar = tile_to_polar(tile_with_mark(0, radius=0.75)).astype(float).sum(axis=(1, 2))
    row = (polar * (np.arange(128) + 0.5)).sum() / polar.sum()
    assert abs(row - 0.25 * 128) < 3


def test_a_tile_rotated_counter_clockwise_is_its_polar_view_shifted_left_by_a_quarter() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    rotated = tile_to_polar(np.rot90(tile).copy())
    shifted = np.roll(tile_to_polar(tile), -512 // 4, axis=1)
    assert np.abs(rotated.astype(int) - shifted.astype(int)).max() <= 1


def test_shifting_a_canvas_right_brings_its_left_neighbour_to_the_centre() -> None:
    canvas = np.zeros((4, 512, 3), np.uint8)
    canvas[:, 256 - 16 : 256] = 200
    assert (shift_canvas(canvas, 1)[:, 256:272] == 200).all()


def test_sector_map_agrees_with_the_polar_view() -> None:
    """The pixel of a sector, painted, shows up in the polar view at the token of that sector."""
    sectors = sector_map(256)
    for token in (5, 40, 77, 3 * BINS + 31):
        tile = np.zeros((256, 256, 3), np.uint8)
        tile[sectors == token] = 255
        polar = tile_to_polar(tile)[..., 0].reshape(4, 32, BINS, 16).mean(axis=(1, 3))
        assert polar.argmax() == token
    assert sectors[0, 0] == -1
    assert set(np.unique(sectors)) == {-1, *range(4 * BINS)}


def test_polar_view_refuses_what_is_not_square() -> None:
    with pytest.raises(SettingError, match="Polar view"):
        polar_view(torch.zeros(1, 3, 8, 9), 4, 8)


def test_to_batch_averages_areas_and_scales() -> None:
    images = np.zeros((2, 4, 8, 3), np.uint8)
    images[0, :2, :2] = [255, 0, 102]
    batch = to_batch(images, (2, 4))
    assert batch.shape == (2, 3, 2, 4)
    assert torch.allclose(batch[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.4]))
    assert batch[0, :, 1:].abs().sum() == 0
    assert batch[1].abs().sum() == 0


def test_a_rotated_polar_view_begins_between_the_bins() -> None:
    """By whole bins it is the same columns rolled; by a half, those between."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, 12, 12, generator=generator)
    tiles = F.interpolate(coarse, size=96, mode="bicubic").clamp(0, 1)
    plain = polar_view(tiles, 32, 256)
    whole = polar_view(tiles, 32, 256, torch.tensor([3.0, -1.0]))
    column = 256 // BINS
    torch.testing.assert_close(whole[0], plain[0].roll(-3 * column, dims=2), atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[1], plain[1].roll(column, dims=2), atol=1e-4, rtol=0)
    half = polar_view(tiles, 32, 256, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(half[0], plain[0].roll(-column // 2, dims=2), atol=1e-4, rtol=0)
    torch.testing.assert_close(half[1], plain[1], atol=1e-6, rtol=0)


def test_places_rotate_back_as_sectors_rotate() -> None:
    north = np.array([[[0.0, 10.0]]])
    east_of_north = rotated_back(north, np.array([-8.0]))  # minus a quarter of a circle
    np.testing.assert_allclose(east_of_north, [[[10.0, 0.0]]], atol=1e-9)
    assert (sector_map(64, 1.0)[8, 30], sector_map(64)[8, 30]) != (-1, -1)
    moved = (sector_map(64) % BINS - 1) % BINS
    inside = sector_map(64) >= 0
    np.testing.assert_array_equal(sector_map(64, 1.0)[inside] % BINS, moved[inside])
