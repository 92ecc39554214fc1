"""Read measured reports from JSON into their classes; refuse JSON that does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from core.errors import DataError
from core.results.reports import (
    AblationReport,
    BenchReport,
    ExplanationReport,
    Report,
    Reports,
    SeenReport,
    ShortcutReport,
    StudentReport,
    TownReport,
    TrainingReport,
)

__all__ = ["parse_report", "read_reports"]

R = TypeVar("R", bound=Report)


def read_reports(folder: Path) -> Reports:
    """Read all reports of a folder.

    Raises:
        DataError: a file is not JSON or does not fit its kind, or there is no file.

    """
    contents: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            contents[path.name] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"Results {path}: got no JSON ({error}). Measure again.") from error
    if not contents:
        raise DataError(f"Results {folder}: got no JSON files, expected some. Run: make results")

    def read(kind: type[R], start: str) -> list[R]:
        return [
            parse_report(kind, content, name)
            for name, content in contents.items()
            if name.startswith(start)
        ]

    return Reports(
        towns=read(TownReport, "town-"),
        training=read(TrainingReport, "training-"),
        seen=read(SeenReport, "seen-"),
        students=read(StudentReport, "student-"),
        ablations=read(AblationReport, "ablation"),
        bench=read(BenchReport, "bench-models.json"),
        explanations=read(ExplanationReport, "explanations.json"),
        shortcuts=read(ShortcutReport, "shortcuts.json"),
        trust=[content for name, content in contents.items() if name.startswith("trust-")],
    )


def parse_report(kind: type[R], content: Mapping[str, Any], file: str = "report") -> R:
    """One report from its JSON. ``file``: its name in error messages.

    Raises:
        DataError: a value is missing or not of the type in the class, or there are no rows.

    """
    try:
        report: R = _parse(kind, {**content, "file": file}, "")
        if not content["rows"]:
            raise ValueError("no rows, expected at least one")
    except ValueError as error:
        raise DataError(f"Results {file}: got {error}. Measure again.") from error
    return report


_SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
}


def _parse(kind: Any, value: Any, place: str) -> Any:
    """A value of this type. ``place``: the keys that lead to it. Raises ValueError for another type."""
    if is_dataclass(kind):
        return _parse_object(kind, _checked(value, (Mapping,), place, "an object"), place)
    if get_origin(kind) is UnionType:
        return None if value is None else _parse(get_args(kind)[0], value, place)
    if get_origin(kind) is tuple:
        values = _checked(value, (list, tuple), place, "a list")
        item = get_args(kind)[0]
        return tuple(_parse(item, one, f"{place}[{number}]") for number, one in enumerate(values))
    if get_origin(kind) is dict:
        values = _checked(value, (Mapping,), place, "an object")
        item = get_args(kind)[1]
        return {key: _parse(item, one, f"{place}.{key}") for key, one in values.items()}
    types, expected = _SCALARS[kind]
    # In Python a bool is a number too; in a report that is a mistake.
    if isinstance(value, bool) and kind is not bool:
        raise ValueError(f"{place} = {value!r}, expected {expected}")
    return kind(_checked(value, types, place, expected))


def _parse_object(kind: Any, value: Mapping[str, Any], place: str) -> Any:
    hints, given = get_type_hints(kind), {}
    for part in fields(kind):
        key = part.metadata.get("key", part.name)
        inner = f"{place}.{key}".lstrip(".")
        if key in value:
            given[part.name] = _parse(hints[part.name], value[key], inner)
        elif part.default is MISSING:
            raise ValueError(f"no {inner}, expected one")
    return kind(**given)


def _checked(value: Any, types: tuple[type, ...], place: str, expected: str) -> Any:
    if not isinstance(value, types):
        raise ValueError(f"{place or 'its content'} = {value!r}, expected {expected}")
    return value
