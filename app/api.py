"""Two endpoints for programs, without the page's pictures: /locate and /explain."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from app import handlers
from app.handlers import LocateRequest, Page
from app.photo_input import photo_input
from core.errors import SettingError
from core.explain.pair import Explanation
from core.localization.output import prediction_record
from core.records import Place, SearchArea

__all__ = ["build_api", "explain_record", "locate_record"]

Record = dict[str, Any]


def build_api(page: Page) -> None:
    """Declare the endpoints, invisible on the page; call it inside a gr.Blocks."""
    with gr.Group(visible=False):
        inputs: list[Any] = [
            photo_input(label="photo"),
            gr.Number(None, label="fov_deg"),
            gr.Number(None, label="heading_deg"),
            gr.Number(None, label="near_lat_deg"),
            gr.Number(None, label="near_lon_deg"),
            gr.Number(None, label="near_radius_m"),
        ]
        rank = gr.Number(1, label="rank", precision=0)
        answer = gr.JSON(label="answer")
        gr.Button("locate").click(
            handlers.as_message(partial(locate_record, page)),
            inputs,
            answer,
            api_name="locate",
            api_description="Candidate places of an uploaded street photo (a web address is "
            "refused), as python -m core locate --json.",
            concurrency_id="model",
        )
        gr.Button("explain").click(
            handlers.as_message(partial(explain_record, page)),
            [*inputs, rank],
            answer,
            api_name="explain",
            api_description="Cross-view attention and contribution factors of one candidate.",
            concurrency_id="model",
        )


def locate_record(
    page: Page,
    photo: str | None,
    fov_deg: float | None = None,
    heading_deg: float | None = None,
    near_lat_deg: float | None = None,
    near_lon_deg: float | None = None,
    near_radius_m: float | None = None,
) -> Record:
    """The object that ``python -m core locate --json`` prints for the same photo.

    The photo is named by its file name only, since its folder belongs to the server.
    """
    near = _near(near_lat_deg, near_lon_deg, near_radius_m)
    answer = handlers.locate(page, photo, None, LocateRequest(fov_deg, heading_deg, near))
    return prediction_record(answer.prediction)


def explain_record(
    page: Page,
    photo: str | None,
    fov_deg: float | None = None,
    heading_deg: float | None = None,
    near_lat_deg: float | None = None,
    near_lon_deg: float | None = None,
    near_radius_m: float | None = None,
    rank: int | None = 1,
) -> Record:
    """Attention between a photo and its candidate of this rank (1 is best), rows summing to 1.

    The tile's sectors lie around ``lat_deg``, ``lon_deg``: the estimated camera position.
    """
    near = _near(near_lat_deg, near_lon_deg, near_radius_m)
    answer = handlers.locate(page, photo, None, LocateRequest(fov_deg, heading_deg, near))
    candidate = answer.candidate(rank)
    pair = handlers.explain(page, answer, rank)
    if candidate is None or pair is None:
        raise SettingError(
            f"Rank: got {rank}, expected 1 to {len(answer.prediction.candidates)}. "
            "Choose one of the candidates that /locate lists."
        )
    return {
        "photo": answer.prediction.photo,
        "rank": candidate.rank,
        "tile_id": candidate.tile.tile_id,
        "lat_deg": round(candidate.camera.lat_deg, 7),
        "lon_deg": round(candidate.camera.lon_deg, 7),
        **_explanation_record(pair.explanation),
    }


def _near(
    lat_deg: float | None, lon_deg: float | None, radius_m: float | None
) -> SearchArea | None:
    if lat_deg is None and lon_deg is None and radius_m is None:
        return None
    if lat_deg is None or lon_deg is None or radius_m is None:
        raise SettingError(
            "Search circle: got only a part of it, expected latitude, longitude and radius. "
            "Give all three or none."
        )
    return SearchArea(Place(lat_deg, lon_deg), radius_m)


def _explanation_record(explanation: Explanation) -> Record:
    """Grids are (rows, columns), patches row by row; shares to 6 decimals, degrees to 2."""

    def rounded(values: Any) -> Any:
        return values.astype(float).round(6).tolist()

    return {
        "heading_deg": round(explanation.heading_deg, 2),
        "attention_heading_deg": round(explanation.attention_heading_deg, 2),
        "azimuth_shift": round(explanation.azimuth_shift, 4),
        "teacher_score": round(explanation.teacher_score, 6),
        "ground_grid": list(explanation.ground_grid),
        "aerial_grid": list(explanation.aerial_grid),
        "ground_to_aerial": rounded(explanation.ground_to_aerial),
        "aerial_to_ground": rounded(explanation.aerial_to_ground),
        "phi_ground": rounded(explanation.phi_ground),
        "phi_aerial": rounded(explanation.phi_aerial),
    }
