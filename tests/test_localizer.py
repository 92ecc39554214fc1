"""Photo in, Prediction out: run alone with ``pytest tests/test_localizer.py``.

The models are untrained, but their branches are twins: the polar view of a tile, taken as a
panorama, has that tile's descriptor. So the true place, azimuth shift and heading of every query
are known.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.worlds import Town, load_town
from core.errors import PhotoError, SettingError
from core.evaluation.answers import DescribedTown, rows_within
from core.evaluation.fit import gather
from core.evaluation.queries import crop_queries
from core.evaluation.towns import TownReferences
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.geo import distance_m, group_places
from core.localization import ranking
from core.localization.answer import Evidence, Models, answer, rank
from core.localization.calibration import Calibration, ViewCalibration
from core.localization.localizer import Localizer
from core.models import alignment
from core.photos.opening import open_photo
from core.photos.views import ground_batch
from core.polar import heading_from_shift, to_batch
from core.records import Place, SearchArea
from tests.canvases import shift_canvas, tile_to_polar
from tests.conftest import MODEL_HASH

ROW = 17
TEACHER_DECIDES = Calibration((ViewCalibration(32, 1e-3, 20.0),))
FITTED = Calibration((ViewCalibration(32, 60.0, rest=-1.0, outside=48.0, growth=1.0),))
"""For the tiny models: a photo of the town itself is a match, one that fits less is from outside."""


@pytest.fixture(scope="module")
def localizer(tiny_gallery, tiny_student):
    return Localizer(tiny_gallery, tiny_student)


@pytest.fixture(scope="module")
def with_teacher(tiny_gallery, tiny_student, tiny_teacher):
    return Localizer(tiny_gallery, tiny_student, tiny_teacher, TEACHER_DECIDES)


def panorama_at(gallery, row: int, turned_bins: int = 0) -> np.ndarray:
    """What an ideal camera at a tile's centre would see, its content moved right by bins."""
    return shift_canvas(tile_to_polar(gallery.tile_image(row)), turned_bins)


@pytest.mark.parametrize("turned", [0, 5, 31])
def test_a_panorama_finds_its_place_and_heading(localizer, turned):
    photo = panorama_at(localizer.gallery, ROW, turned)
    found = localizer.locate(photo)
    first = found.candidates[0]
    assert first.row == ROW
    assert first.tile.tile_id == localizer.gallery.tile_ids[ROW]
    assert 0.9 < first.similarity <= 1
    assert abs((first.azimuth_shift + turned + 16) % 32 - 16) < 0.2
    # Content moved right by a bin turns the heading left by 11.25 degrees.
    error = (first.heading_deg - (-11.25 * turned) + 180) % 360 - 180
    assert abs(error) < 2
    assert found.heading_deg == first.heading_deg


def test_prediction_is_complete_and_in_order(localizer):
    found = localizer.locate(panorama_at(localizer.gallery, ROW), top_k=3)
    assert [candidate.rank for candidate in found.candidates] == [1, 2, 3]
    assert set(found.timings_ms) == {"photo", "describe", "search", "rerank", "position", "total"}
    assert found.timings_ms["total"] >= found.timings_ms["describe"] > 0
    assert found.fov_deg == 360
    assert 0 <= found.confidence <= 1
    assert all(0 <= candidate.probability <= 1 for candidate in found.candidates)
    assert all(candidate.teacher_score is None for candidate in found.candidates)


def test_candidates_are_distinct_places_that_share_all_probability(localizer):
    found = localizer.locate(panorama_at(localizer.gallery, ROW), top_k=100)
    centres = np.array([[c.tile.east_m, c.tile.north_m] for c in found.candidates])
    apart = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 38.4
    # All 49 places are in the ranking, and nothing was fitted that would put a photo outside.
    assert (found.rest_probability, found.outside_probability) == (0, 0)
    assert sum(candidate.probability for candidate in found.candidates) == pytest.approx(1)


@pytest.fixture(scope="module")
def fitted(tiny_gallery, tiny_student, tiny_teacher):
    """Localizers with a fitted outside, without and with the teacher."""
    (view,) = FITTED.views
    both = Calibration((replace(view, teacher=20.0, outside=68.0),))
    return (
        Localizer(tiny_gallery, tiny_student, None, FITTED),
        Localizer(tiny_gallery, tiny_student, tiny_teacher, both),
    )


