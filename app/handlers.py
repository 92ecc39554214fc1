"""Handlers of the visitor's actions: plain functions that return HTML and pictures.

Only here does a CoreError become a message on the page (gr.Error). Any other failure is logged for
the operator; the visitor sees one general sentence without a traceback.
"""

from __future__ import annotations

import functools
import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np

from app import fragments, text
from app.drawings import ExplainedPair, sharp_canvas
from app.map_view import BaseMap, Cells, MapScene, build_document, frame_html
from app.privacy import strip_place
from app.uploads import is_upload, upload_folder
from core.errors import CoreError, PhotoError, SettingError
from core.geo import distance_m
from core.localization.output import write_predictions
from core.photos.opening import Photo, open_photo
from core.records import Candidate, Place, Prediction, SearchArea

__all__ = [
    "DOWNLOADS",
    "Answer",
    "LocateRequest",
    "Page",
    "UploadedPhoto",
    "answer_to",
    "area_record",
    "as_message",
    "explain",
    "is_rendered",
    "locate",
    "read_photo",
    "search_area",
    "show",
    "write_files",
]

log = logging.getLogger("crossview.page")
TOP_K = 10
SHADED = 100
"""Candidates requested: the best TOP_K are listed, the others only shaded on the map."""
DOWNLOADS = {"geojson": "↓ GeoJSON", "csv": "↓ CSV", "gpkg": "↓ GeoPackage"}
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class UploadedPhoto:
    """A visitor's photo as it was read. ``place``: the place in its metadata, or None.

    ``path``: of the file; ``heading_deg``: compass of the file; ``facts``: HTML for the page;
    ``is_example``: it is one of the page's own photos, so its true place may be shown.
    """

    path: str
    place: Place | None
    heading_deg: float | None
    fov_deg: float
    facts: str
    is_example: bool


@dataclass(frozen=True)
class LocateRequest:
    """A visitor's settings beside the photo; None means unknown."""

    fov_deg: float | None = None
    heading_deg: float | None = None
    near: SearchArea | None = None


@dataclass(frozen=True)
class Answer:
    """A prediction with its photo and request, kept in the visitor's session."""

    uploaded: UploadedPhoto
    request: LocateRequest
    prediction: Prediction
    places: tuple[Candidate, ...] = ()
    """More places than are listed, for the shading of the map."""

    def candidate(self, rank: int | None) -> Candidate | None:
        """The candidate of this rank, or None."""
        return next((c for c in self.prediction.candidates if c.rank == rank), None)


class Page:
    """The shared state of all handlers, opened once and never changed: façade, base map, examples."""

    def __init__(self, localizer: Any, base: BaseMap, examples: tuple[Path, ...] = ()) -> None:
        self.localizer = localizer
        self.gallery = localizer.gallery
        self.base = base
        self.examples = tuple(path.resolve() for path in examples)
        self._thumbnail = functools.lru_cache(maxsize=512)(self._make_thumbnail)

    def _make_thumbnail(self, row: int) -> str:
        return fragments.picture_url(self.gallery.tile_image(row))

    def thumbnail(self, candidate: Candidate) -> str:
        """URL of a candidate's tile as a small picture."""
        return self._thumbnail(candidate.row)

    def is_example(self, path: str) -> bool:
        """Whether a path is an example; the true places of examples may be shown."""
        return Path(path).resolve() in self.examples


def is_rendered(page: Page) -> bool:
    """Whether the gallery lies at 0 N, 0 E; only rendered towns are there."""
    origin = page.gallery.frame.origin
    return abs(origin.lat_deg) < 0.05 and abs(origin.lon_deg) < 0.05


