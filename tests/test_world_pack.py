"""A packed world is the same world, smaller, and never half written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from core.errors import WorldError
from core.world.pack import pack_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    folder = tmp_path / "world"
    (folder / "panoramas").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(2):
        picture = random.integers(0, 256, (128, 512, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"panoramas/p{index:04d}.webp", quality=95)
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32631", "transform": Affine(0.3, 0, 500000, 0, -0.3, 100)}
    with rasterio.open(folder / "aerial.tif", "w", **profile, **place) as raster:
        raster.write(random.integers(60, 200, (3, 512, 512), dtype=np.uint8))
    (folder / "layout.gpkg").write_bytes(b"large")
    (folder / "truth.npz").write_bytes(b"kept")
    (folder / "world.json").write_text(json.dumps({"seed": 5}))
    return folder


def test_a_packed_world_is_smaller_and_says_what_was_done(world: Path, tmp_path: Path) -> None:
    out = pack_world(world, tmp_path / "out", panorama_quality=40, aerial_quality=40)
    record = json.loads((out / "world.json").read_text())
    assert record == {
        "seed": 5,
        "packed_from": {"panorama_quality": 40, "aerial_quality": 40},
    }
    assert not (out / "layout.gpkg").exists()
    assert (out / "truth.npz").read_bytes() == b"kept"
    before, after = (
        sum(path.stat().st_size for path in folder.glob("panoramas/*")) for folder in (world, out)
    )
    assert after < before / 2
    with rasterio.open(world / "aerial.tif") as first, rasterio.open(out / "aerial.tif") as second:
        assert first.bounds == second.bounds
        assert first.crs == second.crs
        change = first.read().astype(int) - second.read().astype(int)
    assert abs(change.mean()) < 2
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_no_world_or_is_there_already_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"expected world\.json"):
        pack_world(tmp_path, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(WorldError, match="exists already"):
        pack_world(world, tmp_path / "there")
