"""The Locate tab: the photo and its settings on the left, the answer and its map on the right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from app import fragments, handlers, text
from app.handlers import Answer, LocateRequest, Page, UploadedPhoto
from app.map_view import file_url
from app.photo_input import photo_input
from core.errors import CoreError
from core.records import Place, SearchArea

__all__ = ["GENTLE", "LocateTab", "build_locate_tab"]

MAP_EVENTS = (
    "crossviewPage.attachMap(element, (data) => trigger('pick', data), "
    "(data) => trigger('aim', data));"
)
CARD_EVENTS = (
    "crossviewPage.attachButtons(element, '.cv-card', 'rank', (data) => trigger('pick', data));"
)
EXAMPLE_EVENTS = (
    "crossviewPage.attachButtons(element, '.cv-example', 'index', (data) => trigger('pick', data));"
)
# The photo may have been replaced before its answer arrives. Only the browser knows which photo it
# shows at that moment, so the browser decides whether to show the answer or to drop it.
IS_ANSWERED = "photo && arrived && photo.path === arrived.photo"
UNCHANGED = f"Array({5 + len(handlers.DOWNLOADS)}).fill({{__type__: 'update'}})"
SHOW_ANSWER = f"(photo, arrived) => {IS_ANSWERED} ? arrived.shown : {UNCHANGED}"
AFTER_ANSWER = f"(photo, arrived) => {{ if ({IS_ANSWERED}) crossviewPage.answered(); }}"
FORGET_ANSWER = (
    f"(photo, arrived, blank) => {IS_ANSWERED} ? [arrived, ...{UNCHANGED}] "
    ": [null, ...(photo ? blank.ready : blank.idle)]"
)
SHOW_NEAR = "(near, picking) => { crossviewPage.showNear(near, picking); }"
GENTLE: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    # Answered in its own reply, not in the queue's stream: Gradio's browser side loses an event that
    # starts while the stream of the event before is being closed, and these follow closely.
    "queue": False,
}


@dataclass(frozen=True)
class LocateTab:
    """The parts that other tabs share: photo, answer and chosen place."""

    photo: gr.Image
    answer: gr.State
    selected: gr.State
    explain_button: gr.Button


@dataclass(frozen=True)
class _Controls:
    photo: gr.Image
    examples: gr.HTML
    facts: gr.HTML
    fov_mode: gr.Radio
    fov: gr.Slider
    heading_mode: gr.Radio
    heading: gr.Slider
    near_on: gr.Checkbox
    radius: gr.Slider
    own_place: gr.CheckboxGroup
    locate: gr.Button


@dataclass(frozen=True)
class _Results:
    verdict: gr.HTML
    map: gr.HTML
    legend: gr.HTML
    cards: gr.HTML
    after: gr.Row
    downloads: tuple[gr.DownloadButton, ...]
    explain: gr.Button

    @property
    def shown(self) -> list[Any]:
        """The components that an answer changes, in the order of ``_arrived``."""
        return [self.verdict, self.map, self.legend, self.cards, self.after, *self.downloads]


@dataclass(frozen=True)
class _Memory:
    """The page's memory for one visitor."""

    uploaded: gr.State
    answer: gr.State
    selected: gr.State
    centre: gr.State


def build_locate_tab(page: Page) -> LocateTab:
    """Lay out the tab and connect it; call it inside a gr.Blocks and a gr.Tab."""
    memory = _Memory(gr.State(None), gr.State(None), gr.State(None), gr.State(None))
    with gr.Row(equal_height=False, elem_classes="cv-locate"):
        with gr.Column(scale=4, min_width=320, elem_classes="cv-left"):
            controls = _build_controls(page)
        with gr.Column(scale=8, min_width=340, elem_classes="cv-right"):
            results = _build_results(page)
    _connect_controls(page, controls, results, memory)
    _connect_answer(page, controls, results, memory)
    for choice in (results.map.pick, results.cards.pick):
        choice(_chosen_rank, None, memory.selected, **GENTLE)
    return LocateTab(controls.photo, memory.answer, memory.selected, results.explain)