def as_message(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a handler: its CoreError becomes a sentence on the page.

    Any other exception is logged and becomes one general sentence, without a traceback.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except CoreError as error:
            raise _page_error(fragments.esc(error)) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("unforeseen failure in %s", getattr(function, "__name__", "a handler"))
            raise _page_error(text.UNFORESEEN) from error

    return wrapper


def _page_error(sentence: str) -> gr.Error:
    # No traceback in the log: a visitor's mistake is no failure of the server.
    return gr.Error(sentence, title=text.ERROR_TITLE, duration=20, print_exception=False)


def read_photo(page: Page, path: str | None) -> UploadedPhoto | None:
    """Open a photo, read its metadata, and remove the place from an uploaded file.

    None for no photo. An unusable upload is deleted, since its metadata cannot be removed; then
    PhotoError is raised.
    """
    if not path:
        return None
    is_example = page.is_example(path)
    photo = open_photo(path) if is_example or not is_upload(path) else _opened_upload(Path(path))
    size = (photo.image.shape[1], photo.image.shape[0])
    own_place = photo.place is not None and not is_example
    facts = fragments.facts(photo.fov_deg, photo.fov_source, size, photo.heading_deg, own_place)
    return UploadedPhoto(path, photo.place, photo.heading_deg, photo.fov_deg, facts, is_example)


def _opened_upload(path: Path) -> Photo:
    _require_kept(path)
    try:
        photo = open_photo(path)
        strip_place(path)
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return photo


def _require_kept(path: Path) -> None:
    """Raise PhotoError if an upload was refused before, or has expired."""
    if not path.exists():
        raise PhotoError(text.not_kept(path.name))


def search_area(
    wanted: bool, centre: Place | None, radius_m: float, own_place: Place | None = None
) -> SearchArea | None:
    """The circle to search in, or None for everywhere. ``own_place``: the photo's place, if used.

    Raises SettingError if a circle is wanted but has no centre.
    """
    if not wanted:
        return None
    middle = centre or own_place
    if middle is None:
        raise SettingError(text.NEAR_MISSING)
    return SearchArea(middle, float(radius_m))


def area_record(area: SearchArea) -> dict[str, float]:
    """A search circle in the form of the map's script."""
    return {
        "lat_deg": area.centre.lat_deg,
        "lon_deg": area.centre.lon_deg,
        "radius_m": area.radius_m,
    }


def locate(
    page: Page, path: str | None, uploaded: UploadedPhoto | None, request: LocateRequest
) -> Answer:
    """Find the candidate places of a photo. Raises CoreError with a sentence for the visitor."""
    if not path:
        raise PhotoError(text.NO_PHOTO)
    if uploaded is None or uploaded.path != path:
        uploaded = read_photo(page, path)
        assert uploaded is not None
    _require_kept(Path(path))
    found = page.localizer.locate(
        path,
        fov_deg=request.fov_deg,
        heading_deg=request.heading_deg,
        near=request.near,
        top_k=SHADED,
    )
    return Answer(uploaded, request, found.shortened(TOP_K), found.candidates)


def answer_to(photo: str | None, answer: Answer | None) -> Answer | None:
    """The answer if it belongs to this photo; None if the photo was replaced meanwhile."""
    return answer if answer is not None and answer.uploaded.path == photo else None


def write_files(answer: Answer | None) -> list[Any]:
    """Write the answer's files, one per entry of DOWNLOADS; returns updates of the download buttons."""
    if answer is None or not answer.prediction.candidates:
        return [gr.update(interactive=False)] * len(DOWNLOADS)
    folder = Path(tempfile.mkdtemp(dir=upload_folder()))
    stem = re.sub(r"[^\w-]+", "_", Path(answer.prediction.photo).stem)[:60] or "photo"
    updates = []
    for name in DOWNLOADS:
        path = folder / f"crossview-{stem}.{name}"
        write_predictions(path, [answer.prediction])
        updates.append(gr.update(value=str(path), interactive=True))
    return updates


def show(
    page: Page,
    answer: Answer | None,
    selected: int | None,
    near: SearchArea | None,
    picking: bool,
    show_own_place: bool = False,
) -> tuple[str, str, str, str]:
    """Verdict, map, legend and cards as HTML, with or without an answer."""
    truth = _truth(answer, show_own_place)
    place = answer.uploaded.place if answer is not None and truth else None
    prediction = answer.prediction if answer is not None else None
    scene = MapScene(
        base=page.base,
        frame=page.gallery.frame,
        candidates=prediction.candidates if prediction else (),
        fov_deg=prediction.fov_deg if prediction else 360.0,
        selected=selected,
        cells=_cells(answer),
        near=near,
        truth=place,
        truth_heading_deg=answer.uploaded.heading_deg if answer is not None and truth else None,
        picking=picking,
        words={
            "truth": text.TRUTH if answer and answer.uploaded.is_example else text.CLAIMED_PLACE
        },
    )
    frame = frame_html(build_document(scene), text.MAP_TITLE)
    legend = fragments.legend(
        scene.cells is not None,
        near is not None,
        place is not None and page.base.covers(place),
        bool(scene.candidates),
    )
    if answer is None or prediction is None:
        return fragments.waiting(), frame, legend, ""
    first = prediction.candidates[0].camera if prediction.candidates else None
    error = distance_m(place, first) if place is not None and first is not None else None
    verdict = fragments.verdict(prediction, answer.request.heading_deg, answer.request.near, error)
    return verdict, frame, legend, fragments.cards(prediction.candidates, selected, page.thumbnail)


def _truth(answer: Answer | None, show_own_place: bool) -> bool:
    """Whether to show the photo's own place: for an example, or if the visitor wants it."""
    return answer is not None and (answer.uploaded.is_example or show_own_place)


def _cells(answer: Answer | None) -> Cells | None:
    """The probability of every place that has some; None before there is an answer.

    Candidates are distinct: tiles within half a tile of a better one are merged into it, so a place
    represents a square of half a tile.
    """
    if answer is None or not answer.places:
        return None
    return Cells(
        np.array([[c.tile.east_m, c.tile.north_m] for c in answer.places]),
        np.array([c.probability for c in answer.places]),
        answer.places[0].tile.side_m / 2,
    )


def explain(page: Page, answer: Answer | None, rank: int | None) -> ExplainedPair | None:
    """Let the teacher explain the answered photo and one candidate; None if one is missing."""
    candidate = answer.candidate(rank) if answer is not None else None
    if answer is None or candidate is None:
        return None
    photo, _ = page.localizer.view(answer.uploaded.path, answer.request.fov_deg)
    explanation = page.localizer.explain(
        photo, candidate.row, candidate.azimuth_shift, camera=candidate.camera
    )
    return ExplainedPair(explanation, sharp_canvas(photo), explanation.tile)
