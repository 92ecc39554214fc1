"""Photo in, Prediction out: run alone with ``pytest tests/test_localizer.py``.

The models are untrained, but their branches are twins: the polar view of a tile, taken as a panorama,
has that tile's descriptor. So the true place, azimuth shift and heading of every query are known.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from core.evaluation.pools import DescribedTown

from core.errors import PhotoError, SettingError
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from core.geo import distance_m
from core.localization import ranking
from core.localization.calibration import Calibration, ViewCalibration
from core.localization.localizer import Localizer
from core.models import alignment
from core.photos.opening import open_photo
from core.photos.views import ground_batch
from core.polar import heading_from_shift, to_batch
from core.records import Place, SearchArea
from tests.canvases import shift_canvas, tile_to_polar
from tests.conftest import MODEL_HASH
from tests.towns import telling_town

ROW = 17
TEACHER_DECIDES = Calibration((ViewCalibration(32, 1e-3, 20.0, 1.0, 0.0),))


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
    assert sum(candidate.probability for candidate in found.candidates) == pytest.approx(1)


def test_places_come_in_the_order_of_their_probability(tiny_gallery, tiny_student):
    # So flat that a place with many tiles outweighs one whose best tile is better.
    flat = Calibration((ViewCalibration(32, 1.0, 0, 1, 0),))
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


def test_a_small_circle_makes_no_photo_a_confident_match(localizer):
    """Few places are left in it and all are one; sureness is that of a search of everything."""
    gallery = localizer.gallery
    photo = panorama_at(gallery, ROW)
    elsewhere = localizer.locate(photo, near=SearchArea(gallery.tile(48).place, 25.0))
    assert elsewhere.candidates[0].probability > 0.99
    assert elsewhere.confidence < localizer.locate(photo).confidence
    around = localizer.locate(photo, near=SearchArea(gallery.tile(ROW).place, 25.0))
    assert around.confidence == pytest.approx(localizer.locate(photo).confidence, abs=1e-6)


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
    for fitted, told in ((None, False), (1, False), (4, True)):
        calibration = Calibration(viewpoints=fitted)
        one = Localizer(localizer.gallery, localizer.student, calibration=calibration)
        notes = one.locate(photo).notes
        assert any("fitted with places described from 4 viewpoints" in n for n in notes) == told


def test_teacher_overrules_the_student(with_teacher, monkeypatch):
    photo = panorama_at(with_teacher.gallery, ROW)
    before = Localizer(with_teacher.gallery, with_teacher.student).locate(photo)
    second = before.candidates[1].row
    _, canvas = with_teacher.view(photo)
    rows = with_teacher._rank(with_teacher._describe(canvas), canvas, None, None).rows[:20]
    tiles, looks = [], []
    original = with_teacher.gallery.tile_image_at

    def remember(place):
        tiles.append(place)
        return original(place)

    def prefer_second(ground, places, near):
        # At first all twenty, then the best of them in the mirror, the very best first; then the
        # best from where the student believes the camera and from around there.
        looks.append(len(places))
        liked = rows == second if len(places) == 20 else np.arange(len(places)) == 0
        return torch.from_numpy(liked)[None].float(), near

    monkeypatch.setattr(with_teacher.gallery, "tile_image_at", remember)
    monkeypatch.setattr(with_teacher.teacher, "scores_near", prefer_second)
    after = with_teacher.locate(photo)
    assert len(tiles) == 20
    assert looks == [20, alignment.MIRRORED, 5]
    assert min(distance_m(after.candidates[0].camera, place) for place in tiles) < 0.01
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


def test_probability_is_shared_as_it_was_fitted(with_teacher, monkeypatch):
    """A photo's pool holds as many tiles, and as many scored by the teacher, as the fit's pools."""
    town = telling_town()
    described = DescribedTown(with_teacher.student, with_teacher.teacher, town, viewpoints=1)
    fitted = described.pools(town, 32, 1, 0)
    assert fitted.similarities.shape[1] < len(described.centres)
    asked_for = {}

    def searched(index, descriptor, n_bins, k, *others):
        asked_for["tiles"] = k
        return ranking.rank_tiles(index, descriptor, n_bins, k, *others)

    def scored(found, teacher, canvas, tiles, *others):
        asked_for["scored"] = len(tiles)
        return ranking.rerank(found, teacher, canvas, tiles, *others)

    monkeypatch.setattr("core.localization.localizer.rank_tiles", searched)
    monkeypatch.setattr("core.localization.localizer.rerank", scored)
    with_teacher.locate(panorama_at(with_teacher.gallery, ROW))
    assert asked_for["tiles"] == fitted.similarities.shape[1]
    assert asked_for["scored"] == fitted.teacher.shape[1] > 0


def test_confidence_follows_the_calibration_of_the_views_width(tiny_gallery, tiny_student):
    sure = Calibration((ViewCalibration(32, 20, 0, 1, 50), ViewCalibration(8, 20, 0, 1, -50)))
    localizer = Localizer(tiny_gallery, tiny_student, calibration=sure)
    photo = panorama_at(tiny_gallery, ROW)
    whole = localizer.locate(photo)
    assert whole.confidence > 0.99
    assert whole.confident
    part = localizer.locate(photo[:, 192:320], fov_deg=90)
    assert part.confidence < 0.01
    assert not part.confident


@pytest.fixture(scope="module")
def from_viewpoints(tiny_raster, tiny_student, tmp_path_factory) -> Localizer:
    out, settings = tmp_path_factory.mktemp("viewpoints"), GallerySettings(tile_pixels=128)
    build_gallery(tiny_raster, out, tile_describer(tiny_student), "tiny", MODEL_HASH, settings)
    return Localizer(Gallery.open(out), tiny_student)


def viewpoint_of(gallery, viewpoint: int) -> Place:
    """Where one of the viewpoints of ROW is."""
    own = gallery.tile(ROW)
    offset = gallery.viewpoints[viewpoint] * own.side_m / 2
    return gallery.frame.to_place(*(np.array([own.east_m, own.north_m]) + offset))


@pytest.mark.parametrize("viewpoint", range(4))
def test_a_photo_from_a_quarter_of_a_cell_finds_the_cell_and_that_quarter(
    from_viewpoints, viewpoint
):
    gallery = from_viewpoints.gallery
    tile = gallery.tile_image_at(viewpoint_of(gallery, viewpoint))
    photo = shift_canvas(tile_to_polar(tile), 5)
    ranking = from_viewpoints._rank(
        from_viewpoints._describe(from_viewpoints.view(photo)[1]),
        from_viewpoints.view(photo)[1],
        None,
        None,
    )
    assert ranking.viewpoint_similarities[0].argmax() == viewpoint
    first = from_viewpoints.locate(photo).candidates[0]
    assert first.row == ranking.rows[0] == ROW
    assert first.azimuth_shift == pytest.approx(27, abs=0.2)


def test_the_teacher_looks_from_where_the_student_believes_the_camera(
    from_viewpoints, tiny_teacher
):
    """Both ways round: the score is the mean of what is seen of the pair and of its mirror image."""
    gallery = from_viewpoints.gallery
    photo = tile_to_polar(gallery.tile_image_at(viewpoint_of(gallery, 2)))
    both = Localizer(gallery, from_viewpoints.student, tiny_teacher, TEACHER_DECIDES)
    first = both.locate(photo).candidates[0]
    assert first.row == ROW
    believed = from_viewpoints.locate(photo).candidates[0].camera
    seen = both.explain(photo, ROW, first.azimuth_shift, camera=believed)
    assert first.teacher_score == pytest.approx(seen.teacher_score, abs=3e-3)  # bfloat16
    looks = []
    for canvas, tile, azimuth_shift in (
        (seen.canvas, seen.tile, seen.azimuth_shift),
        (seen.canvas[:, ::-1], seen.tile[:, ::-1], -seen.azimuth_shift % 32),
    ):
        ground = tiny_teacher.ground_tokens(ground_batch([canvas], (64, 256)))
        turns = torch.tensor([azimuth_shift - round(azimuth_shift)], dtype=torch.float32)
        aerial = tiny_teacher.aerial_tokens(to_batch([tile], (128, 128)), turns)
        azimuth_shifts = torch.tensor([[round(azimuth_shift) % 32]])
        looks.append(float(tiny_teacher.pair_scores(ground, aerial, azimuth_shifts).detach()))
    assert abs(looks[0] - looks[1]) > 1e-4
    assert first.teacher_score == pytest.approx(sum(looks) / 2, abs=3e-3)


@pytest.mark.parametrize("aside", [(3.0, 1.0), (-2.0, 4.0), (0.5, -3.5)])
def test_the_teacher_steps_closer_to_the_camera(from_viewpoints, tiny_teacher, aside):
    """Only in the first place; the student alone stays where it believes the camera."""
    gallery = from_viewpoints.gallery
    own = gallery.tile(ROW)
    camera = gallery.frame.to_place(own.east_m + aside[0], own.north_m + aside[1])
    photo = tile_to_polar(gallery.tile_image_at(camera))
    student = from_viewpoints.locate(photo).candidates
    fitted = ViewCalibration(32, 1.0, 1.0, 1.0, 0.0, radius_m=5.0, closer_m=2.0)
    model = (from_viewpoints.student, tiny_teacher, Calibration((fitted,)))
    both = Localizer(gallery, *model).locate(photo).candidates
    assert [candidate.radius_m for candidate in both[:3]] == [2.0, 5.0, 5.0]
    assert both[0].row == student[0].row
    assert distance_m(both[0].camera, camera) < distance_m(student[0].camera, camera)
    rest = {candidate.row: candidate.camera for candidate in student}
    shared = [one for one in both[1:] if one.row in rest]
    assert shared
    assert all(distance_m(one.camera, rest[one.row]) < 0.01 for one in shared)


@torch.inference_mode()
def test_only_the_best_at_first_sight_are_looked_at_in_the_mirror(
    tiny_gallery, tiny_teacher, monkeypatch
):
    """Among twenty tiles: the six best have the mean of both looks, the others that of the first."""
    view = ground_batch([panorama_at(tiny_gallery, ROW)], (64, 256))
    tiles = to_batch([tiny_gallery.tile_image(row) for row in range(20)], (128, 128))
    azimuth_shifts = np.arange(20, dtype=np.float32) % 32
    shown = []
    original = alignment._scores

    def counting(teacher, view, tiles, near, turns):
        found = original(teacher, view, tiles, near, turns)
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
