"""SAFA's polar transform against the loop that its paper's script describes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.data.safa_polar import POLAR_HEIGHT, POLAR_WIDTH, safa_polar
from core.errors import SettingError


def polar_pixel(tile: np.ndarray, i: int, j: int) -> np.ndarray:
    """One pixel, slowly, as SAFA's published script computes it."""
    side, height, width = tile.shape[0], 112, 616
    y = side / 2 - side / (2 * height) * (height - 1 - i) * math.sin(2 * math.pi * j / width)
    x = side / 2 + side / (2 * height) * (height - 1 - i) * math.cos(2 * math.pi * j / width)
    x0, y0 = int(x), int(y)

    def sample(row: int, column: int) -> np.ndarray:
        is_inside = 0 <= row < side and 0 <= column < side
        return tile[row, column].astype(float) if is_inside else np.zeros(3)

    left = (x0 + 1 - x) * sample(x0, y0) + (x - x0) * sample(x0 + 1, y0)
    right = (x0 + 1 - x) * sample(x0, y0 + 1) + (x - x0) * sample(x0 + 1, y0 + 1)
    return (y0 + 1 - y) * left + (y - y0) * right


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [750, 1200, 20])
def test_pixels_are_those_of_the_loop(side):
    tile = noise(side)
    columns = range(side % 7, POLAR_WIDTH, 7)  # of every row
    slow = [[polar_pixel(tile, i, j) for j in columns] for i in range(POLAR_HEIGHT)]
    np.testing.assert_allclose(safa_polar(tile)[:, columns], np.asarray(slow), atol=1e-9)


def test_the_published_script_gives_these_numbers():
    """Computed by SAFA's own script on a tile of arithmetic, before any 8-bit save."""
    row, column, channel = np.ogrid[:750, :750, :3]
    tile = ((row**2 + 3 * column**2 // 7 + 11 * channel) % 256).astype(np.uint8)
    polar = safa_polar(tile)
    expected = {
        (0, 0, 0): 50.973214,
        (0, 154, 1): 96.044643,
        (30, 300, 2): 203.373653,
        (111, 0, 0): 188.0,
        (60, 615, 1): 109.475161,
    }
    assert {where: polar[where] for where in expected} == pytest.approx(expected, abs=1e-6)
    assert polar.sum() == pytest.approx(26540990.513, abs=1e-3)


def test_columns_run_from_south_over_west_and_north_to_east():
    tile = np.zeros((750, 750, 3), np.uint8)
    for value, (rows, columns) in {
        10: (slice(500, 750), slice(250, 500)),  # south
        20: (slice(250, 500), slice(0, 250)),  # west
        30: (slice(0, 250), slice(250, 500)),  # north
        40: (slice(250, 500), slice(500, 750)),  # east
    }.items():
        tile[rows, columns] = value
    top = safa_polar(tile)[20, :, 0]
    assert [top[0], top[154], top[308], top[462]] == [10, 20, 30, 40]


def test_the_bottom_row_is_the_middle_and_outside_is_black():
    tile = noise(750)
    np.testing.assert_allclose(
        safa_polar(tile)[-1], np.broadcast_to(tile[375, 375], (POLAR_WIDTH, 3))
    )
    white = np.full((20, 20, 3), 255, np.uint8)
    assert safa_polar(white)[0, 0, 0] < 255
    assert safa_polar(white)[0, POLAR_WIDTH // 2, 0] == pytest.approx(255)


def test_the_tile_is_left_alone_and_the_result_is_never_the_cache():
    tile = noise(64)
    before = tile.copy()
    first = safa_polar(tile)
    first[:] = -1
    assert safa_polar(tile).min() >= 0
    np.testing.assert_array_equal(tile, before)


@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 8), (8, 8, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(SettingError, match="expected \\(S, S, 3\\)"):
        safa_polar(np.zeros(shape, np.uint8))
