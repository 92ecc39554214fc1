"""Search a gallery under every roll: a photo's azimuth bins are laid at each heading in turn.

An azimuth descriptor keeps ``bins`` equal sectors of the horizon (Shi et al., "Where Am I Looking
At? Joint Location and Orientation Estimation by Cross-View Matching", CVPR 2020). A query of n bins
laid at roll r fills the sectors r .. r + n - 1 (mod bins) of an otherwise empty descriptor, so a
plain inner-product index answers for one heading, and the best over all rolls answers for all.

A place is described from several standpoints (``core.gallery.viewpoints``), whose descriptors lie one after
another in the index; it is found at each one's own best roll and scores by all of them.

Numpy only; D is the size of one bin, Q the number of queries, K the number of rolls, S the number of
standpoints of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.errors import SettingError
from core.gallery.viewpoints import over_standpoints

__all__ = [
    "BINS",
    "InnerProductIndex",
    "RollMatches",
    "heading_from_roll",
    "refine_roll",
    "roll_from_heading",
    "roll_queries",
    "search_all_rolls",
    "search_places",
    "turn_at",
]

BINS = 32
"""Azimuth bins of the whole horizon: 11.25 degrees each."""

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class InnerProductIndex(Protocol):
    """What a search needs of an index (core.gallery.index.TileIndex has it)."""

    def search(
        self, queries: FloatArray, k: int, rows: IntArray | None = None
    ) -> tuple[FloatArray, IntArray]:
        """The best k of all (or the given) rows, best first: similarities and rows (Q, K).

        Fewer columns where there are fewer rows; row -1 where an inexact index found none.
        """
        ...  # pragma: no cover

    def reconstruct(self, rows: IntArray) -> FloatArray:
        """The descriptors (n, D) of some rows."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class RollMatches:
    """The best places of Q queries, best first; where fewer than k exist, row -1 and -inf.

    Attributes:
        similarities: float32 (Q, k), at most 1 for unit descriptors.
        rows: int64 (Q, k), gallery rows, each at most once per query.
        rolls: float32 (Q, k), in [0, bins): the roll with the best similarity of the best
            standpoint, refined between whole rolls where all rolls were searched.
        from_each: float32 (Q, k, S), the similarities of the standpoints, each at its best roll.

    """

    similarities: FloatArray
    rows: IntArray
    rolls: FloatArray
    from_each: FloatArray


def heading_from_roll(roll: float, n_bins: int, bins: int = BINS) -> float:
    """Heading in degrees [0, 360) of the centre of a query of n bins that lies at ``roll``.

    The first bin of the polar view begins in the south (-180 degrees).
    """
    return float((-180.0 + (roll + n_bins / 2) * 360.0 / bins) % 360.0)


def turn_at(roll: float) -> float:
    """By how many bins, at most half of one, a tile is turned that is met at a roll: what the nearest
    whole roll lacks.
    """
    return roll - round(roll)


def roll_from_heading(heading_deg: float, n_bins: int, bins: int = BINS) -> float:
    """Roll in [0, bins), seldom whole, at which a query of n bins has this heading (degrees)."""
    return float(((heading_deg + 180.0) * bins / 360.0 - n_bins / 2) % bins)


def refine_roll(similarities: npt.ArrayLike) -> float:
    """Roll in [0, bins) of the peak between whole rolls, from similarities (bins,) of all rolls.

    The vertex of the parabola through the best roll and its two circular neighbours; the best
    roll itself where the three are equal.
    """
    curve = np.asarray(similarities, dtype=np.float64)
    best = int(np.argmax(curve))
    left, middle, right = curve[best - 1], curve[best], curve[(best + 1) % len(curve)]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((best + shift) % len(curve))


