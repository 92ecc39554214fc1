"""What the page does with a photo, without a browser: ``pytest tests/test_handlers.py``."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app import fragments, handlers, text
from app.api import explain_record, locate_record
from app.drawings import AERIAL_SIDE, Lit, clicked_patch, draw, first_patch
from app.handlers import LocateRequest, Page
from app.map_view import BaseMap
from core.errors import PhotoError, SettingError
from core.localization.localizer import Localizer
from core.localization.output import prediction_record
from core.photos.opening import open_photo
from core.records import Place, Prediction, SearchArea
from tests.canvases import tile_to_polar

ROW = 17
CAMERA_IFD, GPS_IFD, FOCAL_35MM = 0x8769, 0x8825, 0xA405


def exif_of_a_phone() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(CAMERA_IFD)[FOCAL_35MM] = 28
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (52.0, 5.0, 6.0), 3: "E", 4: (5.0, 7.0, 0.0)})
    return exif


def noise(side: int = 96) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 255, (side, side * 4 // 3, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def page(tiny_gallery, tiny_student, tiny_teacher, tmp_path_factory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    example = folder / "example.png"
    Image.fromarray(tile_to_polar(tiny_gallery.tile_image(ROW))).save(example)
    localizer = Localizer(tiny_gallery, tiny_student, tiny_teacher)
    return Page(localizer, BaseMap.write(tiny_gallery, folder), (example,))


@pytest.fixture(scope="module")
def answer(page):
    return handlers.locate(page, str(page.examples[0]), None, LocateRequest())


@pytest.fixture
def phone(tmp_path) -> Path:
    path = tmp_path / "phone.jpg"
    noise().save(path, exif=exif_of_a_phone(), quality=90)
    return path


# Uploads


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    """What the page takes for the folder of its uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def test_only_uploads_are_rewritten(page, phone, monkeypatch, tmp_path):
    before = phone.read_bytes()
    uploaded = handlers.read_photo(page, str(phone))
    assert phone.read_bytes() == before
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    again = handlers.read_photo(page, str(phone))
    assert phone.read_bytes() != before
    assert again.place == uploaded.place  # the visitor's session remembers it
    assert open_photo(phone).place is None


