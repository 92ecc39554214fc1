"""Training on a benchmark's pairs: batches, masks, kills, and the way from recipe to an answer.

Run alone with ``pytest tests/test_benchmark_training.py``. ``python -m tests.test_benchmark_training
DATA RUN OUT`` is the run that one of the tests kills.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.checkpoints import load_state, load_student, model_hash
from core.cli import main
from core.data.benchmarks import open_training_pairs
from core.data.benchmarks.records import ImageFiles, TrainingPairs
from core.errors import CheckpointError, DataError, SettingError
from core.models import MODELS, build_model
from core.training import losses
from core.training.benchmarks import train_on_benchmark
from core.training.cards import model_card
from core.training.loop import RunConfig, learning_rate, run_loop
from core.training.objectives import LossConfig, PairObjective
from core.training.optimizers import SharpnessAware
from core.training.pairs import PairBatches
from core.training.recipe_files import Recipe, read_recipe
from core.training.tasks import Folders, Session
from tests import fake_benchmarks
from tests.conftest import build_tiny
from tests.small_recipes import RECIPES, save_student, save_teacher, small, thin_l2ltr

GROUND, AERIAL = (32, 64), (32, 32)


def recipe_of(name: str, **changes: object) -> Recipe:
    return replace(small(read_recipe(RECIPES / f"{name}.toml")), **changes)


@pytest.fixture(scope="module")
def cvusa(tmp_path_factory) -> Path:
    return fake_benchmarks.write_cvusa(tmp_path_factory.mktemp("cvusa") / "CVUSA", train=10)


@pytest.fixture(scope="module")
def vigor(tmp_path_factory) -> Path:
    return fake_benchmarks.write_vigor(tmp_path_factory.mktemp("vigor") / "VIGOR")


def cosine_factor(step: int, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """The papers' schedule after its warm-up: half a cosine from 1 down to a floor."""
    progress = (step - warmup) / (steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def batches_of(root: Path, data: str, batch: int, seed: int = 0, **more: bool) -> PairBatches:
    pairs = open_training_pairs(data, root)
    return PairBatches(pairs, pairs.aerial, GROUND, AERIAL, batch, seed, **more)


# --- batches --------------------------------------------------------------------------------------


def test_an_epoch_shows_every_pair_once_and_drops_the_rest(cvusa):
    source = batches_of(cvusa, "cvusa", 4)
    assert source.steps_per_epoch == 2
    seen = [view.tobytes() for step in (0, 1) for view in source.batch(step).views]
    assert len(set(seen)) == 8
    assert source.remark(1, source.batch(1))["epoch"] == 0
    assert source.remark(2, source.batch(2))["epoch"] == 1
    orders = [tuple(view.tobytes() for view in source.batch(step).views) for step in range(6)]
    assert len(set(orders)) == 6


def test_a_batch_depends_on_seed_and_step_alone(cvusa):
    one, other = batches_of(cvusa, "cvusa", 3), batches_of(cvusa, "cvusa", 3)
    wanted = [one.batch(step) for step in range(9)]
    for step in (8, 0, 5):  # in another order
        again = other.batch(step)
        assert np.array_equal(again.views, wanted[step].views)
        assert np.array_equal(again.tiles, wanted[step].tiles)
    assert not np.array_equal(batches_of(cvusa, "cvusa", 3, seed=1).batch(0).views, wanted[0].views)


def test_rows_are_pairs_at_the_models_size(cvusa):
    pairs = open_training_pairs("cvusa", cvusa)
    batch = batches_of(cvusa, "cvusa", 4).batch(0)
    assert (batch.views.shape, batch.tiles.shape) == ((4, *GROUND, 3), (4, *AERIAL, 3))
    means = [pairs.ground.open(k).mean(axis=(0, 1)) for k in range(10)]
    tiles = [pairs.aerial.open(k).mean(axis=(0, 1)) for k in range(10)]
    for view, tile in zip(batch.views, batch.tiles, strict=True):
        row = int(np.argmin([np.abs(view.mean(axis=(0, 1)) - mean).sum() for mean in means]))
        assert np.abs(tile.mean(axis=(0, 1)) - tiles[row]).max() < 3


def test_semi_positives_in_a_batch_are_masked(vigor):
    pairs = open_training_pairs("vigor-same", vigor)
    count = len(pairs.ground)
    source = batches_of(vigor, "vigor-same", count)
    rows = source._epoch(0)
    ignored = source.batch(0).ignored
    masked = 0
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            column = pairs.aerial_of[other]
            covers = column in pairs.semi_positives[row] or column == pairs.aerial_of[row]
            assert ignored[i, j] == (i != j and covers)
            masked += int(ignored[i, j])
    assert masked > 0


def test_drone_pictures_of_one_building_are_no_negatives(tmp_path):
    root = fake_benchmarks.write_university(tmp_path / "University")
    pairs = open_training_pairs("university", root)
    source = batches_of(root, "university", 6)
    buildings = pairs.aerial_of[source._epoch(0)[:6]]
    same = buildings[:, None] == buildings[None]
    np.fill_diagonal(same, False)
    assert same.any()
    assert np.array_equal(source.batch(0).ignored, same)


def test_both_views_turn_by_the_same_angle(tmp_path):
    """Ramps over the circle: after the turn both are still the same picture."""
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (32, 1, 3))
    for number in range(4):
        Image.fromarray(ramp).save(tmp_path / f"{number}.png")
    images = ImageFiles(tmp_path, tuple(f"{number}.png" for number in range(4)))
    pairs = TrainingPairs("ramps", images, images, np.arange(4), np.empty((4, 0), np.int64))
    still = PairBatches(pairs, images, GROUND, GROUND, 4, 0).batch(0)
    turned = PairBatches(pairs, images, GROUND, GROUND, 4, 0, is_turned=True).batch(0)
    assert np.array_equal(still.views, np.stack([ramp] * 4))
    assert np.array_equal(turned.views, turned.tiles)
    shifts = [int(np.argmin(view[0, :, 0])) for view in turned.views]
    assert len(set(shifts)) > 1
    for view, shift in zip(turned.views, shifts, strict=True):
        assert np.array_equal(np.roll(view, -shift, axis=1), ramp)


