"""Answer many photos of a town with the pipeline of ``core.localization.answer``.

Each photo is answered alone, exactly as a visitor's photo is. Several run at a time if there are
several processors.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from core.arrays import Float64Array, Int64Array
from core.data.worlds import Town
from core.evaluation.queries import Queries
from core.geo import angle_difference_deg
from core.localization.answer import Answer, Evidence, Models, answer
from core.localization.references import References

__all__ = ["NO_HELP", "RIGHT_M", "Answers", "DescribedTown", "Help", "rows_within"]

NOT_RANKED = 10**9
"""Rank of a place that is not in the ranking."""
SAME = 1e-4
"""Relative difference up to which probabilities tie: rounding separates equal descriptors."""
RIGHT_M = 25.0
"""An answer is right if the position of its first place is at most this far from the camera, metres."""


@dataclass(frozen=True)
class Help:
    """What is known beside a photo: its heading, a circle around its camera, or a smaller gallery.

    ``places``: the number of places to search. They form a square part of the town. The camera stands
    anywhere in its inner half.
    """

    heading_known: bool = False
    radius_m: float | None = None
    places: int | None = None


NO_HELP = Help()


@dataclass(frozen=True)
class Answers:
    """Answers to Q photos of a town, compared with the truth.

    ``error_m``: (Q,) from the answered position to the camera. ``heading_error_deg``: (Q,) of the first
    place, nan where it is unknown. ``rank``: (Q,) of the grid place nearest to the camera, among the
    tiles of each ranking. 0 is best, ties count against the model; ``NOT_RANKED``: not in the ranking.
    """

    found: tuple[Answer, ...]
    error_m: Float64Array
    heading_error_deg: Float64Array
    rank: Int64Array

    def __len__(self) -> int:
        """Number of photos Q."""
        return len(self.found)

    @property
    def right(self) -> list[bool]:
        """Whether each answer is right."""
        return [bool(error <= RIGHT_M) for error in self.error_m]

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Concatenate several sets of answers."""
        return cls(
            tuple(found for part in parts for found in part.found),
            np.concatenate([part.error_m for part in parts]),
            np.concatenate([part.heading_error_deg for part in parts]),
            np.concatenate([part.rank for part in parts]),
        )


@dataclass(frozen=True)
class DescribedTown:
    """A town, its described places, and the number of photos answered at a time."""

    town: Town
    references: References
    models: Models
    workers: int = 1

    @property
    def reranks(self) -> bool:
        """Whether a teacher re-ranks."""
        return self.models.teacher is not None

    def evidence(self, camera_m: Float64Array, heading_deg: float, given: Help) -> Evidence:
        """The evidence given with one photo, from its true camera position (2,) and true heading."""
        rows = None
        if given.radius_m is not None:
            rows = rows_within(self.references, camera_m, given.radius_m)
        elif given.places is not None and given.places < len(self.references.centres_m):
            rows = _part_around(self.references, camera_m, given.places)
        return Evidence(heading_deg if given.heading_known else None, rows)

    def answers(self, queries: Queries, given: Help = NO_HELP) -> Answers:
        """Answer every photo of one width with the same help."""
        evidence = [
            self.evidence(place, float(heading), given)
            for place, heading in zip(queries.places, queries.heading_deg, strict=True)
        ]
        found = self.answer_all(queries, evidence)
        positions = np.stack([one.places[0].position_m for one in found])
        headings = [one.places[0].heading_deg for one in found]
        known = np.array([np.nan if heading is None else heading for heading in headings])
        ranks = [
            _rank(one, self._nearest(place))
            for one, place in zip(found, queries.places, strict=True)
        ]
        return Answers(
            tuple(found),
            np.asarray(np.hypot(*(positions - queries.places).T)),
            np.asarray(angle_difference_deg(known, queries.heading_deg)),
            np.array(ranks, np.int64),
        )

    def answer_all(self, queries: Queries, evidence: Sequence[Evidence]) -> list[Answer]:
        """The answer to each photo, with the evidence for each."""

        def one(at: int) -> Answer:
            return answer(self.references, self.models, queries.views[at], evidence[at])

        if self.workers == 1:
            return [one(at) for at in range(len(queries.views))]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(one, range(len(queries.views))))

    def _nearest(self, place: Float64Array) -> int:
        return int(np.hypot(*(self.references.centres_m - place).T).argmin())


def rows_within(references: References, centre_m: Float64Array, radius_m: float) -> Int64Array:
    """Rows (n,) of the places within a circle around a point (2,); the nearest place if it is empty."""
    apart = np.hypot(*(references.centres_m - centre_m).T)
    within = np.flatnonzero(apart <= radius_m)
    return within if len(within) else np.array([int(apart.argmin())])


def _part_around(references: References, camera_m: Float64Array, places: int) -> Int64Array:
    """Rows of a square part of ``places`` places; the camera (2,) stands anywhere in its inner half."""
    side_m = float(np.sqrt(places * references.cell_area_m2))
    # The same camera always has the same part.
    random = np.random.default_rng(np.abs(np.round(1000 * camera_m)).astype(np.int64))
    middle = camera_m + random.uniform(-side_m / 4, side_m / 4, 2)
    half = side_m / 2
    low, high = references.centres_m.min(axis=0) + half, references.centres_m.max(axis=0) - half
    middle = np.clip(middle, np.minimum(low, high), np.maximum(low, high))
    apart = np.abs(references.centres_m - middle).max(axis=1)
    return np.sort(np.argsort(apart, kind="stable")[:places])


def _rank(found: Answer, row: int) -> int:
    """The number of other tiles that are at least as probable as the tile of one row."""
    at = np.flatnonzero(found.rows == row)
    if not len(at):
        return NOT_RANKED
    own = found.tile_probabilities[at[0]] * (1 - SAME)
    return int((found.tile_probabilities >= own).sum() - 1)
