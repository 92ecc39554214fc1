"""The Explain tab: photo and chosen tile side by side, with the attention between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from app import fragments, handlers, text
from app.drawings import ExplainedPair, Lit, clicked_patch, draw, first_patch
from app.handlers import Answer, Page
from app.locate_tab import GENTLE, LocateTab

__all__ = ["build_explain_tab"]

SELECT = "(rank) => { crossviewPage.select(Number(rank)); }"
Picture = Any


def build_explain_tab(page: Page, tab: gr.Tab, locate_tab: LocateTab) -> None:
    """Lay out the tab and connect it to the answer and the chosen place of the Locate tab."""
    pair, lit = gr.State(None, time_to_live=3600), gr.State(None)
    with gr.Row(elem_classes="cv-explain-controls"):
        place = gr.Radio(
            [], label=text.PLACE, visible=False, elem_id="explain-place", scale=3, min_width=300
        )
        mode = gr.Radio(
            [text.EXPLAIN_ATTENTION, text.EXPLAIN_FACTORS],
            value=text.EXPLAIN_ATTENTION,
            label=text.EXPLAIN_SHOW,
            elem_id="explain-mode",
            scale=2,
        )
        opacity = gr.Slider(
            0, 1, value=0.75, step=0.05, label=text.OPACITY, elem_id="opacity", scale=2
        )
    words = gr.HTML(
        fragments.explained(text.EXPLAIN_WAITING), elem_id="explain-words", js_on_load=None
    )
    with gr.Row(elem_classes="cv-pair", equal_height=False):
        ground = _picture(text.EXPLAIN_GROUND, "explain-ground", 3)
        aerial = _picture(text.EXPLAIN_AERIAL, "explain-aerial", 2)
    legend = gr.HTML("", elem_id="explain-legend", js_on_load=None)

    drawn = [ground, aerial, words, legend]
    settings = [mode, opacity]
    whole: dict[str, Any] = {
        "fn": handlers.as_message(partial(_explain, page)),
        "inputs": [locate_tab.photo, locate_tab.answer, locate_tab.selected, *settings],
        "outputs": [pair, lit, place, *drawn],
        "api_visibility": "private",
        "show_progress": "minimal",
        "show_progress_on": words,
        "concurrency_id": "model",
    }
    tab.select(**whole)
    place.input(_rank_of, place, locate_tab.selected, **GENTLE).then(
        None, place, js=SELECT, **GENTLE
    ).then(**whole)
    for picture, view in ((ground, "ground"), (aerial, "aerial")):
        picture.select(
            handlers.as_message(_click_handler(view)),
            [pair, lit, *settings],
            [lit, mode, *drawn],
            trigger_mode="always_last",
            **GENTLE,
        )
    for change in (mode.input, opacity.input):
        change(
            handlers.as_message(_draw),
            [pair, lit, *settings],
            drawn,
            trigger_mode="always_last",
            **GENTLE,
        )


def _picture(label: str, elem_id: str, scale: int) -> gr.Image:
    # No full-screen button: clicks report wrong places there (gradio issue 10268).
    return gr.Image(
        label=label,
        elem_id=elem_id,
        interactive=False,
        buttons=[],
        format="jpeg",
        type="pil",
        min_width=300,
        scale=scale,
    )


def _explain(
    page: Page,
    photo: str | None,
    answer: Answer | None,
    selected: int | None,
    mode: str,
    opacity: float,
) -> tuple[Any, ...]:
    answer = handlers.answer_to(photo, answer)
    pair = handlers.explain(page, answer, selected)
    if pair is None or answer is None:
        nothing = (None, None, fragments.explained(text.EXPLAIN_WAITING), "")
        return None, None, gr.update(visible=False), *nothing
    lit = first_patch(pair.explanation)
    ranks = [str(candidate.rank) for candidate in answer.prediction.candidates]
    place = gr.update(choices=ranks, value=str(selected), visible=True)
    return pair, lit, place, *_draw(pair, lit, mode, opacity)


def _rank_of(value: str) -> int:
    return int(value)


def _click_handler(view: str) -> Callable[..., tuple[Any, ...]]:
    """A handler of clicks on the picture of one view.

    It is a closure, not a partial: Gradio finds the event by its type hint, and a partial hides that.
    """

    def clicked(
        pair: ExplainedPair | None,
        lit: Lit | None,
        mode: str,
        opacity: float,
        event: gr.SelectData,
    ) -> tuple[Any, ...]:
        if pair is None:
            return lit, mode, *_draw(None, None, mode, opacity)
        x, y = event.index
        lit = clicked_patch(pair, view, x, y) or lit
        # A click shows attention, so it also leaves the contribution view.
        return lit, text.EXPLAIN_ATTENTION, *_draw(pair, lit, text.EXPLAIN_ATTENTION, opacity)

    return clicked


def _draw(
    pair: ExplainedPair | None, lit: Lit | None, mode: str, opacity: float
) -> tuple[Picture, Picture, str, str]:
    if pair is None:
        return None, None, fragments.explained(text.EXPLAIN_WAITING), ""
    factors = mode == text.EXPLAIN_FACTORS
    drawing = draw(pair, lit, factors, opacity)
    words = fragments.explained(drawing.words, pair.explanation)
    return drawing.ground, drawing.aerial, words, fragments.colour_key(factors)
