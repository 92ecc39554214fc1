"""Worlds as data: read as they were written, and damaged ones refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from core.data.worlds import load_photos, load_town
from core.errors import WorldError
from tests.conftest import write_raster


def test_a_town_is_read_with_its_places_and_imagery(tiny_world: Path) -> None:
    town = load_town(tiny_world, tile_pixels=128)
    assert town.panoramas.shape == (24, 64, 256, 3)
    assert town.places.shape == (24, 2)
    assert town.mosaic.shape[0] == round(town.size_m / town.pixel_m)
    assert town.pixel_m == pytest.approx(0.6, rel=0.01)
    assert len(town.crop_tiles(town.places[:3], 128)) == 3


def test_tiles_are_those_of_a_gallery_and_not_of_overviews(
    tmp_path: Path, tiny_world: Path
) -> None:
    """Overviews that are plainly wrong (every second pixel) are not used."""
    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    fine = np.random.default_rng(0).integers(0, 255, (640, 640, 3), dtype=np.uint8)
    write_raster(world / "aerial.tif", fine, 192.0)
    with rasterio.open(world / "aerial.tif", "r+") as raster:
        raster.build_overviews([2], Resampling.nearest)
    full = load_town(world, tile_pixels=128).mosaic
    averaged = fine.reshape(320, 2, 320, 2, 3).mean(axis=(1, 3))
    assert np.abs(full - averaged).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("world.json", b"{"),
        ("world.json", json.dumps({"seed": 1}).encode()),
        ("panoramas.npy", b"no array"),
        ("panoramas.parquet", b"no table"),
        ("aerial.tif", b"no raster"),
    ],
)
def test_a_damaged_world_is_refused_by_name(
    tiny_world: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(tiny_world, copy)
    (copy / name).write_bytes(content)
    with pytest.raises(WorldError, match="World "):
        load_town(copy)


def test_missing_parts_are_named(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"got no world\.json"):
        load_town(tmp_path)
    with pytest.raises(WorldError, match=r"photos\.parquet"):
        load_photos(tiny_world)
