"""Recipes: how a row of a paper's table is trained, as a TOML file.

A file is a recipe of its own, or names another in its folder as ``base`` and says what differs: a
table of it changes the keys that it names, the rest stay. What a key may be is said by the dataclasses
here; anything else in a file is refused with the file and the key.
"""

from __future__ import annotations

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from core.data.benchmarks import TRAINING_PAIRS
from core.errors import SettingError
from core.models import MODELS, POOLINGS
from core.models.geossk import GeoSSKConfig
from core.training.objectives import DistillationConfig, LossConfig

__all__ = [
    "AugmentationSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "ScheduleSettings",
    "read_recipe",
]

Size = tuple[int, int]
Filled = TypeVar("Filled")
Kind = Literal["student", "teacher", "distill"]

BASES = 5
"""Recipes that may stand on one another; more is a circle."""

TABLES_OF: dict[Kind, str] = {"student": "loss", "teacher": "teacher", "distill": "knowledge"}
"""The table that only recipes of this kind have, and need."""


@dataclass(frozen=True)
class ModelSettings:
    """Arguments of ``build_model``; sizes are (height, width) in pixels.

    ``polar``: the aerial branch sees polar views, of the ground picture's size.
    """

    name: str
    pooling: str
    ground_size: Size
    aerial_size: Size
    polar: bool


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, over which SAM or ASAM may climb; ``clip`` 0 stands for no clipping.

    ``mixed_precision``: bfloat16 where the device computes in it natively, else float32 throughout.
    ``rho`` is read with SAM and ASAM alone.
    """

    rate: float
    decay: float
    mixed_precision: bool
    clip: float = 0.0
    eps: float = 1e-8
    sharpness: Literal["none", "sam", "asam"] = "none"
    rho: float = 0.05


@dataclass(frozen=True)
class ScheduleSettings:
    """``epochs`` over the training pairs, ``batch`` pairs a step, ``warmup`` in steps.

    The learning rate then falls along a half cosine to ``floor``, a share of its peak.
    """

    epochs: int
    batch: int
    warmup: int = 0
    floor: float = 0.0


@dataclass(frozen=True)
class AugmentationSettings:
    """``turn``: both views of a pair are turned by the same random angle; for polar views."""

    turn: bool = False


@dataclass(frozen=True)
class Recipe:
    """One way to train one model on one data set.

    ``kind``: a student with a loss of the papers, a GeoSSK teacher on a student, or a student on
    under a teacher. ``data``: a key of ``core.data.benchmarks.TRAINING_PAIRS``. One of ``loss``,
    ``teacher`` and ``knowledge`` is given, the one of its kind.
    """

    kind: Kind
    data: str
    model: ModelSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    loss: LossConfig | None = None
    teacher: GeoSSKConfig | None = None
    knowledge: DistillationConfig | None = None


def read_recipe(path: str | Path) -> Recipe:
    """A recipe out of its file and those that it stands on.

    Raises:
        SettingError: a file is missing or no TOML, a key is unknown, missing or of another type, or
            values make no sense together; the sentence names file and key.

    """
    path = Path(path)
    recipe = _filled(Recipe, _merged(path, BASES), path, "")
    _check(recipe, path)
    return recipe


def _merged(path: Path, bases: int) -> dict[str, Any]:
    """The tables of a file over those of its base."""
    own = _parsed(path)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str) or Path(base).name != base:
        raise _wrong(path, "base", base, "the name of a recipe in the same folder")
    if not bases:
        raise _wrong(path, "base", base, f"at most {BASES} recipes one on another, in no circle")
    merged = _merged(path.parent / base, bases - 1)
    for key, value in own.items():
        is_table = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if is_table else value
    return merged


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            f"Recipe {path}: got no readable file ({error.strerror}), expected a TOML file such as "
            "those in recipes/. Check the path."
        ) from error
    except ValueError as error:  # no UTF-8, or no TOML
        raise SettingError(
            f"Recipe {path}: got text that is no TOML ({error}), expected tables of settings such as "
            "in recipes/. Correct it there."
        ) from error


def _filled(cls: type[Filled], table: Mapping[str, Any], path: Path, prefix: str) -> Filled:
    """A dataclass out of a table, field by field."""
    assert is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    known = {each.name: each for each in fields(cls)}
    for key in table:
        if key not in known:
            raise SettingError(
                f"Recipe {path}: got the unknown key {prefix + key}, expected one of "
                f"{', '.join(prefix + name for name in known)}. Correct or remove it."
            )
    for name, each in known.items():
        is_needed = each.default is MISSING and each.default_factory is MISSING
        if is_needed and name not in table:
            raise SettingError(
                f"Recipe {path}: got no {prefix + name}, expected "
                f"{_described(hints[name])}. Add it, or a base that has it."
            )
    values = {key: _value(hints[key], table[key], path, prefix + key) for key in table}
    return cls(**values)


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    """One value as its field wants it; TOML's whole numbers pass as floats, its lists as pairs."""
    hint = _without_none(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise _wrong(path, key, value, f"a table [{key}]")
        return _filled(hint, value, path, key + ".")
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
        return value
    if hint == Size and isinstance(value, list) and [type(side) for side in value] == [int, int]:
        return value[0], value[1]
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise _wrong(path, key, value, _described(hint))


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _described(hint: Any) -> str:
    hint = _without_none(hint)
    if is_dataclass(hint):
        return "a table"
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(each) for each in typing.get_args(hint))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(hint, "[height, width] in whole pixels")