SETTINGS = st.fixed_dictionaries(
    {
        "row": st.integers(0, 48),
        "turned": st.integers(0, 31),
        "fov_deg": st.sampled_from([None, 180.0, 90.0, 70.0]),
        "heading_deg": st.sampled_from([None, 0.0, 123.4]),
        "radius_m": st.sampled_from([None, 1.0, 25.0, 60.0]),
        "top_k": st.sampled_from([1, 3, 100]),
        "reranked": st.booleans(),
    }
)


@settings(max_examples=60)
@given(SETTINGS)
def test_all_probabilities_sum_to_one_whatever_is_known(fitted, chosen):
    one = fitted[chosen["reranked"]]
    photo, fov = panorama_at(one.gallery, chosen["row"], chosen["turned"]), chosen["fov_deg"]
    if fov is not None:
        photo = photo[:, : round(fov / 360 * 512)]
    centre = one.gallery.tile(30).place
    near = None if chosen["radius_m"] is None else SearchArea(centre, chosen["radius_m"])
    found = one.locate(photo, fov, chosen["heading_deg"], near, chosen["top_k"])
    assert 1 <= len(found.candidates) <= chosen["top_k"]
    shares = [candidate.probability for candidate in found.candidates]
    everything = sum(shares) + found.rest_probability + found.outside_probability
    assert everything == pytest.approx(1, abs=1e-9)
    assert min(*shares, found.rest_probability, found.outside_probability) >= 0
    assert found.confidence == shares[0] == max(shares)
    assert found.confident == (found.confidence > 0.5)


def test_fewer_places_are_the_same_answer(fitted):
    """What is not listed is in the rest; the other numbers stay."""
    for one in fitted:
        photo = panorama_at(one.gallery, ROW)
        every, three = one.locate(photo, top_k=100), one.locate(photo, top_k=3)
        assert three.candidates == every.candidates[:3]
        unlisted = sum(candidate.probability for candidate in every.candidates[3:])
        assert unlisted > 0
        assert three.rest_probability == pytest.approx(every.rest_probability + unlisted, abs=1e-12)
        for name in ("confident", "confidence", "outside_probability", "area_50_m2", "area_90_m2"):
            assert getattr(three, name) == getattr(every, name)


def test_places_come_in_the_order_of_their_probability(tiny_gallery, tiny_student):
    # So flat that a place with many tiles outweighs one whose best tile is better.
    flat = Calibration((ViewCalibration(32, 1.0),))
    localizer = Localizer(tiny_gallery, tiny_student, calibration=flat)
    reordered = 0
    for row in (0, 6, 24, 42, 48):
        found = localizer.locate(panorama_at(tiny_gallery, row), top_k=100).candidates
        shares = [candidate.probability for candidate in found]
        assert shares == sorted(shares, reverse=True)
        assert [candidate.rank for candidate in found] == list(range(1, len(found) + 1))
        reordered += found[0].similarity < max(candidate.similarity for candidate in found)
    assert reordered


def test_a_part_of_a_panorama_finds_its_place_and_heading(localizer):
    # 10 bins that begin 90 degrees right of south, seen as equal angles.
    part = panorama_at(localizer.gallery, ROW)[:, 8 * 16 : 24 * 16]
    found = localizer.locate(part, fov_deg=180)
    assert found.fov_source == "typed"
    assert found.candidates[0].row == ROW
    assert abs((found.heading_deg - heading_from_shift(8, 16) + 180) % 360 - 180) < 8


def test_known_heading_is_kept_and_a_wrong_one_hurts(localizer):
    photo = panorama_at(localizer.gallery, ROW)
    right = localizer.locate(photo, heading_deg=0.0)
    assert right.candidates[0].row == ROW
    assert right.heading_deg == 0.0
    assert {candidate.heading_deg for candidate in right.candidates} == {0.0}
    wrong = localizer.locate(photo, heading_deg=-90)
    assert wrong.heading_deg == 270
    assert wrong.candidates[0].similarity < right.candidates[0].similarity


def test_near_searches_the_circle_only_and_says_so(localizer):
    gallery = localizer.gallery
    far = gallery.tile(48)
    found = localizer.locate(panorama_at(gallery, ROW), near=SearchArea(far.place, 45.0))
    for candidate in found.candidates:
        assert (
            np.hypot(candidate.tile.east_m - far.east_m, candidate.tile.north_m - far.north_m) < 45
        )
    assert any("of 49 places, within 45 m" in note for note in found.notes)