def _build_controls(page: Page) -> _Controls:
    photo = photo_input(
        sources=["upload", "clipboard", "webcam"],
        label=text.PHOTO,
        placeholder=text.PHOTO_HINT,
        height=300,
        buttons=[],
        elem_id="photo",
    )
    facts = gr.HTML("", elem_id="photo-facts")
    strip = fragments.example_strip([(file_url(path), path.stem) for path in page.examples])
    if strip:
        gr.HTML(f'<p class="cv-label">{text.EXAMPLES}</p>', js_on_load=None)
    examples = gr.HTML(strip, js_on_load=EXAMPLE_EVENTS, elem_id="examples", visible=bool(strip))
    locate = gr.Button(text.LOCATE, variant="primary", size="lg", elem_id="locate")
    with gr.Accordion(text.KNOWN, open=False, elem_id="known"):
        fov_mode = gr.Radio([text.FOV_AUTO, text.FOV_HAND], value=text.FOV_AUTO, label=text.FOV)
        fov = gr.Slider(
            10, 360, value=65, step=1, label=text.FOV_DEGREES, visible=False, elem_id="fov"
        )
        heading_mode = gr.Radio(
            [text.HEADING_UNKNOWN, text.HEADING_COMPASS],
            value=text.HEADING_UNKNOWN,
            label=text.HEADING,
        )
        heading = gr.Slider(
            0, 359, value=0, step=1, label=text.HEADING_DEGREES, visible=False, elem_id="heading"
        )
        near_on = gr.Checkbox(False, label=text.NEAR, info=text.NEAR_HINT, elem_id="near")
        radius = gr.Slider(
            50, 1000, value=200, step=10, label=text.RADIUS, visible=False, elem_id="radius"
        )
        own_place = gr.CheckboxGroup(
            [text.GPS_SHOW, text.GPS_SEARCH],
            label=text.GPS_CHOICES,
            visible=False,
            elem_id="own-place",
        )
    return _Controls(
        photo, examples, facts, fov_mode, fov, heading_mode, heading, near_on, radius, own_place,
        locate,
    )  # fmt: skip


def _build_results(page: Page) -> _Results:
    start = handlers.show(page, None, None, None, False)
    verdict = gr.HTML(start[0], elem_id="verdict", js_on_load=None)
    map_html = gr.HTML(start[1], js_on_load=MAP_EVENTS, elem_id="map")
    legend = gr.HTML(start[2], elem_id="legend", js_on_load=None)
    with gr.Row(elem_id="after", visible=False) as after:
        explain = gr.Button(
            text.EXPLAIN_BUTTON,
            elem_id="explain-this",
            size="md",
            min_width=150,
            visible=page.localizer.explains,
        )
        downloads = tuple(
            gr.DownloadButton(label, size="md", min_width=90, elem_id=f"save-{name}")
            for name, label in handlers.DOWNLOADS.items()
        )
    cards = gr.HTML(start[3], js_on_load=CARD_EVENTS, elem_id="candidates")
    return _Results(verdict, map_html, legend, cards, after, downloads, explain)


def _connect_controls(page: Page, controls: _Controls, results: _Results, memory: _Memory) -> None:
    """Connect the changes before Locate is pressed: of the photo and of the settings beside it."""
    controls.photo.change(
        handlers.as_message(partial(_photo_changed, page)),
        controls.photo,
        [memory.uploaded, controls.facts, controls.own_place, controls.heading, controls.fov],
        **GENTLE,
    )
    for mode, hidden, shown in (
        (controls.fov_mode, text.FOV_AUTO, controls.fov),
        (controls.heading_mode, text.HEADING_UNKNOWN, controls.heading),
    ):
        mode.change(partial(_shown_unless, hidden), mode, shown, **GENTLE)
    for change in (controls.near_on.change, controls.own_place.change):
        change(_radius_shown, [controls.near_on, controls.own_place], controls.radius, **GENTLE)
    # A circle is drawn by the map's own script, so that the view stays where the visitor moved it.
    circle = gr.JSON(None, visible="hidden", elem_id="circle")
    known = [controls.near_on, memory.centre, controls.radius, controls.own_place, memory.uploaded]
    results.map.aim(_aimed, None, memory.centre, **GENTLE).then(
        _circle, known, circle, **GENTLE
    ).then(None, [circle, controls.near_on], js=SHOW_NEAR, **GENTLE)
    for trigger in (controls.near_on.change, controls.radius.change, controls.own_place.change):
        trigger(_circle, known, circle, **GENTLE).then(
            None, [circle, controls.near_on], js=SHOW_NEAR, **GENTLE
        )


