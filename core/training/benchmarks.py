"""From a recipe and a benchmark's training pairs to a model folder.

The same loop as for towns (``core.training.loop``), with a benchmark's pairs as its batches. The last
weights are kept: the papers keep those that do best on the test part, which is a choice made on it.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.checkpoints import load_student, load_teacher, model_hash, save_model
from core.data.benchmarks import open_training_pairs
from core.errors import SettingError
from core.evaluation.benchmarks import lineage
from core.models import TEACHER, build_model, build_teacher
from core.models.two_branch import TwoBranch
from core.training.loop import RunConfig, run_loop
from core.training.objectives import DistillationObjective, PairObjective, TeacherObjective
from core.training.pairs import PairBatches
from core.training.recipe_files import ModelSettings, Recipe

__all__ = ["Folders", "Session", "Trained", "train_on_benchmark"]


@dataclass(frozen=True)
class Folders:
    """``data``: of the data set. ``run``: checkpoint and log. ``out``: model folder to write.

    ``start``: model folder to go on from; needed by a teacher and by distillation. ``teacher``: model
    folder of a GeoSSK teacher, for distillation. ``polar``: stored polar pictures, see
    ``ImageFiles.from_polar_root``; without it they are computed.
    """

    data: Path
    run: Path
    out: Path
    start: Path | None = None
    teacher: Path | None = None
    polar: Path | None = None


@dataclass(frozen=True)
class Session:
    """``steps``: instead of the recipe's epochs, for a trial; the schedule is that of a run so long.

    ``save_every``: steps between checkpoints, an epoch by default. ``command`` is for the card.
    """

    seed: int = 0
    device: str = "cpu"
    steps: int | None = None
    save_every: int | None = None
    command: str = ""


@dataclass(frozen=True)
class Trained:
    """What was written: the folder, and how long and on how many pairs it was trained."""

    folder: Path
    steps: int
    pairs: int


@dataclass(frozen=True)
class _Task:
    """What a run trains and what it leaves behind.

    ``model`` is written with ``name`` and ``built``, the arguments of its builder; ``what`` decides
    a run, ``start`` is the config of the model that was started from.
    """

    objective: nn.Module
    model: nn.Module
    name: str
    built: dict[str, Any]
    what: dict[str, Any]
    start: dict[str, Any]


def train_on_benchmark(recipe: Recipe, folders: Folders, session: Session | None = None) -> Trained:
    """Train what a recipe says and write its model folder.

    The same call resumes a run that was stopped, and ends with the weights that it would have had.

    Raises:
        SettingError: a folder that the recipe's kind needs is not given, or one that it has no use
            for is; or the model to start from is not the recipe's.
        CheckpointError: a model folder cannot be used.
        DataError: the data set is not there or too small, or the run folder holds another run.

    """
    session = session or Session()
    torch.manual_seed(session.seed)
    task = _task(recipe, folders)
    source = _source(recipe, folders, session.seed)
    config = _config(recipe, session, source)
    run_loop(task.objective, source, config, folders.run, None, task.what)
    record = _record(recipe, folders, session, config, source, task)
    kept = {"name": task.name, "model": task.built, "training": record}
    save_model(folders.out, task.model.cpu(), kept, _card(task.name, record))
    return Trained(folders.out, config.steps, len(source.pairs.ground))


def _source(recipe: Recipe, folders: Folders, seed: int) -> PairBatches:
    pairs = open_training_pairs(recipe.data, folders.data)
    model, aerial = recipe.model, pairs.aerial
    if model.polar:
        polar = folders.polar
        aerial = aerial.as_polar() if polar is None else aerial.from_polar_root(polar)
    return PairBatches(
        pairs,
        aerial,
        model.ground_size,
        model.ground_size if model.polar else model.aerial_size,
        recipe.schedule.batch,
        seed,
        recipe.augmentation.turn,
    )


def _config(recipe: Recipe, session: Session, source: PairBatches) -> RunConfig:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    steps = session.steps or schedule.epochs * source.steps_per_epoch
    return RunConfig(
        steps=steps,
        rate=optimizer.rate,
        decay=optimizer.decay,
        warmup=schedule.warmup,
        clip=optimizer.clip or None,
        seed=session.seed,
        device=session.device,
        bfloat16=None if optimizer.mixed_precision else False,
        save_every=session.save_every or source.steps_per_epoch,
        floor=schedule.floor,
        eps=optimizer.eps,
        sharpness=optimizer.sharpness,
        rho=optimizer.rho,
    )


def _task(recipe: Recipe, folders: Folders) -> _Task:
    _check_folders(recipe, folders)
    if recipe.kind == "teacher":
        return _teacher_task(recipe, folders)
    student, start = _student(recipe.model, folders.start)
    what: dict[str, Any] = {"trained": recipe.kind, "model": asdict(recipe.model)}
    what["start"] = folders.start and model_hash(folders.start)
    if recipe.kind == "distill":
        assert folders.teacher is not None
        teacher = load_teacher(folders.teacher)[0]
        objective: nn.Module = DistillationObjective(student, teacher, recipe.knowledge)
        what["teacher"] = model_hash(folders.teacher)
        what["knowledge"] = recipe.knowledge and asdict(recipe.knowledge)
    else:
        assert recipe.loss is not None
        objective = PairObjective(student, recipe.loss)
        what["loss"] = asdict(recipe.loss)
    built = asdict(recipe.model)
    return _Task(objective, student, built.pop("name"), built, what, start)


def _teacher_task(recipe: Recipe, folders: Folders) -> _Task:
    """A teacher whose branches start as the student's."""
    assert folders.start is not None
    assert recipe.teacher is not None
    student, start = _student(recipe.model, folders.start)
    base, switches = asdict(recipe.model), asdict(recipe.teacher)
    teacher = build_teacher(base, **switches)
    teacher.base.load_state_dict(student.state_dict())
    what = {"trained": "teacher", "start": model_hash(folders.start), **switches}
    built = {"base": base, **switches}
    return _Task(TeacherObjective(teacher), teacher, TEACHER, built, what, start)


