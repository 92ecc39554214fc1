"""Files that code, tests and pages cite: each must be in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CITED = re.compile(r"(?<![\w./-])(?:[\w.-]+/)*[\w-]+\.md\b")
NOT_HERE = {"card.md", "Request.md", "data/DATASET.md"}
"""Files beside a model, or in the repository of a data set."""


def sources() -> list[Path]:
    folders = ("core", "app", "tests", "docs", "recipes", "assets")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    files = [path for path in found if path.suffix in (".py", ".md", ".js", ".css", ".toml")]
    own = [path for path in files if not {"leaflet", "jquery"} & set(path.parts)]
    return [ROOT / "README.md", ROOT / "Makefile", ROOT / "app.py", *own]


def prose(path: Path) -> str:
    """The text without what is no citation: names in quotes, as of files that a test writes."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"\"[\w./-]+\.md\"", "", text) if path.suffix == ".py" else text


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_cited_page_is_in_the_repository(path: Path) -> None:
    cited = set(CITED.findall(prose(path))) - NOT_HERE
    missing = [
        name for name in cited if not any((at / name).is_file() for at in (ROOT, path.parent))
    ]
    assert not missing


def test_sections_of_the_geossk_page_are_there() -> None:
    page = (ROOT / "docs" / "geossk.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\d+)\.", page, flags=re.MULTILINE))
    cited = [
        number
        for path in sources()
        for number in re.findall(r"docs/geossk\.md\s+section\s+(\d+)", path.read_text("utf-8"))
    ]
    assert len(cited) > 5
    assert set(cited) <= sections
