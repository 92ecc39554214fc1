"""docs/papers.md names files, functions and sizes: each must be there."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from tests.parity import SIZES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
PATHS = [name for name in NAMED if re.fullmatch(r"(core|tests|docs|app|assets)/[\w./-]+", name)]
DOTTED = [name for name in NAMED if re.fullmatch(r"core(\.\w+)+", name)]
NO_DATA = "not measured: needs the data set"


def resolve(dotted: str) -> object:
    """The module, or the attribute of the longest module that the name begins with."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if (ROOT / Path(*parts[:end])).with_suffix(".py").is_file() or end == 1:
            return reduce(getattr, parts[end:], importlib.import_module(name))
    raise AssertionError(dotted)


def test_the_page_names_things():
    assert len(PATHS) > 15
    assert len(DOTTED) > 40


@pytest.mark.parametrize("path", PATHS)
def test_every_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("dotted", DOTTED)
def test_everything_that_is_named_can_be_imported(dotted):
    assert resolve(dotted) is not None


def test_names_of_code_are_dotted_or_paths():
    """A bare function name would be checked by nothing."""
    others = [name for name in NAMED if name not in PATHS and name not in DOTTED]
    assert all(re.match(r"python -m core |index\.faiss|descriptors\.npy", name) for name in others)


@pytest.mark.parametrize("command", [name for name in NAMED if name.startswith("python -m core ")])
def test_commands_exist(command, capsys):
    from core.cli import main

    assert main([*command.split()[3:], "--help"]) == 0


def tables() -> list[list[list[str]]]:
    """Cells of every table, header first, without the rule."""
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
    lines = [block.strip().splitlines() for block in blocks]
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], *rows[2:])]
        for rows in lines
    ]


def test_no_number_of_ours_stands_beside_the_authors():
    """What needs a data set was not measured: the last column may not hold a number."""
    compared = [table for table in tables() if table[0][-1] == "ours" and "theirs" in table[0]]
    assert len(compared) == 5
    for table in compared:
        assert all(len(row) == len(table[0]) for row in table)
        for row in table[1:]:
            assert row[-1] == NO_DATA or row[0].startswith("rendered towns")


def test_sizes_are_those_that_are_asserted():
    (sizes,) = [table for table in tables() if "authors' modules" in table[0][1]]
    written = {row[0]: int(row[2].replace(",", "")) for row in sizes[1:]}
    assert sorted(written.values()) == sorted(total for _, _, total in SIZES)
    assert all(row[1] == row[2] for row in sizes[1:])


def test_every_part_names_a_test():
    parts = [row for table in tables() if table[0][-1] == "asserted in" for row in table[1:]]
    assert len(parts) > 30
    assert all(re.search(r"`tests/test_\w+\.py`", row[-1]) for row in parts)
