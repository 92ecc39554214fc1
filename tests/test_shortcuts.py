"""What is left of photos and tiles: run alone with ``pytest tests/test_shortcuts.py``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.checkpoints import save_model
from core.data.worlds import PatchTruth, load_town
from core.errors import WorldError
from core.localization.answer import Models
from core.photos.canvas import UNSEEN
from core.polar import BINS
from core.research.cli import main as research
from core.research.shortcuts import OF_PHOTOS, OF_TILES, measure_shortcuts
from core.results.reading import parse_report
from core.results.reports import ShortcutReport
from core.results.shortcuts import shortcut_section
from tests.conftest import TWO_BRANCH
from tests.towns import ideal_truth, write_truth

RANDOM = np.random.default_rng(3)
VIEWS = RANDOM.integers(0, 127, (3, 64, 256, 3), dtype=np.uint8)
SKY = np.zeros((3, 4, 32), bool)
SKY[:, 0] = True
CARS = np.zeros((3, 4, 32), bool)
CARS[1, 2, 5] = True


def left(name: str) -> np.ndarray:
    return OF_PHOTOS[name](VIEWS, SKY, CARS, np.random.default_rng(0))


def test_only_the_named_part_is_left() -> None:
    assert (left("whole") == VIEWS).all()
    assert (left("sky only")[:, :16] == VIEWS[:, :16]).all()
    assert (left("sky only")[:, 16:] == UNSEEN).all()
    assert (left("without sky")[:, :16] == UNSEEN).all()
    assert (left("without sky")[:, 16:] == VIEWS[:, 16:]).all()
    car = np.zeros((64, 256), bool)
    car[32:48, 40:48] = True
    assert (left("vehicles only")[1][car] == VIEWS[1][car]).all()
    assert (left("vehicles only")[1][~car] == UNSEEN).all()
    assert (left("vehicles only")[0] == UNSEEN).all()
    assert (left("without vehicles")[1][car] == UNSEEN).all()
    assert (left("without vehicles")[0] == VIEWS[0]).all()


def test_an_outline_says_nothing_of_what_is_in_it() -> None:
    outline = left("outline of the sky only")
    assert (outline[:, :16] == 255).all()
    assert (outline[:, 16:] == UNSEEN).all()
    assert outline.shape == VIEWS.shape


def test_colours_stay_and_their_places_do_not() -> None:
    for name, axes in (("colours only", (1, 2)), ("colours of each row only", (2,))):
        changed = left(name)
        assert (changed != VIEWS).mean() > 0.9
        for picture, original in zip(changed, VIEWS, strict=True):
            if len(axes) == 2:
                both = [sorted(map(tuple, p.reshape(-1, 3))) for p in (picture, original)]
            else:
                both = [[sorted(map(tuple, row)) for row in p] for p in (picture, original)]
            assert both[0] == both[1]


def test_corners_are_what_the_polar_view_does_not_show() -> None:
    tiles = RANDOM.integers(0, 127, (2, 128, 128, 3), dtype=np.uint8)
    corners = OF_TILES["corners only"](tiles, np.random.default_rng(0))
    assert (corners[:, 0, 0] == tiles[:, 0, 0]).all()
    assert (corners[:, 64, 0:128] == UNSEEN).all()
    kept = (corners != UNSEEN).any(axis=3).mean()
    assert kept == pytest.approx(1 - np.pi / 4, abs=0.01)


def test_a_student_finds_whole_photos_and_nothing_in_corners(tiny_world, tiny_student) -> None:
    town = load_town(tiny_world)
    kinds = np.where(np.arange(4)[:, None] == 0, 0, 2) * np.ones((len(town.places), 4, BINS), int)
    truth = replace(ideal_truth(town), class_id=kinds.astype(np.uint8))
    measured = measure_shortcuts(town, truth, Models(tiny_student), 12)
    rows = {(row["of"], row["left"]): row for row in measured}
    whole = rows["photo", "whole"]
    assert whole["within_25_m"] >= 0.5 > 3 * whole["chance_25_m"]
    assert whole["queries"] == 12
    assert rows["photo", "without vehicles"]["within_25_m"] == whole["within_25_m"]
    assert rows["photo", "vehicles only"]["queries"] == 0  # there are none, and none is counted
    assert rows["photo", "vehicles only"]["within_25_m"] is None
    assert rows["tile", "corners only"]["hit@1"] == 0  # all alike, and ties are lost
    assert set(rows) == {("photo", name) for name in OF_PHOTOS} | {("tile", n) for n in OF_TILES}


def test_foreign_truth_is_refused(tiny_world, tiny_student) -> None:
    town = load_town(tiny_world)
    truth = PatchTruth(np.zeros((3, 4, 32), np.uint8), np.zeros((3, 4, 32, 2)), ("sky",))
    with pytest.raises(WorldError, match="truth of 3 panoramas, expected that of its 24"):
        measure_shortcuts(town, truth, Models(tiny_student))


def test_the_command_writes_what_the_page_shows(
    tiny_world: Path, tiny_student, tmp_path: Path, capsys
) -> None:
    import shutil

    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    write_truth(world, ideal_truth(load_town(world)))
    save_model(tmp_path / "s", tiny_student, {"name": "convnet-s", "model": TWO_BRANCH}, "")
    out = tmp_path / "shortcuts.json"
    arguments = ["shortcuts", str(tmp_path / "s"), "--data", str(world), "--queries", "4"]
    assert research([*arguments, "--out", str(out)]) == 0
    assert "outline of the sky only" in capsys.readouterr().out
    section = shortcut_section(parse_report(ShortcutReport, json.loads(out.read_text())))
    assert section.startswith("## What does retrieval live on?")
    assert section.count("\n| ") == 1 + 1 + len(OF_PHOTOS) + len(OF_TILES)
