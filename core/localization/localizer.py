"""A street photo in, a Prediction out: the façade for the page, the command line and the API.

It converts degrees to metres and back; ``core.localization.answer`` computes the answer. Everything
loaded is read-only, so one Localizer serves many threads.
"""

from __future__ import annotations

import math
from pathlib import Path
from time import perf_counter

import numpy as np

from core.arrays import Float64Array
from core.checkpoints import load_student, load_teacher, model_hash, require_calibrated_for
from core.errors import SettingError
from core.explain.pair import Explanation, explain_pair
from core.gallery.folder import Gallery
from core.geo import wrap_deg
from core.localization.answer import Evidence, FoundPlace, Models, answer, rank
from core.localization.calibration import Calibration
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.canvas import GroundCanvas
from core.photos.opening import Photo, PhotoSource, canvas_of, open_photo, with_fov
from core.polar import BINS
from core.records import Candidate, Place, Prediction, SearchArea

__all__ = ["Localizer", "teacher_beside", "teacher_for"]

MAX_PLACES = 100


class Localizer:
    """Finds photos in one gallery; made by ``Localizer.open``."""

    def __init__(
        self,
        gallery: Gallery,
        student: TwoBranch,
        teacher: GeoSSK | None = None,
        calibration: Calibration | None = None,
        device: str = "cpu",
    ) -> None:
        self.gallery = gallery
        self.models = Models(
            student.eval().to(device),
            None if teacher is None else teacher.eval().to(device),
            calibration or Calibration(),
            device,
        )

    @classmethod
    def open(
        cls,
        gallery: str | Path,
        student: str | Path,
        teacher: str | Path | None = None,
        device: str = "cpu",
    ) -> Localizer:
        """Open a gallery folder and the model folders that belong to it.

        Args:
            gallery: folder written by ``gallery build`` with this student.
            student: model folder of a two-branch model.
            teacher: model folder of a GeoSSK teacher; without one nothing is re-ranked and
                ``explain`` is not available.
            device: where the models run, as torch names it.

        Raises:
            GalleryError: the gallery is missing, damaged, or built by another model.
            CheckpointError: a model folder is missing, damaged, or holds the wrong kind of model, or
                the teacher was calibrated with another student.

        """
        describing, config = load_student(student)
        reranking: GeoSSK | None = None
        if teacher is not None:
            # The teacher's folder holds the calibration of the two together.
            reranking, config = load_teacher(teacher)
            require_calibrated_for(teacher, config, student)
        opened = Gallery.open(gallery)
        opened.require_model(Path(student).name, model_hash(student), student)
        calibration = Calibration.from_config(config.get("calibration", {}))
        return cls(opened, describing, reranking, calibration, device)

    def locate(
        self,
        photo: PhotoSource | Photo,
        fov_deg: float | None = None,
        heading_deg: float | None = None,
        near: SearchArea | None = None,
        top_k: int = 10,
    ) -> Prediction:
        """Find where a photo may have been taken.

        Args:
            photo: a path, bytes, uint8 array (H, W, 3), Pillow image, or an opened Photo.
            fov_deg: horizontal field of view in degrees; replaces the photo's own value.
            heading_deg: direction of the photo's centre, degrees clockwise from north, if known.
            near: where to search; everywhere by default.
            top_k: largest number of places to return, 1 to 100.

        Returns:
            Distinct places, best first, each with its probability; timings in wall-clock
            milliseconds, "total" for all steps.

        Raises:
            PhotoError: the photo cannot be used.
            SettingError: field of view, heading, area or top_k make no sense.

        """
        watch = _Stopwatch()
        heading = None if heading_deg is None else _checked_heading(heading_deg)
        top_k = _checked_top_k(top_k)
        evidence, area_notes = self._evidence(heading, near)
        opened, canvas = self.view(photo, fov_deg)
        watch.lap("photo")
        found = answer(self.gallery, self.models, canvas.image, evidence, watch.lap)
        candidates = tuple(
            self._candidate(rank, place)
            for rank, place in enumerate(found.places[:MAX_PLACES], start=1)
        )
        unlisted = sum(place.probability for place in found.places[MAX_PLACES:])
        everything = Prediction(
            photo=opened.name,
            fov_deg=opened.fov_deg,
            fov_source=opened.fov_source,
            confident=found.confident,
            candidates=candidates,
            rest_probability=found.rest_probability + unlisted,
            outside_probability=found.outside_probability,
            area_50_m2=found.area_50_m2,
            area_90_m2=found.area_90_m2,
            timings_ms=watch.timings_ms(),
            notes=opened.notes + area_notes + self._fit_notes,
        )
        return everything.shortened(top_k)

    def explain(
        self,
        photo: PhotoSource | Photo,
        row: int,
        azimuth_shift: float | None = None,
        fov_deg: float | None = None,
        camera: Place | None = None,
    ) -> Explanation:
        """Explain a pair: what the teacher attends to in a photo and one tile.

        Args:
            photo: as for ``locate``.
            row: gallery row of the tile (``Candidate.row``).
            azimuth_shift: aligns the pair (``Candidate.azimuth_shift``); by default the best one for
                the tile.
            fov_deg: give the same as to ``locate``, else the canvas differs.
            camera: centre of the tile (``Candidate.camera``), so that directions in the tile match the
                photo; by default the centre of the gallery's place.

        Raises:
            PhotoError: the photo cannot be used.
            SettingError: there is no teacher, the teacher is global, or there is no such row.

        """
        teacher = self.models.teacher
        if teacher is None or teacher.base.bins is None:
            got = "no teacher" if teacher is None else "a teacher with a global descriptor"
            raise SettingError(
                f"Explanation: got {got}, expected one with azimuth bins. Open the localizer with "
                "its model folder."
            )
        place = self.gallery.tile(row).place if camera is None else camera
        point = self.gallery.inside(np.array(self.gallery.frame.to_metres(place)))
        tile = self.gallery.tiles_at(point[None])[0]
        _, canvas = self.view(photo, fov_deg)
        if azimuth_shift is None:
            only = Evidence(rows=np.array([row], dtype=np.int64))
            ranking = rank(self.gallery, self.models, canvas.image, only)
            azimuth_shift = float(ranking.azimuth_shifts[0])
        return explain_pair(
            teacher, canvas.image, tile, azimuth_shift, canvas.mask, self.models.device
        )

    @property
    def _fit_notes(self) -> tuple[str, ...]:
        fitted, own = self.models.calibration.viewpoints, self.gallery.manifest.viewpoints
        if fitted is None or fitted == own:
            return ()
        note = (
            f"The probabilities were fitted with places described from {fitted} viewpoints, this gallery "
            f"has {own} of each: they are rough."
        )
        return (note,)

    @property
    def explains(self) -> bool:
        """Whether there is a teacher for ``explain``: one with azimuth bins."""
        return self.models.refines

    def view(
        self, photo: PhotoSource | Photo, fov_deg: float | None = None
    ) -> tuple[Photo, GroundCanvas]:
        """The photo as opened, and its canvas of whole azimuth bins as the models see it.

        Raises:
            PhotoError: the photo cannot be used.
            SettingError: a field of view that makes no sense.

        """
        opened = photo if isinstance(photo, Photo) else open_photo(photo)
        if fov_deg is not None:
            opened = with_fov(opened, fov_deg)
        return opened, canvas_of(opened, bins=BINS)

    def _evidence(
        self, heading: float | None, near: SearchArea | None
    ) -> tuple[Evidence, tuple[str, ...]]:
        """The evidence that the visitor gave, and a note on the searched area."""
        if near is None:
            return Evidence(heading), ()
        rows = self.gallery.rows_within(near)
        if not len(rows):
            raise SettingError(
                f"Search area: got {near.radius_m:g} m around {near.centre.lat_deg:.5f}, "
                f"{near.centre.lon_deg:.5f}, where the gallery has no place. Move or widen it."
            )
        note = f"Searched {len(rows)} of {len(self.gallery)} places, within {near.radius_m:g} m."
        return Evidence(heading, rows), (note,)

    def _candidate(self, rank: int, place: FoundPlace) -> Candidate:
        return Candidate(
            rank=rank,
            row=place.row,
            tile=self.gallery.tile(place.row),
            similarity=place.similarity,
            teacher_score=place.teacher_score,
            probability=place.probability,
            heading_deg=place.heading_deg,
            azimuth_shift=place.azimuth_shift,
            camera=self._to_place(place.position_m),
            radius_m=place.radius_m,
        )

    def _to_place(self, point_m: Float64Array) -> Place:
        return self.gallery.frame.to_place(float(point_m[0]), float(point_m[1]))