def test_too_few_pairs_for_a_batch(cvusa):
    with pytest.raises(DataError, match="got 10 pairs, expected at least the 32 of a batch"):
        batches_of(cvusa, "cvusa", 32)


# --- losses and steps -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("exhaustive-triplet", lambda s, m: losses.exhaustive_triplet(s, 7.0, m)),
        ("hard-triplet", lambda s, m: losses.hard_triplet(s, 7.0, m)),
        ("semi-hard-triplet", lambda s, m: losses.semi_hard_triplet(s, 7.0, m)),
        ("saig-info-nce", lambda s, m: losses.saig_info_nce(s, 0.05, m)),
        ("symmetric-info-nce", lambda s, m: losses.symmetric_info_nce(s, 20.0, None, m)),
    ],
)
def test_a_loss_has_its_name(name, loss, vigor):
    batch = batches_of(vigor, "vigor-same", 8).batch(0)
    model = build_model("saig-xs", "gap", GROUND, AERIAL).eval()
    objective = PairObjective(model, LossConfig(name, alpha=7.0, temperature=0.05))
    got, metrics = objective(batch, torch.Generator(), "cpu")
    views = torch.from_numpy(batch.views).permute(0, 3, 1, 2) / 255
    tiles = torch.from_numpy(batch.tiles).permute(0, 3, 1, 2) / 255
    similarity = model.describe_ground(views) @ model.describe_aerial(tiles).T
    wanted = loss(similarity, torch.from_numpy(batch.ignored))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert 0 <= metrics["accuracy"] <= 1
    assert bool(list(objective.scale.parameters() if objective.scale else [])) == (
        name == "symmetric-info-nce"
    )


