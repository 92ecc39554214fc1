"""Recipe files: each builds and trains; a wrong one is refused in a sentence with file and key.

Run alone with ``pytest tests/test_recipes.py``. Training is cut down by ``tests.small_recipes``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from core.checkpoints import load_model
from core.data.benchmarks import open_benchmark
from core.errors import SettingError
from core.evaluation.benchmarks import evaluate_benchmark
from core.models import MODELS, build_model, build_teacher
from core.models.geossk import GeoSSKConfig
from core.training.benchmarks import train_on_benchmark
from core.training.objectives import DistillationConfig
from core.training.recipe_files import read_recipe
from core.training.sampling import SamplingConfig
from core.training.tasks import Folders, Session
from tests import fake_benchmarks
from tests.small_recipes import RECIPES, save_student, save_teacher, small, thin_l2ltr

FILES = sorted(path.name for path in RECIPES.glob("*.toml"))
NAMES = [name for name in FILES if not name.startswith("town-")]
TOWNS = {
    # Model, steps, batch, rate, validate_every.
    **{f"town-small-{k}": ("convnet-s", steps, 80, rate, every) for k, steps, rate, every in (
        (1, 2600, 1.5e-3, 1300), (2, 2200, 1e-3, 1100), (3, 3000, 1e-3, 1500),
        (4, 5400, 1e-3, 5400), (5, 5000, 1e-3, 5000), (6, 2600, 1e-3, 2600),
    )},
    "town-student": ("convnet-m", 8800, 128, 2e-3, 1000),
    "town-student-on": ("convnet-m", 2600, 128, 1e-3, 1000),
    "town-branches": ("convnet-s", 2200, 80, 1e-3, 1000),
    "town-teacher": ("convnet-s", 800, 12, 1e-3, 1000),
    "town-distilled": ("convnet-m", 4000, 80, 1.5e-3, 1000),
    "town-timm": ("timm/convnext_atto", 1300, 24, 1.5e-3, 1000),
    "town-saig-d": ("saig-d", 400, 16, 8e-4, 1000),
    "town-l2ltr": ("l2ltr", 150, 16, 3e-4, 1000),
}  # fmt: skip
TESTED_ON = {
    "cvusa": "cvusa", "cvact": "cvact-val", "vigor-same": "vigor-same", "vigor-cross": "vigor-cross",
    "university": "university-drone",
}  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    writers = {
        "cvusa": fake_benchmarks.write_cvusa,
        "cvact": fake_benchmarks.write_cvact,
        "vigor": fake_benchmarks.write_vigor,
        "university": fake_benchmarks.write_university,
    }
    return {name: write(folder / name) for name, write in writers.items()}


# --- all files ------------------------------------------------------------------------------------


def test_the_papers_rows_are_there():
    pairs = [f"saig-{size}-{pool}" for size in "sd" for pool in ("gap", "smd")]
    wanted = {f"{row}{asam}-{data}.toml" for row in pairs for asam in ("", "-asam")
              for data in ("cvusa", "cvact")}  # fmt: skip
    wanted |= {
        f"l2ltr{polar}-{data}.toml" for polar in ("", "-polar") for data in ("cvusa", "cvact")
    }
    vigor = [
        "s-gap-triplet", "s-gap-triplet-asam", "d-gap-triplet", "s-smd-triplet", "s-smd-triplet-asam",
        "s-smd-semi-asam", "d-smd-triplet", "d-smd-triplet-asam", "d-smd-infonce", "d-smd-infonce-asam",
        "d-smd-semi", "d-smd-semi-asam",
    ]  # fmt: skip
    areas = ("same", "cross")
    wanted |= {f"saig-{row}-vigor-{area}.toml" for row in vigor for area in areas}
    wanted |= {
        f"geossk-{stage}-saig-{size}-{data}.toml" for stage in ("teacher", "student")
        for size in "sd" for data in ("cvusa", "cvact", "vigor-same", "vigor-cross")
    }  # fmt: skip
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_its_source_and_builds(name):
    """On torch's meta device: every layer is built, no weight is allocated."""
    text = (RECIPES / name).read_text(encoding="utf-8")
    comment = text.partition("\n\n")[0]
    assert all(line.startswith("# ") for line in comment.splitlines())
    if name.startswith("geossk"):
        assert "RECONSTRUCTION" in comment
    else:
        assert re.search(r"R@1 \d\d\.\d\d", comment)
    recipe = read_recipe(RECIPES / name)
    with torch.device("meta"):
        model = build_model(**recipe.model.arguments())
        if recipe.teacher is not None:
            build_teacher(recipe.model.arguments(), **asdict(recipe.teacher))
    assert model.polar == recipe.model.polar
    is_vigor = recipe.data.startswith("vigor")
    assert recipe.data in name or (recipe.data == "university" and "university" in name)
    if recipe.model.name.startswith("saig") and recipe.data != "university":
        assert recipe.model.ground_size == ((320, 640) if is_vigor else (128, 512))
    assert recipe.model.pooling in name or name.startswith(("geossk", "l2ltr"))
    assert (recipe.optimizer.sharpness == "asam") == ("asam" in name or "university" in name)
    if recipe.optimizer.sharpness == "asam":
        assert recipe.optimizer.rho == 2.0
        assert recipe.optimizer.clip == (1.0 if is_vigor else 0.0)
        assert not recipe.optimizer.mixed_precision


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_and_its_model_is_measured(name, roots, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "l2ltr", thin_l2ltr)
    recipe = small(read_recipe(RECIPES / name))
    start = None if recipe.kind == "student" else save_student(tmp_path / "start", recipe)
    teacher = save_teacher(tmp_path / "teacher", recipe) if recipe.kind == "distill" else None
    root = roots[recipe.data.split("-")[0]]
    folders = Folders(root, tmp_path / "run", tmp_path / "out", start, teacher)

    trained = train_on_benchmark(recipe, folders, Session(steps=2))

    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 1]
    assert all(math.isfinite(line["loss"]) for line in log)
    model, config = load_model(trained.folder)
    assert config["training"]["data_set"] == recipe.data
    assert config["training"]["is_trial"]
    kept = config["training"]["recipe"]
    assert kept["optimizer"] == json.loads(json.dumps(asdict(recipe.optimizer)))
    if recipe.kind == "teacher":
        assert config["name"] == "geossk"
        return
    tested = TESTED_ON[recipe.data]
    report = evaluate_benchmark(model, config, open_benchmark(tested, root), tested)
    assert report["cross_dataset"] is False
    assert 0 <= report["rows"][0]["recall@1"] <= 1


