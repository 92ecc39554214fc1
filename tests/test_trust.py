"""Whether probabilities can be trusted, by answers worked out by hand: ``pytest tests/test_trust.py``."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core.checkpoints import load_student, save_model
from core.cli import main
from core.commands.trust import trust_table
from core.data.worlds import load_town
from core.evaluation.answers import NO_HELP, Answers, DescribedTown, Help
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
from core.evaluation.outside import DRAWN_KINDS
from core.evaluation.queries import town_queries
from core.evaluation.towns import TownReferences
from core.evaluation.trust import (
    CASES,
    OUTSIDE_SHARE,
    Stated,
    measure_trust,
    outside_queries,
    state,
    trust_row,
)
from core.explain.figures import trust_figure
from core.geo import angle_difference_deg
from core.localization.answer import Answer, FoundPlace, Models
from core.localization.calibration import Calibration, ViewCalibration
from core.results.pages import END, START, write_results
from core.results.trust import trust_section
from tests.conftest import TWO_BRANCH

CALIBRATION = Calibration(
    (
        ViewCalibration(32, 60.0, 20.0, rest=-1.0, outside=60.0, growth=1.0),
        ViewCalibration(8, 60.0, 20.0, rest=-1.0, outside=62.0, growth=1.0),
    ),
    viewpoints=4,
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


def hand_made() -> Stated:
    """Nine own photos, six of them right, and two from outside, one of which is called a match."""
    return Stated(
        confidence=np.array([0.9] * 5 + [0.6, 0.4, 0.2, 0.1] + [0.8, 0.1]),
        outside=np.array([0.05] * 5 + [0.3, 0.3, 0.7, 0.1] + [0.1, 0.8]),
        right=np.array([True] * 5 + [False, True, False, False] + [False, False]),
        confident=np.array([True] * 6 + [False] * 3 + [True, False]),
        kind=("own",) * 9 + ("room", "other town"),
        held=np.array([[True, True]] * 3 + [[False, True]] * 4 + [[False, False]] * 4),
        drawn=np.array([[True, True]] * 6 + [[True, False]] * 2 + [[False, False]] * 3),
    )


def test_a_row_by_hand() -> None:
    row = json.loads(json.dumps(trust_row(hand_made(), "no help", 90.0)))
    assert (row["case"], row["fov_deg"]) == ("no help", 90)
    own, mixture = row["own"], row["mixture"]
    assert own["photos"] == 9
    assert own["right"] == pytest.approx(6 / 9)
    assert own["mean_confidence"] == pytest.approx(5.8 / 9)
    assert own["confident"] == pytest.approx({"coverage": 6 / 9, "right": 5 / 6})
    # Two photos from outside of weight 1/2 each are one in ten photos.
    assert OUTSIDE_SHARE == 0.1
    assert mixture["photos"] == 11
    assert mixture["right"] == pytest.approx(6 / 10)
    assert mixture["mean_confidence"] == pytest.approx((5.8 + 0.45) / 10)
    assert mixture["confident"] == pytest.approx({"coverage": 6.5 / 10, "right": 5 / 6.5})
    gaps = 5 * 0.1 + 0.6 + 0.6 + 0.2 + 0.1
    assert own["calibration_error"] == pytest.approx(gaps / 9)
    assert mixture["calibration_error"] == pytest.approx((gaps + 0.5 * 0.8 + 0.5 * 0.1) / 10)
    assert own["coverage"][-1] == pytest.approx({"coverage": 1.0, "right": 6 / 9})
    auroc_of = {name: found["area"] for name, found in row["auroc"].items()}
    # By the probability of being outside: 0.1 is above five and equal to one own photo, 0.8 above all.
    assert auroc_of["own_or_outside"] == pytest.approx((5 + 0.5 + 9) / 18)
    assert auroc_of["right_or_not"] == pytest.approx((5 * 5 + 3) / 30)
    assert auroc_of["right_or_wrong"] == pytest.approx((5 * 3 + 2) / 18)
    assert row["auroc"]["right_or_wrong"]["of"] == [6, 3]


def test_photos_from_outside_are_counted_by_kind() -> None:
    outside = trust_row(hand_made(), "no help", 90.0)["outside"]
    assert outside == {
        "photos": 2,
        "mean_confidence": pytest.approx(0.45),
        "mean_outside_probability": pytest.approx(0.45),
        "confident": 0.5,
        "kinds": {
            "room": {"photos": 1, "confident": 1, "mean_outside_probability": 0.1},
            "other town": {"photos": 1, "confident": 0, "mean_outside_probability": 0.8},
        },
    }


def test_areas_are_judged_by_the_own_photos_that_have_one() -> None:
    areas = trust_row(hand_made(), "no help", 90.0)["areas"]
    assert areas == {
        "50": {"photos": 8, "held": pytest.approx(3 / 8)},
        "90": {"photos": 6, "held": 1.0},
    }
    without = replace(hand_made(), drawn=np.zeros((11, 2), bool))
    none = {"photos": 0, "held": None}
    assert trust_row(without, "no help", 90.0)["areas"] == {"50": none, "90": none}


def test_joined_statements_are_those_of_both() -> None:
    once, twice = hand_made(), Stated.joined([hand_made(), hand_made()])
    assert len(twice.kind) == 2 * len(once.kind)
    assert twice.weights().sum() == pytest.approx(2 * once.weights().sum())
    for key in ("right", "mean_confidence", "calibration_error", "brier_score"):
        rows = [trust_row(one, "no help", None)["mixture"] for one in (once, twice)]
        assert rows[0][key] == pytest.approx(rows[1][key])  # type: ignore[index]


def test_nothing_to_tell_apart_is_none_and_not_a_number() -> None:
    nothing = np.zeros((2, 2), bool)
    one = Stated(
        confidence=np.array([0.9, 0.2]),
        outside=np.array([0.1, 0.2]),
        right=np.array([True, False]),
        confident=np.zeros(2, bool),
        kind=("own", "room"),
        held=nothing,
        drawn=nothing,
    )
    row = trust_row(one, "compass", None)
    assert row["auroc"]["right_or_wrong"] is None  # type: ignore[index]
    assert row["own"]["confident"] == {"coverage": 0, "right": None}  # type: ignore[index]
    assert trust_table([row]).splitlines()[1].split()[:2] == ["compass", "all"]


@pytest.fixture(scope="module")
def described(tiny_student, tiny_teacher, tiny_world) -> DescribedTown:
    town = load_town(tiny_world)
    references = TownReferences.describe(town, tiny_student)
    return DescribedTown(town, references, Models(tiny_student, tiny_teacher, CALIBRATION))


@pytest.mark.parametrize("bins", [32, 8])
def test_what_is_stated_is_what_was_answered(bins: int, described) -> None:
    queries = town_queries(described.town, bins, 6, 0)
    answers, stated = described.answers(queries), state(described, queries, NO_HELP)
    assert len(set(np.round(stated.confidence, 4))) > 1
    assert stated.kind == ("own",) * 6
    for at, found in enumerate(answers.found):
        assert stated.confidence[at] == found.confidence == found.places[0].probability
        assert stated.outside[at] == found.outside_probability
        assert stated.confident[at] == found.confident
        error_m = np.hypot(*(found.places[0].position_m - queries.places[at]))
        assert answers.error_m[at] == pytest.approx(error_m)
        assert stated.right[at] == (error_m <= 25)
        drawn = [area is not None for area in (found.area_50_m2, found.area_90_m2)]
        assert stated.drawn[at].tolist() == drawn
        heading = found.places[0].heading_deg
        apart = angle_difference_deg(np.array(heading), queries.heading_deg[at])
        assert answers.heading_error_deg[at] == pytest.approx(float(apart))


def stated_of(camera: tuple[float, float], shares: list[float]) -> Stated:
    """What is stated of one photo whose tiles, 19.2 m apart eastwards from 0, 0, have these shares."""
    centres = np.stack([np.arange(len(shares)) * 19.2, np.zeros(len(shares))], axis=1)
    place = FoundPlace(0, centres[0], None, shares[0], 0.9, None, None, None)
    rows, values = np.arange(len(shares)), np.array(shares)
    best = np.argsort(-values, kind="stable")
    found = Answer((place,), False, 1 - sum(shares), 0.0, rows[best], values[best], None, None)
    references = SimpleNamespace(centres_m=centres, cell_area_m2=19.2**2)
    errors = np.array([np.hypot(*camera)])
    answers = Answers((found,), errors, np.full(1, np.nan), np.zeros(1, np.int64))
    home = SimpleNamespace(references=references, answers=lambda queries, given: answers)
    queries = SimpleNamespace(places=np.array([camera]))
    return state(home, queries, NO_HELP)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("camera", "shares", "held", "drawn"),
    [
        ((1.0, 2.0), [0.6, 0.3, 0.1], [True, True], [True, True]),
        ((20.0, 2.0), [0.6, 0.3, 0.1], [False, True], [True, True]),
        ((40.0, 2.0), [0.62, 0.3, 0.08], [False, False], [True, True]),
        # The camera's cell need not be the first: half is reached with the second of these.
        ((20.0, 2.0), [0.4, 0.3, 0.1], [True, True], [True, False]),
        ((20.0, 2.0), [0.3, 0.4, 0.1], [True, True], [True, False]),
        # 0.3 and 0.1 hold less than a half, so there is no such area.
        ((1.0, 2.0), [0.3, 0.1], [True, True], [False, False]),
        # No cell among the tiles is the camera's.
        ((1.0, 30.0), [0.6, 0.4], [False, False], [True, True]),
    ],
)
def test_an_area_holds_the_cameras_whose_cell_is_one_of_it(camera, shares, held, drawn) -> None:
    stated = stated_of(camera, shares)
    assert stated.held.tolist() == [held]
    assert stated.drawn.tolist() == [drawn]


def test_the_same_photos_from_outside_cannot_be_told_apart(described) -> None:
    queries = town_queries(described.town, 8, 4, 0)
    parts = [state(described, queries, NO_HELP, kind) for kind in ("own", "another")]
    assert parts[0].right.any()
    assert not parts[1].right.any()
    assert not parts[1].held.any()
    row = trust_row(Stated.joined(parts), "no help", 90.0)
    assert row["auroc"]["own_or_outside"]["area"] == 0.5  # type: ignore[index]


def test_photos_from_outside_are_of_all_kinds_and_lie_nowhere(described, tiny_world) -> None:
    town = described.town
    away = outside_queries(town, [replace(town, name="other")], 8, 12, 0)
    assert list(away) == ["other", *sorted(DRAWN_KINDS)]
    assert len(away["other"].views) == 6
    assert {len(away[kind].views) for kind in DRAWN_KINDS} == {2}
    for queries in away.values():
        assert queries.views.shape[2] == queries.views.shape[1]  # 8 bins of 16 x 128
        assert np.abs(queries.places).max() <= town.half_extent_m
        assert len(queries.places) == len(queries.heading_deg) == len(queries.views)
    alone = outside_queries(town, [], 8, 12, 0)
    assert {kind: len(queries.views) for kind, queries in alone.items()} == dict.fromkeys(
        sorted(DRAWN_KINDS), 4
    )


def test_a_row_for_each_width_and_one_for_all_in_every_case(described) -> None:
    others = [replace(described.town, name=name) for name in ("one", "two")]
    cases = {name: CASES[name] for name in ("no help", "compass")} | {"9 places": Help(places=9)}
    rows = measure_trust(described, others, count=3, bins=(8, 6), cases=cases)
    assert [(row["case"], row["fov_deg"]) for row in rows] == [
        (case, fov) for case in cases for fov in (90, 67.5, None)
    ]
    counts = [(row["own"]["photos"], row["outside"]["photos"]) for row in rows]  # type: ignore[index]
    assert counts == [(3, 5), (3, 5), (6, 10)] * 3
    for row in rows:
        assert set(row["outside"]["kinds"]) == {"one", "two", *DRAWN_KINDS}  # type: ignore[index]
    again = measure_trust(described, others, count=3, bins=(8, 6), cases={"no help": NO_HELP})
    assert again == rows[:3]


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
    arguments += ["--data", str(tiny_world), "--other-town", str(folders / "other")]
    arguments += ["--queries", "3", "--out", str(out)]
    assert main([*arguments, "--json", "--figure", str(figure)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    widths = [360, 180, 112.5, 90, 67.5, None]
    assert [(row["case"], row["fov_deg"]) for row in report["rows"]] == [
        (case, fov) for case in CASES for fov in widths
    ]
    assert report["calibrated"] is True
    assert {"protocol", "command", "date", "machine", "seed", "outside_share"} <= set(report)
    assert report["other_towns"] == [str(folders / "other")]
    assert report["rows"][-1]["own"]["photos"] == 5 * 3
    assert report["rows"][-1]["outside"]["photos"] == 5 * (2 + 3)
    assert f"--other-town {folders / 'other'}" in report["command"]
    with Image.open(figure) as picture:
        assert picture.size[0] > 800
    section = trust_section(report, [report], "results/trust.png")
    assert "![Reliability, and accuracy against coverage](results/trust.png)" in section
    assert section.count("| all widths |") == 3
    # Three tables of the town itself, and the two of totals again for another.
    assert all(section.count(f"| {case} |") == 5 for case in CASES)
    assert all(f"| {kind} |" in section for kind in ("other", *DRAWN_KINDS))
    assert trust_table(report["rows"]).count("\n") == len(CASES) * 6


@pytest.mark.parametrize("drawn", [True, False])
def test_the_page_of_results_has_the_section_and_its_picture(drawn: bool, tmp_path: Path) -> None:
    folder, readme = tmp_path / "docs" / "results", tmp_path / "README.md"
    folder.mkdir(parents=True)
    origin = {"command": "c", "date": "d", "machine": "m", "data": "assets/town"}
    town = {"queries": 1, "gallery": 1, "fov_deg": 360.0, "view": "crop", "heading": "known",
            "radius_m": None, "reranked": False, "within_25_m": 1.0, "chance_25_m": 0.1}  # fmt: skip
    (folder / "town-1.json").write_text(json.dumps({**origin, "rows": [town]}))
    rows = [
        trust_row(hand_made(), case, fov) for case in ("no help", "compass") for fov in (90.0, None)
    ]
    report = {**origin, "teacher": None, "other_towns": ["other"], "outside_share": 0.1, "seed": 0}
    (folder / "trust-1.json").write_text(json.dumps({**report, "rows": rows}))
    if drawn:
        (folder / "trust.png").touch()
    readme.write_text(f"{START}{END}")
    write_results(folder, tmp_path / "docs" / "results.md", readme)
    page = (tmp_path / "docs" / "results.md").read_text()
    assert ("(results/trust.png)" in page) == drawn
    assert "| 90° | 64.4 | 66.7 | 22.2 (" in page
    assert "| compass | 64.4 | 66.7 | 22.2 (" in page
    assert "photos from outside weigh 10 % of all" in page
    assert "| no help | 37.5 | 8 | 100.0 | 6 |" in page
    assert "| room | 1 | 100.0 | 10.0 |" in page


def test_a_town_of_the_fit_is_no_test_town(folders, tiny_world, tmp_path, capsys):
    for name in ("student", "fitted"):
        shutil.copytree(folders / "student", tmp_path / name)
    config = {"name": "convnet-s", "model": TWO_BRANCH}
    calibration = {**CALIBRATION.to_config(), "towns": [tiny_world.name]}
    student = load_student(folders / "student")[0]
    save_model(tmp_path / "fitted", student, {**config, "calibration": calibration}, "")
    arguments = ["--data", str(tiny_world), "--other-town", str(folders / "other")]
    assert main(["trust", str(tmp_path / "fitted"), *arguments]) == 1
    assert "got one that the calibration was fitted on" in capsys.readouterr().err


def test_the_town_itself_is_not_another(folders, tiny_world, capsys):
    town = str(tiny_world)
    assert main(["trust", str(folders / "student"), "--data", town, "--other-town", town]) == 1
    assert "got the town that is searched, expected another" in capsys.readouterr().err


def test_the_figure_draws_every_series() -> None:
    points = [(0.1, 0.2, 0.5), (0.9, 0.8, 0.5)]
    figure = trust_figure({"own": points, "mixture": points}, [0.5, 1.0], {"90°": [0.9, 0.7]})
    left, right = figure.axes
    assert left.lines[0].get_label() == "perfect"
    assert len(left.lines) == 3
    np.testing.assert_allclose(right.lines[0].get_ydata(), [90, 70])
