"""``train`` and ``distill``: a recipe and a data set in, a model folder out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.commands.devices import checked_device
from core.errors import SettingError

if TYPE_CHECKING:
    from core.training.tasks import Folders, Session

__all__ = ["distill", "train"]

RecipeFile = Annotated[
    Path, typer.Option(help="TOML file with model, data and training settings; see recipes/.")
]
Data = Annotated[Path, typer.Option(help="Folder of the recipe's data set, or of training towns.")]
Run = Annotated[
    Path, typer.Option(help="Folder of checkpoints and log; a stopped run is continued.")
]
Out = Annotated[Path, typer.Option(help="Model folder to write.")]
Start = Annotated[
    Path | None,
    typer.Option(help="Model folder to start from: a student, or weights from convert."),
]
Validation = Annotated[Path | None, typer.Option(help="Folder of validation towns.")]
PolarRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of stored polar views, in place of the folder of aerial pictures; by default "
        "polar views are computed."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Only this many steps, for a trial.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same batches.")]
SaveEvery = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that draw batches, for a GPU; 0: a thread.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all by default.")]


def train(
    recipe: RecipeFile,
    data: Data,
    run: Run,
    out: Out,
    start: Start = None,
    validation: Validation = None,
    polar_root: PolarRoot = None,
    steps: Steps = None,
    seed: Seed = 0,
    save_every: SaveEvery = None,
    device: Device = "cpu",
    workers: Workers = 0,
    threads: Threads = None,
) -> None:
    """Train a student or a teacher by a recipe, on rendered towns or a published data set.

    A teacher needs the student of --start; a student may start from one.
    """
    from core.training.tasks import Folders, Session

    device = _prepared(device, threads)
    folders = Folders(data, run, out, start, None, polar_root, validation)
    _run(recipe, "train", folders, Session(seed, device, steps, save_every, workers, _command()))


def distill(
    recipe: RecipeFile,
    data: Data,
    start: Annotated[Path, typer.Option(help="Model folder of the student to start from.")],
    teacher: Annotated[Path, typer.Option(help="Model folder of the GeoSSK teacher.")],
    run: Run,
    out: Out,
    validation: Validation = None,
    polar_root: PolarRoot = None,
    steps: Steps = None,
    seed: Seed = 0,
    save_every: SaveEvery = None,
    device: Device = "cpu",
    workers: Workers = 0,
    threads: Threads = None,
) -> None:
    """Train a student by a recipe, under a frozen teacher (SSKD, IKF)."""
    from core.training.tasks import Folders, Session

    device = _prepared(device, threads)
    folders = Folders(data, run, out, start, teacher, polar_root, validation)
    _run(recipe, "distill", folders, Session(seed, device, steps, save_every, workers, _command()))


def _run(file: Path, command: str, folders: Folders, session: Session) -> None:
    """Train by a recipe file, draw the log as a picture and print a summary."""
    from core.explain.figures import training_figure
    from core.training.recipe_files import TOWNS, read_recipe
    from core.training.recipes import train_by_recipe

    recipe = read_recipe(file)
    fitting = "distill" if recipe.kind == "distill" else "train"
    if command != fitting:
        raise SettingError(
            f"Recipe {file}: got kind {recipe.kind!r}, expected one for this command. "
            f"Use: python -m core {fitting} --recipe {file}"
        )
    trained = train_by_recipe(recipe, folders, session)
    lines = (folders.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    curve = training_figure([json.loads(line) for line in lines])
    curve.savefig(folders.run / "curve.png", dpi=110)
    fresh = " from fresh weights" if folders.start is None else ""
    what = "panoramas of rendered towns" if recipe.data == TOWNS else f"pairs of {recipe.data}"
    print(
        f"{trained.folder}: {recipe.kind} {recipe.model.name}, trained{fresh} for {trained.steps} "
        f"steps on {trained.pairs} {what}."
    )


def _command() -> str:
    return "python -m core " + shlex.join(sys.argv[1:])


def _prepared(device: str, threads: int | None) -> str:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return checked_device(device)