def teacher_beside(student: str | Path) -> Path | None:
    """The folder ``teacher`` beside a student's folder: the default for re-ranking."""
    beside = Path(student).parent / "teacher"
    is_one = beside.is_dir() and beside.resolve() != Path(student).resolve()
    return beside if is_one else None


def teacher_for(
    student: str | Path, named: str | Path | None = None, rerank: bool = True
) -> Path | None:
    """The teacher's folder for a student: the named one, else the one beside the student."""
    if not rerank:
        return None
    return teacher_beside(student) if named is None else Path(named)


class _Stopwatch:
    """Wall-clock milliseconds between laps."""

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = perf_counter()
        self._laps[name] = 1000 * (now - self._last)
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        return {**self._laps, "total": 1000 * (perf_counter() - self._started)}


def _checked_top_k(top_k: int) -> int:
    if not 1 <= top_k <= MAX_PLACES:
        raise SettingError(
            f"Number of places: got {top_k}, expected 1 to {MAX_PLACES}. Ask for fewer."
        )
    return top_k


def _checked_heading(heading_deg: object) -> float:
    try:
        heading = float(heading_deg)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        heading = math.nan
    if not -360 <= heading <= 360:
        raise SettingError(
            f"Heading: got {str(heading_deg)[:40]!r}, expected degrees clockwise from north, 0 to "
            "360. North is 0, east is 90."
        )
    return wrap_deg(heading)
