"""Recipes: how one model is trained on one data set, as a TOML file.

A recipe trains on rendered towns (``data = "towns"``) or on a published data set. A file may name
another file of its folder as ``base``; it then lists the keys that differ. The dataclasses here define
every key. Any other key or type is refused with the file and the key.
"""

from __future__ import annotations

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from core.data.benchmarks import TRAINING_PAIRS
from core.errors import SettingError
from core.models import MODELS, POOLINGS
from core.models.geossk import GeoSSKConfig
from core.polar import BINS
from core.training.auxiliary import AuxiliaryWeights
from core.training.objectives import DistillationConfig, LossConfig
from core.training.sampling import SamplingConfig, Widths

__all__ = [
    "TOWNS",
    "AugmentationSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "ScheduleSettings",
    "read_recipe",
]

Size = tuple[int, int]
Rule = tuple[str, Any, bool, str]
Filled = TypeVar("Filled")
Kind = Literal["student", "teacher", "distill"]

TOWNS = "towns"
"""The data set of rendered towns, beside those of ``core.data.benchmarks.TRAINING_PAIRS``."""

NO_KEYS = ("sampling.batch",)
"""Fields that no file sets; ``schedule.batch`` gives the batch size."""

BASES = 7
"""Longest chain of bases; a longer one must be a circle."""


@dataclass(frozen=True)
class ModelSettings:
    """Arguments of ``build_model``; sizes are (height, width) in pixels.

    ``polar``: the aerial branch sees polar views, of the ground picture's size. ``dim``: values per
    azimuth bin; None for a model without azimuth bins, or for ``build_model``'s default.
    """

    name: str
    pooling: str
    ground_size: Size
    aerial_size: Size
    polar: bool
    dim: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``build_model``."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, alone or inside SAM or ASAM.

    ``rate``: peak learning rate. ``decay``: weight decay of all weights. ``clip``: largest gradient
    norm; 0 for no clipping. ``mixed_precision``: bfloat16 where the device computes in it natively,
    else float32. ``rho``: radius of SAM and ASAM.
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
    """How long: ``epochs`` over a benchmark's pairs, or ``steps`` on towns.

    ``batch``: pairs (panoramas) of a step. ``warmup``: steps in which the learning rate rises. It
    then falls along a half cosine to ``floor``, a share of its peak. ``validate_every``: steps between
    validations, for towns.
    """

    batch: int
    epochs: int | None = None
    steps: int | None = None
    warmup: int = 0
    floor: float = 0.0
    validate_every: int = 1000


@dataclass(frozen=True)
class AugmentationSettings:
    """``turn``: rotate both views of a pair by the same random angle; for polar views."""

    turn: bool = False


@dataclass(frozen=True)
class Recipe:
    """One way to train one model on one data set.

    ``kind``: a student; a GeoSSK teacher that starts from a student; or a student that goes on under
    a teacher. ``data``: ``TOWNS`` or a key of ``core.data.benchmarks.TRAINING_PAIRS``.

    Tables by kind: ``loss`` for students on benchmarks (towns have one loss, ``StudentObjective``),
    ``teacher`` for teachers, ``knowledge`` for distillation. Tables by data set: ``sampling`` (how
    batches are drawn) and ``auxiliary`` (a teacher's auxiliary losses) for towns, ``augmentation``
    for benchmarks.
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
    sampling: SamplingConfig | None = None
    auxiliary: AuxiliaryWeights | None = None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from its file and its bases.

    Raises:
        SettingError: a file is missing or no TOML, a key is unknown, missing or of another type, or
            values make no sense together; the sentence names file and key.

    """
    path = Path(path)
    recipe = _filled(Recipe, _merged(path, BASES), path, "")
    _check_tables(recipe, path)
    _check_values(recipe, path)
    if recipe.sampling is None:
        return recipe
    # Only the schedule gives the batch size, for towns and for benchmarks.
    return replace(recipe, sampling=replace(recipe.sampling, batch=recipe.schedule.batch))


