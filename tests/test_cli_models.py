"""Training, calibrating and evaluating from the command line, on a world whose answers are known."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from core.checkpoints import load_state, load_teacher, model_hash, save_model
from core.cli import main
from core.commands.calibrate import with_calibration
from core.commands.evaluate import evaluation_table
from core.data.worlds import load_town
from core.localization.calibration import Calibration
from core.localization.localizer import teacher_beside
from core.models import build_model
from core.research.cli import main as research
from core.results.ablation import ablation_section
from core.results.reading import parse_report
from core.results.reports import AblationReport
from core.results.students import training_record
from tests.small_recipes import RECIPES, town_training, write_town_recipe
from tests.towns import ideal_truth, write_truth

TWO_BRANCH = {"pooling": "azimuth", "ground_size": [64, 256], "aerial_size": [128, 128], "dim": 8}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_student, tiny_teacher) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(
        folder / "student", tiny_student, {"name": "convnet-s", "model": TWO_BRANCH}, "A card"
    )
    teacher = {"name": "geossk", "model": {"base": {"name": "convnet-s", **TWO_BRANCH}}}
    save_model(folder / "teacher", tiny_teacher, teacher, "")
    return folder


def test_evaluate_prints_one_object(models, tiny_world, capsys):
    arguments = ["evaluate", str(models / "student"), "--data", str(tiny_world)]
    arguments += ["--teacher", str(models / "teacher"), "--queries", "6"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"protocol", "model", "data", "rows"} <= set(report)
    first = report["rows"][0]
    assert first["fov_deg"] == 360
    assert first["heading"] == "unknown"
    assert first["queries"] == 6
    assert first["gallery"] == 49
    # Twin branches over ideal views: most are found, far above chance.
    assert first["within_25_m"] >= 0.5 > 3 * first["chance_25_m"]
    assert {row["reranked"] for row in report["rows"]} == {False, True}


def test_evaluation_table_lines_up_and_marks_what_is_missing():
    row = {
        "fov_deg": 360.0, "view": "crop", "heading": "known", "radius_m": None, "reranked": True,
        "hit@1": 0.5, "within_10_m": 0.25, "within_25_m": 1.0, "within_50_m": 1.0,
        "chance_25_m": 0.01, "median_error_m": 9.25,
    }  # fmt: skip
    lines = evaluation_table([row, {**row, "radius_m": 200.0}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[3] == "-"
    assert lines[2].split()[3] == "200"
    assert lines[1].split()[-1] == "-"
    assert "100.0%" in lines[1]


def test_calibrate_notes_it_and_leaves_the_galleries_valid(
    models, tiny_world, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("core.evaluation.fit.FITTED_BINS", (32, 8))
    shutil.copytree(models, tmp_path / "models")
    student, teacher = tmp_path / "models" / "student", tmp_path / "models" / "teacher"
    before = model_hash(student), (student / "model.safetensors").read_bytes()
    arguments = ["calibrate", str(student), "--teacher", str(teacher), "--queries", "10"]
    assert main([*arguments, "--validation", str(tiny_world.parent)]) == 0
    assert "calibrated on 1 towns" in capsys.readouterr().out
    assert (model_hash(student), (student / "model.safetensors").read_bytes()) == before
    card = (student / "card.md").read_text().splitlines()
    assert card[0] == "A card"
    assert card[1].startswith("- calibrated on validation towns tiny, 10 queries each")
    assert re.search(r"360° \d+\.\d % \(to \d+ m\), 90° ", card[1])
    for folder, reranks in ((student, False), (teacher, True)):
        calibration = Calibration.from_config(load_state(folder)[0]["calibration"])
        assert {view.bins for view in calibration.views} == {32, 8}
        assert calibration.viewpoints == 4
        assert any(view.teacher > 0 for view in calibration.views) == reranks
        refined = [view.refined_radius_m is not None for view in calibration.views if view.located]
        assert all(one == reranks for one in refined)
        assert all(0.5 <= view.threshold <= 1 for view in calibration.views)
        assert all(0 < view.radius_m < 36 for view in calibration.views if view.located)


def test_a_card_has_one_line_of_calibration_behind_its_other_ones():
    fitted = {"towns": ["town-2000"], "queries": 5, "views": [
        {"bins": 32, "located": 0.98, "radius_m": 3.6}, {"bins": 8, "located": 0.0, "radius_m": None},
    ]}  # fmt: skip
    once = with_calibration("# Student\n\n- steps 3\n\nThese weights: CC0.\n", fitted)
    assert once.splitlines()[3].endswith("360° 98.0 % (to 4 m), 90° 0.0 %")
    assert once.splitlines()[-1] == "These weights: CC0."
    assert with_calibration(once, fitted) == once


def test_a_teacher_re_ranks_for_the_student_it_was_calibrated_with(
    models, tiny_world, tiny_gallery, tmp_path, capsys
):
    shutil.copytree(models, tmp_path / "models")
    student, teacher = tmp_path / "models" / "student", tmp_path / "models" / "teacher"
    model, config = load_teacher(teacher)
    save_model(teacher, model, {**config, "calibration": {"views": [], "student": "0" * 64}}, "")
    judge = ["evaluate", str(student), "--data", str(tiny_world), "--queries", "1"]
    assert main(judge) == 1  # the teacher beside the student is the one that re-ranks
    said = capsys.readouterr().err
    assert "calibrated with another student" in said
    assert f"python -m core calibrate {student} --teacher {teacher} --validation" in said
    photo = str(tmp_path / "photo.jpg")
    Image.new("RGB", (512, 128)).save(photo)
    find = ["locate", photo, "--gallery", str(tiny_gallery.path), "--student", str(student)]
    assert main(find) == 1
    assert "calibrated with another student" in capsys.readouterr().err
    assert main([*judge, "--no-reranked"]) == 0


def test_the_teacher_beside_a_student_is_a_folder_of_that_name(tmp_path):
    for name in ("student", "teacher"):
        (tmp_path / name).mkdir()
    assert teacher_beside(tmp_path / "student") == tmp_path / "teacher"
    assert teacher_beside(tmp_path / "teacher") is None  # it is no teacher of its own
    (tmp_path / "teacher").rmdir()
    assert teacher_beside(tmp_path / "student") is None


def test_auxiliary_losses_need_four_rows_of_sectors(models, tiny_world, tmp_path, capsys):
    recipes, out = tmp_path / "recipes", tmp_path / "o"
    gap = {"pooling": "gap", "ground_size": [64, 256], "aerial_size": [128, 128]}
    student = build_model("convnet-s", "gap", (64, 256), (128, 128))
    save_model(tmp_path / "gap", student, {"name": "convnet-s", "model": gap}, "")
    shutil.copytree(tiny_world, tmp_path / "worlds" / "town")
    write_truth(tmp_path / "worlds" / "town", ideal_truth(load_town(tiny_world)))
    worlds = tmp_path / "worlds"
    weights = {"teacher": {"heads": 2}, "auxiliary": {"pointing": 0.3, "transient": 0.2}}
    named = {"model": {"name": "convnet-s", **gap}}
    own = write_town_recipe(recipes, "gap", "town-l2ltr", "teacher", **weights, **named)
    start = ["--start", tmp_path / "gap"]
    assert main(["train", *town_training(own, worlds, tmp_path / "r", out, *start)]) == 1
    assert "got a student with no rows of azimuth bins" in capsys.readouterr().err
    weights["auxiliary"] = {"transient": 0.2}  # and pointing as the recipe below it says
    own = write_town_recipe(recipes, "own", "town-teacher", "teacher", model={"dim": 8}, **weights)
    start = ["--start", models / "student"]
    assert main(["train", *town_training(own, worlds, tmp_path / "r", out, *start)]) == 0
    kept = load_state(out)[0]["training"]["recipe"]["auxiliary"]
    assert kept == {"pointing": 0.3, "transient": 0.2}
    card = (out / "card.md").read_text()
    assert "taught where things are" in card
    assert "taught that vehicles and sky count for little (auxiliary loss, weight 0.2)" in card


def test_train_teacher_distil_give_models_that_load(tiny_world, tmp_path, capsys):
    worlds, recipes = tiny_world.parent, tmp_path / "recipes"
    student, branches, teacher, distilled = (tmp_path / name for name in ("s", "b", "t", "d"))
    small = {"model": {"dim": 4}}
    own = write_town_recipe(recipes, "own", **small)
    assert main(["train", *town_training(own, worlds, tmp_path / "r1", student, "--seed", 5)]) == 0
    assert load_state(student)[0]["model"]["dim"] == 4
    said = capsys.readouterr().out
    assert "student convnet-s, trained from fresh weights for 1 steps on 24 panoramas of" in said
    own = write_town_recipe(recipes, "branched", "town-branches", **small)
    start = ["--start", student]
    assert main(["train", *town_training(own, worlds, tmp_path / "r0", branches, *start)]) == 0
    assert load_state(branches)[0]["training"]["sampling"]["rotation_error"] == 0.2
    measured = training_record(load_state(branches)[0])
    assert (measured["offset_m"], measured["elsewhere"], measured["all_steps"]) == (3.5, 0.5, 2)
    one = {"teacher": {"contribution": False}, "auxiliary": {"pointing": 0.0, "transient": 0.0}}
    own = write_town_recipe(recipes, "teacher", "town-teacher", "teacher", **one, **small)
    start = ["--start", branches]
    assert main(["train", *town_training(own, worlds, tmp_path / "r2", teacher, *start)]) == 0
    assert load_state(teacher)[0]["model"]["contribution"] is False
    assert load_state(teacher)[0]["training"]["before"]["kind"] == "student"
    one = {"knowledge": {"local": 0.25, "is_filtered": False}}
    small["model"]["name"] = "convnet-s"
    own = write_town_recipe(recipes, "distil", "town-distilled", "distill", **one, **small)
    start = ["--start", student, "--teacher", teacher]
    assert main(["distill", *town_training(own, worlds, tmp_path / "r3", distilled, *start)]) == 0
    knowledge = load_state(distilled)[0]["training"]["recipe"]["knowledge"]
    assert knowledge["local"] == 0.25
    assert knowledge["is_filtered"] is False
    assert "distill convnet-s, trained for 1 steps on 24 panoramas of" in capsys.readouterr().out


def test_reports_read_the_records_of_the_shipped_models():
    """These were written before a record held its recipe."""
    measured = training_record(load_state(RECIPES.parent / "assets" / "models" / "student")[0])
    assert (measured["offset_m"], measured["elsewhere"]) == (5.5, 0.75)
    assert (measured["steps"], measured["all_steps"], measured["towns"]) == (2600, 11400, 42)


def test_a_trial_on_towns_says_so(tiny_world, tmp_path):
    own = write_town_recipe(tmp_path / "recipes", "own", model={"dim": 4})
    run, out = tmp_path / "r", tmp_path / "o"
    assert main(["train", *town_training(own, tiny_world.parent, run, out, "--steps", 2)]) == 0
    assert load_state(out)[0]["training"]["is_trial"]
    assert "A trial, shorter than its recipe says." in (out / "card.md").read_text()


def test_a_blended_student_lies_between_what_it_was_and_what_it_became(
    tiny_world, tmp_path, capsys
):
    worlds = tiny_world.parent
    own = write_town_recipe(tmp_path / "recipes", "own", model={"dim": 4})
    start, whole, some = (tmp_path / name for name in ("start", "all", "some"))
    assert main(["train", *town_training(own, worlds, tmp_path / "r0", start)]) == 0
    more = ["--start", start, "--seed", 3]
    assert main(["train", *town_training(own, worlds, tmp_path / "r1", whole, *more)]) == 0
    blend = ["blend", str(start), str(whole), "--share", "0.25", "--out", str(some)]
    assert research(blend) == 0
    weights = {path.name: load_state(path)[1] for path in (start, whole, some)}
    moved = False
    for name, value in weights["some"].items():
        before, after = weights["start"][name].float(), weights["all"][name].float()
        if value.is_floating_point():
            wide = (before.abs() + after.abs()).clamp_min(1e-3)  # files hold 16 bits of a number
            assert ((value.float() - (0.75 * before + 0.25 * after)).abs() / wide).max() < 2e-3
            moved |= bool((before != after).any())
    assert moved
    assert load_state(some)[0]["training"]["blend"] == 0.25
    assert "0.25 of those trained" in (some / "card.md").read_text()
    assert "of those trained" not in (whole / "card.md").read_text()
    shipped = str(RECIPES.parent / "assets" / "models" / "student")
    assert research(["blend", str(start), shipped, "--share", "0.5", "--out", str(some)]) == 1
    assert "error: Model " in capsys.readouterr().err


TAUGHT = ("alone", "sskd", "sskd+ikf", "sskd+descriptors", "sskd+descriptors+ikf")


def test_ablate_trains_and_judges_every_arm(models, tiny_world, tmp_path, capsys):
    out = tmp_path / "docs" / "ablation.json"
    arguments = ["ablate", "--worlds", str(tiny_world.parent), "--start", str(models / "student")]
    arguments += ["--data", str(tiny_world), "--run", str(tmp_path / "arms"), "--out", str(out)]
    assert research([*arguments, "--steps", "1", "--batch", "4", "--queries", "5"]) == 0
    rows = json.loads(out.read_text())["rows"]
    arms = {(row["kind"], row["arm"]) for row in rows}
    assert arms == {
        ("start", "before"),
        *(("teacher", arm) for arm in ("plain", "cim", "cim+cf")),
        *(("student", arm) for arm in TAUGHT),
    }
    assert all(row["reranked"] == (row["kind"] == "teacher") for row in rows)
    assert {row["queries"] for row in rows} == {5}
    assert len(rows) == (1 + 3 + len(TAUGHT)) * 3
    assert "sskd+descriptors+ikf" in capsys.readouterr().out
    arms = tmp_path / "arms" / "seed-0"
    taught = load_state(arms / "sskd+descriptors")[0]["training"]["recipe"]["knowledge"]
    assert taught["is_filtered"] is False
    assert taught["descriptors"] > 0
    taught = load_state(arms / "sskd+ikf")[0]["training"]["recipe"]["knowledge"]
    assert taught["is_filtered"] is True
    assert taught["descriptors"] == 0
    assert load_state(arms / "plain")[0]["model"]["interaction"] is False


def test_ablate_compares_fresh_students_of_one_teacher(models, tiny_world, tmp_path):
    out = tmp_path / "ablation-fresh.json"
    arguments = ["ablate", "--worlds", str(tiny_world.parent), "--start", str(models / "student")]
    arguments += ["--data", str(tiny_world), "--run", str(tmp_path / "arms"), "--out", str(out)]
    arguments += ["--teacher", str(models / "teacher"), "--fresh", "convnet-xs", "--seeds", "2"]
    more = ["--noise", "0.5", "--steps", "1", "--batch", "4", "--queries", "5"]
    assert research([*arguments, *more]) == 0
    report = json.loads(out.read_text())
    assert {(row["kind"], row["arm"], row["seed"]) for row in report["rows"]} == {
        ("student", arm, seed) for arm in TAUGHT for seed in (0, 1)
    }
    config = load_state(tmp_path / "arms" / "seed-1" / "sskd+descriptors")[0]
    assert config["name"] == "convnet-xs"
    assert config["training"]["noise"] == 0.5
    text = ablation_section(parse_report(AblationReport, report))
    assert "50% of the labels wrong" in text
    assert "| student: sskd+descriptors+ikf |" in text


def test_an_arm_is_its_mean_over_towns_and_its_spread_over_seeds():
    def row(seed: int, town: str, share: float) -> dict[str, object]:
        both = {"hit@1": share / 2, "within_25_m": share}
        return {"kind": "student", "arm": "alone", "seed": seed, "town": town, **both}

    shares = {(0, "a"): 0.4, (0, "b"): 0.6, (1, "a"): 0.5, (1, "b"): 0.9}
    rows = [
        {**row(seed, town, share), "fov_deg": fov}
        for (seed, town), share in shares.items()
        for fov in (360.0, 180.0, 90.0)
    ]
    settings = {"steps": 5, "batch": 4, "seeds": 2, "noise": 0.0, "fresh": None}
    origin = {"command": "c", "date": "d", "machine": "m"}
    text = ablation_section(parse_report(AblationReport, {**settings, **origin, "rows": rows}))
    assert "| student: alone | 30.0 ± 7.1 | 60.0 ± 14.1 |" in text
    assert "on a, b." in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evaluate", "student", "--data", "nowhere"], "world.json"),
        (["evaluate", "teacher", "--data", "world"], "another kind of model"),
        (["evaluate", "student", "--data", "world", "--teacher", "student"], "another kind of model"),
        (["train", "--recipe", "small", "--data", "nowhere"], "got 0 towns"),
        (["train", "--recipe", "teaching", "--data", "worlds"], "no --start"),
        (["train", "--recipe", "small", "--data", "worlds", "--start", "student"], "got dim 8, expected"),
        (
            ["distill", "--recipe", "distilling", "--data", "worlds", "--start", "wide", "--teacher",
             "wide"],
            "expected a GeoSSK teacher",
        ),
        (["calibrate", "student", "--validation", "nowhere"], "got no world folders"),
    ],
)  # fmt: skip
def test_wrong_folders_are_one_sentence(command, said, models, tiny_world, tmp_path, capsys):
    places = {
        "student": models / "student", "teacher": models / "teacher", "world": tiny_world,
        "worlds": tiny_world.parent, "nowhere": tmp_path / "nowhere",
        "wide": RECIPES.parent / "assets" / "models" / "student",
        "small": RECIPES / "town-small-1.toml", "teaching": RECIPES / "town-teacher.toml",
        "distilling": RECIPES / "town-distilled.toml",
    }  # fmt: skip
    arguments = [command[0], *(str(places.get(part, part)) for part in command[1:])]
    if "--recipe" in command:
        arguments += ["--run", str(tmp_path / "r"), "--out", str(tmp_path / "o")]
    assert main(arguments) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in err if line.startswith("error: ")]) == 1
    assert said in err[-1]
    assert not (tmp_path / "o").exists()