def _check(recipe: Recipe, path: Path) -> None:
    """Refuse values that no run could use."""
    for kind, table in TABLES_OF.items():
        is_there = getattr(recipe, table) is not None
        if is_there != (kind == recipe.kind):
            got = f"a table [{table}]" if is_there else f"no table [{table}]"
            raise SettingError(
                f"Recipe {path}: got {got} and the kind {recipe.kind!r}, expected [{table}] in "
                f"recipes of kind {kind!r} and in no others. {'Remove' if is_there else 'Add'} it."
            )
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    names = ", ".join(sorted(MODELS)) + " or timm/<name>"
    is_known = model.name in MODELS or model.name.startswith("timm/")
    trained = ", ".join(TRAINING_PAIRS)
    rules: list[tuple[str, Any, bool, str]] = [
        ("data", recipe.data, recipe.data in TRAINING_PAIRS, f"one of {trained}"),
        ("model.name", model.name, is_known, names),
        ("model.pooling", model.pooling, model.pooling in POOLINGS, ", ".join(POOLINGS)),
        ("model.ground_size", model.ground_size, min(model.ground_size) > 0, "sides above 0"),
        ("model.aerial_size", model.aerial_size, min(model.aerial_size) > 0, "sides above 0"),
        ("optimizer.rate", optimizer.rate, optimizer.rate > 0, "a number above 0"),
        ("optimizer.decay", optimizer.decay, optimizer.decay >= 0, "0 or more"),
        ("optimizer.clip", optimizer.clip, optimizer.clip >= 0, "0 (no clipping) or more"),
        ("optimizer.eps", optimizer.eps, optimizer.eps > 0, "a number above 0"),
        ("optimizer.rho", optimizer.rho, optimizer.rho > 0, "a number above 0"),
        ("schedule.epochs", schedule.epochs, schedule.epochs >= 1, "at least 1"),
        ("schedule.batch", schedule.batch, schedule.batch >= 2, "at least 2 pairs"),
        ("schedule.warmup", schedule.warmup, schedule.warmup >= 0, "0 steps or more"),
        ("schedule.floor", schedule.floor, 0 <= schedule.floor <= 1, "a share from 0 to 1"),
        (
            "augmentation.turn",
            recipe.augmentation.turn,
            model.polar or not recipe.augmentation.turn,
            "false, since a tile that is no polar view cannot be turned by columns",
        ),
    ]
    if recipe.loss is not None:
        loss = recipe.loss
        rules += [
            ("loss.alpha", loss.alpha, loss.alpha > 0, "a number above 0"),
            ("loss.temperature", loss.temperature, loss.temperature > 0, "a number above 0"),
        ]
    for key, value, is_right, expected in rules:
        if not is_right:
            raise _wrong(path, key, value, expected)


def _wrong(path: Path, key: str, value: object, expected: str) -> SettingError:
    got = str(value).lower() if isinstance(value, bool) else repr(value)
    return SettingError(
        f"Recipe {path}: {key}: got {got[:80]}, expected {expected}. Correct it in that file or in "
        "its base."
    )
