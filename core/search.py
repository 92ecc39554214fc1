"""Search a gallery under every roll: a photo's azimuth bins are laid at each heading in turn.

An azimuth descriptor keeps ``bins`` equal sectors of the horizon (Shi et al., "Where Am I Looking
At? Joint Location and Orientation Estimation by Cross-View Matching", CVPR 2020). A query of n bins
laid at roll r fills the sectors r .. r + n - 1 (mod bins) of an otherwise empty descriptor, so a
plain inner-product index answers for one heading, and the best over all rolls answers for all.

Numpy only; D is the size of one bin, Q the number of queries, K the number of rolls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.errors import SettingError

__all__ = [
    "BINS",
    "InnerProductIndex",
    "RollMatches",
    "heading_from_roll",
    "refine_roll",
    "roll_from_heading",
    "roll_queries",
    "search_all_rolls",
]

BINS = 32
"""Azimuth bins of the whole horizon: 11.25 degrees each."""

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class InnerProductIndex(Protocol):
    """What a search needs of an index (core.index.TileIndex has it)."""

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
    """The best tiles of Q queries, best first; where fewer than k exist, row -1 and -inf.

    Attributes:
        similarities: float32 (Q, k), at most 1 for unit descriptors.
        rows: int64 (Q, k), gallery rows, each at most once per query.
        rolls: float32 (Q, k), in [0, bins): the roll with the best similarity, refined between
            whole rolls where all rolls were searched.

    """

    similarities: FloatArray
    rows: IntArray
    rolls: FloatArray


def heading_from_roll(roll: float, n_bins: int, bins: int = BINS) -> float:
    """Heading in degrees [0, 360) of the centre of a query of n bins that lies at ``roll``.

    The first bin of the polar view begins in the south (-180 degrees).
    """
    return float((-180.0 + (roll + n_bins / 2) * 360.0 / bins) % 360.0)


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
) -> RollMatches:
    """The k best tiles of each query, each at its best roll.

    Args:
        index: inner-product index over tile descriptors of bins * D values.
        descriptors: (Q, n_bins * D) or one (n_bins * D,), unit length.
        n_bins: azimuth bins the queries cover.
        k: number of tiles wanted; every tile appears once, at its best roll.
        rows: gallery rows to search, or None for all.
        rolls: rolls (K,) to try, or (Q, K) where they differ by query (a known heading is one
            roll, possibly between whole ones), or None for all whole rolls with the roll refined.
        bins: azimuth bins of a tile descriptor.

    Raises:
        SettingError: sizes that do not fit (see roll_queries).

    """
    queries = np.atleast_2d(np.asarray(descriptors, dtype=np.float32))
    allowed = None if rows is None else np.asarray(rows, dtype=np.int64)
    tried = _rolls_of_each(rolls, len(queries))
    parts = [
        _search_one(index, query, n_bins, k, allowed, wanted, bins)
        for query, wanted in zip(queries, tried, strict=True)
    ]
    return RollMatches(*(np.stack(column) for column in zip(*parts, strict=True)))


def _rolls_of_each(rolls: npt.ArrayLike | None, count: int) -> list[npt.NDArray[np.float64] | None]:
    if rolls is None:
        return [None] * count
    array = np.asarray(rolls, dtype=np.float64)
    return list(array if array.ndim == 2 else np.broadcast_to(array, (count, array.size)))


def _search_one(
    index: InnerProductIndex,
    descriptor: FloatArray,
    n_bins: int,
    k: int,
    rows: IntArray | None,
    rolls: npt.NDArray[np.float64] | None,
    bins: int,
) -> tuple[FloatArray, IntArray, FloatArray]:
    queries = roll_queries(descriptor, n_bins, bins, rolls)
    tried = np.arange(bins, dtype=np.float64) if rolls is None else rolls
    # A tile among the k best overall is among the k best of its own best roll.
    found, found_rows = index.search(queries, k, rows)
    similarities, best_rows, best_tried = _best_per_row(found, found_rows, k)
    best_rolls = (tried[best_tried] % bins).astype(np.float32)
    if rolls is None and len(best_rows):
        curves = index.reconstruct(best_rows) @ queries.T
        best_rolls = np.array([refine_roll(curve) for curve in curves], dtype=np.float32) % bins
    missing = k - len(best_rows)
    return (
        np.pad(similarities, (0, missing), constant_values=-np.inf),
        np.pad(best_rows, (0, missing), constant_values=-1),
        np.pad(best_rolls, (0, missing)),
    )


def _best_per_row(
    similarities: FloatArray, rows: IntArray, k: int
) -> tuple[FloatArray, IntArray, IntArray]:
    """Of (K, k) answers of K rolls, the k best rows, each once: similarity, row, which roll."""
    values, flat_rows = similarities.ravel(), rows.ravel()
    which = np.repeat(np.arange(len(rows)), rows.shape[1])
    known = flat_rows >= 0
    values, flat_rows, which = values[known], flat_rows[known], which[known]
    order = np.lexsort((flat_rows, -values))
    _, first = np.unique(flat_rows[order], return_index=True)
    best = order[np.sort(first)][:k]
    return values[best], flat_rows[best], which[best]