def _merged(path: Path, bases: int) -> dict[str, Any]:
    """The tables of a file over those of its base."""
    own = _parsed(path)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str) or Path(base).name != base:
        raise _wrong(path, "base", base, "the name of a recipe in the same folder")
    if not bases:
        raise _wrong(path, "base", base, f"a chain of at most {BASES} bases, in no circle")
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
    """Build a dataclass from a table, field by field."""
    assert is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    known = {each.name: each for each in fields(cls) if f"{prefix}{each.name}" not in NO_KEYS}
    for key in table:
        if key not in known:
            raise SettingError(
                f"Recipe {path}: got the unknown key {prefix + key}, expected one of "
                f"{', '.join(prefix + name for name in known)}. Correct or remove it."
            )
    for name, each in known.items():
        is_needed = each.default is MISSING and each.default_factory is MISSING
        if is_needed and name not in table:
            raise _missing(path, prefix + name, _described(hints[name]))
    values = {key: _value(hints[key], table[key], path, prefix + key) for key in table}
    return cls(**values)


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    """One value in the type of its field; whole numbers pass as floats, lists as pairs."""
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
    if hint == Widths and _is_widths(value):
        return tuple((int(bins), float(weight)) for bins, weight in value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise _wrong(path, key, value, _described(hint))


def _is_widths(value: object) -> bool:
    """Whether a value is a list of [bins, weight] with bins from 1 to 32 and weights above 0."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(each, list) and len(each) == 2 for each in value)
        and all(type(bins) is int and 1 <= bins <= BINS for bins, _ in value)
        and all(type(weight) in (int, float) and weight > 0 for _, weight in value)
    )


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
    if hint == Widths:
        return f"a list of [bins, weight], bins from 1 to {BINS}, weights above 0"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(hint, "[height, width] in whole pixels")


def _check_tables(recipe: Recipe, path: Path) -> None:
    """Refuse a table that the recipe's kind or data set does not use, and a missing one."""
    is_town = recipe.data == TOWNS
    kind = f"the kind {recipe.kind!r} on {recipe.data}"
    is_used = {
        "loss": recipe.kind == "student" and not is_town,
        "teacher": recipe.kind == "teacher",
        "knowledge": recipe.kind == "distill",
        "sampling": is_town,
    }
    for table, wanted in is_used.items():
        is_there = getattr(recipe, table) is not None
        if is_there != wanted:
            got = f"a table [{table}]" if is_there else f"no table [{table}]"
            raise SettingError(
                f"Recipe {path}: got {got} and {kind}, expected {'none' if is_there else 'one'}. "
                f"{'Remove' if is_there else 'Add'} it there or in its base."
            )
    if recipe.auxiliary is not None and not (is_town and recipe.kind == "teacher"):
        raise SettingError(
            f"Recipe {path}: got a table [auxiliary] and {kind}, expected none: only teachers on towns "
            "have auxiliary losses. Remove it there or in its base."
        )


def _check_values(recipe: Recipe, path: Path) -> None:
    """Refuse values that no run could use."""
    model, optimizer, loss = recipe.model, recipe.optimizer, recipe.loss
    names = ", ".join(sorted(MODELS)) + " or timm/<name>"
    is_known = model.name in MODELS or model.name.startswith("timm/")
    has_bins = model.pooling == "azimuth"
    data_sets = (*TRAINING_PAIRS, TOWNS)
    above = "a number above 0"
    rules: list[Rule] = [
        ("data", recipe.data, recipe.data in data_sets, f"one of {', '.join(data_sets)}"),
        ("model.name", model.name, is_known, names),
        ("model.pooling", model.pooling, model.pooling in POOLINGS, ", ".join(POOLINGS)),
        ("model.ground_size", model.ground_size, min(model.ground_size) > 0, "sides above 0"),
        ("model.aerial_size", model.aerial_size, min(model.aerial_size) > 0, "sides above 0"),
        ("model.dim", model.dim, model.dim is None or model.dim > 0, "at least 1"),
        ("model.dim", model.dim, model.dim is None or has_bins, "none without azimuth pooling"),
        ("optimizer.rate", optimizer.rate, optimizer.rate > 0, above),
        ("optimizer.decay", optimizer.decay, optimizer.decay >= 0, "0 or more"),
        ("optimizer.clip", optimizer.clip, optimizer.clip >= 0, "0 (no clipping) or more"),
        ("optimizer.eps", optimizer.eps, optimizer.eps > 0, above),
        ("optimizer.rho", optimizer.rho, optimizer.rho > 0, above),
        *_schedule_rules(recipe),
        *_sampling_rules(recipe),
    ]
    if loss is not None:
        rules += [
            ("loss.alpha", loss.alpha, loss.alpha > 0, above),
            ("loss.temperature", loss.temperature, loss.temperature > 0, above),
        ]
    for key, value, is_right, expected in rules:
        if not is_right:
            raise (
                _missing(path, key, expected)
                if value is None
                else _wrong(path, key, value, expected)
            )


def _schedule_rules(recipe: Recipe) -> list[Rule]:
    schedule, is_town = recipe.schedule, recipe.data == TOWNS
    is_polar = recipe.model.polar and not is_town
    turn = recipe.augmentation.turn
    length, unused = ("steps", "epochs") if is_town else ("epochs", "steps")
    least, other = getattr(schedule, length), getattr(schedule, unused)
    return [
        (f"schedule.{unused}", other, other is None, f"none: {recipe.data} needs {length}"),
        (f"schedule.{length}", least, least is not None, "a whole number"),
        (f"schedule.{length}", least, (least or 0) >= 1, "at least 1"),
        ("schedule.batch", schedule.batch, schedule.batch >= 2, "at least 2 pairs"),
        ("schedule.warmup", schedule.warmup, schedule.warmup >= 0, "0 steps or more"),
        ("schedule.floor", schedule.floor, 0 <= schedule.floor <= 1, "a share from 0 to 1"),
        (
            "schedule.validate_every",
            schedule.validate_every,
            schedule.validate_every > 0,
            "above 0",
        ),
        ("augmentation.turn", turn, is_polar or not turn, "false: only polar views can be turned"),
    ]


def _sampling_rules(recipe: Recipe) -> list[Rule]:
    sampling, weights = recipe.sampling, recipe.auxiliary or AuxiliaryWeights()
    if sampling is None:
        return []
    error, every = sampling.rotation_error, sampling.every_crop
    has_bins = recipe.model.pooling == "azimuth"
    may_crop = recipe.kind == "student" and has_bins
    is_single = (
        "false: teachers and distillation need one view per tile, and without azimuth pooling each "
        "crop costs a full canvas"
    )
    needs_bins = "none: only tiles of a model with azimuth pooling are rotated"
    shares = {"local_share": sampling.local_share, "photo_share": sampling.photo_share}
    least = {
        "sampling.offset_m": sampling.offset_m,
        "sampling.also_true_m": sampling.also_true_m,
        "sampling.extra_negatives": sampling.extra_negatives,
        "sampling.remembered": sampling.remembered,
        "sampling.rotation_error": error or 0.0,
        "auxiliary.pointing": weights.pointing,
        "auxiliary.transient": weights.transient,
    }
    return [
        ("sampling.rotation_error", error, error is None or has_bins, needs_bins),
        ("sampling.every_crop", every, not every or may_crop, is_single),
        *((key, value, value >= 0, "0 or more") for key, value in least.items()),
        *(
            (f"sampling.{key}", it, 0 <= it <= 1, "a share from 0 to 1")
            for key, it in shares.items()
        ),
    ]


def _missing(path: Path, key: str, expected: str) -> SettingError:
    return SettingError(
        f"Recipe {path}: got no {key}, expected {expected}. Add it, or a base that has it."
    )


def _wrong(path: Path, key: str, value: object, expected: str) -> SettingError:
    got = str(value).lower() if isinstance(value, bool) else repr(value)
    return SettingError(
        f"Recipe {path}: {key}: got {got[:80]}, expected {expected}. Correct it in that file or in "
        "its base."
    )
