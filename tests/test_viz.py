"""Overlays and diagrams: run alone with ``pytest tests/test_viz.py``."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.polar import sector_map
from core.viz import (
    accuracy_figure,
    attention_overlay,
    canvas_regions,
    contribution_overlay,
    outline,
    reliability_figure,
)

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


@pytest.mark.parametrize("count", [1, 200])
def test_reliability_diagram_shows_the_measured_shares(count):
    generator = np.random.default_rng(0)
    confidence = generator.uniform(size=count)
    figure = reliability_figure(confidence, generator.uniform(size=count) < confidence)
    assert drawn(figure)[..., 3].any()
    line = figure.axes[0].lines[1]
    assert len(line.get_xdata()) == len(np.unique((confidence * 10).astype(int)))


def test_accuracy_figure_has_a_line_per_series():
    figure = accuracy_figure([90, 180, 360], {"student": [0.2, 0.5, 0.9], "teacher": [0.3, 0.6, 1]})
    assert [line.get_label() for line in figure.axes[0].lines] == ["student", "teacher"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [30, 60, 100])
    assert drawn(figure)[..., 3].any()