def test_every_town_recipe_has_the_settings_of_the_shipped_models():
    assert set(FILES) - set(NAMES) == {f"{name}.toml" for name in TOWNS}
    for name, (model, steps, batch, rate, every) in TOWNS.items():
        recipe = read_recipe(RECIPES / f"{name}.toml")
        schedule, optimizer = recipe.schedule, recipe.optimizer
        assert (recipe.model.name, schedule.steps, schedule.batch) == (model, steps, batch), name
        assert (optimizer.rate, schedule.validate_every) == (rate, every), name
        assert (schedule.warmup, schedule.floor, optimizer.sharpness) == (60, 0, "none")
        assert (optimizer.decay, optimizer.clip, optimizer.mixed_precision) == (0.03, 1.0, True)
        expected = SamplingConfig(batch=batch)
        if name in ("town-branches", "town-teacher"):
            expected = replace(expected, offset_m=3.5, rotation_error=0.2, extra_negatives=0.5)
        if name == "town-teacher":
            expected = replace(expected, extra_negatives=3.0)
            assert (recipe.auxiliary.pointing, recipe.auxiliary.transient) == (0.3, 0.3)
            assert recipe.teacher == GeoSSKConfig()
        if name in ("town-teacher", "town-distilled", "town-l2ltr"):
            expected = replace(expected, every_crop=False)
        assert recipe.sampling == expected, name
        if recipe.kind == "distill":
            assert recipe.knowledge == DistillationConfig()


# --- wrong files ----------------------------------------------------------------------------------

WHOLE = (RECIPES / "saig-s-gap-cvusa.toml").read_text(encoding="utf-8")
TOWN = (RECIPES / "town-l2ltr.toml").read_text(encoding="utf-8")


def changed(old: str, new: str, whole: str = WHOLE) -> str:
    assert whole.count(old) == 1
    return whole.replace(old, new)


