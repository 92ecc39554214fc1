"""Perspective photos of a town whose answers are known: seen by a pinhole, their width given by EXIF."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from PIL.ExifTags import IFD

from core.data.worlds import PhotoQueries, has_photos, load_photos, load_town
from core.evaluation.answers import Answers, DescribedTown
from core.evaluation.queries import photo_queries
from core.evaluation.report import photo_rows
from core.evaluation.towns import TownReferences
from core.imagery.raster import RasterSource
from core.localization.answer import Models
from core.localization.calibration import Calibration, ViewCalibration
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.results.perspective import perspective_section
from core.results.reading import parse_report
from core.results.reports import TownReport
from tests.canvases import shift_canvas, tile_to_polar

FOCAL_MM = (9, 9, 9, 9, 14, 14, 14)
FOV_DEG = [2 * np.degrees(np.arctan(9 / focal)) for focal in FOCAL_MM]
"""Of pictures twice as high as wide, which show all that a canvas has rows for."""


def through_a_pinhole(canvas: np.ndarray, fov_deg: float) -> np.ndarray:
    """What a level camera of 1:2 sees of a full canvas (128, 512, 3), to the nearest pixel."""
    width, height = 360, 720
    focal = width / 2 / np.tan(np.radians(fov_deg / 2))
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5)
    azimuth = np.degrees(np.arctan(x / focal))
    elevation = np.degrees(np.arctan(y / np.hypot(focal, x)))
    column = ((azimuth / 360 + 0.5) * 512).astype(int)
    row = np.clip((45 - elevation) / 90 * 128, 0, 127).astype(int)
    return canvas[row, column]


@pytest.fixture(scope="module")
def world(tiny_world: Path, tmp_path_factory) -> Path:
    """The tiny world and seven photos, 90 and 65 degrees wide, from the middle of its places."""
    folder = tmp_path_factory.mktemp("pictured") / "tiny"
    shutil.copytree(tiny_world, folder)
    (folder / "photos").mkdir()
    ground = RasterSource.open(folder / "aerial.tif")
    random = np.random.default_rng(5)
    places = random.permutation(np.argwhere(np.ones((7, 7))) - 3)[: len(FOCAL_MM)] * 19.2
    turned = random.integers(0, 32, len(FOCAL_MM))
    files = [f"photos/photo{number}.png" for number in range(len(FOCAL_MM))]
    for (east, north), turn, focal, fov, name in zip(
        places, turned, FOCAL_MM, FOV_DEG, files, strict=True
    ):
        tile = ground.read_tile(east, north, 76.8, 128)[0]
        canvas = shift_canvas(tile_to_polar(tile, 128, 512), int(turn))
        exif = Image.Exif()
        exif[0x0110] = "pinhole"
        exif.get_ifd(IFD.Exif)[0xA405] = focal
        Image.fromarray(through_a_pinhole(canvas, fov)).save(folder / name, exif=exif)
    table = {
        "file": files,
        "east_m": places[:, 0],
        "north_m": places[:, 1],
        "heading_deg": (-11.25 * turned) % 360,
        "fov_deg": FOV_DEG,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "photos.parquet")
    return folder


def test_every_photo_has_the_canvas_of_its_width_and_its_own_truth(
    world: Path, tiny_world: Path
) -> None:
    assert has_photos(world)
    assert not has_photos(tiny_world)
    photos = load_photos(world)
    queries = photo_queries(photos)
    assert [one.bins for one in queries] == [8] * 4 + [6] * 3
    assert [one.views.shape for one in queries] == ([(1, 128, 128, 3)] * 4 + [(1, 128, 96, 3)] * 3)
    np.testing.assert_array_equal(np.concatenate([q.places for q in queries]), photos.places)
    headings = np.concatenate([q.heading_deg for q in queries])
    np.testing.assert_array_equal(headings, photos.heading_deg)


def ways(world: Path, student: TwoBranch, teacher: GeoSSK | None = None) -> list[DescribedTown]:
    """The world as the student alone answers, and with the teacher if there is one."""
    town = load_town(world)
    references = TownReferences.describe(town, student, viewpoints=1)
    sure = Calibration((ViewCalibration(32, 60.0),))
    models = [Models(student, None, sure)]
    if teacher is not None:
        models.append(Models(student, teacher, sure))
    return [DescribedTown(town, references, each) for each in models]


def test_a_model_that_knows_every_photo_places_them_all(
    world: Path, tiny_student: TwoBranch, tiny_teacher: GeoSSK
) -> None:
    photos, both = load_photos(world), ways(world, tiny_student, tiny_teacher)
    found = Answers.joined([both[0].answers(one) for one in photo_queries(photos)])
    assert (found.rank == 0).all()
    first = both[0].references.centres_m[[one.places[0].row for one in found.found]]
    np.testing.assert_allclose(first, photos.places, atol=1e-3)
    rows = photo_rows(both, photos)
    assert [(row["radius_m"], row["reranked"]) for row in rows] == [
        (None, False), (None, True), (200.0, False), (200.0, True),
    ]  # fmt: skip
    assert [row["photos"] for row in rows] == [7] * 4
    alone = rows[0]
    # Every camera stands on a place of the grid, but the neighbours of the right one score too.
    assert alone["within_25_m"] == 1.0
    assert alone["median_error_m"] < 10
    assert alone["median_heading_error_located_deg"] < 6


def test_photos_from_outside_are_not_placed(world: Path, tiny_student: TwoBranch) -> None:
    photos = load_photos(world)
    moved = PhotoQueries(photos.files, photos.places + 5000, photos.heading_deg, photos.fov_deg)
    everywhere, near = photo_rows(ways(world, tiny_student), moved)
    assert everywhere["within_50_m"] == near["within_50_m"] == 0
    assert everywhere["median_heading_error_located_deg"] is None


def test_the_table_has_a_line_for_each_kind_of_help(world: Path, tiny_student: TwoBranch) -> None:
    rows = photo_rows(ways(world, tiny_student), load_photos(world))
    again = [{**row, "reranked": True, "within_25_m": 0.5} for row in rows]
    town = {"fov_deg": 360.0, "view": "crop", "heading": "unknown", "radius_m": None}
    town |= {"reranked": False, "queries": 1, "gallery": 1, "within_25_m": 1.0, "chance_25_m": 0.1}
    origin = {"data": "town", "command": "evaluate", "date": "today", "machine": "m"}
    report = {**origin, "rows": [town], "photos": [*again, *rows]}
    text = perspective_section([parse_report(TownReport, report)])
    lines = [line for line in text.splitlines() if line.startswith("| town | 7")]
    assert ["no help" in lines[0], "within 200 m" in lines[1], len(lines)] == [True, True, 2]
    assert "| 100.0 / 50.0 |" in lines[0]
