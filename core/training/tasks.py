"""One run of a recipe: its folders, the model and objective that it trains, and its end.

Towns (``core.training.towns``) and benchmarks (``core.training.benchmarks``) differ in where batches
come from. Everything else is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.checkpoints import load_student, load_teacher, model_hash, save_model
from core.errors import SettingError
from core.models import TEACHER, build_model, build_teacher
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import RINGS
from core.training.auxiliary import AuxiliaryWeights
from core.training.cards import model_card, training_record
from core.training.loop import BatchSource, RunConfig, run_loop
from core.training.memory import TileMemory
from core.training.objectives import (
    DistillationObjective,
    PairObjective,
    StudentObjective,
    TeacherObjective,
)
from core.training.recipe_files import TOWNS, ModelSettings, Recipe

__all__ = [
    "Folders",
    "Session",
    "Task",
    "Trained",
    "build_task",
    "check_folders",
    "model_settings",
    "run_task",
]


@dataclass(frozen=True)
class Folders:
    """Where everything is.

    ``data``: the data set, or a folder of training towns. ``run``: checkpoint and log. ``out``: model
    folder to write. ``start``: model folder to go on from; a teacher needs one. ``teacher``: model
    folder of a GeoSSK teacher, for distillation. ``polar``: stored polar pictures, see
    ``ImageFiles.from_polar_root``; None: they are computed. ``validation``: validation towns.
    """

    data: Path
    run: Path
    out: Path
    start: Path | None = None
    teacher: Path | None = None
    polar: Path | None = None
    validation: Path | None = None


@dataclass(frozen=True)
class Session:
    """How this run of a recipe differs from others.

    ``steps``: a trial of so many steps instead of the recipe's length; the schedule is scaled to it.
    ``save_every``: steps between checkpoints; by default an epoch, or 250 steps on towns.
    ``workers``: processes that draw batches; 0: a thread. ``command`` is for the card.
    """

    seed: int = 0
    device: str = "cpu"
    steps: int | None = None
    save_every: int | None = None
    workers: int = 0
    command: str = ""


@dataclass(frozen=True)
class Trained:
    """What was written: the folder, after how many steps, on how many pairs (panoramas of towns)."""

    folder: Path
    steps: int
    pairs: int


@dataclass(frozen=True)
class Task:
    """What a run trains and what it leaves behind.

    ``student``: the two-branch model that is trained, or that a teacher started from. ``teacher``:
    the trained teacher, if any. ``name`` and ``built``: name and builder arguments of the written
    model. ``what``: JSON that decides a run. ``start``: config of the model it started from, or {}.
    """

    objective: nn.Module
    student: TwoBranch
    teacher: GeoSSK | None
    name: str
    built: dict[str, Any]
    what: dict[str, Any]
    start: dict[str, Any]


def build_task(recipe: Recipe, folders: Folders, seed: int, towns: int = 0) -> Task:
    """Build the model and the objective of a recipe; ``towns``: how many, for a memory of tiles.

    Raises:
        SettingError: the model to start from is not the recipe's.
        CheckpointError: a model folder cannot be used.

    """
    torch.manual_seed(seed)
    if recipe.kind == "teacher":
        return _teacher_task(recipe, folders)
    student, settings, start = _student(recipe.model, folders.start)
    built = settings.arguments()
    what: dict[str, Any] = {"trained": recipe.kind, "model": built}
    what["start"] = folders.start and model_hash(folders.start)
    if recipe.kind == "distill":
        assert folders.teacher is not None
        teacher = load_teacher(folders.teacher)[0]
        objective: nn.Module = DistillationObjective(student, teacher, recipe.knowledge)
        what["teacher"] = model_hash(folders.teacher)
        what["knowledge"] = recipe.knowledge and asdict(recipe.knowledge)
    elif recipe.loss is None:
        objective = _town_objective(student, recipe, towns)
    else:
        objective = PairObjective(student, recipe.loss)
        what["loss"] = asdict(recipe.loss)
    arguments = {key: value for key, value in built.items() if key != "name"}
    return Task(objective, student, None, settings.name, arguments, what, start)


def _town_objective(student: TwoBranch, recipe: Recipe, towns: int) -> StudentObjective:
    """The task of towns, with a memory of tiles for a model with azimuth bins."""
    assert recipe.sampling is not None
    capacity = recipe.sampling.remembered if student.bins is not None else 0
    memory = TileMemory(towns, student.dim, capacity) if capacity else None
    return StudentObjective(student, memory, recipe.sampling.also_true_m)


def _teacher_task(recipe: Recipe, folders: Folders) -> Task:
    """A teacher whose branches start as the student's."""
    assert folders.start is not None
    assert recipe.teacher is not None
    student, settings, start = _student(recipe.model, folders.start)
    auxiliary = recipe.auxiliary or AuxiliaryWeights()
    _check_rows(student, auxiliary)
    base, switches = settings.arguments(), asdict(recipe.teacher)
    teacher = build_teacher(base, **switches)
    teacher.base.load_state_dict(student.state_dict())
    what = {"trained": "teacher", "start": model_hash(folders.start), **switches}
    what["auxiliary"] = asdict(auxiliary)
    built = {"base": base, **switches}
    objective = TeacherObjective(teacher, auxiliary)
    return Task(objective, student, teacher, TEACHER, built, what, start)


