"""Whether confidence can be trusted, with answers worked out by hand: ``pytest tests/test_trust.py``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from core.evaluation.pools import DescribedTown, town_queries
from PIL import Image

from core.checkpoints import save_model
from core.cli import main
from core.commands.trust import trust_table
from core.data.worlds import load_town
from core.evaluation.metrics import (
    accuracy_at_coverage,
    area_under_coverage,
    auroc,
    auroc_standard_error,
    brier_score,
    calibration_error,
    calibration_error_by_chance,
    reliability_points,
)
from core.evaluation.trust import Answers, ask_town, measure_trust, trust_row
from core.explain.figures import trust_figure
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.localization.calibration import RERANKED, Calibration, ViewCalibration
from core.localization.localizer import Localizer
from core.models import alignment
from core.photos.canvas import GroundCanvas
from core.photos.opening import open_photo
from core.results.pages import END, START, write_results
from core.results.trust import trust_section
from tests.conftest import MODEL_HASH

TWO_BRANCH = {"pooling": "azimuth", "ground_size": [64, 256], "aerial_size": [128, 128], "dim": 8}
CALIBRATION = Calibration(
    (
        ViewCalibration(32, 20.0, 8.0, 0.6, -1.0, 1.5, 0.6),
        ViewCalibration(8, 9.0, 3.0, 1.2, 0.5, -0.5, 0.55),
    )
)


def slow_auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    won = 0.0
    for one in positive:
        for other in negative:
            won += 1.0 if one > other else 0.5 if one == other else 0.0
    return won / (len(positive) * len(negative))


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (7, 30), (40, 3)])
@pytest.mark.parametrize("values", [2, 5, 10**6])
def test_auroc_is_the_share_of_pairs_won(positives: int, negatives: int, values: int) -> None:
    random = np.random.default_rng((positives, values))
    above = random.integers(0, values, positives) / values
    below = random.integers(0, values, negatives) / values
    assert auroc(above, below) == pytest.approx(slow_auroc(above, below))


def test_auroc_at_its_ends() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4, 0.5])
    assert (auroc(high, low), auroc(low, high)) == (1, 0)
    assert auroc(np.ones(4), np.ones(9)) == 0.5
    assert np.isnan(auroc(np.empty(0), low))
    assert auroc_standard_error(1.0, 3, 2) == 0


def test_auroc_spreads_as_its_standard_error_says() -> None:
    random = np.random.default_rng(0)
    areas = [auroc(random.normal(1, 1, 60), random.normal(0, 1, 40)) for _ in range(400)]
    said = auroc_standard_error(float(np.mean(areas)), 60, 40)
    assert said == pytest.approx(float(np.std(areas)), rel=0.15)


def test_calibrated_and_overconfident_answers() -> None:
    stated = np.repeat([0.95, 0.55], 20)
    exact = np.r_[np.arange(20) < 19, np.arange(20) < 11]
    assert calibration_error(stated, exact) == pytest.approx(0)
    half = np.tile([True, False], 20)
    assert calibration_error(stated, half) == pytest.approx((0.45 + 0.05) / 2)
    assert brier_score(stated, half) == pytest.approx(
        ((0.05**2 + 0.95**2) / 2 + (0.45**2 + 0.55**2) / 2) / 2
    )
    low, high = reliability_points(stated, half)
    assert (high.confidence, high.right, high.count, high.weight) == pytest.approx(
        (0.95, 0.5, 20, 0.5)
    )
    assert low.confidence == pytest.approx(0.55)


def test_a_weight_is_so_many_copies() -> None:
    random = np.random.default_rng(1)
    stated, right = random.random(50), random.random(50) < 0.5
    times = random.integers(1, 4, 50)
    copies = stated.repeat(times), right.repeat(times)
    covered = np.array([0.1, 0.37, 1.0])
    assert calibration_error(stated, right, 10, times) == pytest.approx(calibration_error(*copies))
    assert brier_score(stated, right, times) == pytest.approx(brier_score(*copies))
    np.testing.assert_allclose(
        accuracy_at_coverage(stated, right, covered, times), accuracy_at_coverage(*copies, covered)
    )


def test_luck_alone_makes_an_error_of_the_size_it_should() -> None:
    """One bin of n answers at p: the mean of |share - p| is close to sqrt(2 p (1 - p) / (pi n))."""
    by_chance = calibration_error_by_chance(
        np.full(100, 0.55), np.random.default_rng(2), draws=2000
    )
    assert by_chance == pytest.approx(np.sqrt(2 * 0.55 * 0.45 / (np.pi * 100)), rel=0.06)
    assert calibration_error_by_chance(np.ones(9), np.random.default_rng(2)) == 0


def test_coverage_by_hand() -> None:
    stated, right = np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, False, True])
    covered = np.array([0.25, 0.5, 0.75, 1.0])
    found = accuracy_at_coverage(stated, right, covered)
    assert found.tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    # Two wrong ones come last: 1 up to a half, from there 1 / 2c, whose integral is ln(2) / 2.
    assert area_under_coverage(stated, right) == pytest.approx(0.5 + np.log(2) / 2, abs=1e-3)


def test_answers_of_one_confidence_have_no_order() -> None:
    right = np.r_[np.ones(3, bool), np.zeros(7, bool)]
    for order in (right, right[::-1]):
        covered = accuracy_at_coverage(np.full(10, 0.4), order, np.arange(1, 11) / 10)
        np.testing.assert_allclose(covered, 0.3)
        assert area_under_coverage(np.full(10, 0.4), order) == pytest.approx(0.3)


def hand_made() -> Answers:
    """Nine own photos, six of them right, and two strangers, one of which passes."""
    return Answers(
        confidence=np.array([0.9] * 5 + [0.6, 0.4, 0.2, 0.1] + [0.8, 0.1]),
        right=np.array([True] * 5 + [False, True, False, False] + [False, False]),
        confident=np.array([True] * 6 + [False] * 3 + [True, False]),
        own=np.array([True] * 9 + [False] * 2),
    )


def test_a_row_by_hand() -> None:
    row = json.loads(json.dumps(trust_row(hand_made(), 90.0)))
    own, mixture = row["own"], row["mixture"]
    assert own["photos"] == 9
    assert own["right"] == pytest.approx(6 / 9)
    assert own["confident"] == pytest.approx({"coverage": 6 / 9, "right": 5 / 6})
    # Two strangers of weight 1/2 each are one in ten photos.
    assert mixture["right"] == pytest.approx(6 / 10)
    assert mixture["confident"] == pytest.approx({"coverage": 6.5 / 10, "right": 5 / 6.5})
    gaps = 5 * 0.1 + 0.6 + 0.6 + 0.2 + 0.1
    assert own["calibration_error"] == pytest.approx(gaps / 9)
    assert mixture["calibration_error"] == pytest.approx((gaps + 0.5 * 0.8 + 0.5 * 0.1) / 10)
    assert own["coverage"][-1] == pytest.approx({"coverage": 1.0, "right": 6 / 9})
    assert row["strangers"]["false_match_rate"] == 0.5
    areas = {name: found["area"] for name, found in row["auroc"].items()}
    assert areas["own_or_elsewhere"] == pytest.approx((5 * 2 + 3 * 1 + 0.5) / 18)
    assert areas["right_or_not"] == pytest.approx((5 * 5 + 3) / 30)
    assert areas["right_or_wrong"] == pytest.approx((5 * 3 + 2) / 18)
    assert row["auroc"]["right_or_wrong"]["of"] == [6, 3]


def test_nothing_to_tell_apart_is_none_and_not_a_number() -> None:
    one = Answers(
        np.array([0.9, 0.2]), np.array([True, False]), np.zeros(2, bool), np.array([1, 0]) > 0
    )
    row = trust_row(one, None)
    assert row["auroc"]["right_or_wrong"] is None  # type: ignore[index]
    assert row["own"]["confident"] == {"coverage": 0, "right": None}  # type: ignore[index]
    assert trust_table([row]).splitlines()[1].split()[0] == "all"


@pytest.fixture(scope="module")
def described(tiny_student, tiny_teacher, tiny_world) -> DescribedTown:
    return DescribedTown(tiny_student, tiny_teacher, load_town(tiny_world))


@pytest.fixture(scope="module")
def gallery(tiny_raster, tiny_student, tmp_path_factory) -> Gallery:
    """Described from four viewpoints, as towns are."""
    out, settings = tmp_path_factory.mktemp("viewpoints"), GallerySettings(tile_pixels=128)
    build_gallery(tiny_raster, out, tile_describer(tiny_student), "tiny", MODEL_HASH, settings)
    return Gallery.open(out)


def test_towns_are_described_as_galleries_are(described, gallery):
    np.testing.assert_allclose(described.centres, gallery.centres_m, atol=1e-3)
    held = gallery.index.reconstruct(np.arange(len(gallery.index))).reshape(len(gallery), 4, -1)
    alike = (held * described.descriptors.numpy()).sum(axis=2)
    np.testing.assert_allclose(alike, 1, atol=5e-3)


@pytest.mark.parametrize("bins", [32, 8])
def test_confidence_is_what_the_localizer_says(bins, described, gallery, monkeypatch):
    """Same canvas, same gallery: the measured confidence is the one that a visitor reads."""
    # The gallery keeps 8 bits; both must search the same descriptors.
    held = gallery.index.reconstruct(np.arange(len(gallery.index))).reshape(len(gallery), 4, -1)
    monkeypatch.setattr(described, "descriptors", torch.from_numpy(held))
    # Which tile is the tenth best, and looked at twice, may hang on the half metre told of below.
    monkeypatch.setattr(alignment, "MIRRORED", RERANKED)
    localizer = Localizer(
        gallery, described.student, described.reranker.teacher, calibration=CALIBRATION
    )
    answers = ask_town(described, described.town, CALIBRATION, bins, 4, 0)
    queries = town_queries(described.town, bins, 4, 0)
    assert len(set(np.round(answers.confidence, 4))) == 4
    for index, view in enumerate(queries.views):
        canvas = GroundCanvas(view, bins, bins * 11.25, np.ones(view.shape[:2], bool))
        monkeypatch.setattr(localizer, "view", lambda *_, c=canvas: (open_photo(c.image), c))
        found = localizer.locate(view)
        # A town's tiles are cut to the nearest 0.6 m, a gallery's where the camera is believed.
        assert found.confidence == pytest.approx(answers.confidence[index], abs=5e-3)
        assert found.confident == answers.confident[index]
        first = found.candidates[0].tile
        apart = np.hypot(*(queries.places[index] - (first.east_m, first.north_m)))
        assert (apart <= 25) == answers.right[index]


def test_the_same_photos_as_strangers_cannot_be_told_apart(described, tiny_world) -> None:
    parts = [
        ask_town(described, town, CALIBRATION, 8, 4, 0)
        for town in (described.town, load_town(tiny_world))
    ]
    assert parts[0].right.any()
    assert not parts[1].right.any()
    assert trust_row(Answers.joined(parts), 90.0)["auroc"]["own_or_elsewhere"]["area"] == 0.5  # type: ignore[index]


def test_a_row_for_each_width_and_one_for_all(described, tiny_world) -> None:
    rows = measure_trust(described, [load_town(tiny_world)] * 2, CALIBRATION, count=3, bins=(8, 6))
    assert [row["fov_deg"] for row in rows] == [90, 67.5, None]
    counts = [(row["own"]["photos"], row["strangers"]["photos"]) for row in rows]  # type: ignore[index]
    assert counts == [(3, 2), (3, 2), (6, 4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_student, tiny_teacher, tiny_world) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    save_model(folder / "student", tiny_student, {"name": "convnet-s", "model": TWO_BRANCH}, "")
    config = {"name": "geossk", "model": {"base": {"name": "convnet-s", **TWO_BRANCH}}}
    config["calibration"] = CALIBRATION.to_config()
    save_model(folder / "teacher", tiny_teacher, config, "")
    shutil.copytree(tiny_world, folder / "other")
    return folder


def test_the_command_measures_writes_and_draws(folders, tiny_world, tmp_path, capsys):
    out, figure = tmp_path / "docs" / "trust.json", tmp_path / "docs" / "trust.png"
    arguments = ["trust", str(folders / "student"), "--teacher", str(folders / "teacher")]
    arguments += ["--data", str(tiny_world), "--elsewhere", str(folders / "other")]
    arguments += ["--queries", "3", "--out", str(out)]
    assert main([*arguments, "--json", "--figure", str(figure)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert [row["fov_deg"] for row in report["rows"]] == [360, 180, 112.5, 90, 67.5, None]
    assert report["calibrated"] is True
    assert {"protocol", "command", "date", "machine", "seed", "strangers_share"} <= set(report)
    assert report["rows"][-1]["own"]["photos"] == 5 * 3
    assert report["rows"][-1]["strangers"]["photos"] == 5 * 1
    with Image.open(figure) as picture:
        assert picture.size[0] > 800
    section = trust_section(report, "results/trust.png")
    assert "![Reliability, and accuracy against coverage](results/trust.png)" in section
    assert section.count("| all widths |") == 3
    assert trust_table(report["rows"]).count("\n") == 6


@pytest.mark.parametrize("drawn", [True, False])
def test_the_page_of_results_has_the_section_and_its_picture(drawn: bool, tmp_path: Path) -> None:
    folder, readme = tmp_path / "docs" / "results", tmp_path / "README.md"
    folder.mkdir(parents=True)
    origin = {"command": "c", "date": "d", "machine": "m", "data": "assets/town"}
    town = {"queries": 1, "gallery": 1, "fov_deg": 360.0, "view": "crop", "heading": "known",
            "radius_m": None, "reranked": False, "within_25_m": 1.0, "chance_25_m": 0.1}  # fmt: skip
    (folder / "town-1.json").write_text(json.dumps({**origin, "rows": [town]}))
    rows = [trust_row(hand_made(), fov) for fov in (90.0, None)]
    report = {**origin, "teacher": None, "elsewhere": ["other"], "strangers_share": 0.1, "seed": 0}
    (folder / "trust.json").write_text(json.dumps({**report, "rows": rows}))
    if drawn:
        (folder / "trust.png").touch()
    readme.write_text(f"{START}{END}")
    write_results(folder, tmp_path / "docs" / "results.md", readme)
    page = (tmp_path / "docs" / "results.md").read_text()
    assert ("(results/trust.png)" in page) == drawn
    assert "| 90° | 64.4 | 66.7 | 22.2 (" in page
    assert "strangers weigh 10 % of all" in page


def test_the_town_itself_is_not_elsewhere(folders, tiny_world, capsys):
    town = str(tiny_world)
    assert main(["trust", str(folders / "student"), "--data", town, "--elsewhere", town]) == 1
    assert "got the town that is searched, expected another" in capsys.readouterr().err


def test_the_figure_draws_every_series() -> None:
    points = [(0.1, 0.2, 0.5), (0.9, 0.8, 0.5)]
    figure = trust_figure({"own": points, "mixture": points}, [0.5, 1.0], {"90°": [0.9, 0.7]})
    left, right = figure.axes
    assert left.lines[0].get_label() == "perfect"
    assert len(left.lines) == 3
    np.testing.assert_allclose(right.lines[0].get_ydata(), [90, 70])
