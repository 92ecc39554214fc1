"""One way to an answer: a town described in memory is the gallery of its picture, number by number.

What is measured on towns is then what a visitor is answered. The tiny town's raster has pixels of 0.6 m,
so its gallery's tiles have 128.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.data.worlds import Town, load_town
from core.evaluation.answers import NO_HELP, Answers, DescribedTown, Help
from core.evaluation.fit import FITTED_BINS
from core.evaluation.queries import town_queries
from core.evaluation.towns import TownReferences, references_of
from core.evaluation.trust import state
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.localization.answer import Answer, Models
from core.localization.calibration import Calibration, ViewCalibration
from core.localization.localizer import Localizer
from core.localization.refinement import STEPS, STRIDE_M
from core.models.two_branch import TwoBranch
from core.photos.canvas import GroundCanvas
from core.photos.opening import open_photo
from core.polar import BIN_DEG
from tests.conftest import MODEL_HASH, TINY_TILE_PX

COUNT = 3
HELPS = {
    "no help": NO_HELP,
    "compass": Help(heading_known=True),
    "within 30 m": Help(radius_m=30.0),
    "both": Help(heading_known=True, radius_m=40.0),
    "12 places": Help(places=12),
}
CALIBRATION = Calibration(
    tuple(
        ViewCalibration(bins, 20.0, 8.0, rest=-1.0, outside=10.0, growth=1.0, threshold=0.9)
        for bins in (32, 8)
    ),
    viewpoints=4,
)


@pytest.fixture(scope="module")
def town(tiny_world) -> Town:
    return load_town(tiny_world, tile_pixels=TINY_TILE_PX)


def gallery_of(raster: Path, out: Path, student: TwoBranch, viewpoints: int = 4) -> Gallery:
    settings = GallerySettings(tile_pixels=TINY_TILE_PX, viewpoints=viewpoints)
    build_gallery(raster, out, tile_describer(student), "tiny", MODEL_HASH, settings)
    return Gallery.open(out)


@pytest.fixture(scope="module")
def gallery(tiny_raster, tiny_student, tmp_path_factory) -> Gallery:
    return gallery_of(tiny_raster, tmp_path_factory.mktemp("one-way"), tiny_student)


@pytest.fixture(scope="module")
def references(town, tiny_student) -> TownReferences:
    return TownReferences.describe(town, tiny_student)


def assert_same_places(town: TownReferences, gallery: Gallery) -> None:
    assert len(town.index) == len(gallery.index)
    every = np.arange(len(gallery.index))
    held, described = gallery.index.reconstruct(every), town.index.reconstruct(every)
    np.testing.assert_array_equal(described, held)
    np.testing.assert_array_equal(town.centres_m, gallery.centres_m)
    np.testing.assert_array_equal(town.viewpoints_m, gallery.viewpoints_m)
    assert (town.tile_side_m, town.cell_area_m2) == (gallery.tile_side_m, gallery.cell_area_m2)


@pytest.mark.parametrize("viewpoints", [1, 4, 9])
def test_a_town_has_the_places_and_descriptors_of_its_gallery(
    town, tiny_raster, tiny_student, tmp_path, viewpoints: int
) -> None:
    described = TownReferences.describe(town, tiny_student, viewpoints)
    assert_same_places(described, gallery_of(tiny_raster, tmp_path / "g", tiny_student, viewpoints))


def test_the_index_has_the_same_bytes(references, gallery, tmp_path) -> None:
    references.index.save(tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    assert names
    for name in names:
        assert (tmp_path / name).read_bytes() == (gallery.path / name).read_bytes()


@pytest.mark.parametrize("reach_m", [5.0, 200.0])
def test_tiles_are_cut_alike_wherever_they_lie(references, gallery, reach_m: float) -> None:
    """Near one another, where a gallery reads one piece, and far apart; all moved inside."""
    points = np.random.default_rng(0).uniform(-reach_m, reach_m, (20, 2))
    points[:, 0] += 3.1
    np.testing.assert_array_equal(references.inside(points), gallery.inside(points))
    inside = gallery.inside(points)
    np.testing.assert_array_equal(references.tiles_at(inside), gallery.tiles_at(inside))


def test_steps_beside_an_estimate_are_cut_alike(references, gallery) -> None:
    """Also where they span an odd number of pixels, whose middle is none of the picture's pixels."""
    random = np.random.default_rng(1)
    for estimate in random.uniform(-57, 57, (40, 2)):
        points = gallery.inside(estimate + STRIDE_M * STEPS)
        np.testing.assert_array_equal(references.tiles_at(points), gallery.tiles_at(points))


def assert_same_answer(one: Answer, other: Answer) -> None:
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_allclose(one.tile_probabilities, other.tile_probabilities, rtol=0, atol=1e-9)
    assert one.rest_probability == pytest.approx(other.rest_probability, abs=1e-9)
    assert one.outside_probability == pytest.approx(other.outside_probability, abs=1e-9)
    assert (one.area_50_m2, one.area_90_m2) == (other.area_50_m2, other.area_90_m2)
    assert [place.row for place in one.places] == [place.row for place in other.places]
    for here, there in zip(one.places, other.places, strict=True):
        np.testing.assert_allclose(here.position_m, there.position_m, rtol=0, atol=1e-9)
        for name in ("probability", "similarity", "teacher_score", "heading_deg", "azimuth_shift"):
            expected = getattr(there, name)
            assert getattr(here, name) == (
                None if expected is None else pytest.approx(expected, abs=1e-9)
            ), name


