"""A street photo in, a Prediction out: the one object that page, command line and API talk to.

The student describes the photo and searches the gallery at every azimuth shift, which also gives the
heading; the teacher looks at the first pairs again and re-orders them; neighbouring tiles become
one place; calibration says how sure the answer is. Everything loaded is read-only, so one
Localizer serves many threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.checkpoints import load_student, load_teacher, model_hash, require_calibrated_for
from core.errors import SettingError
from core.explain.pair import Explanation, explain_pair
from core.gallery.folder import Gallery
from core.geo import wrap_deg
from core.localization.calibration import POOL, RERANKED, Calibration, probabilities
from core.localization.ranking import Ranking, in_order, rank_tiles, refine_position, rerank
from core.localization.refinement import camera_position, steps_around
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.canvas import GroundCanvas
from core.photos.opening import Photo, PhotoSource, canvas_of, open_photo, with_fov
from core.photos.views import ground_batch
from core.polar import BINS, heading_from_shift, to_batch
from core.records import Candidate, Place, Prediction, SearchArea

__all__ = ["Localizer", "teacher_beside", "teacher_for", "tile_describer"]

MAX_PLACES = 100


def tile_describer(student: TwoBranch, device: str = "cpu") -> Callable[[UInt8Array], Float32Array]:
    """What ``build_gallery`` needs: tiles uint8 (B, S, S, 3) -> descriptors float32 (B, D)."""

    @torch.inference_mode()
    def describe(tiles: UInt8Array) -> Float32Array:
        batch = to_batch(tiles, student.aerial_size, device)
        return student.describe_aerial(batch).float().cpu().numpy()

    return describe


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
        self.student = student.eval().to(device)
        self.teacher = None if teacher is None else teacher.eval().to(device)
        self.calibration = calibration or Calibration()
        self.device = device
        # Threads that stay, as each keeps its own handle of the imagery.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="tiles")

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
        looking: GeoSSK | None = None
        if teacher is not None:
            # The calibration of the two together stands with the one that looks last.
            looking, config = load_teacher(teacher)
            require_calibrated_for(teacher, config, student)
        opened = Gallery.open(gallery)
        opened.require_model(Path(student).name, model_hash(student), student)
        calibration = Calibration.from_config(config.get("calibration", {}))
        return cls(opened, describing, looking, calibration, device)

    def locate(
        self,
        photo: PhotoSource | Photo,
        fov_deg: float | None = None,
        heading_deg: float | None = None,
        near: SearchArea | None = None,
        top_k: int = 10,
    ) -> Prediction:
        """Where a photo may have been taken.

        Args:
            photo: a path, bytes, uint8 array (H, W, 3), Pillow image, or an opened Photo.
            fov_deg: horizontal field of view in degrees, where the photo's own is not to be used.
            heading_deg: direction of the photo's centre, degrees clockwise from north, where known.
            near: where to search; everywhere by default.
            top_k: how many places to return at most, 1 to 100.

        Returns:
            Distinct places, best first; timings are wall-clock milliseconds, "total" of all.

        Raises:
            PhotoError: the photo cannot be used.
            SettingError: field of view, heading, area or top_k make no sense.

        """
        watch = _Stopwatch()
        heading = None if heading_deg is None else _checked_heading(heading_deg)
        top_k = _checked_top_k(top_k)
        rows, area_notes = self._rows_near(near)
        opened, canvas = self.view(photo, fov_deg)
        watch.lap("photo")
        descriptor = self._describe(canvas)
        watch.lap("describe")
        ranking = self._rank(descriptor, canvas, heading, rows)
        watch.lap("search")
        ranking = self._look_again(ranking, canvas, heading)
        watch.lap("rerank")
        candidates, confidence = self._places(ranking, canvas.n_bins, heading, top_k)
        candidates = (self._closer(candidates[0], canvas), *candidates[1:])
        watch.lap("position")
        if rows is not None:
            # Calibrated on whole galleries: in a small circle any photo has a clear first place.
            everywhere = self._rank(descriptor, canvas, heading, None)
            everywhere = self._look_again(everywhere, canvas, heading)
            confidence = self._confidence_in(everywhere, candidates[0].row, canvas.n_bins)
            watch.lap("confidence")
        return Prediction(
            photo=opened.name,
            fov_deg=opened.fov_deg,
            fov_source=opened.fov_source,
            confident=confidence >= self.calibration.at(canvas.n_bins).threshold,
            confidence=confidence,
            heading_deg=candidates[0].heading_deg,
            candidates=candidates,
            timings_ms=watch.timings_ms(),
            notes=opened.notes + area_notes + self._fit_notes,
        )

    def explain(
        self,
        photo: PhotoSource | Photo,
        row: int,
        azimuth_shift: float | None = None,
        fov_deg: float | None = None,
        camera: Place | None = None,
    ) -> Explanation:
        """What the teacher sees in a photo and one tile.

        Args:
            photo: as for ``locate``.
            row: gallery row of the tile (``Candidate.row``).
            azimuth_shift: at which azimuth shift to look (``Candidate.azimuth_shift``); by default the best one for the tile.
            fov_deg: as for ``locate``; give the same, else the canvas differs.
            camera: where to cut the tile (``Candidate.camera``), so that things lie where they are
                seen; by default around the place of the row, as the gallery has it.

        Raises:
            PhotoError: the photo cannot be used.
            SettingError: there is no teacher, a global one, or no such row.

        """
        if self.teacher is None or self.teacher.base.bins is None:
            got = "no teacher" if self.teacher is None else "a teacher with a global descriptor"
            raise SettingError(
                f"Explanation: got {got}, expected one with azimuth bins. Open the localizer with "
                "its model folder."
            )
        place = self.gallery.tile(row).place
        tile = self.gallery.tile_image_at(place if camera is None else camera)
        _, canvas = self.view(photo, fov_deg)
        if azimuth_shift is None:
            only = np.array([row], dtype=np.int64)
            ranking = self._rank(self._describe(canvas), canvas, None, only)
            azimuth_shift = float(self._look_again(ranking, canvas, None).azimuth_shifts[0])
        return explain_pair(
            self.teacher, canvas.image, tile, azimuth_shift, canvas.mask, self.device
        )

    @property
    def _fit_notes(self) -> tuple[str, ...]:
        fitted, own = self.calibration.viewpoints, self.gallery.manifest.viewpoints
        if fitted is None or fitted == own:
            return ()
        note = (
            f"How sure is said was fitted with places described from {fitted} viewpoints, this gallery "
            f"has {own} of each: take it as rough."
        )
        return (note,)

    @property
    def explains(self) -> bool:
        """Whether there is a teacher that ``explain`` can ask: one with azimuth bins."""
        return self.teacher is not None and self.teacher.base.bins is not None

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

    def _rows_near(self, near: SearchArea | None) -> tuple[Int64Array | None, tuple[str, ...]]:
        if near is None:
            return None, ()
        rows = self.gallery.rows_within(near)
        if not len(rows):
            raise SettingError(
                f"Search area: got {near.radius_m:g} m around {near.centre.lat_deg:.5f}, "
                f"{near.centre.lon_deg:.5f}, where the gallery has no place. Move or widen it."
            )
        note = (
            f"Searched {len(rows)} of {len(self.gallery)} places, within {near.radius_m:g} m; how "
            "sure is said as if the whole gallery had been searched."
        )
        return rows, (note,)

    @torch.inference_mode()
    def _describe(self, canvas: GroundCanvas) -> Float32Array:
        """Descriptor (n * D,) of an azimuth student, (D,) of a global one."""
        is_global = self.student.bins is None
        size = self.student.ground_size
        batch = ground_batch([canvas.image], size, self.device, whole=is_global)
        return self.student.describe_ground(batch)[0].float().cpu().numpy()

    def _rank(
        self,
        descriptor: Float32Array,
        canvas: GroundCanvas,
        heading: float | None,
        rows: Int64Array | None,
    ) -> Ranking:
        n_bins = canvas.n_bins if self.student.bins else None
        viewpoints = self.gallery.manifest.viewpoints
        return rank_tiles(self.gallery.index, descriptor, n_bins, POOL, heading, rows, viewpoints)

    def _look_again(self, ranking: Ranking, canvas: GroundCanvas, heading: float | None) -> Ranking:
        if self.teacher is None:
            return ranking
        cameras = [self._camera(ranking, at) for at in range(min(RERANKED, len(ranking.rows)))]
        tiles = list(self._readers.map(self.gallery.tile_image_at, cameras))
        return rerank(ranking, self.teacher, canvas.image, tiles, heading, self.device)

    def _places(
        self, ranking: Ranking, n_bins: int, heading: float | None, top_k: int
    ) -> tuple[tuple[Candidate, ...], float]:
        """Distinct places with their shares of probability, and the confidence in the first."""
        view = self.calibration.at(n_bins)
        ranking, logits = in_order(ranking, view)
        shares = probabilities(logits)
        groups = self.gallery.distinct_places(ranking.rows, logits)
        merged = [float(shares[list(group.members)].sum()) for group in groups]
        order = np.argsort([-share for share in merged], kind="stable")
        candidates = tuple(
            self._candidate(rank, ranking, groups[at].members[0], merged[at], n_bins, heading)
            for rank, at in enumerate(order[:top_k], start=1)
        )
        alike = float(view.alike(logits)[groups[order[0]].members[0]])
        return candidates, view.confidence(candidates[0].probability, alike)

    def _confidence_in(self, ranking: Ranking, row: int, n_bins: int) -> float:
        """Confidence in the place of one row among all that a search of everything found."""
        view = self.calibration.at(n_bins)
        ranking, logits = in_order(ranking, view)
        shares = probabilities(logits)
        side = self.gallery.manifest.tile_side_m
        apart = self.gallery.centres_m[ranking.rows] - self.gallery.centres_m[row]
        near = np.hypot(apart[:, 0], apart[:, 1]) <= side / 2 + 1e-3
        if not near.any():
            return 0.0
        return view.confidence(float(shares[near].sum()), float(view.alike(logits)[near].max()))

    def _candidate(
        self,
        rank: int,
        ranking: Ranking,
        position: int,
        probability: float,
        n_bins: int,
        heading: float | None,
    ) -> Candidate:
        row, azimuth_shift = int(ranking.rows[position]), float(ranking.azimuth_shifts[position])
        seen = position < len(ranking.teacher_scores)
        if heading is None and not math.isnan(azimuth_shift):
            heading = heading_from_shift(azimuth_shift, n_bins)
        return Candidate(
            rank=rank,
            row=row,
            tile=self.gallery.tile(row),
            similarity=float(ranking.similarities[position]),
            teacher_score=float(ranking.teacher_scores[position]) if seen else None,
            probability=float(probability),
            heading_deg=heading,
            azimuth_shift=None if math.isnan(azimuth_shift) else azimuth_shift,
            camera=self._camera(ranking, position),
            radius_m=self.calibration.at(n_bins).radius_m,
        )

    def _camera(self, ranking: Ranking, position: int) -> Place:
        """Where in the tile at one position of the ranking the camera probably stood."""
        found = camera_position(
            self.gallery.centres_m[ranking.rows],
            ranking.viewpoint_similarities,
            position,
            self.gallery.manifest.tile_side_m,
            self.gallery.viewpoints,
        )
        return self._place(self.gallery.inside(found))

    def _closer(self, candidate: Candidate, canvas: GroundCanvas) -> Candidate:
        """The candidate with the camera where the teacher sees it, if there is one with azimuth."""
        if self.teacher is None or not self.explains or candidate.azimuth_shift is None:
            return candidate
        believed = np.array(self.gallery.frame.to_metres(candidate.camera))
        points = self.gallery.inside(steps_around(believed))
        tiles = self.gallery.tile_images_at(points)
        found = refine_position(
            self.teacher, canvas.image, candidate.azimuth_shift, points, tiles, self.device
        )
        view = self.calibration.at(canvas.n_bins)
        radius_m = view.radius_m if view.closer_m is None else view.closer_m
        return replace(candidate, camera=self._place(found), radius_m=radius_m)

    def _place(self, point_m: Float64Array) -> Place:
        return self.gallery.frame.to_place(float(point_m[0]), float(point_m[1]))


def teacher_beside(student: str | Path) -> Path | None:
    """The folder ``teacher`` beside a student's folder, which re-ranks where none is named."""
    beside = Path(student).parent / "teacher"
    is_one = beside.is_dir() and beside.resolve() != Path(student).resolve()
    return beside if is_one else None


def teacher_for(
    student: str | Path, named: str | Path | None = None, rerank: bool = True
) -> Path | None:
    """The teacher's folder that re-ranks for a student: the one named, else the one beside it."""
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