def probability_at(found, gallery, row: int) -> float:
    """The probability of the listed place that a row belongs to; 0 where none is listed."""
    own = gallery.tile(row)
    near = [
        candidate.probability
        for candidate in found.candidates
        if np.hypot(candidate.tile.east_m - own.east_m, candidate.tile.north_m - own.north_m) < 20
    ]
    return sum(near)


@pytest.mark.parametrize("radius_m", [1.0, 25.0, 45.0])
@pytest.mark.parametrize("row", [ROW, 24, 0])
def test_the_right_circle_does_not_lower_the_right_place(fitted, row, radius_m):
    """A circle is evidence: it takes probability from the places that it excludes, and from outside."""
    for one in fitted:
        gallery, photo = one.gallery, panorama_at(one.gallery, row)
        near = SearchArea(gallery.tile(row).place, radius_m)
        everywhere, around = one.locate(photo, top_k=100), one.locate(photo, near=near, top_k=100)
        before = probability_at(everywhere, gallery, row)
        assert probability_at(around, gallery, row) >= before - 1e-9
        assert around.confident
        assert around.outside_probability <= everywhere.outside_probability


@pytest.mark.parametrize("radius_m", [1.0, 25.0])
def test_a_circle_that_excludes_the_place_leaves_no_confident_match(fitted, radius_m):
    """Few places are left in it and all are one; but the photo fits them no better for that."""
    for one in fitted:
        photo = panorama_at(one.gallery, ROW)
        assert one.locate(photo).confident
        wrong = one.locate(photo, near=SearchArea(one.gallery.tile(48).place, radius_m))
        assert not wrong.confident
        assert wrong.outside_probability > wrong.confidence


def test_a_known_heading_is_evidence_too(fitted):
    for one in fitted:
        photo = panorama_at(one.gallery, ROW)
        unknown, right = one.locate(photo), one.locate(photo, heading_deg=0.0)
        assert right.confidence >= unknown.confidence - 1e-3
        assert one.locate(photo, heading_deg=90.0).confidence < unknown.confidence


@pytest.mark.parametrize("threshold", [0.6, 0.99, 1.0])
def test_a_first_place_below_the_threshold_is_no_confident_match(
    tiny_gallery, tiny_student, threshold
):
    (view,) = FITTED.views
    free = replace(view, outside=50.6)
    photo = panorama_at(tiny_gallery, ROW)
    before = Localizer(tiny_gallery, tiny_student, None, Calibration((free,))).locate(photo)
    held = Calibration((replace(free, threshold=threshold),))
    after = Localizer(tiny_gallery, tiny_student, None, held).locate(photo)
    assert 0.6 < before.confidence < 0.99
    assert before.confident
    assert after.candidates == before.candidates
    assert after.confident == (before.confidence >= threshold)
    assert after.verdict == ("match" if after.confident else "likely")


def test_teacher_scores_the_first_tiles_and_keeps_a_true_first(with_teacher):
    found = with_teacher.locate(panorama_at(with_teacher.gallery, ROW, 3))
    assert found.candidates[0].row == ROW
    assert 0.7 < found.candidates[0].teacher_score <= 1
    assert found.timings_ms["rerank"] > 0


def test_the_camera_is_a_point_in_the_place(localizer, with_teacher):
    """Somewhere between the places that have a say, and none of them farther than the next but one."""
    for one in (localizer, with_teacher):
        first = one.locate(panorama_at(one.gallery, ROW)).candidates[0]
        east, north = one.gallery.frame.to_metres(first.camera)
        off = np.hypot(east - first.tile.east_m, north - first.tile.north_m)
        assert 0 < off < 28.8 + 4.8 * 2**0.5
        assert first.radius_m is None  # nothing was measured for these


def test_a_gallery_described_otherwise_than_the_fit_is_told(localizer):
    photo = panorama_at(localizer.gallery, ROW)
    for viewpoints, is_noted in ((None, False), (1, False), (4, True)):
        calibration = Calibration(viewpoints=viewpoints)
        one = Localizer(localizer.gallery, localizer.models.student, calibration=calibration)
        notes = one.locate(photo).notes
        said = "fitted with places described from 4 viewpoints"
        assert any(said in note for note in notes) == is_noted


def ranking_of(localizer, photo):
    """The ranking behind an answer."""
    return rank(localizer.gallery, localizer.models, localizer.view(photo)[1].image)