def assert_one_way(town: Town, references, gallery: Gallery, models: Models, bins: int) -> None:
    queries = town_queries(town, bins, COUNT, seed=0)
    for given in HELPS.values():
        ways = [DescribedTown(town, places, models) for places in (references, gallery)]
        measured, answered = (way.answers(queries, given) for way in ways)
        for one, other in zip(measured.found, answered.found, strict=True):
            assert_same_answer(one, other)
        np.testing.assert_array_equal(measured.rank, answered.rank)
        np.testing.assert_allclose(measured.error_m, answered.error_m, atol=1e-9)


@pytest.mark.parametrize("bins", FITTED_BINS)
def test_a_town_is_answered_as_its_gallery(
    town, references, gallery, tiny_student, tiny_teacher, bins: int
) -> None:
    """At every width and with every help, by the student alone and re-ranked."""
    for models in (
        Models(tiny_student, None, CALIBRATION),
        Models(tiny_student, tiny_teacher, CALIBRATION),
    ):
        assert_one_way(town, references, gallery, models, bins)


@pytest.mark.parametrize("bins", [32, 8])
def test_a_global_student_is_answered_as_its_gallery(
    town, tiny_raster, tiny_global_student, tiny_teacher, tmp_path, bins: int
) -> None:
    gallery = gallery_of(tiny_raster, tmp_path / "g", tiny_global_student)
    references = TownReferences.describe(town, tiny_global_student)
    assert_same_places(references, gallery)
    for teacher in (None, tiny_teacher):
        models = Models(tiny_global_student, teacher, CALIBRATION)
        assert_one_way(town, references, gallery, models, bins)


@pytest.mark.parametrize("reranked", [False, True])
@pytest.mark.parametrize("bins", [32, 8])
def test_what_is_measured_is_what_the_localizer_says(
    bins, reranked, town, references, gallery, tiny_student, tiny_teacher, monkeypatch
) -> None:
    """The very probabilities and positions that a visitor reads, and whether it is a match."""
    teacher = tiny_teacher if reranked else None
    localizer = Localizer(gallery, tiny_student, teacher, CALIBRATION)
    described = DescribedTown(town, references, localizer.models)
    queries = town_queries(town, bins, 4, 0)
    measured, stated = described.answers(queries), state(described, queries, NO_HELP)
    for at, view in enumerate(queries.views):
        canvas = GroundCanvas(view, bins, bins * BIN_DEG, np.ones(view.shape[:2], bool))
        monkeypatch.setattr(localizer, "view", lambda *_, c=canvas: (open_photo(c.image), c))
        found, expected = localizer.locate(view, top_k=100), measured.found[at]
        assert found.confidence == pytest.approx(stated.confidence[at], abs=1e-9)
        assert found.outside_probability == pytest.approx(stated.outside[at], abs=1e-9)
        assert found.confident == stated.confident[at]
        assert [one.row for one in found.candidates] == [place.row for place in expected.places]
        positions = [gallery.frame.to_metres(one.camera) for one in found.candidates]
        np.testing.assert_allclose(
            positions, [place.position_m for place in expected.places], atol=1e-4
        )
        assert (np.hypot(*(queries.places[at] - positions[0])) <= 25) == stated.right[at]
        assert found.heading_deg == pytest.approx(expected.places[0].heading_deg, abs=1e-9)


def test_photos_answered_at_a_time_are_answered_alike(
    town, references, tiny_student, tiny_teacher
) -> None:
    models = Models(tiny_student, tiny_teacher, CALIBRATION)
    queries = town_queries(town, 8, 6, 0)
    alone: Answers = DescribedTown(town, references, models, workers=1).answers(queries)
    together = DescribedTown(town, references, models, workers=3).answers(queries)
    for one, other in zip(alone.found, together.found, strict=True):
        assert_same_answer(one, other)


def test_a_world_that_is_its_own_gallery_is_searched_as_such(
    town, tiny_world, tiny_student, tmp_path
) -> None:
    """If this student described it from as many viewpoints; otherwise it is described anew."""
    raster = tiny_world / "aerial.tif"
    folder = tmp_path / "world"
    assert isinstance(references_of(folder, town, tiny_student, MODEL_HASH), TownReferences)
    gallery_of(raster, folder, tiny_student)
    assert isinstance(references_of(folder, town, tiny_student, MODEL_HASH), Gallery)
    assert isinstance(references_of(folder, town, tiny_student, "f" * 64), TownReferences)
    fewer = references_of(folder, town, tiny_student, MODEL_HASH, viewpoints=1)
    assert isinstance(fewer, TownReferences)
    assert len(fewer.viewpoints_m) == 1