@pytest.mark.parametrize("kind", ["cut off", "unknown", "too large", "cannot be cleaned"])
def test_a_refused_upload_is_not_kept(page, uploads, kind, monkeypatch):
    path = uploads / "refused.jpg"
    side = 6500 if kind == "too large" else 200
    image = Image.new("L", (2 * side, side)) if kind == "too large" else noise(side)
    image.save(path, exif=exif_of_a_phone())
    content = path.read_bytes()
    if kind == "cut off":
        path.write_bytes(content[: len(content) // 2])
    if kind == "unknown":
        path.write_bytes(b"\x00\x00\x00\x18ftypheic" + content[2:])
    if kind == "cannot be cleaned":
        monkeypatch.setattr("app.privacy._clean_segment", lambda *_: int("no number"))
    with pytest.raises(PhotoError, match=r"refused\.jpg"):
        handlers.read_photo(page, str(path))
    assert list(uploads.iterdir()) == []
    for again in (
        handlers.read_photo,
        lambda *given: handlers.locate(*given, None, LocateRequest()),
    ):
        with pytest.raises(PhotoError, match=r"refused\.jpg: .* Upload it again"):
            again(page, str(path))


def test_an_upload_is_located_after_its_place_is_gone(page, phone, uploads):
    answer = handlers.locate(page, str(phone), None, LocateRequest())
    assert answer.uploaded.place is not None
    assert answer.prediction.fov_source == "EXIF 35 mm focal length"
    assert open_photo(phone).place is None


# Errors


def test_a_core_error_is_shown_as_it_is_and_escaped():
    @handlers.as_message
    def fails():
        raise PhotoError("Photo <b>x</b>: got nothing.")

    with pytest.raises(gr.Error) as caught:
        fails()
    assert caught.value.message == "Photo &lt;b&gt;x&lt;/b&gt;: got nothing."


def test_anything_else_is_logged_and_not_shown(caplog):
    @handlers.as_message
    def fails():
        raise RuntimeError("secret /path/of/this/machine")

    with pytest.raises(gr.Error) as caught:
        fails()
    assert caught.value.message == text.UNFORESEEN
    assert "secret" in caplog.text


def test_no_photo_is_one_clear_sentence(page):
    with pytest.raises(PhotoError, match="Upload one"):
        handlers.locate(page, None, None, LocateRequest())


def test_a_circle_without_a_centre_says_what_to_do():
    assert handlers.search_area(False, None, 100) is None
    place = Place(1.0, 2.0)
    assert handlers.search_area(True, place, 100) == SearchArea(place, 100.0)
    assert handlers.search_area(True, None, 100, place) == SearchArea(place, 100.0)
    with pytest.raises(SettingError, match="Click the map"):
        handlers.search_area(True, None, 100)


# Answers


def test_the_example_is_found_and_its_files_written(page, answer, tmp_path, monkeypatch):
    assert answer.prediction.candidates[0].row == ROW
    assert len(answer.prediction.candidates) == min(handlers.TOP_K, len(answer.places))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    updates = handlers.write_files(answer)
    endings = [Path(update["value"]).suffix for update in updates]
    assert endings == [".geojson", ".csv", ".gpkg"]
    collection = json.loads(Path(updates[0]["value"]).read_text())
    assert len(collection["features"]) == len(answer.prediction.candidates)


def test_an_answer_to_another_photo_is_none(page, answer, phone):
    own = str(page.examples[0])
    assert handlers.answer_to(own, answer) is answer
    for other in (str(phone), None):
        assert handlers.answer_to(other, answer) is None
    assert handlers.answer_to(own, None) is None


def test_nothing_to_write_without_an_answer():
    assert all(update["interactive"] is False for update in handlers.write_files(None))


def test_what_is_shown_says_what_it_is(page, phone):
    near = SearchArea(page.gallery.frame.origin, 80.0)
    answer = handlers.locate(page, str(phone), None, LocateRequest(90.0, 45.0, near))
    verdict, frame, legend, cards = handlers.show(page, answer, 1, near, True)
    assert "90° · set by you" in verdict
    assert "compass, from you" in verdict
    assert "searched within, from you" in verdict
    assert "true place" not in verdict  # an upload's own place is never shown by itself
    assert "cv-truth" not in frame
    assert "your search circle" in legend
    assert cards.count('class="cv-card') >= len(answer.prediction.candidates)
    wanted = handlers.show(page, answer, 1, near, True, show_own_place=True)
    assert "to the true place" in wanted[0]
    assert text.CLAIMED_PLACE in wanted[1]


def test_a_guess_is_called_a_guess(page, tmp_path):
    path = tmp_path / "plain.jpg"
    noise().save(path)
    uploaded = handlers.read_photo(page, str(path))
    assert "a guess" in uploaded.facts
    answer = handlers.locate(page, str(path), uploaded, LocateRequest())
    assert "a guess" in handlers.show(page, answer, 1, None, False)[0]


def with_probabilities(prediction: Prediction, first: float, outside: float) -> Prediction:
    """The prediction with its first place alone, so probable, and all else in the rest."""
    place = replace(prediction.candidates[0], probability=first)
    return replace(
        prediction,
        confident=first > 0.6,
        candidates=(place,),
        rest_probability=1 - first - outside,
        outside_probability=outside,
    )


def test_doubt_is_put_into_words(answer):
    shown = fragments.verdict(with_probabilities(answer.prediction, 0.12, 0.8), None, None, None)
    assert text.NO_MATCH in shown
    assert "12 % that place 1 is within 25 m of the camera" in shown
    assert text.NO_MATCH_OUTSIDE in shown
    # A photo from outside can fit as well: the sentence must not contradict the number.
    likely = fragments.verdict(with_probabilities(answer.prediction, 0.55, 0.35), None, None, None)
    assert text.NO_MATCH not in likely
    assert f"<h2>{text.LIKELY}</h2>" in likely
    assert "55 %" in likely
    assert "a photo from somewhere else" in likely
    several = fragments.verdict(with_probabilities(answer.prediction, 0.3, 0.1), None, None, None)
    assert "compass heading, or a circle" in several
    probable = fragments.verdict(with_probabilities(answer.prediction, 0.7, 0.1), None, None, None)
    assert "Probably here" in probable
    sure = fragments.verdict(with_probabilities(answer.prediction, 0.97, 0.01), None, None, None)
    assert "Almost certainly here" in sure
    assert "97 % that place 1" in sure


def test_a_sure_answer_says_how_exact_its_point_is(answer):
    first = replace(answer.prediction.candidates[0], radius_m=3.7)
    known = replace(answer.prediction, confident=True, candidates=(first,))
    assert "if right, 9 of 10 cameras within" in fragments.verdict(known, None, None, None)
    doubtful = replace(known, confident=False)
    assert "cameras within" not in fragments.verdict(doubtful, None, None, None)


def test_names_and_notes_are_escaped(answer):
    hostile = '"><script>alert(1)</script>'
    tile = replace(answer.prediction.candidates[0].tile, tile_id=hostile)
    candidate = replace(answer.prediction.candidates[0], tile=tile)
    prediction = replace(
        answer.prediction,
        photo=hostile,
        notes=(hostile,),
        fov_source=hostile,
        candidates=(candidate,),
    )
    shown = fragments.verdict(prediction, None, None, None)
    shown += fragments.cards(prediction.candidates, 1, lambda _: "data:,")
    shown += fragments.example_strip([(hostile, hostile)])
    shown += fragments.facts(60, hostile, (1, 1), None, False)
    assert "<script" not in shown
    assert not re.search(r'"">', shown)


# The interface for programs


def test_the_endpoint_answers_what_the_command_line_prints(page):
    path = str(page.examples[0])
    record = locate_record(page, path)
    expected = prediction_record(page.localizer.locate(path))
    for answer in (record, expected):
        assert answer.pop("timings_ms")["total"] > 0
    assert record == expected
    assert json.loads(json.dumps(record)) == record


def test_half_a_circle_is_refused(page):
    with pytest.raises(SettingError, match="all three or none"):
        locate_record(page, str(page.examples[0]), near_lat_deg=1.0)


def test_an_explanation_is_plain_numbers(page):
    record = explain_record(page, str(page.examples[0]), rank=2)
    assert record["rank"] == 2
    assert np.shape(record["ground_to_aerial"]) == (128, 128)
    assert np.allclose(np.sum(record["aerial_to_ground"], axis=1), 1, atol=1e-3)
    json.dumps(record)
    with pytest.raises(SettingError, match="Rank"):
        explain_record(page, str(page.examples[0]), rank=99)


# Explanations


@pytest.fixture(scope="module")
def pair(page, answer):
    return handlers.explain(page, answer, 1)


def test_no_answer_no_explanation(page, answer):
    assert handlers.explain(page, None, 1) is None
    assert handlers.explain(page, answer, None) is None


def test_the_photo_is_drawn_four_times_as_fine(pair):
    height, width = pair.explanation.canvas.shape[:2]
    assert pair.ground.shape == (4 * height, 4 * width, 3)
    small = np.asarray(Image.fromarray(pair.ground).resize((width, height), Image.Resampling.BOX))
    seen = pair.explanation.mask
    difference = np.abs(small[seen].astype(float) - pair.explanation.canvas[seen])
    assert difference.mean() < 12


def test_a_click_finds_its_patch(pair):
    height, width = pair.ground.shape[:2]
    assert clicked_patch(pair, "ground", 1, 1) == Lit("ground", 0)
    assert clicked_patch(pair, "ground", width - 1, height - 1) == Lit("ground", 127)
    assert clicked_patch(pair, "aerial", 2, 2) is None  # beyond the circle
    # Just above the centre lies the innermost ring, north: bin 15 or 16 of 32.
    lit = clicked_patch(pair, "aerial", AERIAL_SIDE / 2 + 1, AERIAL_SIDE / 2 - 20)
    assert lit == Lit("aerial", 3 * 32 + 16)


@pytest.mark.parametrize("view", ["ground", "aerial"])
def test_a_lit_patch_is_outlined_and_its_attention_painted_on_the_other_view(pair, view):
    plain = draw(pair, None, False, 0.8)
    lit = draw(pair, Lit(view, 70), False, 0.8)
    other = "aerial" if view == "ground" else "ground"
    changed = {
        name: np.any(np.asarray(getattr(lit, name)) != np.asarray(getattr(plain, name)), axis=2)
        for name in ("ground", "aerial")
    }
    assert 0 < changed[view].mean() < 0.1
    assert changed[other].mean() > 0.5
    assert lit.words != plain.words


def test_opacity_nought_leaves_the_pictures(pair):
    clear, plain = draw(pair, None, True, 0.0), draw(pair, None, False, 0.8)
    assert np.array_equal(np.asarray(clear.ground), np.asarray(plain.ground))
    assert np.array_equal(np.asarray(clear.aerial), np.asarray(plain.aerial))


def test_the_first_patch_shows_something_of_the_photo(page, phone):
    answer = handlers.locate(page, str(phone), None, LocateRequest())
    pair = handlers.explain(page, answer, 1)
    lit = first_patch(pair.explanation)
    rows, columns = pair.explanation.ground_grid
    row, column = divmod(lit.region, columns)
    height, width = pair.explanation.mask.shape
    patch = pair.explanation.mask[
        row * height // rows : (row + 1) * height // rows,
        column * width // columns : (column + 1) * width // columns,
    ]
    assert patch.mean() > 0.5


def test_thumbnails_are_small_and_whole(page):
    address = fragments.picture_url(page.gallery.tile_image(ROW))
    assert address.startswith("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as picture:
        assert max(picture.size) <= fragments.THUMBNAIL_SIDE
