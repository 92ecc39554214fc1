"""Photos from outside the imagery, drawn by a seed: run alone with ``pytest tests/test_outside.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core.evaluation import outside
from core.evaluation.fit import FITTED_BINS
from core.evaluation.outside import DRAWN_KINDS, drawn_kinds, drawn_views, package_pictures
from core.photos.views import canvas_bins

KINDS = sorted(DRAWN_KINDS)


@pytest.mark.parametrize("bins", FITTED_BINS)
@pytest.mark.parametrize("kind", KINDS)
def test_views_are_canvases_of_whole_bins_and_the_same_for_one_seed(kind: str, bins: int) -> None:
    views = drawn_views(kind, bins, 3, seed=4)
    assert (views.dtype, views.shape) == (np.uint8, (3, 128, 16 * bins, 3))
    assert canvas_bins(views[0]) == bins
    np.testing.assert_array_equal(views, drawn_views(kind, bins, 3, seed=4))
    np.testing.assert_array_equal(views[:2], drawn_views(kind, bins, 2, seed=4))
    assert (views != drawn_views(kind, bins, 3, seed=5)).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("bins", [32, 8])
def test_no_two_views_are_alike_and_none_is_blank(bins: int) -> None:
    views = np.concatenate([drawn_views(kind, bins, 4, seed=0) for kind in KINDS])
    flat = views.reshape(len(views), -1).astype(float)
    apart = np.abs(flat[:, None] - flat[None]).mean(axis=2)
    assert apart[~np.eye(len(flat), dtype=bool)].min() > 3
    assert flat.std(axis=1).min() > 3


def test_kinds_are_drawn_apart() -> None:
    """A texture is made of blocks, so that neighbours are often equal; a room's walls are grainy."""
    equal = {
        kind: (np.diff(drawn_views(kind, 8, 6, seed=1).astype(int), axis=2) == 0).mean()
        for kind in KINDS
    }
    assert equal["texture"] > 0.4
    assert equal["room"] < 0.2


def test_pictures_of_packages_that_are_not_there_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = package_pictures()
    assert every
    assert all(path.is_file() for path in every)
    picture = tmp_path / "media_assets" / "images" / "tower.jpg"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)).save(picture)
    installed = {"gradio": SimpleNamespace(submodule_search_locations=[str(tmp_path)])}
    monkeypatch.setattr(outside, "find_spec", installed.get)
    assert package_pictures() == [picture]
    assert drawn_views("sample picture", 8, 2, seed=0).shape == (2, 128, 128, 3)
    # A module that is one file has no folder of pictures.
    installed["matplotlib"] = SimpleNamespace(submodule_search_locations=None)
    assert package_pictures() == [picture]


def test_packages_are_looked_for_by_their_names() -> None:
    for package in outside.PACKAGE_PICTURES:
        found = importlib.util.find_spec(package) is not None
        folders = [path for path in package_pictures() if package in path.parts]
        assert bool(folders) == found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sample picture"])
def test_what_is_drawn_needs_no_package(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn_kinds() == KINDS
    monkeypatch.setattr(outside, "find_spec", lambda name: None)
    assert package_pictures() == []
    assert kind in drawn_kinds()
    assert "sample picture" not in drawn_kinds()
    assert len(drawn_views(kind, 6, 2, seed=0)) == 2