@pytest.mark.parametrize("sharpness", ["sam", "asam"])
def test_the_loop_steps_as_sam_does(sharpness, cvusa, tmp_path):
    """Two steps of the loop equal two by hand, with SAIG's schedule and settings."""
    config = RunConfig(
        steps=2, rate=1e-3, warmup=0, floor=1e-6, clip=None, bfloat16=False, sharpness=sharpness,
        rho=0.5,
    )  # fmt: skip
    source = batches_of(cvusa, "cvusa", 4)
    looped, by_hand = (
        PairObjective(build_model("saig-xs", "gap", GROUND, AERIAL), LossConfig("hard-triplet"))
        for _ in range(2)
    )
    by_hand.load_state_dict(looped.state_dict())
    run_loop(looped, source, config, tmp_path)
    inner = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.03)
    sam = SharpnessAware(inner, 0.5, is_adaptive=sharpness == "asam")
    by_hand.train().to(memory_format=torch.channels_last)
    for step in range(2):
        inner.param_groups[0]["lr"] = 1e-3 * cosine_factor(step, 2, 0, 1e-6)

        def closure(step: int = step) -> torch.Tensor:
            loss = by_hand(source.batch(step), torch.Generator(), "cpu")[0]
            loss.backward()
            return loss

        sam.step(closure)
    for name, value in looped.state_dict().items():
        torch.testing.assert_close(by_hand.state_dict()[name], value, rtol=1e-5, atol=1e-7)


def test_the_schedule_is_the_papers():
    saig = RunConfig(steps=100, rate=1e-4, warmup=0, floor=1e-6)
    for step in (0, 13, 50, 99, 100):
        assert learning_rate(step, saig) == pytest.approx(1e-4 * cosine_factor(step, 100, 0, 1e-6))
    l2ltr = RunConfig(steps=1000, rate=1e-4, warmup=50)
    assert learning_rate(49, l2ltr) == pytest.approx(1e-4)
    for step in (50, 400, 999):
        assert learning_rate(step, l2ltr) == pytest.approx(1e-4 * cosine_factor(step, 1000, 50))


def test_a_recipe_runs_for_its_epochs(cvusa, tmp_path):
    recipe = recipe_of("saig-s-gap-cvusa")
    trained = train_on_benchmark(recipe, Folders(cvusa, tmp_path / "run", tmp_path / "out"))
    assert (trained.steps, trained.pairs) == (2 * (10 // 4), 10)
    config = load_state(tmp_path / "out")[0]
    assert not config["training"]["is_trial"]
    card = (tmp_path / "out" / "card.md").read_text()
    assert "Trained on 10 pairs of cvusa. The last weights" in card
    assert json.loads((tmp_path / "run" / "config.json").read_text())["floor"] == 1e-6


def test_pairs_are_learned_down_to_the_constant_of_the_loss(tmp_path):
    """Ten steps on one batch: what is left is log 2 / (B - 1), which every exhaustive triplet has."""
    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA", train=8)
    recipe = small(read_recipe(RECIPES / "saig-s-gap-cvusa.toml"), batch=8)
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, rate=1e-3))
    folders = Folders(root, tmp_path / "run", tmp_path / "out")
    train_on_benchmark(recipe, folders, Session(steps=10))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert first["loss"] > 0.6
    assert last["accuracy"] == 1.0
    assert last["loss"] == pytest.approx(math.log(2) / 7, abs=0.01)


# --- kills ----------------------------------------------------------------------------------------