def _connect_answer(page: Page, controls: _Controls, results: _Results, memory: _Memory) -> None:
    """Connect Locate (the button, or choosing an example), then the downloads."""
    known: set[Any] = {
        controls.photo, controls.fov_mode, controls.fov, controls.heading_mode, controls.heading,
        controls.near_on, controls.radius, controls.own_place, memory.uploaded, memory.centre,
    }  # fmt: skip
    arrived = gr.JSON(None, visible="hidden", elem_id="arrived")
    blank = gr.JSON(_blank(page), visible="hidden", elem_id="blank")

    def run(values: dict[Any, Any]) -> tuple[Any, ...]:
        return _locate(page, controls, memory, values)

    # A closure, not a partial: Gradio finds the event by its type hint, which a partial hides.
    def example(event: gr.EventData) -> tuple[Any, ...]:
        index = min(max(int(event._data.get("index", 0)), 0), len(page.examples) - 1)
        # An example starts with nothing known, whatever was set for the photo before.
        return str(page.examples[index]), text.FOV_AUTO, text.HEADING_UNKNOWN, False

    picked = controls.examples.pick(
        example,
        None,
        [controls.photo, controls.fov_mode, controls.heading_mode, controls.near_on],
        **GENTLE,
    )
    for trigger in (controls.locate.click, picked.success):
        answered = trigger(
            handlers.as_message(run),
            known,
            [memory.answer, memory.selected, arrived],
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=results.verdict,
            concurrency_id="model",
            # A press that comes while an earlier photo is still being located is kept, not dropped.
            trigger_mode="always_last",
        )
        about = [controls.photo, arrived]
        shown = answered.success(None, about, results.shown, js=SHOW_ANSWER, **GENTLE)
        shown.success(None, about, js=AFTER_ANSWER, **GENTLE)
        shown.success(
            handlers.as_message(_files),
            [controls.photo, memory.answer],
            [*results.downloads],
            **GENTLE,
        )
    controls.photo.change(
        None,
        [controls.photo, arrived, blank],
        [arrived, *results.shown],
        js=FORGET_ANSWER,
        **GENTLE,
    )
    redrawn = controls.own_place.input(
        handlers.as_message(partial(_redraw, page)),
        [controls.photo, memory.answer, memory.selected, controls.own_place],
        arrived,
        **GENTLE,
    )
    redrawn.success(None, [controls.photo, arrived], results.shown, js=SHOW_ANSWER, **GENTLE)


def _photo_changed(page: Page, path: str | None) -> tuple[Any, ...]:
    """The photo as read, its facts, and the controls that depend on its metadata."""
    try:
        uploaded = handlers.read_photo(page, path)
    except CoreError as error:
        sentence = f'<p class="cv-problem" role="alert">{fragments.esc(error)}</p>'
        return None, sentence, gr.update(visible=False, value=[]), gr.update(), gr.update()
    if uploaded is None:
        return None, "", gr.update(visible=False, value=[]), gr.update(), gr.update()
    has_own_place = uploaded.place is not None and not uploaded.is_example
    own = gr.update(visible=has_own_place, value=[])
    compass_deg = uploaded.heading_deg
    heading = gr.update() if compass_deg is None else gr.update(value=round(compass_deg) % 360)
    fov = gr.update(value=min(max(round(uploaded.fov_deg), 10), 360))
    return uploaded, uploaded.facts, own, heading, fov


