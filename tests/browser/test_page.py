"""The page as a visitor sees it: run alone with ``pytest tests/browser``.

The models are untrained twins (tests/conftest.py): a tile's own polar view is found at that tile,
so the right answer to the example is known.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

import pytest
from PIL import Image

from core.geo import distance_m
from core.records import Place

from .conftest import EXAMPLE_ROW

pytestmark = pytest.mark.browser
GPS_IFD = 0x8825
WAIT_MS = 60_000


@contextmanager
def opened(browser, url, width=1400, height=1000, theme="light") -> Iterator:
    """A fresh visitor's page, ready to use, that fails on errors in its scripts."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{url}?__theme={theme}")
    page.wait_for_selector("#locate")
    page.frame_locator("#map iframe").locator(".leaflet-image-layer").wait_for()
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(browser, town):
    with opened(browser, town.url) as page:
        yield page


def frame(page):
    return page.frame_locator("#map iframe")


def until(page, is_met: Callable[[], object]) -> None:
    """Wait for a condition outside the page, frame by frame so that Playwright's events come in."""
    end = time.monotonic() + WAIT_MS / 1000
    while not is_met():
        assert time.monotonic() < end, "the condition was not met in time"
        page.evaluate("() => new Promise(requestAnimationFrame)")


def choose_example(page) -> None:
    page.locator("#examples .cv-example").first.click()
    page.wait_for_selector("#candidates .cv-card")
    answer_on_map(page)


def answer_on_map(page) -> None:
    """Wait for the map of an answer: its pins are there a moment before they can be clicked."""
    frame(page).locator(".cv-pin").first.wait_for()
    frame(page).locator("body[data-selected='1']").wait_for()


