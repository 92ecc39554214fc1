"""The nouns that travel between the parts of the program; frozen, with units in the names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Verdict = Literal["match", "likely", "none"]

__all__ = ["Candidate", "Place", "Prediction", "SearchArea", "Tile"]


@dataclass(frozen=True)
class Place:
    """A point of the Earth (WGS 84)."""

    lat_deg: float
    lon_deg: float


@dataclass(frozen=True)
class SearchArea:
    """A circle that the visitor takes the camera to be in."""

    centre: Place
    radius_m: float


@dataclass(frozen=True)
class Tile:
    """One reference: a place and the square of aerial imagery around it, north up."""

    tile_id: str
    place: Place
    east_m: float
    """Centre in the gallery's local metric frame (azimuthal equidistant at the manifest's origin)."""
    north_m: float
    side_m: float


@dataclass(frozen=True)
class Candidate:
    """One place the photo may have been taken at.

    ``camera``: where in it the camera probably stood; in the first place the teacher has refined it. The
    tile around the place is not centred there.
    ``radius_m``: nine of ten cameras stood within it on validation towns, where the place was right;
    None where that was not measured. ``similarity``: the student's, at most 1. ``teacher_score``: the
    teacher's cosine for the aligned pair, or None where it was not scored.
    ``probability``: that the camera stood within 25 m of here, in [0, 1]; see ``Prediction``.
    ``azimuth_shift``: azimuth bins, seldom whole, by which the photo's first bin lies right of the polar
    view's first bin; None where the models know no azimuth.
    """

    rank: int
    row: int
    tile: Tile
    similarity: float
    teacher_score: float | None
    probability: float
    heading_deg: float | None
    azimuth_shift: float | None
    camera: Place
    radius_m: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What the program says about one photo: a distribution over places. Candidates come best first.

    The probabilities of all candidates, ``rest_probability`` (somewhere else in what was searched) and
    ``outside_probability`` (not in what was searched) sum to 1. They are calibrated on validation
    towns, and conditioned on what is known beside the photo. ``confident``: the first candidate's
    reaches a threshold that hardly any photo from outside does. ``area_50_m2``, ``area_90_m2``: the
    smallest areas, in cells of the gallery's grid, that hold so much of the probability; None where all
    places together hold less. ``notes``: what else the visitor should know, one sentence each.
    """

    photo: str
    fov_deg: float
    fov_source: str
    confident: bool
    candidates: tuple[Candidate, ...]
    rest_probability: float
    outside_probability: float
    area_50_m2: float | None = None
    area_90_m2: float | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What may be said of the first candidate.

        "match": confident. "likely": more likely than not, but photos from outside can be so too.
        "none": no more likely than everything else together.
        """
        if self.confident:
            return "match"
        return "likely" if self.confidence > 0.5 else "none"

    def shortened(self, top_k: int) -> Prediction:
        """The same prediction with fewer candidates; the others become part of the rest."""
        left = sum(candidate.probability for candidate in self.candidates[top_k:])
        return replace(
            self,
            candidates=self.candidates[:top_k],
            rest_probability=self.rest_probability + left,
        )

    @property
    def confidence(self) -> float:
        """Probability of the first candidate."""
        return self.candidates[0].probability

    @property
    def heading_deg(self) -> float | None:
        """Heading of the photo's centre at the first candidate, degrees clockwise from north."""
        return self.candidates[0].heading_deg
