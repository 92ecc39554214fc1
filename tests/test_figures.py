"""Overlays and diagrams: run alone with ``pytest tests/test_figures.py``."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.explain.figures import (
    accuracy_figure,
    attention_overlay,
    canvas_regions,
    contribution_overlay,
    layer_attention_figure,
    outline,
    position_figure,
)
from core.polar import sector_map

GREY = np.full((128, 80, 3), 120, np.uint8)
REGIONS = canvas_regions((4, 5), (128, 80))


def drawn(figure) -> np.ndarray:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer))


def test_canvas_regions_count_row_by_row():
    assert REGIONS.shape == (128, 80)
    assert REGIONS[0, 0] == 0
    assert REGIONS[0, 79] == 4
    assert REGIONS[127, 79] == 19
    assert np.all(np.bincount(REGIONS.ravel()) == 32 * 16)


def test_regions_fit_a_picture_shown_at_any_size():
    shown = canvas_regions((4, 5), (333, 701))
    assert shown.shape == (333, 701)
    assert set(np.unique(shown)) == set(range(20))


def test_attention_is_brightest_where_it_is_largest():
    attention = np.linspace(0, 1, 20)
    painted = np.asarray(attention_overlay(GREY, REGIONS, attention, 1.0)).mean(axis=2)
    means = [painted[region == REGIONS].mean() for region in range(20)]
    assert np.argmax(means) == 19
    assert means[19] > means[10] > means[0]


def test_no_attention_and_no_opacity_leave_a_picture():
    assert np.array_equal(attention_overlay(GREY, REGIONS, np.ones(20), 0.0), GREY)
    dark = np.asarray(attention_overlay(GREY, REGIONS, np.zeros(20)))
    assert dark.std(axis=(0, 1)).max() == 0


def test_tile_beyond_the_circle_stays_as_it_is():
    tile = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    painted = np.asarray(attention_overlay(tile, sector_map(), np.ones(128)))
    off = sector_map() < 0
    assert off.any()
    assert np.array_equal(painted[off], tile[off])
    assert not np.array_equal(painted[~off], tile[~off])


def test_even_contribution_is_clear_and_signs_have_two_colours():
    even = contribution_overlay(GREY, REGIONS, np.full(20, 1 / 20))
    assert np.array_equal(np.asarray(even), GREY)
    phi = np.full(20, 1 / 20)
    phi[3], phi[7] = 3 / 20, -1 / 20
    painted = np.asarray(contribution_overlay(GREY, REGIONS, phi)).astype(int)
    more, less = painted[REGIONS == 3][0], painted[REGIONS == 7][0]
    assert more[0] > more[2]
    assert less[2] > less[0]
    assert np.array_equal(painted[REGIONS == 0][0], [120, 120, 120])


def test_outline_draws_white_within_and_black_around():
    pixels = np.asarray(outline(Image.fromarray(GREY), REGIONS, 6, width=2))
    inside = REGIONS == 6
    assert np.all(pixels[32:34, 16:32] == 255)
    assert np.all(pixels[30:32, 16:32] == 0)
    assert np.all(pixels[40:50, 20:28] == 120)
    assert not np.any(np.all(pixels[~inside] == 255, axis=1))


def test_outline_of_nothing_changes_nothing():
    assert np.array_equal(np.asarray(outline(Image.fromarray(GREY), REGIONS, 99)), GREY)


def test_accuracy_figure_has_a_line_per_series():
    figure = accuracy_figure([90, 180, 360], {"student": [0.2, 0.5, 0.9], "teacher": [0.3, 0.6, 1]})
    assert [line.get_label() for line in figure.axes[0].lines] == ["student", "teacher"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [30, 60, 100])
    assert drawn(figure)[..., 3].any()


def test_position_figure_puts_each_map_where_its_token_stands():
    similarity = np.random.default_rng(0).uniform(-1, 1, (2, 5, 2, 5))
    figure = position_figure(similarity)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (2 * 3 - 1, 5 * 6 - 1)
    np.testing.assert_array_equal(shown[3:5, 12:17], similarity[1, 2])
    assert np.ma.getmaskarray(shown)[2].all()
    assert np.ma.getmaskarray(shown)[:, 5].all()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("12345")
    assert figure.axes[0].get_xticks().tolist() == [2, 8, 14, 20, 26]
    assert drawn(figure)[..., 3].any()


@pytest.mark.parametrize(
    ("grid", "columns"), [((1, 1), 1), ((4, 1), 1), ((16, 16), 16), ((8, 32), 8), ((3, 120), 3)]
)
def test_position_figure_thins_large_grids_and_says_so(grid, columns):
    similarity = np.random.default_rng(0).uniform(-1, 1, (*grid, *grid))
    axes = position_figure(similarity).axes[0]
    assert len(axes.get_xticks()) == columns
    last = int(axes.get_xticklabels()[-1].get_text()) - 1
    shown = axes.images[0].get_array()
    assert shown.shape[1] < 400
    np.testing.assert_array_equal(shown[: grid[0], -grid[1] :], similarity[0, last])


@pytest.mark.parametrize(("count", "grid"), [(1, (2, 2)), (7, (4, 32)), (5, (9, 1))])
def test_layer_attention_figure_has_a_panel_per_layer(count, grid):
    maps = np.random.default_rng(0).uniform(size=(count, *grid))
    maps[0] = 0
    figure = layer_attention_figure(maps)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == count
    np.testing.assert_array_equal(panels[-1].images[0].get_array(), maps[-1])
    times = maps[-1].max() * grid[0] * grid[1]
    assert panels[-1].get_title() == f"layer {count}: {times:.1f} x"
    assert drawn(figure)[..., 3].any()