STOPPED = ["saig-d-smd-asam-polar-cvusa", "l2ltr-polar-cvusa", "geossk-student-saig-s-cvusa"]
"""ASAM, batch statistics and a turn of both views; dropout and warm-up; a teacher beside it."""


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_ends_with_the_same_weights(name, cvusa, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "l2ltr", thin_l2ltr)
    recipe = recipe_of(name)
    start = save_student(tmp_path / "start", recipe) if recipe.kind != "student" else None
    teacher = save_teacher(tmp_path / "teacher", recipe) if recipe.kind == "distill" else None
    session = Session(steps=5, save_every=2)

    def run(folder: str) -> dict[str, torch.Tensor]:
        folders = Folders(cvusa, tmp_path / folder, tmp_path / f"{folder}-out", start, teacher)
        train_on_benchmark(recipe, folders, session)
        return torch.load(tmp_path / folder / "state.pt", weights_only=True)["objective"]

    whole = run("whole")
    draw = PairBatches.batch

    def stop(self: PairBatches, step: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return draw(self, step)

    monkeypatch.setattr(PairBatches, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.setattr(PairBatches, "batch", draw)
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"] == 2
    torch.rand(7)  # whatever else drew from torch's generator meanwhile
    resumed = run("stopped")
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_a_killed_process_goes_on_where_it_was(cvusa, tmp_path):
    """SIGKILL at no particular moment, then the same call again."""
    run, out = tmp_path / "killed", tmp_path / "killed-out"
    call = [sys.executable, "-m", "tests.test_benchmark_training", *map(str, (cvusa, run, out))]
    process = subprocess.Popen(call, cwd=RECIPES.parent, stderr=subprocess.DEVNULL)
    deadline, log = time.monotonic() + 120, run / "log.jsonl"
    while not (log.is_file() and log.read_text().count("\n") >= 4):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    train_killed(cvusa, run, out)
    train_killed(cvusa, tmp_path / "whole", tmp_path / "whole-out")
    killed, whole = load_state(out)[1], load_state(tmp_path / "whole-out")[1]
    assert all(torch.equal(killed[key], value) for key, value in whole.items())
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(30))


def train_killed(data: Path, run: Path, out: Path) -> None:
    torch.set_num_threads(1)
    recipe = recipe_of("saig-s-gap-asam-cvusa")
    train_on_benchmark(recipe, Folders(data, run, out), Session(steps=30, save_every=3))


def test_a_run_of_another_recipe_is_not_mixed_in(cvusa, vigor, tmp_path):
    recipe = recipe_of("saig-s-gap-cvusa")
    folders = Folders(cvusa, tmp_path / "run", tmp_path / "out")
    train_on_benchmark(recipe, folders, Session(steps=1))
    other = recipe_of("saig-s-gap-asam-cvusa")
    with pytest.raises(DataError, match="another bfloat16, clip, rho, sharpness than it was"):
        train_on_benchmark(other, folders, Session(steps=1))
    other_data = replace(folders, data=vigor)
    with pytest.raises(DataError, match="another data_set, pairs than it was started with"):
        train_on_benchmark(replace(recipe, data="vigor-same"), other_data, Session(steps=1))
    with pytest.raises(DataError, match="another seed"):
        train_on_benchmark(recipe, folders, Session(steps=1, seed=3))


# --- folders --------------------------------------------------------------------------------------


def test_stored_polar_pictures_are_used(cvusa, tmp_path):
    recipe = recipe_of("saig-d-smd-asam-polar-cvusa")
    pairs = open_training_pairs("cvusa", cvusa)
    polar = tmp_path / "polarmap"
    for number, file in enumerate(pairs.aerial.files):
        fake_benchmarks.write_picture(polar / (file[:-4] + ".png"), 88, 16, number)
    folders = Folders(cvusa, tmp_path / "run", tmp_path / "out", polar=polar)
    train_on_benchmark(recipe, folders, Session(steps=1))
    assert load_state(tmp_path / "out")[0]["training"]["aerial"] == "stored polar"
    with pytest.raises(SettingError, match="tiles as they are: got --polar-root"):
        train_on_benchmark(recipe_of("saig-s-gap-cvusa"), folders, Session(steps=1))


def test_what_a_kind_needs_and_what_it_has_no_use_for(cvusa, tmp_path):
    student = recipe_of("saig-s-gap-cvusa")
    start = save_student(tmp_path / "start", student)
    bare = Folders(cvusa, tmp_path / "run", tmp_path / "out")
    for name, folders, said in (
        ("geossk-teacher-saig-s-cvusa", bare, "'teacher': got no --start"),
        ("geossk-student-saig-s-cvusa", replace(bare, start=start), "'distill': got no --teacher"),
        ("saig-s-gap-cvusa", replace(bare, teacher=start), "'student': got --teacher"),
    ):
        with pytest.raises(SettingError, match=said):
            train_on_benchmark(recipe_of(name), folders, Session(steps=1))
    smd = recipe_of("saig-s-smd-cvusa")
    with pytest.raises(SettingError, match="got pooling gap, expected the recipe's smd"):
        train_on_benchmark(smd, replace(bare, start=start), Session(steps=1))
    both = replace(bare, start=start, teacher=start)
    with pytest.raises(CheckpointError, match="expected a GeoSSK teacher"):
        train_on_benchmark(recipe_of("geossk-student-saig-s-cvusa"), both, Session(steps=1))
    assert not (tmp_path / "out").exists()


def test_a_card_of_towns_says_where_the_model_came_from(cvusa, tmp_path):
    """A model of a benchmark may be trained on with towns; its card then names both."""
    recipe = recipe_of("saig-s-gap-cvusa")
    train_on_benchmark(recipe, Folders(cvusa, tmp_path / "r", tmp_path / "o"), Session(steps=1))
    before = load_state(tmp_path / "o")[0]["training"]
    town = {"kind": "student", "towns": ["town-1"], "panoramas": 8, "before": before}
    record = {key: value for key, value in before.items() if key not in ("data_set", "pairs")}
    card = model_card("S", {**record, **town})
    assert "started from a model of 1 steps on cvusa, peak rate 0.0001" in card


# --- the whole way, by the command line -----------------------------------------------------------

WHOLE = """
[model]
name = "saig-xs"
ground_size = [32, 64]
aerial_size = [32, 32]

[schedule]
batch = 4
"""


def write_small(folder: Path, name: str) -> Path:
    """A recipe of the repository as ``base``, with a small network and small batches."""
    folder.mkdir(exist_ok=True)
    for file in RECIPES.glob("*.toml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    path = folder / f"small-{name}.toml"
    path.write_text(f'base = "{name}.toml"\n{WHOLE}', encoding="utf-8")
    return path


def test_from_recipes_to_an_answer(cvusa, tmp_path, tiny_raster, capsys):
    """Student, teacher, student under the teacher; evaluated on two data sets; a photo located."""

    def printed(*arguments: object) -> str:
        assert main([str(part) for part in arguments]) == 0
        return capsys.readouterr().out

    few = ["--data", cvusa, "--steps", 2, "--seed", 1]
    first, teacher, last = (tmp_path / name for name in ("first", "teacher", "last"))
    recipes = [
        write_small(tmp_path / "recipes", name)
        for name in (
            "saig-s-gap-cvusa",
            "geossk-teacher-saig-s-cvusa",
            "geossk-student-saig-s-cvusa",
        )
    ]
    said = printed("train", "--recipe", recipes[0], *few, "--run", tmp_path / "r1", "--out", first)
    assert "student saig-xs, trained from fresh weights for 2 steps on 10 pairs of cvusa" in said
    assert (tmp_path / "r1" / "curve.png").is_file()
    more = ["--run", tmp_path / "r2", "--out", teacher, "--start", first]
    said = printed("train", "--recipe", recipes[1], *few, *more)
    assert "teacher saig-xs, trained for 2 steps" in said
    more = ["--run", tmp_path / "r3", "--out", last, "--start", first, "--teacher", teacher]
    printed("distill", "--recipe", recipes[2], *few, *more)
    training = load_state(last)[0]["training"]
    assert training["before"]["kind"] == "student"
    assert training["earlier"] == ["cvusa"]
    assert training["recipe"]["knowledge"]["is_filtered"] is True

    report = json.loads(
        printed("evaluate", last, "--benchmark", "cvusa", "--data", cvusa, "--json")
    )
    assert (report["trained_on"], report["cross_dataset"]) == ("cvusa", False)
    cvact = fake_benchmarks.write_cvact(tmp_path / "CVACT")
    crossed = ["evaluate", last, "--benchmark", "cvact-test", "--data", cvact, "--json"]
    report = json.loads(printed(*crossed))
    assert (report["trained_on"], report["evaluated_on"]) == ("cvusa", "cvact-test")
    assert report["cross_dataset"] is True

    gallery = tmp_path / "gallery"
    build_tiny(tiny_raster, gallery, load_student(last)[0], model_hash(last))
    photo = tmp_path / "photo.jpg"
    fake_benchmarks.write_picture(photo, 256, 128)
    models = ["--gallery", gallery, "--student", last, "--teacher", teacher]
    answer = json.loads(printed("locate", photo, *models, "--json"))
    assert answer["candidates"][0]["rank"] == 1


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("train", ["--recipe", "R", "--data", "D", "--validation", "D"], "got --validation"),
        ("train", ["--recipe", "R", "--data", "D", "--polar-root", "D"], "got --polar-root"),
        ("train", ["--recipe", "S", "--data", "D"], "Use: python -m core distill --recipe"),
        ("train", ["--recipe", "T", "--data", "D"], "'teacher': got no --start"),
        ("train", ["--recipe", "R", "--data", "nowhere"], "expected this tree"),
        ("train", ["--recipe", "nowhere.toml", "--data", "D"], "got no readable file"),
        ("train", ["--recipe", "R", "--data", "D", "--start", "D"], "no readable config.json"),
        ("distill", ["--recipe", "R", "--data", "D", "--start", "D", "--teacher", "D"],
         "Use: python -m core train --recipe"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_sentence(command, more, said, cvusa, tmp_path, capsys):
    places = {
        "R": write_small(tmp_path / "recipes", "saig-s-gap-cvusa"),
        "T": RECIPES / "geossk-teacher-saig-s-cvusa.toml",
        "S": RECIPES / "geossk-student-saig-s-cvusa.toml",
        "D": cvusa,
    }
    arguments = [command, *(str(places.get(part, part)) for part in more)]
    assert main([*arguments, "--run", str(tmp_path / "r"), "--out", str(tmp_path / "o")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert [said in line for line in lines if line.startswith("error: ")] == [True]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["train", "distill"])
def test_options_say_where_things_are_and_nothing_else(command, capsys) -> None:
    """How a model is trained stands in its recipe alone."""
    assert main([command, "--help"]) == 0
    options = set(re.findall(r"^  --([a-z-]+)", capsys.readouterr().out, flags=re.MULTILINE))
    assert options - {"teacher"} == {
        "recipe", "data", "run", "out", "start", "validation", "polar-root", "steps", "seed",
        "save-every", "device", "workers", "threads", "help",
    }  # fmt: skip
    assert ("teacher" in options) == (command == "distill")


@pytest.mark.parametrize("missing", ["--recipe", "--data", "--run", "--out"])
def test_an_option_that_is_needed_is_wrong_usage_without_it(missing) -> None:
    given = {"--recipe": "r", "--data": "d", "--run": "x", "--out": "o"}
    del given[missing]
    assert main(["train", *(part for pair in given.items() for part in pair)]) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_draw_the_same_pairs(cvusa, tmp_path) -> None:
    recipe = recipe_of("saig-s-gap-cvusa")
    for workers in (0, 2):
        run, out = tmp_path / f"run-{workers}", tmp_path / f"out-{workers}"
        train_on_benchmark(recipe, Folders(cvusa, run, out), Session(steps=2, workers=workers))
    weights = [load_state(tmp_path / f"out-{workers}")[1] for workers in (0, 2)]
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())


if __name__ == "__main__":
    train_killed(*(Path(argument) for argument in sys.argv[1:]))
