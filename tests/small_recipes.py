"""The recipes of the repository, cut down so that a processor trains one in a fraction of a second."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from core.checkpoints import save_model
from core.models import build_model, build_teacher
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.training.recipe_files import Recipe

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SMALL_GROUND, SMALL_AERIAL = (32, 64), (32, 32)


def thin_l2ltr(size: tuple[int, int], azimuth: bool = False) -> L2ltr:
    """L2LTR with two layers of 16 channels; its stem's width is fixed, so one unit per block."""
    return L2ltr(L2ltrConfig(size, depth=2, width=16, heads=2, hidden=24, units=(1, 1, 1)))


def small(recipe: Recipe, batch: int = 4) -> Recipe:
    """The same recipe with a small network, small pictures and small batches; nothing else differs."""
    name = recipe.model.name if recipe.model.name == "l2ltr" else "saig-xs"
    sizes = {"ground_size": SMALL_GROUND, "aerial_size": SMALL_AERIAL}
    schedule = replace(
        recipe.schedule, batch=batch, epochs=2, warmup=min(1, recipe.schedule.warmup)
    )
    return replace(recipe, model=replace(recipe.model, name=name, **sizes), schedule=schedule)


def save_student(folder: Path, recipe: Recipe) -> Path:
    """A model folder with fresh weights that a recipe may start from."""
    built = asdict(recipe.model)
    model = build_model(**built)
    save_model(folder, model, {"name": built.pop("name"), "model": built}, "")
    return folder


def save_teacher(folder: Path, recipe: Recipe) -> Path:
    base = asdict(recipe.model)
    save_model(folder, build_teacher(base), {"name": "geossk", "model": {"base": base}}, "")
    return folder
