"""Students with one descriptor for a whole view, from training to an answer, by the command line.

Run alone with ``pytest tests/test_global_students.py``. The networks are the real ones at 32 x 128
px; only L2LTR, which has 196 million parameters at any size of picture, is built thin.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from core.checkpoints import load_state, load_student, save_model
from core.cli import main
from core.data.worlds import load_town
from core.errors import SettingError
from core.evaluation.answers import DescribedTown
from core.evaluation.fit import fit_calibration
from core.evaluation.report import Setting, evaluate_town
from core.evaluation.towns import TownReferences
from core.localization.answer import Models
from core.localization.calibration import Calibration, ViewCalibration
from core.localization.localizer import Localizer
from core.models import MODELS, build_model
from core.models.geossk import GeoSSK
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.training.objectives import DistillationObjective, StudentObjective
from core.training.recipe_files import read_recipe
from core.training.sampling import SamplingConfig, sample_batch
from tests.conftest import twin_branches
from tests.small_recipes import town_training, write_town_recipe
from tests.towns import telling_town

SMALL = {"ground_size": [32, 128], "aerial_size": [64, 64]}


@pytest.fixture
def thin_l2ltr(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(size: tuple[int, int], azimuth: bool) -> L2ltr:
        return L2ltr(L2ltrConfig(size, depth=2, width=16, heads=2, hidden=24, units=(1, 1, 1)))

    monkeypatch.setitem(MODELS, "l2ltr", build)


def run(*arguments: object) -> None:
    assert main([str(part) for part in arguments]) == 0


@pytest.mark.parametrize(
    ("model", "pooling"),
    [("saig-xs", "gap"), ("saig-xs", "smd"), ("l2ltr", "cls"), ("timm/test_resnet", "gap")],
)
def test_from_training_to_an_answer(model, pooling, tiny_world, tmp_path, capsys, thin_l2ltr):
    student, gallery, worlds = tmp_path / "student", tmp_path / "gallery", tiny_world.parent
    kind = {"name": model, "pooling": pooling, **SMALL}
    recipe = write_town_recipe(tmp_path / "recipes", "own", "town-l2ltr", model=kind)
    more = ["--validation", worlds, "--threads", 1]
    run("train", *town_training(recipe, worlds, tmp_path / "run", student, *more))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 <= log[-1]["validation"]["within_25_m_90"] <= 1

    capsys.readouterr()
    run("evaluate", student, "--data", tiny_world, "--queries", 4, "--threads", 1, "--json")
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["fov_deg"] for row in rows} == {360, 270, 180, 112.5, 90, 67.5}
    assert {row["heading"] for row in rows} == {"unknown"}
    assert {row["median_heading_error_deg"] for row in rows} == {None}
    assert {row["radius_m"] for row in rows} == {None, 200.0}

    run("calibrate", student, "--validation", worlds, "--queries", 10, "--threads", 1)
    fitted = Calibration.from_config(load_state(student)[0]["calibration"])
    assert {view.bins for view in fitted.views} >= {32, 8, 5}

    run("gallery", "build", tiny_world, "--model", student, "--out", gallery)
    run("gallery", "verify", gallery, "--model", student)
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.load(tiny_world / "panoramas.npy")[3]).save(photo)
    where = ["--gallery", gallery, "--student", student, "--no-rerank", "--json"]
    for fov in ([], ["--fov", "65"], ["--fov", "200"]):
        capsys.readouterr()
        run("locate", photo, *where, *fov)
        found = json.loads(capsys.readouterr().out)
        assert found["heading_deg"] is None
        assert found["candidates"][0]["heading_deg"] is None


def test_a_teacher_over_a_gap_base_reranks_and_teaches(tiny_world, tmp_path, capsys):
    student, teacher = tmp_path / "student", tmp_path / "teacher"
    gallery, worlds, recipes = tmp_path / "gallery", tiny_world.parent, tmp_path / "recipes"
    kind = {"model": {"name": "saig-xs", "pooling": "gap", **SMALL}}
    own = write_town_recipe(recipes, "own", "town-l2ltr", **kind)
    run("train", *town_training(own, worlds, tmp_path / "r1", student))
    start = ["--start", student]
    own = write_town_recipe(
        recipes, "teacher", "town-l2ltr", "teacher", teacher={"heads": 2}, **kind
    )
    run("train", *town_training(own, worlds, tmp_path / "r2", teacher, *start))
    own = write_town_recipe(
        recipes, "distill", "town-l2ltr", "distill", knowledge={"local": 0.1}, **kind
    )
    start += ["--teacher", teacher]
    run("distill", *town_training(own, worlds, tmp_path / "r3", tmp_path / "taught", *start))

    capsys.readouterr()
    run("evaluate", student, "--data", tiny_world, "--queries", 4, "--threads", 1, "--json")
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["reranked"] for row in rows] == [False, True] * (len(rows) // 2)
    assert {row["median_heading_error_deg"] for row in rows} == {None}

    held_out = ["--validation", tiny_world.parent, "--queries", 10, "--threads", 1]
    run("calibrate", student, "--teacher", teacher, *held_out)
    run("gallery", "build", tiny_world, "--model", student, "--out", gallery)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.load(tiny_world / "panoramas.npy")[3]).save(photo)
    capsys.readouterr()
    models = ["--student", student, "--teacher", teacher]
    run("locate", photo, "--gallery", gallery, *models, "--json", "--fov", "90")
    first = json.loads(capsys.readouterr().out)["candidates"][0]
    assert -1 <= first["teacher_score"] <= 1
    assert first["heading_deg"] is None


def test_the_full_canvas_costs_one_view_per_panorama(tmp_path):
    """A crop of a global student costs as much as a panorama: one of each is taken."""
    tables = {"model": {"name": "convnet-s", "pooling": "gap", **SMALL}}
    own = write_town_recipe(tmp_path / "recipes", "own", "town-l2ltr", **tables)
    assert read_recipe(own).sampling.every_crop is False
    tables["sampling"] = {"every_crop": True}
    own = write_town_recipe(tmp_path / "recipes", "own", "town-l2ltr", **tables)
    with pytest.raises(SettingError, match="crop costs a full canvas"):
        read_recipe(own)


@pytest.mark.parametrize("size", [(64, 256), (48, 200), (36, 130)])
@pytest.mark.parametrize("pooling", ["gap", "smd"])
def test_crops_fill_whatever_canvas_the_model_was_built_for(size, pooling):
    """Several crops of one panorama share its tile, and the loss has a gradient."""
    student = build_model("convnet-s", pooling, size, (32, 32))
    config = SamplingConfig(batch=4, widths=((5, 1.0),))
    batch = sample_batch(telling_town(count=8), config, 32, np.random.default_rng(0))
    assert len(batch.views) == 4 * 6
    seen = []
    describe = student.describe_ground
    student.describe_ground = lambda views: seen.append(views) or describe(views)  # type: ignore
    loss, metrics = StudentObjective(student)(batch, torch.Generator().manual_seed(0), "cpu")
    loss.backward()
    assert seen[0].shape == (24, 3, *size)
    assert (seen[0][..., : size[1] // 3] == 127 / 255).all()
    assert torch.isfinite(loss)
    assert 0 <= metrics["accuracy"] <= 1
    assert all(p.grad is not None and p.grad.any() for p in student.ground_encoder.parameters())


def test_twin_branches_find_their_places_without_a_heading(tiny_world, tiny_global_student):
    """Untrained, but each view is its tile rotated, which a mean over a circle does not notice."""
    town = load_town(tiny_world, 128)
    settings = [Setting(32), Setting(32, heading_known=True), Setting(32, radius_m=60.0)]
    rows = evaluate_town(town, tiny_global_student, settings=settings, count=12)
    assert [row["radius_m"] for row in rows] == [None, 60.0]
    assert rows[0]["within_25_m"] >= 0.5 > 3 * rows[0]["chance_25_m"]
    assert "median_heading_error_located_deg" not in rows[0]


@pytest.mark.parametrize("pooling", ["gap", "azimuth"])
def test_any_teacher_reranks_a_global_student(pooling, tiny_world, tiny_global_student):
    teacher = GeoSSK(twin_branches(pooling, polar=True)).eval()
    few = [Setting(8)]
    town = load_town(tiny_world, 128)
    rows = evaluate_town(town, tiny_global_student, teacher, settings=few, count=1)
    assert [row["reranked"] for row in rows] == [False, True]


def test_calibration_with_a_global_teacher_is_fitted(tiny_world, tiny_global_student):
    teacher = GeoSSK(twin_branches("gap", polar=True)).eval()
    town = load_town(tiny_world, 128)
    references = TownReferences.describe(town, tiny_global_student, viewpoints=1)
    described = DescribedTown(town, references, Models(tiny_global_student, teacher))
    _, paired = fit_calibration([described], count=3, bins=(8,))
    assert paired is not None
    assert paired.views[0].teacher > 0


def test_a_global_teacher_reranks_and_explains_nothing(tiny_global_gallery, tiny_global_student):
    teacher = GeoSSK(twin_branches("gap", polar=True)).eval()
    localizer = Localizer(tiny_global_gallery, tiny_global_student, teacher)
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    found = localizer.locate(photo, fov_deg=90)
    assert found.candidates[0].teacher_score is not None
    assert found.heading_deg is None
    with pytest.raises(SettingError, match="got a teacher with a global descriptor"):
        localizer.explain(photo, found.candidates[0].row)


def test_an_azimuth_student_may_have_a_global_teacher(tiny_gallery, tiny_student):
    teacher = GeoSSK(twin_branches("gap", polar=True)).eval()
    found = Localizer(tiny_gallery, tiny_student, teacher).locate(tiny_gallery.tile_image(3))
    assert found.candidates[0].teacher_score is not None
    assert found.heading_deg is not None


def test_a_global_answer_is_calibrated_for_its_width(tiny_global_gallery, tiny_global_student):
    sure = Calibration((ViewCalibration(32, 1e5), ViewCalibration(8, 1e5, outside=1e6)))
    localizer = Localizer(tiny_global_gallery, tiny_global_student, calibration=sure)
    photo = np.random.default_rng(0).integers(0, 255, (128, 512, 3), dtype=np.uint8)
    assert localizer.locate(photo).confident
    assert not localizer.locate(photo[:, 192:320], fov_deg=90).confident


@pytest.mark.parametrize("pooling", ["smd", "azimuth"])
def test_no_student_learns_from_a_teacher_of_another_pooling(pooling):
    student = build_model("convnet-s", pooling, (64, 256), (32, 32))
    teacher = GeoSSK(build_model("convnet-s", "gap", (64, 256), (32, 32)))
    with pytest.raises(SettingError, match="must have one pooling and size"):
        DistillationObjective(student, teacher)


def test_the_model_folder_gives_back_the_student_it_was_saved_from(tmp_path):
    student = build_model("saig-xs", "smd", (32, 128), (64, 64)).eval()
    shape = {"pooling": "smd", "ground_size": [32, 128], "aerial_size": [64, 64]}
    save_model(tmp_path, student, {"name": "saig-xs", "model": shape, "precision": "float32"}, "")
    view = torch.rand(1, 3, 32, 128)
    with torch.inference_mode():
        again = load_student(tmp_path)[0].describe_ground(view)
        torch.testing.assert_close(again, student.describe_ground(view))
