"""``train --recipe`` and ``distill --recipe``: a published data set in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from core.commands.typed import refuse_beside
from core.errors import SettingError

if TYPE_CHECKING:
    from core.training.benchmarks import Folders, Session

__all__ = ["check_options", "run_recipe"]

SAID_BY_RECIPE = (
    "worlds", "validation", "interaction", "contribution", "heads", "pointing", "transient", "aligned",
    "model", "pooling", "ground_size", "aerial_size", "dim", "relation", "local", "descriptors", "filter",
    "blend", "rate", "batch", "validate_every", "bfloat16", "workers",
)  # fmt: skip
OF_RECIPES = ("data", "polar_root")


def check_options(context: typer.Context, recipe: Path | None, data: Path | None) -> None:
    """Refuse options that have no meaning with a recipe, or without one.

    Raises:
        SettingError: one was typed, or one that is needed was not.

    """
    if recipe is None:
        refuse_beside(context, "towns", OF_RECIPES, "it is for --recipe")
        if context.params["worlds"] is None:
            raise SettingError(
                "Training data: got neither --worlds nor --recipe, expected towns or a recipe. "
                "Name one."
            )
        return
    if data is None:
        raise SettingError(
            "Option --recipe: got no --data, expected the folder of the recipe's data set. Name it."
        )
    useless = SAID_BY_RECIPE + (("teacher",) if context.command.name == "train" else ())
    refuse_beside(context, "--recipe", useless, "the recipe says it")


def run_recipe(file: Path, command: str, folders: Folders, session: Session) -> str:
    """Train by a recipe file; returns a sentence on what was written.

    Args:
        file: the recipe.
        command: "train" or "distill", which must be the one for its kind.
        folders: where everything is.
        session: how this run differs from others of the recipe.

    Raises:
        SettingError: the recipe cannot be used, or not by this command.
        CheckpointError: a model folder cannot be used.
        DataError: the data set or the run folder cannot be used.

    """
    from core.training.benchmarks import train_on_benchmark
    from core.training.recipe_files import read_recipe

    recipe = read_recipe(file)
    fitting = "distill" if recipe.kind == "distill" else "train"
    if command != fitting:
        raise SettingError(
            f"Recipe {file}: got kind {recipe.kind!r}, expected one for this command. "
            f"Use: python -m core {fitting} --recipe {file}"
        )
    trained = train_on_benchmark(recipe, folders, session)
    fresh = " from fresh weights" if folders.start is None else ""
    return (
        f"{trained.folder}: {recipe.kind} {recipe.model.name}, trained{fresh} for {trained.steps} "
        f"steps on {trained.pairs} pairs of {recipe.data}."
    )
