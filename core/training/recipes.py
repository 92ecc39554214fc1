"""Train by a recipe, on whichever data set it names."""

from __future__ import annotations

from core.training.benchmarks import train_on_benchmark
from core.training.recipe_files import TOWNS, Recipe
from core.training.tasks import Folders, Session, Trained
from core.training.towns import train_on_towns

__all__ = ["train_by_recipe"]


def train_by_recipe(recipe: Recipe, folders: Folders, session: Session | None = None) -> Trained:
    """Train what a recipe says and write its model folder.

    The same call resumes a run that was stopped, and ends with the weights that it would have had.

    Raises:
        SettingError: a folder that the recipe needs is not given, or one is given that it does not
            use; or the model to start from is not the recipe's.
        CheckpointError: a model folder cannot be used.
        DataError: the data set is missing or too small, or the run folder holds another run.

    """
    if recipe.data == TOWNS:
        return train_on_towns(recipe, folders, session or Session())
    return train_on_benchmark(recipe, folders, session)