def upload(page, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    page.locator("#photo input[type=file]").first.set_input_files(
        {"name": name, "mimeType": kind, "buffer": content}
    )


def clear_photo(page) -> None:
    page.locator(
        "#photo button[aria-label='Remove Image'], #photo button[aria-label='Clear']"
    ).click()


def picture(page, elem_id: str) -> str:
    """Address of the picture now shown in an image component."""
    return page.locator(f"#{elem_id} img").first.get_attribute("src")


def selected(page) -> tuple[str, str]:
    """The chosen place, as the cards and as the map show it."""
    card = page.locator("#candidates .cv-chosen").get_attribute("data-rank")
    return card, frame(page).locator("body").get_attribute("data-selected")


def open_explanation(page) -> None:
    page.get_by_role("tab", name="Explain").click()
    page.wait_for_selector("#explain-ground img")
    page.wait_for_selector("#explain-aerial img")


def test_an_example_is_located_by_a_click(page, town):
    choose_example(page)
    first = page.locator("#candidates .cv-card").first
    assert first.locator("img").get_attribute("alt") == (
        f"Aerial tile {town.gallery.tile_ids[EXAMPLE_ROW]}"
    )
    assert "%" in page.locator("#verdict .cv-lead").inner_text()
    parts = page.locator("#verdict .cv-parts li").all_inner_texts()
    names = ("place 1", "elsewhere in this imagery", "not in this imagery")
    for name, part in zip(names, parts, strict=True):
        assert re.fullmatch(rf"{name} (< 0\.1|\d+(\.\d)?) %", part.replace("\n", " ").strip())
    shown = page.locator("#candidates .cv-share").first.inner_text()
    assert parts[0].split("place 1")[1].strip() == shown.strip()
    verdict = page.locator("#verdict").inner_text().replace(" \n", "\n")
    # The right place; the point in it is arbitrary, as the student is untrained.
    assert int(re.search(r"to the true place\n(\d+) m", verdict).group(1)) < 36
    cards = page.locator("#candidates .cv-card").count()
    assert cards > 1
    assert frame(page).locator(".cv-pin").count() == cards
    assert frame(page).locator(".cv-truth").count() == 1
    assert selected(page) == ("1", "1")


def test_an_upload_is_read_located_and_stripped_of_its_place(page, town):
    upload(page, "phone.jpg", (town.photos / "phone.jpg").read_bytes())
    page.wait_for_selector("#photo-facts .cv-chip")
    facts = page.locator("#photo-facts").inner_text()
    assert "65°" in facts
    assert "35 mm" in facts
    assert "not kept in the file" in facts
    assert frame(page).locator(".cv-pin").count() == 0
    page.locator("#locate").click()
    page.wait_for_selector("#candidates .cv-card")
    frame(page).locator(".cv-pin").first.wait_for()
    assert frame(page).locator(".cv-truth").count() == 0
    served = page.request.get(picture(page, "photo")).body()
    exif = Image.open(io.BytesIO(served)).getexif()
    assert GPS_IFD not in exif
    assert str(town.photos) not in page.content()
    assert exif.get_ifd(0x8769)[0xA405] == 28


def test_a_new_photo_forgets_the_old_answer(page, town):
    choose_example(page)
    clear_photo(page)
    page.wait_for_selector("#candidates .cv-card", state="detached")
    assert "Choose a photo" in page.locator("#verdict").inner_text()
    upload(page, "phone.jpg", (town.photos / "phone.jpg").read_bytes())
    page.wait_for_function(
        "() => document.querySelector('#verdict').innerText.includes('press Locate')"
    )


NOTE_WHAT_IS_SHOWN = """() => {
    window.shown = [];
    const note = () => {
        const photo = document.querySelector('#photo img');
        const isAnswer = document.querySelector('#candidates .cv-card') !== null;
        const words = document.querySelector('#verdict').innerText;
        window.shown.push([photo ? photo.src : '', isAnswer, words]);
    };
    new MutationObserver(note).observe(
        document.body, {subtree: true, childList: true, attributes: true, characterData: true}
    );
}"""


@contextmanager
def held_back(page, addresses: str) -> Iterator[list]:
    """Requests of such addresses wait meanwhile, and are answered when this ends."""
    held = []

    def hold(route) -> None:
        held.append(route)

    page.route(addresses, hold)
    yield held
    for route in held:
        route.continue_()
    page.unroute(addresses)


@contextmanager
def server_unheard(page) -> Iterator[None]:
    """Answers of queued events are held back meanwhile, and come when this ends."""
    with held_back(page, "**/queue/data*") as held:
        yield
        until(page, lambda: held)


def test_the_first_click_counts(browser, town):
    """However slowly the page's own files come: what can be seen can be clicked."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    with held_back(page, "**/assets/web/**"):
        page.goto(town.url)
        with page.expect_request("**/run/predict*"):
            page.locator("#examples .cv-example").first.click()
    page.wait_for_selector("#candidates .cv-card")
    context.close()


HOLD_ENDS = """() => {
    const original = window.fetch;
    const bytes = new TextDecoder('latin1');  // as many characters as bytes
    const release = new Promise((resolve) => { window.release = resolve; });
    const late = () => new TransformStream({
        async transform(chunk, controller) {
            const words = bytes.decode(chunk);
            const end = words.lastIndexOf('data:', words.indexOf('close_stream'));
            if (!words.includes('close_stream')) {
                controller.enqueue(chunk);
                return;
            }
            controller.enqueue(chunk.slice(0, end));  // what came with it is passed on at once
            window.held = true;
            await release;
            controller.enqueue(chunk.slice(end));
            window.ended = true;
        },
    });
    window.fetch = async (...request) => {
        const reply = await original(...request);
        const isStream = String(request[0]?.url ?? request[0]).includes('queue/data');
        return isStream ? new Response(reply.body.pipeThrough(late()), reply) : reply;
    };
}"""


def test_what_is_chosen_while_a_stream_ends_is_not_lost(page):
    """The end of an answer's stream is noticed late; whatever is clicked meanwhile counts."""
    page.evaluate(HOLD_ENDS)
    choose_example(page)
    page.wait_for_function("window.held")
    page.locator("#candidates .cv-card").nth(2).click()
    frame(page).locator("body[data-selected='3']").wait_for()
    page.locator("#save-csv:not([disabled])").wait_for()
    page.evaluate("window.release()")
    page.wait_for_function("window.ended")
    open_explanation(page)
    assert page.locator("#explain-place input:checked").get_attribute("value") == "3"


@pytest.mark.parametrize("way", ["a new photo", "a new photo, located at once", "no photo"])
def test_an_answer_that_comes_too_late_is_never_shown(page, town, way):
    stream = io.BytesIO()
    Image.effect_noise((640, 480), 90).save(stream, "PNG")
    upload(page, "plain.png", stream.getvalue(), "image/png")
    page.wait_for_selector("#photo-facts .cv-chip")
    page.evaluate(NOTE_WHAT_IS_SHOWN)
    with server_unheard(page):
        with page.expect_response("**/queue/join*"):
            page.locator("#locate").click()
        clear_photo(page)
        if way != "no photo":
            upload(page, "phone.jpg", (town.photos / "phone.jpg").read_bytes())
            page.wait_for_selector("#photo img[src*='phone.jpg']")
        if way.endswith("at once"):
            page.locator("#locate").click()
        if way == "no photo":
            page.wait_for_selector("#photo-facts .cv-chip", state="detached")
        else:
            page.locator("#photo-facts", has_text="35 mm").wait_for()
    if way == "no photo":
        upload(page, "phone.jpg", (town.photos / "phone.jpg").read_bytes())
        page.locator("#photo-facts", has_text="35 mm").wait_for()
    if not way.endswith("at once"):
        page.locator("#locate").click()
    page.locator("#verdict", has_text="35 mm").wait_for()
    page.wait_for_selector("#candidates .cv-card")
    answers = [(photo, words) for photo, is_answer, words in page.evaluate("shown") if is_answer]
    assert answers
    for photo, words in answers:
        assert "phone.jpg" in photo
        assert "35 mm" in words
    # What can be taken along is the new photo's, too.
    page.locator("#save-csv:not([disabled])").wait_for()
    with page.expect_download() as download:
        page.locator("#save-csv").click()
    assert "phone" in download.value.suggested_filename


def test_a_photo_shows_its_own_place_only_when_asked(page, town):
    upload(page, "phone.jpg", (town.photos / "phone.jpg").read_bytes())
    page.wait_for_selector("#photo-facts .cv-chip")
    page.locator("#locate").click()
    page.wait_for_selector("#candidates .cv-card")
    assert "true place" not in page.locator("#verdict").inner_text()
    page.locator("#known button").first.click()
    page.get_by_label("Show it on the map").check()
    page.wait_for_function(
        "() => document.querySelector('#verdict').innerText.includes('true place')"
    )


def test_marker_card_and_explain_tab_are_one_choice(page):
    choose_example(page)
    frame(page).locator(".cv-marker", has=page.locator("text='3'")).click()
    page.wait_for_selector("#candidates .cv-chosen[data-rank='3']")
    assert selected(page) == ("3", "3")
    page.locator("#candidates .cv-card").nth(1).click()
    frame(page).locator("body[data-selected='2']").wait_for()
    assert selected(page) == ("2", "2")
    open_explanation(page)
    assert page.locator("#explain-place input:checked").get_attribute("value") == "2"
    before = picture(page, "explain-aerial")
    page.locator("#explain-place input[value='4']").check()
    page.wait_for_function(
        "before => document.querySelector('#explain-aerial img').src !== before", arg=before
    )
    page.get_by_role("tab", name="Locate").click()
    assert page.locator("#candidates .cv-chosen").get_attribute("data-rank") == "4"


@pytest.mark.parametrize(("view", "x", "y"), [("ground", 0.2, 0.6), ("aerial", 0.6, 0.3)])
def test_a_click_on_a_patch_lights_up_the_other_view(page, view, x, y):
    choose_example(page)
    page.locator("#explain-this").click()
    page.wait_for_selector("#explain-ground img")
    before = {name: picture(page, f"explain-{name}") for name in ("ground", "aerial")}
    words = page.locator("#explain-words").inner_text()
    image = page.locator(f"#explain-{view} img").first
    box = image.bounding_box()
    image.click(position={"x": box["width"] * x, "y": box["height"] * y})
    page.wait_for_function(
        "words => document.querySelector('#explain-words').innerText !== words", arg=words
    )
    for name, old in before.items():
        page.wait_for_function(
            "([id, old]) => document.querySelector(id + ' img').src !== old",
            arg=[f"#explain-{name}", old],
        )
    here = "photo" if view == "ground" else "aerial tile"
    assert f"a part of the {here}" in page.locator("#explain-words").inner_text()


def test_contribution_factors_can_be_drawn(page):
    choose_example(page)
    open_explanation(page)
    before = picture(page, "explain-ground")
    page.get_by_label("Contribution").check()
    page.wait_for_function(
        "old => document.querySelector('#explain-ground img').src !== old", arg=before
    )
    assert "Contribution factors" in page.locator("#explain-words").inner_text()
    assert page.locator("#explain-legend .cv-ramp-factors").count() == 1


def test_a_circle_on_the_map_narrows_the_search(page, town):
    upload(page, "panorama.jpg", (town.photos.parent / "examples" / "panorama.jpg").read_bytes())
    page.wait_for_selector("#photo-facts .cv-chip")
    page.locator("#known button").first.click()
    page.get_by_label("Somewhere around here").check()
    frame(page).locator(".cv-picking").wait_for()
    box = page.locator("#map iframe").bounding_box()
    # The town is 192 m wide and fills the frame's height; this is a place north of its middle.
    frame(page).locator(".leaflet-container").click(
        position={"x": box["width"] / 2, "y": box["height"] * 0.4}
    )
    frame(page).locator("body:not([data-near=''])[data-near]").wait_for()
    near = json.loads(frame(page).locator("body").get_attribute("data-near"))
    assert near["radius_m"] == 200
    page.locator("#radius input[type=number]").fill("50")
    page.locator("#radius input[type=number]").press("Enter")
    frame(page).locator("body[data-near*='\"radius_m\":50']").wait_for()
    page.locator("#locate").click()
    page.wait_for_selector("#candidates .cv-card")
    assert "50 m" in page.locator("#verdict").inner_text()
    tiles = [
        image.get_attribute("alt").removeprefix("Aerial tile ")
        for image in page.locator("#candidates img").all()
    ]
    ids = list(town.gallery.tile_ids)
    centre = Place(near["lat_deg"], near["lon_deg"])
    assert tiles
    for tile in tiles:
        assert distance_m(town.gallery.tile(ids.index(tile)).place, centre) <= 50.1


def test_bad_files_are_named_and_the_page_goes_on(page, town):
    upload(page, "letter.jpg", b"Dear visitor, I am no picture at all.")
    page.wait_for_selector("#photo-facts .cv-problem")
    assert "letter.jpg" in page.locator("#photo-facts").inner_text()
    assert "no picture" in page.locator("#photo-facts").inner_text()
    page.locator("#locate").click()
    page.wait_for_selector(".toast-body")
    assert "was refused" in page.locator(".toast-body").first.inner_text()
    assert "Traceback" not in page.content()
    choose_example(page)


def test_a_file_name_is_never_markup(page, town):
    name = '"><img src=x onerror="window.stolen=1"><script>window.stolen=1<.jpg'
    upload(page, name, b"no picture")
    page.wait_for_selector("#photo-facts .cv-problem")
    page.locator("#locate").click()
    page.wait_for_selector(".toast-body")
    assert page.evaluate("window.stolen") is None
    assert page.locator("#photo-facts img, .toast-body img[src=x]").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_the_window(browser, town, width, theme, tmp_path):
    with opened(browser, town.url, width, 900, theme) as page:
        choose_example(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        is_dark = page.evaluate("document.body.classList.contains('dark')")
        assert is_dark == (theme == "dark")
        open_explanation(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 10_000


def call(request, town, endpoint: str, values: list) -> tuple[str, str]:
    """Ask an endpoint as a program does; the last event and its data."""
    address = f"{town.url}gradio_api/call/{endpoint}"
    event = request.post(address, data={"data": values}).json()["event_id"]
    lines = request.get(f"{address}/{event}").text().strip().splitlines()
    return lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")


def test_the_endpoints_answer_programs(browser, town):
    content = (town.photos.parent / "examples" / "panorama.jpg").read_bytes()
    context = browser.new_context()
    file = {"name": "panorama.jpg", "mimeType": "image/jpeg", "buffer": content}
    [path] = context.request.post(f"{town.url}gradio_api/upload", multipart={"files": file}).json()
    photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
    kind, data = call(context.request, town, "locate", [photo, *[None] * 5])
    assert kind == "complete"
    [record] = json.loads(data)
    assert record["candidates"][0]["tile_id"] == town.gallery.tile_ids[EXAMPLE_ROW]
    assert set(record) == {
        "photo", "fov_deg", "fov_source", "verdict", "confident", "confidence", "rest_probability",
        "outside_probability", "area_50_m2", "area_90_m2", "heading_deg", "candidates",
        "timings_ms",
    }  # fmt: skip
    kind, data = call(context.request, town, "explain", [photo, *[None] * 5, 2])
    assert kind == "complete"
    assert json.loads(data)[0]["rank"] == 2
    kind, data = call(context.request, town, "locate", [photo, 400, *[None] * 4])
    assert kind == "error"
    assert "Traceback" not in data
    secret = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    assert call(context.request, town, "locate", [secret, *[None] * 5])[0] == "error"
    address = {"path": "http://example.com/a.jpg", "meta": {"_type": "gradio.FileData"}}
    kind, data = call(context.request, town, "locate", [address, *[None] * 5])
    assert kind == "error"
    assert "expected an uploaded file" in data
    context.close()


@pytest.mark.parametrize("example", [0, -1])
def test_the_shipped_town_answers(browser, shipped, example):
    with opened(browser, shipped) as page:
        assert page.locator("#examples .cv-example").count() >= 3
        page.locator("#examples .cv-example").nth(example).click()
        page.wait_for_selector("#candidates .cv-card")
        frame(page).locator(".cv-pin").first.wait_for()
        assert frame(page).locator(".cv-truth").count() == 1
        assert "to the true place" in page.locator("#verdict").inner_text()
        open_explanation(page)


def test_the_proxy_would_hear_of_another_host(browser, town):
    with opened(browser, town.url) as page:
        page.evaluate("fetch('http://fonts.example.com/face.css').catch(() => null)")
        until(page, lambda: "fonts.example.com" in town.hosts_requested)
    town.requested[:] = [line for line in town.requested if "example.com" not in line]


def test_nothing_asks_another_host(browser, town):
    """Last in the file, so that the proxy has heard everything that the tests before it did."""
    requested: list[str] = []
    with opened(browser, town.url) as page:
        page.context.on("request", lambda request: requested.append(request.url))
        page.reload()
        page.wait_for_selector("#locate")
        choose_example(page)
        open_explanation(page)
        inside = [f.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
                  for f in page.frames]  # fmt: skip
    addresses = [*requested, *(name for names in inside for name in names)]
    assert any("leaflet.js" in address for address in addresses)
    hosts = {
        urlparse(a).netloc for a in addresses if not a.startswith(("data:", "blob:", "about:"))
    }
    assert hosts == {urlparse(town.url).netloc}
    assert town.hosts_requested == set()