def roll_queries(
    descriptor: npt.ArrayLike, n_bins: int, bins: int = BINS, rolls: npt.ArrayLike | None = None
) -> FloatArray:
    """Lay a query at each roll: (n_bins * D,) becomes float32 (K, bins * D), ready to search.

    Bins without a view are zero. The factor sqrt(bins / n_bins) makes the inner product with a
    tile descriptor (every bin of length sqrt(1 / bins)) at most 1 for a unit query. Rolls (K,)
    are all whole ones by default; between whole rolls the two nearest are mixed linearly, which
    mixes their similarities linearly.

    Raises:
        SettingError: the descriptor does not divide into n_bins bins, or n_bins is not 1..bins.

    """
    query = np.asarray(descriptor, dtype=np.float32).ravel()
    if not 1 <= n_bins <= bins or query.size % n_bins:
        raise SettingError(
            f"Query descriptor: got {query.size} values in {n_bins} bins, expected a multiple of "
            f"1 to {bins} bins. Describe the canvas with the student that built the gallery."
        )
    padded = np.zeros((bins, query.size // n_bins), dtype=np.float32)
    padded[:n_bins] = query.reshape(n_bins, -1) * np.float32(np.sqrt(bins / n_bins))
    wanted = np.arange(bins) if rolls is None else np.atleast_1d(np.asarray(rolls, np.float64))
    whole = np.floor(wanted).astype(np.int64)
    share = (wanted - whole).astype(np.float32)[:, None, None]
    places = np.arange(bins)[None, :]
    rolled = padded[(places - whole[:, None]) % bins]
    if np.any(share):
        rolled = (1 - share) * rolled + share * padded[(places - whole[:, None] - 1) % bins]
    return np.asarray(rolled.reshape(len(wanted), -1), dtype=np.float32)


def search_all_rolls(
    index: InnerProductIndex,
    descriptors: npt.ArrayLike,
    n_bins: int,
    k: int,
    rows: npt.ArrayLike | None = None,
    rolls: npt.ArrayLike | None = None,
    bins: int = BINS,
    standpoints: int = 1,
) -> RollMatches:
    """The k best places of each query, each at its best roll.

    Args:
        index: inner-product index over tile descriptors of bins * D values.
        descriptors: (Q, n_bins * D) or one (n_bins * D,), unit length.
        n_bins: azimuth bins the queries cover.
        k: number of places wanted; every place appears once, at its best roll.
        rows: gallery rows to search, or None for all.
        rolls: rolls (K,) to try, or (Q, K) where they differ by query (a known heading is one
            roll, possibly between whole ones), or None for all whole rolls with the roll refined.
        bins: azimuth bins of a tile descriptor.
        standpoints: S, descriptors of a place in the index.

    Raises:
        SettingError: sizes that do not fit (see roll_queries).

    """
    queries = np.atleast_2d(np.asarray(descriptors, dtype=np.float32))
    allowed = None if rows is None else np.asarray(rows, dtype=np.int64)
    parts = []
    for query, wanted in zip(queries, _rolls_of_each(rolls, len(queries)), strict=True):
        laid = roll_queries(query, n_bins, bins, wanted)
        found, curves = search_places(index, laid, k, standpoints, allowed)
        parts.append(_in_order(found, curves, wanted, k, bins))
    return RollMatches(*(np.stack(column) for column in zip(*parts, strict=True)))


def search_places(
    index: InnerProductIndex,
    queries: FloatArray,
    k: int,
    standpoints: int = 1,
    rows: IntArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """At least the k places whose best standpoint is most like the best of some queries.

    Up to twice as many come back: of places that are nearly as good, the one with several good
    standpoints may be the better one.

    Args:
        index: over R * S descriptors, those of a place one after another.
        queries: (K, size), one photo laid in K ways.
        k: how many places; of a smaller gallery, or an index that is not exact, fewer.
        standpoints: S.
        rows: gallery rows to search, or None for all.

    Returns:
        Rows (n,) of the places, ascending, and similarities (n, S, K) of all their standpoints.

    """
    each = np.arange(standpoints)
    allowed = None if rows is None else (rows[:, None] * standpoints + each).ravel()
    # A place among the k best is, with its best standpoint, among the k * S best of one query.
    found, found_rows = index.search(queries, k * standpoints, allowed)
    known = found_rows >= 0
    places, where = np.unique(found_rows[known] // standpoints, return_inverse=True)
    best = np.full(len(places), -np.inf, np.float32)
    np.maximum.at(best, where, found[known])
    places = np.sort(places[np.argsort(-best, kind="stable")[: 2 * k]])
    stored = index.reconstruct((places[:, None] * standpoints + each).ravel())
    return places, (stored @ queries.T).reshape(len(places), standpoints, len(queries))


def _rolls_of_each(rolls: npt.ArrayLike | None, count: int) -> list[npt.NDArray[np.float64] | None]:
    if rolls is None:
        return [None] * count
    array = np.asarray(rolls, dtype=np.float64)
    return list(array if array.ndim == 2 else np.broadcast_to(array, (count, array.size)))


def _in_order(
    rows: IntArray,
    curves: FloatArray,
    rolls: npt.NDArray[np.float64] | None,
    k: int,
    bins: int,
) -> tuple[FloatArray, IntArray, FloatArray, FloatArray]:
    """Similarities, rows, rolls and standpoints of places with these curves (n, S, K), best first;
    ties go by row. Filled up to k.
    """
    from_each = curves.max(axis=2)
    similarities = over_standpoints(from_each)
    best = curves[np.arange(len(curves)), from_each.argmax(axis=1)]
    if rolls is None:
        found = np.array([refine_roll(curve) for curve in best], dtype=np.float32)
    else:
        found = rolls[best.argmax(axis=1)].astype(np.float32)
    order = np.argsort(-similarities, kind="stable")[:k]
    missing = (0, k - len(order))
    return (
        np.pad(similarities[order], missing, constant_values=-np.inf),
        np.pad(rows[order], missing, constant_values=-1),
        np.pad((found % bins)[order], missing),
        np.pad(from_each[order], (missing, (0, 0)), constant_values=-np.inf),
    )
