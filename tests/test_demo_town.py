"""What is measured is what a visitor gets: every photo of the demo town, by both ways of asking.

The page and ``Localizer.locate`` are handed a file or an array; the evaluation asks the town's queries.
Answers must be equal number by number.
"""

from __future__ import annotations

import html
from pathlib import Path

import geopandas
import numpy as np
import pytest
from PIL import Image

from app import fragments, handlers
from app.api import locate_record
from app.map_view import BaseMap
from core.checkpoints import load_student, load_teacher, model_hash
from core.commands.locate import describe
from core.data.worlds import load_photos, load_town
from core.evaluation.answers import DescribedTown, Help
from core.evaluation.queries import Queries, crop_queries, photo_queries
from core.evaluation.towns import GALLERY_PIXELS, references_of
from core.gallery.folder import Gallery
from core.localization.answer import Answer, Models
from core.localization.calibration import Calibration
from core.localization.localizer import Localizer
from core.localization.output import percent, prediction_record, write_predictions
from core.polar import BIN_DEG
from core.records import Prediction, SearchArea

ASSETS = Path(__file__).resolve().parent.parent / "assets"
TOWN, STUDENT, TEACHER = (
    ASSETS / "town",
    ASSETS / "models" / "student",
    ASSETS / "models" / "teacher",
)


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer.open(TOWN, STUDENT, TEACHER)


@pytest.fixture(scope="module")
def described() -> DescribedTown:
    """As ``python -m core evaluate`` opens it."""
    student, (teacher, config) = load_student(STUDENT)[0], load_teacher(TEACHER)
    town = load_town(TOWN, tile_pixels=GALLERY_PIXELS)
    references = references_of(TOWN, town, student.eval(), model_hash(STUDENT))
    assert isinstance(references, Gallery)
    calibration = Calibration.from_config(config["calibration"])
    return DescribedTown(town, references, Models(student, teacher.eval(), calibration))


def assert_same(answer: Answer, prediction: Prediction) -> None:
    places = answer.places[: len(prediction.candidates)]
    assert [place.row for place in places] == [one.row for one in prediction.candidates]
    for place, candidate in zip(places, prediction.candidates, strict=True):
        assert place.probability == pytest.approx(candidate.probability, abs=1e-9)
        assert place.similarity == candidate.similarity
        assert place.teacher_score == candidate.teacher_score
        assert place.heading_deg == candidate.heading_deg
        assert place.radius_m == candidate.radius_m
    assert answer.confident == prediction.confident
    assert answer.outside_probability == pytest.approx(prediction.outside_probability, abs=1e-9)


def assert_same_position(gallery: Gallery, answer: Answer, prediction: Prediction) -> None:
    east, north = gallery.frame.to_metres(prediction.candidates[0].camera)
    assert answer.places[0].position_m == pytest.approx((east, north), abs=1e-6)


def test_every_photo_is_placed_by_evaluation_page_and_localizer_alike(localizer, described):
    photos = load_photos(TOWN)
    queries = photo_queries(photos)
    assert len(queries) == 24
    base = BaseMap("overview.jpg", -1, -1, 1, 1)
    page = handlers.Page(localizer, base, tuple(photos.files))
    for file, query in zip(photos.files, queries, strict=True):
        answer = described.answers(query).found[0]
        found = localizer.locate(file)
        assert_same(answer, found)
        assert_same_position(described.references, answer, found)
        shown = handlers.locate(page, str(file), None, handlers.LocateRequest()).prediction
        assert shown.candidates == found.candidates
        assert shown.confidence == found.confidence


@pytest.mark.parametrize("bins", [32, 24, 16])
def test_every_view_of_a_panorama_is_placed_alike(localizer, described, bins: int):
    """Twenty of each width, with a compass and a circle besides."""
    queries = crop_queries(described.town, bins, 20, 5)
    assert len(queries.views) == 20
    for given in (Help(), Help(heading_known=True, radius_m=200.0)):
        some = queries if given == Help() else _first(queries, 4)
        answers = described.answers(some, given).found
        for at, answer in enumerate(answers):
            assert_same(answer, _located(localizer, some, at, given))


def _first(queries: Queries, count: int) -> Queries:
    return Queries(
        queries.views[:count], queries.bins, queries.places[:count], queries.heading_deg[:count]
    )


def _located(localizer: Localizer, queries: Queries, at: int, given: Help) -> Prediction:
    picture = Image.fromarray(queries.views[at])
    heading = float(queries.heading_deg[at]) if given.heading_known else None
    near = None
    if given.radius_m is not None:
        east, north = np.asarray(queries.places[at], np.float64)
        near = SearchArea(
            localizer.gallery.frame.to_place(float(east), float(north)), given.radius_m
        )
    fov_deg = None if queries.bins == 32 else queries.bins * BIN_DEG
    return localizer.locate(picture, fov_deg=fov_deg, heading_deg=heading, near=near)


@pytest.mark.parametrize("number", [0, 7])
def test_one_photo_has_one_probability_everywhere(localizer, tmp_path, number: int):
    """Headline, card, map, command line, JSON, HTTP API, GeoJSON, CSV and GeoPackage."""
    file = load_photos(TOWN).files[number]
    page = handlers.Page(localizer, BaseMap("overview.jpg", -1, -1, 1, 1), (file,))
    answer = handlers.locate(page, str(file), None, handlers.LocateRequest())
    first = answer.prediction.candidates[0]
    said = percent(first.probability)
    verdict, document, _, cards = handlers.show(page, answer, 1, None, False)
    assert f"{fragments.esc(said)} that place 1" in verdict
    assert f'<span class="cv-share">{fragments.esc(said)}</span>' in cards
    assert f"Place 1: {said}" in html.unescape(document)
    assert f"first place {said}," in describe(answer.prediction)

    expected = round(first.probability, 9)
    records = [locate_record(page, str(file)), prediction_record(localizer.locate(file))]
    for record in records:
        assert record["confidence"] == record["candidates"][0]["probability"] == expected
    for ending in ("geojson", "csv", "gpkg"):
        path = tmp_path / f"answer.{ending}"
        write_predictions(path, [answer.prediction])
        row = geopandas.read_file(path).iloc[0]
        assert float(row["probability"]) == float(row["confidence"]) == expected
