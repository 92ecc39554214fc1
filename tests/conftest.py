"""A town of 49 places and models with random weights, made in a second and shared by all tests."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
import torch

from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.geo import local_crs
from core.imagery.raster import RasterSource
from core.models import build_model
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.records import Place
from tests.canvases import shift_canvas, tile_to_polar
from tests.official_weights import make_thin

# A deadline per example measures the machine, not the code: speed is the benchmark's business.
hypothesis.settings.register_profile("crossview", deadline=None)
hypothesis.settings.load_profile("crossview")

TINY_SIDE_M = 192.0
TINY_TILE_PX = 128
MODEL_HASH = "0" * 64
TWO_BRANCH = {"pooling": "azimuth", "ground_size": [64, 256], "aerial_size": [128, 128], "dim": 8}
"""Config of the tiny models."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def paint_ground(side_px: int, seed: int = 0) -> np.ndarray:
    """Coloured blocks of several sizes (side, side, 3): no two tiles look alike."""
    random = np.random.default_rng(seed)
    image = np.full((side_px, side_px, 3), 110.0)
    for block in (64, 16, 4):
        count = -(-side_px // block)
        blocks = random.normal(0, 45, (count, count, 3))
        image += blocks.repeat(block, 0).repeat(block, 1)[:side_px, :side_px]
    return np.clip(image, 5, 250).astype(np.uint8)


def write_raster(path: Path, image: np.ndarray, side_m: float) -> Path:
    """A north-up GeoTIFF centred at 0 N, 0 E in its local metric frame."""
    pixel = side_m / image.shape[1]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=image.shape[1],
        height=image.shape[0],
        count=3,
        dtype="uint8",
        crs=local_crs(Place(0.0, 0.0)).to_wkt(),
        transform=rasterio.Affine(pixel, 0, -side_m / 2, 0, -pixel, side_m / 2),
    ) as raster:
        raster.write(np.moveaxis(image, -1, 0))
    return path


def twin_branches(pooling: str = "azimuth", polar: bool | None = None) -> TwoBranch:
    """A small student whose two branches share their random weights.

    So a canvas that is the polar view of a tile has the descriptor of that tile, and every answer
    is known although nothing was trained.
    """
    torch.manual_seed(0)
    model = build_model("convnet-s", pooling, (64, 256), (128, 128), dim=8, polar=polar)
    model.aerial_encoder.load_state_dict(model.ground_encoder.state_dict())
    model.aerial_pool.load_state_dict(model.ground_pool.state_dict())
    return model.eval()


@pytest.fixture(scope="session")
def tiny_student() -> TwoBranch:
    return twin_branches()


@pytest.fixture(scope="session")
def tiny_global_student() -> TwoBranch:
    return twin_branches("gap", polar=True)


@pytest.fixture(scope="session")
def tiny_teacher() -> GeoSSK:
    return GeoSSK(twin_branches()).eval()


@pytest.fixture(scope="session")
def tiny_raster(tmp_path_factory) -> Path:
    pixels = round(TINY_SIDE_M / 76.8 * TINY_TILE_PX)
    path = tmp_path_factory.mktemp("raster") / "aerial.tif"
    return write_raster(path, paint_ground(pixels), TINY_SIDE_M)


def build_tiny(raster: Path, out: Path, student: TwoBranch, model_hash: str) -> Gallery:
    # From its centre alone: then an ideal camera there sees just what was described.
    settings = GallerySettings(tile_pixels=TINY_TILE_PX, viewpoints=1)
    build_gallery(raster, out, tile_describer(student), "tiny", model_hash, settings)
    return Gallery.open(out)


@pytest.fixture(scope="session")
def tiny_gallery(tiny_raster, tiny_student, tmp_path_factory) -> Gallery:
    """49 places, 19.2 m apart, described by ``tiny_student``."""
    return build_tiny(tiny_raster, tmp_path_factory.mktemp("tiny"), tiny_student, MODEL_HASH)


@pytest.fixture(scope="session")
def tiny_global_gallery(tiny_raster, tiny_global_student, tmp_path_factory) -> Gallery:
    folder = tmp_path_factory.mktemp("tiny-global")
    return build_tiny(tiny_raster, folder, tiny_global_student, MODEL_HASH)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory, tiny_raster) -> Path:
    """A world folder over ``tiny_raster`` with 24 packed panoramas, each an ideal camera's view.

    Cameras stand up to 7 m off the grid's places; the layout is that of core.world.build.
    """
    folder = tmp_path_factory.mktemp("worlds") / "tiny"
    folder.mkdir()
    shutil.copy(tiny_raster, folder / "aerial.tif")
    random = np.random.default_rng(3)
    ground = RasterSource.open(tiny_raster)
    places = random.integers(-3, 4, (24, 2)) * 19.2 + random.uniform(-7, 7, (24, 2))
    places = np.clip(places, -57.6, 57.6)
    turned = random.integers(0, 32, 24)
    views = [
        shift_canvas(tile_to_polar(ground.read_tile(east, north, 76.8, 128)[0], 64, 256), int(turn))
        for (east, north), turn in zip(places, turned, strict=True)
    ]
    np.save(folder / "panoramas.npy", np.stack(views))
    table = {
        "file": [f"p{i:04d}" for i in range(24)],
        "east_m": places[:, 0],
        "north_m": places[:, 1],
        "heading_deg": (-11.25 * turned) % 360,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "panoramas.parquet")
    (folder / "world.json").write_text(json.dumps({"format": 1, "size_m": TINY_SIDE_M}))
    return folder


@pytest.fixture(autouse=True)
def _same_chance():
    torch.manual_seed(0)


@pytest.fixture
def thin(monkeypatch):
    """The papers' models of this test are thin ones."""
    make_thin(monkeypatch)


def in_a_loop(build: Callable[[], Any]) -> Any:
    """What ``build`` returns; outside an event loop Gradio opens one of its own and leaves it."""

    async def built() -> Any:
        return build()

    return asyncio.run(built())
