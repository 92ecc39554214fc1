"""The distribution by hand, and the fit recovers what made the data: ``pytest
tests/test_calibration.py``.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from core.evaluation.fit import Rankings, fit_view
from core.localization.calibration import LIKELY, Calibration, ViewCalibration

VIEW = ViewCalibration(bins=8, student=10.0, teacher=5.0)


def test_logits_by_hand() -> None:
    logits = VIEW.logits(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.5]))
    assert logits.tolist() == pytest.approx([9.5, 10.5, 7.5])
    assert VIEW.logits(np.array([0.9]), np.empty(0)).tolist() == pytest.approx([9.0])


def test_a_tile_the_teacher_has_not_scored_never_passes_one_it_has() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        similarities = np.sort(random.random(30))[::-1]
        logits = VIEW.logits(similarities, random.random(10))
        assert logits[10:].max() <= logits[:10].max()


def test_a_distribution_by_hand() -> None:
    view = ViewCalibration(8, 1.0, rest=0.5, outside=1.0, growth=2.0, compass=-1.0)
    logits = np.log(np.array([6.0, 3.0, 1.0, 2.0]))
    found = view.distribution(logits, searched=14, heading_known=True)
    # The last quarter of four tiles is the least of them; ten places are not among them.
    weights = np.array([6, 3, 1, 2, 10 * 1 * np.exp(0.5), np.exp(1 + 2 * np.log(14) - 1)])
    expected = weights / weights.sum()
    assert found.tiles.tolist() == pytest.approx(expected[:4].tolist())
    assert (found.rest, found.outside) == pytest.approx(tuple(expected[4:]))


@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("searched", [4, 5, 10**9])
def test_a_distribution_sums_to_one_even_for_huge_logits(size: float, searched: int) -> None:
    view = ViewCalibration(8, 1.0, rest=-1.0, outside=0.0, growth=1.0)
    found = view.distribution(size * np.array([1.0, 1.0, 0.0, -1.0]), searched)
    assert found.tiles.sum() + found.rest + found.outside == pytest.approx(1, abs=1e-12)
    if searched == 4 or size == 1:
        assert (found.rest == 0) == (searched == 4)


def test_fewer_searched_places_leave_less_to_the_rest_and_to_outside() -> None:
    view = ViewCalibration(8, 10.0, rest=-2.0, outside=2.0, growth=1.0)
    logits = view.logits(np.linspace(1.0, 0.5, 100), np.empty(0))
    many, few = view.distribution(logits, 5929), view.distribution(logits, 340)
    assert few.rest < many.rest
    assert few.outside < many.outside
    assert few.tiles[0] > many.tiles[0]


def drawn(truth: ViewCalibration, count: int = 3000, seed: int = 1) -> Rankings:
    """Rankings of twelve tiles, 40 m apart, whose truth is drawn from what a calibration says of them."""
    random = np.random.default_rng(seed)
    similarities = -np.sort(-random.normal(0.5, 0.15, (count, 12)), axis=1)
    scores = random.normal(0.4, 0.2, (count, 12))
    searched = random.choice([12.0, 100.0, 1000.0], count)
    known = random.random(count) < 0.3
    centres = np.stack([np.arange(12) * 40.0, np.zeros(12)], axis=1)
    camera = np.full((count, 2), np.nan)
    for at in range(count):
        logits = truth.logits(similarities[at], scores[at])
        found = truth.distribution(logits, int(searched[at]), bool(known[at]))
        chosen = random.choice(14, p=[*found.tiles, found.rest, found.outside])
        if chosen < 12:
            camera[at] = centres[chosen] + (3.0, 4.0)
        elif chosen == 12:
            camera[at] = (-500.0, 0.0)
    everywhere = np.broadcast_to(centres, (count, 12, 2)).astype(np.float64)
    return Rankings(
        similarities=similarities,
        teacher=scores,
        centres=everywhere,
        positions=everywhere,
        searched=searched,
        heading_known=known,
        camera=camera,
        town=np.isnan(camera[:, 0]),
        plain=np.ones(count, bool),
        refined_at=np.zeros(count),
        refined=np.full((count, 2), (3.0, 3.0)),
    )


def test_a_fit_recovers_the_calibration_that_made_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = ViewCalibration(8, 12.0, 6.0, rest=-1.0, outside=7.0, growth=0.5, compass=-1.0)
    rankings = drawn(truth)
    share = float((~rankings.inside).mean())
    monkeypatch.setattr("core.evaluation.trust.OUTSIDE_SHARE", share)
    view = fit_view(rankings, 8, paired=True)
    assert view.student == pytest.approx(12.0, rel=0.2)
    assert view.teacher / view.student == pytest.approx(0.5, rel=0.2)
    assert view.growth == pytest.approx(0.5, abs=0.15)
    assert view.compass == pytest.approx(-1.0, abs=0.3)
    assert view.rest == pytest.approx(-1.0, abs=0.4)
    # What is stated of being outside is, on the whole, how many were.
    said = [
        view.distribution(view.logits(s, t), int(n), bool(h)).outside
        for s, t, n, h in zip(
            rankings.similarities,
            rankings.teacher,
            rankings.searched,
            rankings.heading_known,
            strict=True,
        )
    ]
    assert np.mean(said) == pytest.approx(share, abs=0.02)


def test_a_match_lets_hardly_any_photo_from_outside_pass() -> None:
    truth = ViewCalibration(8, 12.0, 6.0, rest=-1.0, outside=5.0, growth=0.5)
    view = fit_view(drawn(truth), 8, paired=True)
    assert 0.5 <= view.threshold <= 1
    assert view.located is not None
    assert 0 < view.located < 1


def test_radii_hold_nine_of_ten_cameras_of_right_places() -> None:
    view = fit_view(drawn(ViewCalibration(8, 20.0, 10.0, outside=-5.0), 500), 8, paired=True)
    assert view.radius_m == pytest.approx(5.0)  # every camera stands 5 m from its place
    # Of the first tile in the ranking the teacher came within a metre; of other places it says nothing.
    assert view.refined_radius_m == pytest.approx(5.0)
    alone = fit_view(drawn(ViewCalibration(8, 20.0, outside=-5.0), 500), 8, paired=False)
    assert (alone.teacher, alone.refined_radius_m) == (0.0, None)


def test_config_round_trip_and_nearest_width() -> None:
    wide = ViewCalibration(32, 30.0, 0.0, 1.2, -0.3, 2.0, 0.7)
    calibration = Calibration((VIEW, wide), 4)
    again = Calibration.from_config(json.loads(json.dumps(calibration.to_config())))
    assert again == calibration
    assert again.at(10) == VIEW
    assert again.at(30) == wide
    assert Calibration.from_config({}).at(8).threshold == LIKELY
