"""Recipes on rendered towns: from folders of towns to a model folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.arrays import Float64Array
from core.data.worlds import Town, load_town, load_truth, with_truth_of
from core.errors import DataError
from core.training.mining import mine_hard_negatives
from core.training.recipe_files import Recipe
from core.training.sampling import TownBatches
from core.training.tasks import Folders, Session, Task, Trained, build_task, check_folders, run_task
from core.training.validation import validation_metrics

__all__ = ["TownData", "load_towns", "open_towns", "train_on_towns"]


@dataclass(frozen=True)
class TownData:
    """Towns in memory.

    ``training``: what batches are drawn from. ``validation``: what a run is judged on.
    ``hard_negatives``: of each training town, for a teacher; None: they are mined with its student.
    """

    training: Sequence[Town]
    validation: Sequence[Town] = ()
    hard_negatives: Sequence[Float64Array] | None = None


def load_towns(
    root: str | Path,
    names: Sequence[str] | None = None,
    tile_pixels: int = 128,
    with_truth: bool = False,
) -> list[Town]:
    """Towns under a folder, all or those named, in the order of their names.

    ``with_truth``: also what each patch of their panoramas shows.

    Raises:
        DataError: the folder holds no world, or lacks one that was named.
        WorldError: a world, or its truth, cannot be read.

    """
    root = Path(root)
    found = sorted(path.parent.name for path in root.glob("*/world.json"))
    missing = sorted(set(names or ()) - set(found))
    if missing or not found:
        raise DataError(
            f"Worlds {root}: got {len(found)} towns, "
            + (f"expected {', '.join(missing[:5])} among them. " if missing else "expected some. ")
            + "Build them: make worlds"
        )
    wanted = [name for name in found if not names or name in names]
    towns = [load_town(root / name, tile_pixels) for name in wanted]
    if not with_truth:
        return towns
    return [with_truth_of(town, load_truth(root / town.name)) for town in towns]


def open_towns(recipe: Recipe, folders: Folders) -> TownData:
    """Load a recipe's towns, their imagery at the resolution of the model's tiles.

    Raises:
        DataError: a folder holds no world.
        WorldError: a world, or its truth, cannot be read.

    """
    pixels = recipe.model.aerial_size[0]
    validation: Sequence[Town] = ()
    if folders.validation is not None:
        validation = load_towns(folders.validation, tile_pixels=pixels)
    needs_truth = bool(recipe.auxiliary)
    training = load_towns(folders.data, tile_pixels=pixels, with_truth=needs_truth)
    return TownData(training, validation)


def train_on_towns(
    recipe: Recipe,
    folders: Folders,
    session: Session,
    data: TownData | None = None,
    batches: Callable[..., TownBatches] = TownBatches,
) -> Trained:
    """Train what a recipe says on towns and write its model folder.

    Args:
        recipe: of the data set ``towns``.
        folders: where everything is.
        session: how this run differs from others of the recipe.
        data: the towns, if they are loaded already; ``folders.data`` is then not read.
        batches: class of the batches, for experiments.

    Raises:
        SettingError: as in ``check_folders`` and ``build_task``.
        CheckpointError: a model folder cannot be used.
        DataError: there are no towns, or the run folder holds another run.

    """
    check_folders(recipe, folders)
    assert recipe.sampling is not None
    data = data or open_towns(recipe, folders)
    task = build_task(recipe, folders, session.seed, len(data.training))
    hard = data.hard_negatives if recipe.kind == "teacher" else ()
    if hard is None:
        hard = mine_hard_negatives(task.student, data.training, session.device)
    pixels = recipe.model.aerial_size[0]
    source = batches(data.training, recipe.sampling, pixels, session.seed, hard)
    panoramas = sum(len(town.panoramas) for town in data.training)
    steps = run_task(
        task,
        source,
        recipe,
        folders,
        session,
        seen={**source.identity(), "panoramas": panoramas},
        validate=_validation(task, data.validation, session.device) if data.validation else None,
    )
    return Trained(folders.out, steps, panoramas)


def _validation(task: Task, towns: Sequence[Town], device: str) -> Callable[[], dict[str, float]]:
    """Judge on the processor, wherever the models are trained."""

    def validate() -> dict[str, float]:
        task.student.cpu()
        metrics = validation_metrics(task.student, towns, task.teacher and task.teacher.cpu())
        task.objective.to(device)
        return metrics

    return validate
