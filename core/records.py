"""The nouns that travel between the parts of the program; frozen, with units in the names."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Candidate", "Place", "Prediction", "SearchArea", "Tile"]


@dataclass(frozen=True)
class Place:
    """A point of the Earth (WGS 84)."""

    lat_deg: float
    lon_deg: float


@dataclass(frozen=True)
class SearchArea:
    """A circle the visitor believes the camera to be in."""

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

    ``camera``: where in it the camera probably stood, in the first place by the teacher's word too; the
    tile around the place is not centred there.
    ``radius_m``: nine of ten cameras stood within it on validation towns, where the place was right;
    None where that was not measured. ``similarity``: student's similarity, at most 1.
    ``teacher_score``: the teacher's cosine for the pair, the mean of a look as it is and of one in the
    mirror, or None where it did not look. ``probability``: calibrated share in [0, 1], merged
    neighbours included. ``azimuth_shift``: azimuth bins, seldom whole, by which the photo's first bin lies right
    of the polar view's first bin.
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
    """What the program says about one photo. ``candidates`` are distinct places, best first."""

    photo: str
    fov_deg: float
    fov_source: str
    confident: bool
    confidence: float
    """Calibrated probability that the first candidate is within 25 m of the camera, in [0, 1]."""
    heading_deg: float | None
    candidates: tuple[Candidate, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What else the visitor should know, one sentence each (a guessed field of view, a cut canvas)."""
