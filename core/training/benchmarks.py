"""Recipes on published data sets: from a benchmark's training pairs to a model folder.

The last weights of a run are kept. The papers keep the weights that do best on the test part, which
is a choice made on it.
"""

from __future__ import annotations

from core.data.benchmarks import open_training_pairs
from core.evaluation.benchmarks import lineage
from core.training.pairs import PairBatches
from core.training.recipe_files import Recipe
from core.training.tasks import Folders, Session, Trained, build_task, check_folders, run_task

__all__ = ["train_on_benchmark"]


def train_on_benchmark(recipe: Recipe, folders: Folders, session: Session | None = None) -> Trained:
    """Train what a recipe says on a benchmark and write its model folder.

    Raises:
        SettingError: as in ``check_folders`` and ``build_task``.
        CheckpointError: a model folder cannot be used.
        DataError: the data set is missing or too small, or the run folder holds another run.

    """
    check_folders(recipe, folders)
    session = session or Session()
    task = build_task(recipe, folders, session.seed)
    source = _source(recipe, folders, session.seed)
    seen = {
        "pairs": len(source.pairs.ground),
        "skipped": source.pairs.skipped,
        "aerial": source.identity()["aerial"],
        "earlier": lineage(task.start),
    }
    epoch = source.steps_per_epoch
    steps = run_task(task, source, recipe, folders, session, epoch=epoch, seen=seen)
    return Trained(folders.out, steps, len(source.pairs.ground))


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