def test_teacher_overrules_the_student(with_teacher, monkeypatch):
    gallery, models = with_teacher.gallery, with_teacher.models
    photo = panorama_at(gallery, ROW)
    before = Localizer(gallery, models.student).locate(photo)
    second = before.candidates[1].row
    rows = ranking_of(with_teacher, photo).rows[:20]
    cuts, compared = [], []
    original = gallery.tiles_at

    def remember(points):
        cuts.append(points)
        return original(points)

    def prefer_second(ground, places, near):
        # At first all twenty, then the best of them mirrored, the very best first; then the
        # best from where the student estimates the camera and from around there.
        compared.append(len(places))
        liked = rows == second if len(places) == 20 else np.arange(len(places)) == 0
        return torch.from_numpy(liked)[None].float(), near

    monkeypatch.setattr(gallery, "tiles_at", remember)
    monkeypatch.setattr(models.teacher, "scores_near", prefer_second)
    after = with_teacher.locate(photo)
    assert [len(points) for points in cuts] == [20, 5]
    assert compared == [20, alignment.MIRRORED, 5]
    camera = np.array(gallery.frame.to_metres(after.candidates[0].camera))
    assert np.hypot(*(cuts[0] - camera).T).min() < 0.01
    assert after.candidates[0].row == second
    assert after.candidates[0].teacher_score == 1.0


def test_global_student_finds_the_place_and_knows_no_heading(
    tiny_global_gallery, tiny_global_student
):
    localizer = Localizer(tiny_global_gallery, tiny_global_student)
    found = localizer.locate(panorama_at(tiny_global_gallery, ROW, 9))
    assert found.candidates[0].row == ROW
    assert found.heading_deg is None
    assert found.candidates[0].azimuth_shift is None
    assert localizer.locate(panorama_at(tiny_global_gallery, ROW), heading_deg=45).heading_deg == 45


def test_teacher_gives_a_global_student_its_heading(
    tiny_global_gallery, tiny_global_student, tiny_teacher
):
    localizer = Localizer(tiny_global_gallery, tiny_global_student, tiny_teacher, TEACHER_DECIDES)
    found = localizer.locate(panorama_at(tiny_global_gallery, ROW, 9))
    assert found.candidates[0].row == ROW
    assert found.candidates[0].azimuth_shift == 23
    assert found.heading_deg == heading_from_shift(23, 32)


@pytest.mark.parametrize("fov_deg", [None, 65, 120, 200])
def test_global_student_takes_any_field_of_view(tiny_global_gallery, tiny_global_student, fov_deg):
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    localizer = Localizer(tiny_global_gallery, tiny_global_student)
    assert localizer.locate(photo, fov_deg=fov_deg).candidates


