"""What happens when a visitor does something: plain functions, results in, HTML and pictures out.

The only place where a CoreError becomes a message on the page (gr.Error); anything else that goes
wrong is logged for the operator and told to the visitor in one sentence, without a traceback.
"""

from __future__ import annotations

import functools
import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np

from app import fragments, text
from app.drawings import Pair, sharp_canvas
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
    "Ask",
    "Note",
    "Page",
    "answer_to",
    "area_record",
    "explain",
    "is_rendered",
    "locate",
    "read_photo",
    "search_area",
    "show",
    "spoken",
    "write_files",
]

log = logging.getLogger("crossview.page")
TOP_K = 10
SHADED = 100
"""Places asked for, the best TOP_K of which are listed and the others only shaded."""
DOWNLOADS = {"geojson": "↓ GeoJSON", "csv": "↓ CSV", "gpkg": "↓ GeoPackage"}
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Note:
    """What the program remembers of a visitor's photo. ``place``: what the file claims."""

    path: str
    place: Place | None
    heading_deg: float | None
    fov_deg: float
    facts: str
    is_example: bool


@dataclass(frozen=True)
class Ask:
    """What a visitor tells beside the photo; None where unknown."""

    fov_deg: float | None = None
    heading_deg: float | None = None
    near: SearchArea | None = None


@dataclass(frozen=True)
class Answer:
    """A prediction, with what was asked, kept in the visitor's session."""

    note: Note
    ask: Ask
    prediction: Prediction
    places: tuple[Candidate, ...] = ()
    """More places than are listed, for the shading of the map."""

    def candidate(self, rank: int | None) -> Candidate | None:
        """The candidate of this rank, or None."""
        return next((c for c in self.prediction.candidates if c.rank == rank), None)


class Page:
    """What every handler needs, opened once and never changed: façade, base map, examples."""

    def __init__(self, localizer: Any, base: BaseMap, examples: tuple[Path, ...] = ()) -> None:
        self.localizer = localizer
        self.gallery = localizer.gallery
        self.base = base
        self.examples = tuple(path.resolve() for path in examples)
        self._thumbnail = functools.lru_cache(maxsize=512)(self._make_thumbnail)

    def _make_thumbnail(self, row: int) -> str:
        return fragments.picture_url(self.gallery.tile_image(row))

    def thumbnail(self, candidate: Candidate) -> str:
        """Address of a candidate's tile as a small picture."""
        return self._thumbnail(candidate.row)

    def is_example(self, path: str) -> bool:
        """Whether a path is one of the examples, whose true places may be shown."""
        return Path(path).resolve() in self.examples


def is_rendered(page: Page) -> bool:
    """Whether the gallery lies at 0 N, 0 E, where the rendered towns are and nothing else is."""
    origin = page.gallery.frame.origin
    return abs(origin.lat_deg) < 0.05 and abs(origin.lon_deg) < 0.05