def _radius_shown(near_on: bool, own: list[str] | None) -> Any:
    return gr.update(visible=near_on or text.GPS_SEARCH in (own or []))


def _shown_unless(hidden: str, mode: str) -> Any:
    return gr.update(visible=mode != hidden)


def _chosen_rank(event: gr.EventData) -> int:
    return int(event._data["rank"])


def _aimed(event: gr.EventData) -> Place:
    lat, lon = float(event._data["lat_deg"]), float(event._data["lon_deg"])
    return Place(min(max(lat, -90.0), 90.0), (lon + 180.0) % 360.0 - 180.0)


def _area(
    near_on: bool,
    centre: Place | None,
    radius_m: float,
    own: list[str],
    uploaded: UploadedPhoto | None,
) -> SearchArea | None:
    own_place = uploaded.place if uploaded is not None and text.GPS_SEARCH in own else None
    return handlers.search_area(
        near_on or own_place is not None, centre if near_on else None, radius_m, own_place
    )


def _circle(
    near_on: bool,
    centre: Place | None,
    radius_m: float,
    own: list[str],
    uploaded: UploadedPhoto | None,
) -> dict[str, float] | None:
    """The circle to draw on the map, or None while it has no centre."""
    try:
        area = _area(near_on, centre, radius_m, own, uploaded)
    except CoreError:
        return None
    return None if area is None else handlers.area_record(area)


def _locate(
    page: Page, controls: _Controls, memory: _Memory, values: dict[Any, Any]
) -> tuple[Any, ...]:
    path, uploaded = values[controls.photo], values[memory.uploaded]
    own = values[controls.own_place] or []
    if uploaded is None or uploaded.path != str(path):
        uploaded, own = None, []  # settings of another photo do not apply to this one
    near_on = values[controls.near_on]
    by_hand = values[controls.fov_mode] == text.FOV_HAND
    compass = values[controls.heading_mode] == text.HEADING_COMPASS
    request = LocateRequest(
        float(values[controls.fov]) if by_hand else None,
        float(values[controls.heading]) if compass else None,
        _area(near_on, values[memory.centre], values[controls.radius], own, uploaded),
    )
    answer = handlers.locate(page, path, uploaded, request)
    pieces = handlers.show(page, answer, 1, request.near, near_on, text.GPS_SHOW in own)
    found = bool(answer.prediction.candidates)
    # This answer's files are not written yet, and the buttons still hold those of the last answer.
    return answer, 1 if found else None, _arrived(answer, pieces, gr.update(interactive=False))


def _arrived(answer: Answer, pieces: tuple[str, ...], download: dict[str, Any]) -> dict[str, Any]:
    """The data for the browser to show an answer: the path of its photo, and ``_Results.shown``."""
    after = gr.update(visible=bool(answer.prediction.candidates))
    downloads = [download] * len(handlers.DOWNLOADS)
    return {"photo": answer.uploaded.path, "shown": [*pieces, after, *downloads]}


def _blank(page: Page) -> dict[str, list[Any]]:
    """The content before an answer, in the order of ``_Results.shown``: without a photo (idle), and
    with one (ready).
    """
    idle, *pieces = handlers.show(page, None, None, None, False)
    downloads = [gr.update(interactive=False)] * len(handlers.DOWNLOADS)
    rest = [*pieces, gr.update(visible=False), *downloads]
    return {"idle": [idle, *rest], "ready": [fragments.waiting(text.READY), *rest]}


def _files(photo: str | None, answer: Answer | None) -> list[Any]:
    return handlers.write_files(handlers.answer_to(photo, answer))


def _redraw(
    page: Page, photo: str | None, answer: Answer | None, selected: int | None, own: list[str]
) -> dict[str, Any]:
    """The same answer, with or without the photo's own place."""
    answer = handlers.answer_to(photo, answer)
    if answer is None:
        return gr.skip()
    shown = handlers.show(page, answer, selected, answer.request.near, False, text.GPS_SHOW in own)
    return _arrived(answer, shown, gr.update())