def test_explanation_of_a_candidate(with_teacher):
    photo = panorama_at(with_teacher.gallery, ROW, 3)
    first = with_teacher.locate(photo).candidates[0]
    seen = with_teacher.explain(photo, first.row, first.azimuth_shift)
    assert seen.azimuth_shift == first.azimuth_shift == pytest.approx(29, abs=0.2)
    assert seen.canvas.shape == (128, 512, 3)
    assert seen.tile.shape == (128, 128, 3)
    assert seen.phi_ground.sum() == pytest.approx(1, abs=1e-4)
    assert seen.phi_aerial.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(seen.ground_to_aerial.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(seen.aerial_to_ground.sum(axis=1), 1, atol=1e-4)
    assert -1 <= seen.teacher_score <= 1


def test_explanation_finds_the_shift_where_none_is_given(with_teacher):
    assert with_teacher.explain(
        panorama_at(with_teacher.gallery, ROW, 3), ROW
    ).azimuth_shift == pytest.approx(29, abs=0.2)


def test_an_explanation_is_cut_around_the_camera(with_teacher):
    gallery = with_teacher.gallery
    photo, own = panorama_at(gallery, ROW), gallery.tile(ROW)
    there = gallery.frame.to_place(own.east_m + 9.6, own.north_m - 4.8)
    seen = with_teacher.explain(photo, ROW, 0, camera=there)
    side = gallery.manifest.tile_pixels
    east, north = round(9.6 / own.side_m * side), round(4.8 / own.side_m * side)
    before = gallery.tile_image(ROW)[north:, east:].astype(int)
    assert np.abs(before - seen.tile[: side - north, : side - east]).mean() < 2
    at_home = with_teacher.explain(photo, ROW, 0, camera=own.place)
    assert (at_home.tile == gallery.tile_image(ROW)).all()
    outside = with_teacher.explain(photo, ROW, 0, camera=Place(60.0, 24.0))  # moved inwards
    assert outside.tile.any()


def test_explanation_of_a_photo_has_as_many_bins(with_teacher):
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    seen = with_teacher.explain(photo, ROW, 0, fov_deg=90)
    assert seen.ground_grid == (4, 8)
    assert seen.ground_to_aerial.shape == (32, 128)


def test_an_opened_photo_serves_as_well_as_its_picture(localizer):
    picture = panorama_at(localizer.gallery, ROW)
    assert localizer.locate(open_photo(picture, name="a.jpg")).photo == "a.jpg"


def test_threads_share_one_localizer_and_get_one_answer(with_teacher):
    photos = [panorama_at(with_teacher.gallery, row, row) for row in (3, 17, 30, 44)]
    alone = [with_teacher.locate(photo).candidates for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = [found.candidates for found in pool.map(with_teacher.locate, photos)]
    assert together == alone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fov_deg": 0}, "Field of view: got '0'"),
        ({"fov_deg": 400}, "Field of view: got '400'"),
        ({"fov_deg": "wide"}, "Field of view: got 'wide'"),
        ({"heading_deg": "north"}, "Heading: got 'north'"),
        ({"heading_deg": float("nan")}, "Heading: got 'nan'"),
        ({"top_k": 0}, "Number of places: got 0"),
        ({"near": SearchArea(Place(0, 0), 0)}, "Search radius: got 0"),
        ({"near": SearchArea(Place(60, 24), 200)}, "where the gallery has no place"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(localizer, options, sentence):
    with pytest.raises(SettingError, match=sentence):
        localizer.locate(panorama_at(localizer.gallery, ROW), **options)


def test_no_photo_and_no_teacher_are_one_sentence(localizer):
    with pytest.raises(PhotoError, match="got none"):
        localizer.locate(None)
    with pytest.raises(SettingError, match="got no teacher"):
        localizer.explain(panorama_at(localizer.gallery, ROW), ROW)


def test_a_row_outside_the_gallery_is_one_sentence(with_teacher):
    with pytest.raises(SettingError, match="expected 0 to 48"):
        with_teacher.explain(panorama_at(with_teacher.gallery, ROW), 49)


def mixed_town(town: Town) -> Town:
    """More places than a ranking holds: the picture of the town nine times, every other one mirrored."""
    strip = np.concatenate([town.mosaic, town.mosaic[:, ::-1], town.mosaic], axis=1)
    mosaic = np.concatenate([strip, strip[::-1], strip], axis=0)
    return replace(town, size_m=3 * town.size_m, mosaic=mosaic)


@pytest.mark.parametrize("radius_m", [60.0, 140.0, 200.0])
def test_a_circle_in_a_town_larger_than_a_ranking_is_evidence(tiny_world, tiny_student, radius_m):
    """With a rest that no tile of the ranking stands for: it too shrinks with the circle."""
    town = mixed_town(load_town(tiny_world))
    references = TownReferences.describe(town, tiny_student, viewpoints=1)
    (view,) = FITTED.views
    models = Models(tiny_student, None, Calibration((replace(view, rest=2.0),)))
    queries = crop_queries(town, 32, 8, 0)
    for place, canvas in zip(queries.places, queries.views, strict=True):
        rows = rows_within(references, place, radius_m)
        before = answer(references, models, canvas)
        after = answer(references, models, canvas, Evidence(rows=rows))
        assert before.rest_probability > 0
        assert after.rest_probability < before.rest_probability
        assert (after.rest_probability > 0) == (len(rows) > ranking.POOL)
        for one in (before, after):
            everything = sum(found.probability for found in one.places)
            everything += one.rest_probability + one.outside_probability
            assert everything == pytest.approx(1, abs=1e-9)
        kept = np.isin(before.rows, rows)
        again = dict(zip(after.rows.tolist(), after.tile_probabilities, strict=True))
        for row, share in zip(before.rows[kept], before.tile_probabilities[kept], strict=True):
            assert again[int(row)] >= share


def test_probability_is_shared_as_it_was_fitted(with_teacher, tiny_world, monkeypatch):
    """A photo's ranking holds as many tiles, and as many scored by the teacher, as those of a fit."""
    town = mixed_town(load_town(tiny_world))
    references = TownReferences.describe(town, with_teacher.models.student, viewpoints=1)
    described = DescribedTown(town, references, with_teacher.models)
    fitted = gather(described, crop_queries(town, 32, 1, 0))
    assert fitted.similarities.shape[1] == ranking.POOL < len(references.centres_m)
    assert fitted.teacher.shape[1] == ranking.RERANKED
    assert np.isfinite(fitted.similarities).all()
    assert np.isfinite(fitted.teacher).all()
    asked_for = {}
    original = ranking.search_all_shifts, ranking.aligned_scores

    def searched(index, descriptor, n_bins, k, *others, **named):
        asked_for["tiles"] = k
        return original[0](index, descriptor, n_bins, k, *others, **named)

    def scored(teacher, view, tiles, *others, **named):
        asked_for["scored"] = len(tiles)
        return original[1](teacher, view, tiles, *others, **named)

    monkeypatch.setattr(ranking, "search_all_shifts", searched)
    monkeypatch.setattr(ranking, "aligned_scores", scored)
    with_teacher.locate(panorama_at(with_teacher.gallery, ROW))
    assert asked_for["tiles"] == fitted.similarities.shape[1]
    assert asked_for["scored"] == fitted.teacher.shape[1]


def test_the_probabilities_are_those_of_the_ranking(fitted):
    """By hand: the softmax over tiles and outside, and a place has the sum of its tiles."""
    one = fitted[0]
    photo = panorama_at(one.gallery, ROW)
    found, tiles = one.locate(photo, top_k=100), ranking_of(one, photo)
    (view,) = FITTED.views
    weights = np.exp(view.student * tiles.similarities.astype(np.float64) - 48)
    outside = np.exp(view.growth * np.log(49))
    weights, outside = weights / (weights.sum() + outside), outside / (weights.sum() + outside)
    assert found.outside_probability == pytest.approx(outside)
    for group in group_places(one.gallery.centres_m[tiles.rows], tiles.similarities, 38.4):
        row = tiles.rows[group[0]]
        (own,) = [candidate for candidate in found.candidates if candidate.row == row]
        assert own.probability == pytest.approx(weights[list(group)].sum())
    held = np.cumsum(-np.sort(-weights))
    assert found.area_50_m2 == pytest.approx(19.2**2 * (np.flatnonzero(held >= 0.5)[0] + 1))


def test_confidence_follows_the_calibration_of_the_views_width(tiny_gallery, tiny_student):
    sure = Calibration((ViewCalibration(32, 200), ViewCalibration(8, 200, outside=1e6)))
    localizer = Localizer(tiny_gallery, tiny_student, calibration=sure)
    photo = panorama_at(tiny_gallery, ROW)
    whole = localizer.locate(photo)
    assert whole.confidence > 0.99
    assert whole.confident
    part = localizer.locate(photo[:, 192:320], fov_deg=90)
    assert part.confidence < 0.01
    assert not part.confident
    assert part.outside_probability > 0.99


@pytest.fixture(scope="module")
def from_viewpoints(tiny_raster, tiny_student, tmp_path_factory) -> Localizer:
    out, settings = tmp_path_factory.mktemp("viewpoints"), GallerySettings(tile_pixels=128)
    build_gallery(tiny_raster, out, tile_describer(tiny_student), "tiny", MODEL_HASH, settings)
    return Localizer(Gallery.open(out), tiny_student)


def tile_at(gallery, place: Place) -> np.ndarray:
    point = gallery.inside(np.array(gallery.frame.to_metres(place)))
    return gallery.tiles_at(point[None])[0]


def viewpoint_of(gallery, viewpoint: int) -> Place:
    """Where one of the viewpoints of ROW is."""
    own = gallery.tile(ROW)
    offset = gallery.viewpoints_m[viewpoint]
    return gallery.frame.to_place(*(np.array([own.east_m, own.north_m]) + offset))


@pytest.mark.parametrize("viewpoint", range(4))
def test_a_photo_from_a_quarter_of_a_cell_finds_the_cell_and_that_quarter(
    from_viewpoints, viewpoint
):
    gallery = from_viewpoints.gallery
    tile = tile_at(gallery, viewpoint_of(gallery, viewpoint))
    photo = shift_canvas(tile_to_polar(tile), 5)
    found = ranking_of(from_viewpoints, photo)
    assert found.viewpoint_similarities[0].argmax() == viewpoint
    first = from_viewpoints.locate(photo).candidates[0]
    assert first.row == found.rows[0] == ROW
    assert first.azimuth_shift == pytest.approx(27, abs=0.2)


def test_the_teacher_compares_from_where_the_student_estimates_the_camera(
    from_viewpoints, tiny_teacher
):
    """Both ways round: the score is the mean of those of the pair and of its mirror image."""
    gallery = from_viewpoints.gallery
    photo = tile_to_polar(tile_at(gallery, viewpoint_of(gallery, 2)))
    both = Localizer(gallery, from_viewpoints.models.student, tiny_teacher, TEACHER_DECIDES)
    first = both.locate(photo).candidates[0]
    assert first.row == ROW
    estimated = from_viewpoints.locate(photo).candidates[0].camera
    seen = both.explain(photo, ROW, first.azimuth_shift, camera=estimated)
    assert first.teacher_score == pytest.approx(seen.teacher_score, abs=3e-3)  # bfloat16
    scores = []
    for canvas, tile, azimuth_shift in (
        (seen.canvas, seen.tile, seen.azimuth_shift),
        (seen.canvas[:, ::-1], seen.tile[:, ::-1], -seen.azimuth_shift % 32),
    ):
        ground = tiny_teacher.ground_tokens(ground_batch([canvas], (64, 256)))
        rotations = torch.tensor([azimuth_shift - round(azimuth_shift)], dtype=torch.float32)
        aerial = tiny_teacher.aerial_tokens(to_batch([tile], (128, 128)), rotations)
        azimuth_shifts = torch.tensor([[round(azimuth_shift) % 32]])
        scores.append(float(tiny_teacher.pair_scores(ground, aerial, azimuth_shifts).detach()))
    assert abs(scores[0] - scores[1]) > 1e-4
    assert first.teacher_score == pytest.approx(sum(scores) / 2, abs=3e-3)


@pytest.mark.parametrize("aside", [(3.0, 1.0), (-2.0, 4.0), (0.5, -3.5)])
def test_the_teacher_refines_the_position(from_viewpoints, tiny_teacher, aside):
    """Only in the first place; the student alone stays with its estimate."""
    gallery = from_viewpoints.gallery
    own = gallery.tile(ROW)
    camera = gallery.frame.to_place(own.east_m + aside[0], own.north_m + aside[1])
    photo = tile_to_polar(tile_at(gallery, camera))
    student = from_viewpoints.locate(photo).candidates
    fitted = ViewCalibration(32, 1.0, 1.0, radius_m=5.0, refined_radius_m=2.0)
    model = (from_viewpoints.models.student, tiny_teacher, Calibration((fitted,)))
    both = Localizer(gallery, *model).locate(photo).candidates
    assert [candidate.radius_m for candidate in both[:3]] == [2.0, 5.0, 5.0]
    assert both[0].row == student[0].row
    assert distance_m(both[0].camera, camera) < distance_m(student[0].camera, camera)
    rest = {candidate.row: candidate.camera for candidate in student}
    shared = [one for one in both[1:] if one.row in rest]
    assert shared
    assert all(distance_m(one.camera, rest[one.row]) < 0.01 for one in shared)


@torch.inference_mode()
def test_only_the_best_are_also_compared_mirrored(tiny_gallery, tiny_teacher, monkeypatch):
    """Among twenty tiles: the six best have the mean of both scores, the others that of the first."""
    view = ground_batch([panorama_at(tiny_gallery, ROW)], (64, 256))
    tiles = to_batch([tiny_gallery.tile_image(row) for row in range(20)], (128, 128))
    azimuth_shifts = np.arange(20, dtype=np.float32) % 32
    shown = []
    original = alignment._scores

    def counting(teacher, view, tiles, near, rotations):
        found = original(teacher, view, tiles, near, rotations)
        shown.append(found[0].numpy())
        return found

    monkeypatch.setattr(alignment, "_scores", counting)
    scores, _ = alignment.aligned_scores(tiny_teacher, view, tiles, azimuth_shifts)
    plain, mirrored = shown
    assert (len(plain), len(mirrored)) == (20, alignment.MIRRORED)
    expected = plain.copy()
    best = np.argsort(-plain, kind="stable")[: alignment.MIRRORED]
    expected[best] = (plain[best] + mirrored) / 2
    np.testing.assert_allclose(scores, expected, atol=1e-6)