def _check_rows(student: TwoBranch, auxiliary: AuxiliaryWeights) -> None:
    """The auxiliary losses need a sector for each of four rows of 32 patches."""
    rows = getattr(student.ground_pool, "rows", None)
    if auxiliary and (student.bins is None or rows != RINGS):
        raise SettingError(
            f"Auxiliary losses: got a student with {rows or 'no'} rows of azimuth bins, expected "
            f"{RINGS}: towns know what each of four rows of patches shows. Remove the table [auxiliary]."
        )


def check_folders(recipe: Recipe, folders: Folders) -> None:
    """Check that a recipe gets the folders that it needs, and none that nothing would read.

    Raises:
        SettingError: one is missing or of no use.

    """
    is_distilled, is_town = recipe.kind == "distill", recipe.data == TOWNS
    folder_rules = {
        "--start": (folders.start, recipe.kind == "teacher", True),
        "--teacher": (folders.teacher, is_distilled, is_distilled),
        "--polar-root": (folders.polar, False, recipe.model.polar and not is_town),
        "--validation": (folders.validation, False, is_town),
    }
    for option, (folder, is_needed, is_allowed) in folder_rules.items():
        if folder is None and is_needed:
            raise SettingError(
                f"Recipe of kind {recipe.kind!r}: got no {option}, expected the folder of a model "
                "that was trained before. Train that first."
            )
        if folder is not None and not is_allowed:
            reasons = {
                "--polar-root": "tiles as they are",
                "--validation": f"the data set {recipe.data}",
                "--teacher": f"kind {recipe.kind!r}",
            }
            raise SettingError(
                f"Recipe with {reasons[option]}: got {option}, expected none, since nothing would "
                f"read it. Leave {option} out."
            )


def _student(
    wanted: ModelSettings, start: Path | None
) -> tuple[TwoBranch, ModelSettings, dict[str, Any]]:
    """The recipe's model, fresh or from a folder; its settings; the config of that folder."""
    if start is None:
        return build_model(**wanted.arguments()), wanted, {}
    student, config = load_student(start)
    settings = model_settings(student, config)
    found = asdict(settings)
    for key, value in wanted.arguments().items():
        if found[key] != value:
            raise SettingError(
                f"Model {start}: got {key} {found[key]}, expected the recipe's {value}. Name another "
                "--start, or convert or train one that fits."
            )
    return student, settings, config


def model_settings(student: TwoBranch, config: dict[str, Any]) -> ModelSettings:
    """The settings that would build a stored student anew."""
    return ModelSettings(
        name=config["name"],
        pooling=config["model"].get("pooling", "gap"),
        ground_size=student.ground_size,
        aerial_size=student.aerial_size,
        polar=student.polar,
        dim=None if student.bins is None else int(student.ground_pool.dim),
    )


def run_task(
    task: Task,
    source: BatchSource,
    recipe: Recipe,
    folders: Folders,
    session: Session,
    *,
    epoch: int | None = None,
    seen: dict[str, Any],
    validate: Callable[[], dict[str, float]] | None = None,
) -> int:
    """Train a task and write its model folder; returns the number of steps.

    The same call resumes a run that was stopped, and ends with the weights that it would have had.

    Args:
        task: what is trained.
        source: its batches.
        recipe: the settings of the loop.
        folders: where checkpoint, log and model go.
        session: how this run differs from others.
        epoch: steps of an epoch of the source; None for towns, which have none.
        seen: what the record says about the data.
        validate: gives metrics on validation towns.

    Raises:
        DataError: the run folder holds another run.

    """
    config = _run_config(recipe, session, epoch)
    run_loop(task.objective, source, config, folders.run, validate, task.what)
    record = training_record(
        recipe, session.steps is not None, session.command, config, folders.run
    )
    record |= seen
    if "training" in task.start:
        record["before"] = task.start["training"]
    model = task.student if task.teacher is None else task.teacher
    kept = {"name": task.name, "model": task.built, "training": record}
    save_model(folders.out, model.cpu(), kept, model_card(task.name, record))
    return config.steps


def _run_config(recipe: Recipe, session: Session, epoch: int | None) -> RunConfig:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    length = schedule.steps or (schedule.epochs or 0) * (epoch or 0)
    return RunConfig(
        steps=session.steps or length,
        rate=optimizer.rate,
        decay=optimizer.decay,
        warmup=schedule.warmup,
        clip=optimizer.clip or None,
        seed=session.seed,
        device=session.device,
        bfloat16=None if optimizer.mixed_precision else False,
        validate_every=schedule.validate_every,
        save_every=session.save_every or epoch or RunConfig.save_every,
        floor=schedule.floor,
        eps=optimizer.eps,
        sharpness=optimizer.sharpness,
        rho=optimizer.rho,
        workers=session.workers,
    )
