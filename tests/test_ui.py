"""What the page offers: run alone with ``pytest tests/test_ui.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.handlers import Page
from app.map_view import BaseMap
from app.ui import build_ui, serve_files
from core.localization.localizer import Localizer
from tests.conftest import in_a_loop


@pytest.fixture
def offered(tiny_gallery, tmp_path: Path, monkeypatch):
    """Tabs of the page around a localizer, and whether it has a button that explains."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))

    def build(*models: Any) -> tuple[list[str], bool]:
        serve_files(tmp_path)
        page = Page(Localizer(tiny_gallery, *models), BaseMap.write(tiny_gallery, tmp_path), ())
        parts = in_a_loop(lambda: build_ui(page)).config["components"]
        tabs = [part["props"]["label"] for part in parts if part["type"] == "tabitem"]
        button = next(part for part in parts if part["props"].get("elem_id") == "explain-this")
        return tabs, button["props"]["visible"]

    return build


def test_an_explanation_is_offered_where_a_teacher_can_give_one(
    offered, tiny_student, tiny_teacher
) -> None:
    assert offered(tiny_student, tiny_teacher) == (["Locate", "Explain"], True)
    assert offered(tiny_student) == (["Locate"], False)