def town(old: str, new: str) -> str:
    return changed(old, new, TOWN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("epochs = 200", "epoch = 200"), "unknown key schedule.epoch, expected one of"),
        (changed("epochs = 200", ""), "got no schedule.epochs, expected a whole number"),
        (changed("epochs = 200", "epochs = 2.5"), "schedule.epochs: got 2.5, expected a whole number"),
        (changed("epochs = 200", "epochs = true"), "schedule.epochs: got true, expected a whole"),
        (changed("epochs = 200", "epochs = 0"), "schedule.epochs: got 0, expected at least 1"),
        (changed("rate = 1e-4", 'rate = "1e-4"'), "optimizer.rate: got '1e-4', expected a number"),
        (changed("rate = 1e-4", "rate = nan"), "optimizer.rate: got nan, expected a number"),
        (changed("rate = 1e-4", "rate = inf"), "optimizer.rate: got inf, expected a number"),
        (changed("rate = 1e-4", "rate = -1"), "optimizer.rate: got -1.0, expected a number above 0"),
        (changed("[128, 512]", "[128, 512, 3]"), "model.ground_size: got [128, 512, 3], expected"),
        (changed("[128, 512]", "[true, 512]"), "expected [height, width] in whole pixels"),
        (changed("[128, 512]", "[-128, 512]"), "model.ground_size: got (-128, 512)"),
        (changed("polar = false", "polar = 0"), "model.polar: got 0, expected true or false"),
        (changed('"saig-s"', '"saig-m"'), "model.name: got 'saig-m', expected convnet-m"),
        (changed('"gap"', '"max"'), "model.pooling: got 'max', expected gap"),
        (changed('"cvusa"', '"cvsua"'), "data: got 'cvsua', expected one of cvusa"),
        (changed('"student"', '"learner"'), "kind: got 'learner', expected 'student' or"),
        (changed('"student"', '"teacher"'), "got a table [loss] and the kind 'teacher'"),
        (WHOLE.partition("[loss]")[0] + WHOLE[WHOLE.index("[optimizer]") :], "got no table [loss]"),
        (changed('"exhaustive-triplet"', '"triplet"'), "loss.name: got 'triplet', expected"),
        (changed("alpha = 10", "alpha = 0"), "loss.alpha: got 0.0, expected a number above 0"),
        (changed("floor = 1e-6", "floor = 2"), "schedule.floor: got 2.0, expected a share"),
        (changed("batch = 32", "batch = 1"), "schedule.batch: got 1, expected at least 2 pairs"),
        (WHOLE + "[augmentation]\nturn = true\n", "augmentation.turn: got true, expected false"),
        (WHOLE + "[optimiser]\nrate = 1\n", "unknown key optimiser, expected one of kind"),
        ("loss = 3\n" + WHOLE.replace("[loss]", "[lost]"), "unknown key lost"),
        (changed("[model]", "[model"), "text that is no TOML"),
        (WHOLE + "[sampling]\n", "got a table [sampling] and the kind 'student' on cvusa"),
        (changed("epochs = 200", "epochs = 200\nsteps = 9"), "schedule.steps: got 9, expected none"),
        (town("steps = 150", ""), "got no schedule.steps, expected a whole number"),
        (town("steps = 150", "steps = 150\nepochs = 2"), "schedule.epochs: got 2, expected none"),
        (town("every_crop = false", "batch = 4"), "unknown key sampling.batch, expected one of"),
        (town("every_crop = false", "widths = [[64, 1]]"), "expected a list of [bins, weight]"),
        (town("every_crop = false", "widths = []"), "sampling.widths: got [], expected a list"),
        (town("every_crop = false", "noise = 1"), "unknown key sampling.noise"),
        (town("[sampling]", "[sampling]\nphoto_share = 2"), "photo_share: got 2.0, expected a share"),
        (town("[sampling]", "[sampling]\noffset_m = -1"), "sampling.offset_m: got -1.0, expected 0 or"),
        (town("every_crop = false", "rotation_error = 0.2"), "rotation_error: got 0.2, expected none"),
        (town("polar = false", "polar = false\ndim = 8"), "model.dim: got 8, expected none without"),
        (TOWN + '[loss]\nname = "hard-triplet"\n', "got a table [loss] and the kind 'student' on towns"),
        (TOWN + "[auxiliary]\npointing = 0.3\n", "got a table [auxiliary] and the kind 'student'"),
        (TOWN + "[augmentation]\nturn = true\n", "augmentation.turn: got true, expected false"),
        ('base = "../saig-s-gap-cvusa.toml"\n', "base: got '../saig-s-gap-cvusa.toml', expected the"),
        ('base = "wrong.toml"\n', "in no circle"),
        ('base = "absent.toml"\n', "absent.toml: got no readable file"),
        ("base = 3\n", "base: got 3, expected the name of a recipe"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_sentence(text, said, tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=re.escape(said)) as caught:
        read_recipe(file)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value) or "no TOML" in said


def test_widths_are_pairs_of_bins_and_weights(tmp_path):
    (tmp_path / "own.toml").write_text(
        town("[sampling]", "[sampling]\nwidths = [[32, 1], [8, 0.5]]")
    )
    recipe = read_recipe(tmp_path / "own.toml")
    assert recipe.sampling.widths == ((32, 1.0), (8, 0.5))
    assert recipe.sampling.batch == recipe.schedule.batch == 16


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(SettingError, match="got no readable file"):
        read_recipe(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="no TOML"):
        read_recipe(tmp_path / "bytes.toml")


def test_a_base_is_changed_key_by_key(tmp_path):
    (tmp_path / "whole.toml").write_text(WHOLE, encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        'base = "whole.toml"\ndata = "cvact"\n[model]\npooling = "smd"\n[optimizer]\nclip = 0\n',
        encoding="utf-8",
    )
    whole, own = read_recipe(tmp_path / "whole.toml"), read_recipe(tmp_path / "own.toml")
    assert own == replace(
        whole,
        data="cvact",
        model=replace(whole.model, pooling="smd"),
        optimizer=replace(whole.optimizer, clip=0.0),
    )