def spoken(function: Callable[P, T]) -> Callable[P, T]:
    """Turn a CoreError into its sentence on the page, and anything unforeseen into a calm one."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except CoreError as error:
            raise _told(fragments.esc(error)) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("unforeseen failure in %s", getattr(function, "__name__", "a handler"))
            raise _told(text.UNFORESEEN) from error

    return wrapper


def _told(sentence: str) -> gr.Error:
    # Without its own traceback in the log: a visitor's mistake is no failure of the server.
    return gr.Error(sentence, title=text.ERROR_TITLE, duration=20, print_exception=False)


def read_photo(page: Page, path: str | None) -> Note | None:
    """Open a photo, note what its file says, and take its place out of an uploaded file.

    An upload that is no usable picture is not kept: nobody can say what it tells. Raises PhotoError
    then; None for no photo.
    """
    if not path:
        return None
    is_example = page.is_example(path)
    photo = open_photo(path) if is_example or not is_upload(path) else _opened_upload(Path(path))
    size = (photo.image.shape[1], photo.image.shape[0])
    own_place = photo.place is not None and not is_example
    facts = fragments.facts(photo.fov_deg, photo.fov_source, size, photo.heading_deg, own_place)
    return Note(path, photo.place, photo.heading_deg, photo.fov_deg, facts, is_example)


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
    """Raises PhotoError where an upload was refused before, or has expired."""
    if not path.exists():
        raise PhotoError(text.not_kept(path.name))


def search_area(
    wanted: bool, centre: Place | None, radius_m: float, own_place: Place | None = None
) -> SearchArea | None:
    """The circle to search in, or None for everywhere; ``own_place`` is the photo's, if asked for.

    Raises SettingError where a circle is wanted but has no centre.
    """
    if not wanted:
        return None
    middle = centre or own_place
    if middle is None:
        raise SettingError(text.NEAR_MISSING)
    return SearchArea(middle, float(radius_m))


def area_record(area: SearchArea) -> dict[str, float]:
    """A search circle as the map's script takes it."""
    return {
        "lat_deg": area.centre.lat_deg,
        "lon_deg": area.centre.lon_deg,
        "radius_m": area.radius_m,
    }


def locate(page: Page, path: str | None, note: Note | None, ask: Ask) -> Answer:
    """Find the candidate places of a photo. Raises CoreError with a sentence for the visitor."""
    if not path:
        raise PhotoError(text.NO_PHOTO)
    if note is None or note.path != path:
        note = read_photo(page, path)
        assert note is not None
    _require_kept(Path(path))
    found = page.localizer.locate(
        path, fov_deg=ask.fov_deg, heading_deg=ask.heading_deg, near=ask.near, top_k=SHADED
    )
    prediction = replace(found, candidates=found.candidates[:TOP_K])
    return Answer(note, ask, prediction, found.candidates)


def answer_to(photo: str | None, answer: Answer | None) -> Answer | None:
    """The answer, if it is one to this photo; None for that to another, which came too late."""
    return answer if answer is not None and answer.note.path == photo else None


def write_files(answer: Answer | None) -> list[Any]:
    """The answer as files to take along, one per entry of DOWNLOADS, as download button updates."""
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
    """Verdict, map, legend and cards as HTML, of an answer or of none yet."""
    truth = _truth(answer, show_own_place)
    place = answer.note.place if answer is not None and truth else None
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
        truth_heading_deg=answer.note.heading_deg if answer is not None and truth else None,
        picking=picking,
        words={"truth": text.TRUTH if answer and answer.note.is_example else text.CLAIMED_PLACE},
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
    verdict = fragments.verdict(prediction, answer.ask.heading_deg, answer.ask.near, error)
    return verdict, frame, legend, fragments.cards(prediction.candidates, selected, page.thumbnail)


def _truth(answer: Answer | None, show_own_place: bool) -> bool:
    """Whether the photo's own place may be shown: for an example, or where the visitor asked."""
    return answer is not None and (answer.note.is_example or show_own_place)


def _cells(answer: Answer | None) -> Cells | None:
    """Probability of every place that has a share of it; None before there is an answer.

    Candidates are distinct: tiles within half a tile of a better one are merged into it, so a
    place stands for a square of half a tile.
    """
    if answer is None or not answer.places:
        return None
    return Cells(
        np.array([[c.tile.east_m, c.tile.north_m] for c in answer.places]),
        np.array([c.probability for c in answer.places]),
        answer.places[0].tile.side_m / 2,
    )


def explain(page: Page, answer: Answer | None, rank: int | None) -> Pair | None:
    """What matched what between the answered photo and one candidate; None without either."""
    candidate = answer.candidate(rank) if answer is not None else None
    if answer is None or candidate is None:
        return None
    photo, _ = page.localizer.view(answer.note.path, answer.ask.fov_deg)
    explanation = page.localizer.explain(
        photo, candidate.row, candidate.azimuth_shift, camera=candidate.camera
    )
    return Pair(explanation, sharp_canvas(photo), explanation.tile)
