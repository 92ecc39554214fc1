"""The recipes of the repository, cut down so that a processor trains one in a fraction of a second."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
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
    built = recipe.model.arguments()
    model = build_model(**built)
    save_model(folder, model, {"name": built.pop("name"), "model": built}, "")
    return folder


def save_teacher(folder: Path, recipe: Recipe) -> Path:
    base = recipe.model.arguments()
    save_model(folder, build_teacher(base), {"name": "geossk", "model": {"base": base}}, "")
    return folder


def write_town_recipe(
    folder: Path, name: str, base: str = "town-small-1", kind: str = "student", **tables: dict
) -> Path:
    """A recipe of one step of four places, in float32, over another of the repository's for towns."""
    if not folder.exists():
        shutil.copytree(RECIPES, folder)
    few = {"schedule": {"steps": 1, "batch": 4}, "optimizer": {"mixed_precision": False}}
    lines = [f'base = "{base}.toml"', f'kind = "{kind}"']
    for table in sorted(few.keys() | tables.keys()):
        values = {**few.get(table, {}), **tables.get(table, {})}
        lines += [f"[{table}]", *(f"{key} = {json.dumps(it)}" for key, it in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def town_training(recipe: Path, worlds: Path, run: Path, out: Path, *more: object) -> list[str]:
    """Arguments of ``train`` and ``distill`` behind the command."""
    places = {"--recipe": recipe, "--data": worlds, "--run": run, "--out": out}
    return [*(str(part) for pair in places.items() for part in pair), *map(str, more)]