def _check_folders(recipe: Recipe, folders: Folders) -> None:
    """Each kind has the folders that it needs and none that it would leave unread."""
    needed = {
        "--start": (folders.start, recipe.kind != "student", True),
        "--teacher": (folders.teacher, recipe.kind == "distill", recipe.kind == "distill"),
        "--polar-root": (folders.polar, False, recipe.model.polar),
    }
    for option, (folder, is_needed, is_allowed) in needed.items():
        if folder is None and is_needed:
            raise SettingError(
                f"Recipe of kind {recipe.kind!r}: got no {option}, expected the folder of a model "
                "that was trained before. Train that first."
            )
        if folder is not None and not is_allowed:
            what = "tiles as they are" if option == "--polar-root" else f"kind {recipe.kind!r}"
            raise SettingError(
                f"Recipe with {what}: got {option}, expected none, since nothing would read it. "
                f"Leave {option} out."
            )


def _student(wanted: ModelSettings, start: Path | None) -> tuple[TwoBranch, dict[str, Any]]:
    """The recipe's model, fresh or from a folder, and the config of that folder."""
    if start is None:
        return build_model(**asdict(wanted)), {}
    student, config = load_student(start)
    has = {"name": config["name"], "polar": student.polar, **_geometry(student, config)}
    for key, value in asdict(wanted).items():
        if has[key] != value:
            raise SettingError(
                f"Model {start}: got {key} {has[key]}, expected the recipe's {value}. Name another "
                "--start, or convert or train one that fits."
            )
    return student, config


def _geometry(student: TwoBranch, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "pooling": config["model"].get("pooling", "gap"),
        "ground_size": student.ground_size,
        "aerial_size": student.aerial_size,
    }


def _record(
    recipe: Recipe,
    folders: Folders,
    session: Session,
    config: RunConfig,
    source: PairBatches,
    task: _Task,
) -> dict[str, Any]:
    """What the model's config says of its training."""
    before = task.start.get("training")
    lines = (folders.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "kind": recipe.kind,
        "data_set": recipe.data,
        "pairs": len(source.pairs.ground),
        "skipped": source.pairs.skipped,
        "is_trial": session.steps is not None,
        "command": session.command,
        "recipe": asdict(recipe),
        "aerial": source.identity()["aerial"],
        "loop": asdict(config),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {config.device}",
        "torch": torch.__version__,
        "last": json.loads(lines[-1]),
        "earlier": lineage(task.start),
        **({} if before is None else {"before": before}),
    }


def _card(name: str, record: dict[str, Any]) -> str:
    loop, schedule = record["loop"], record["recipe"]["schedule"]
    trial = " A trial, shorter than its recipe says." if record["is_trial"] else ""
    reconstruction = (
        ""
        if record["kind"] == "student"
        else "GeoSSK is rebuilt from its abstract; no figure of this model is the paper's.\n"
    )
    return (
        f"# {record['kind'].capitalize()} {name}, {record['data_set']}\n\n"
        f"Trained on {record['pairs']} pairs of {record['data_set']}.{trial} The last weights of the "
        "run; nothing was chosen on a test part.\n\n"
        f"- command: `{record['command']}`\n"
        f"- {loop['steps']} steps of {schedule['batch']} pairs, peak rate {loop['rate']}, "
        f"sharpness {loop['sharpness']}, seed {loop['seed']}\n"
        f"- aerial pictures: {record['aerial']}\n"
        f"- on {record['machine']}, torch {record['torch']}\n"
        f"- last line of the log: `{json.dumps(record['last'])}`\n\n"
        f"{reconstruction}"
        "The pictures are their owners'; their terms may bind these weights too.\n"
    )
