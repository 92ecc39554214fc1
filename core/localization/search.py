"""Search a gallery under every azimuth shift of the photo's azimuth bins.

An azimuth descriptor keeps ``bins`` equal sectors of the horizon (Shi et al., "Where Am I Looking
At? Joint Location and Orientation Estimation by Cross-View Matching", CVPR 2020). At azimuth shift r, a
query of n bins fills the sectors r .. r + n - 1 (mod bins) of an otherwise zero descriptor. So a plain
inner-product index searches one heading; the best over all azimuth shifts covers all headings.

A place is described from several viewpoints (``core.gallery.viewpoints``). Their descriptors are
adjacent in the index. Each viewpoint has its own best azimuth shift; the place's score combines all
viewpoints.

Numpy only; D is the size of one bin, Q the number of queries, K the number of azimuth shifts, S the
number of viewpoints of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.arrays import Float32Array, Float64Array, Int64Array
from core.errors import SettingError
from core.gallery.viewpoints import over_viewpoints
from core.polar import BINS, refine_shift

__all__ = [
    "InnerProductIndex",
    "ShiftMatches",
    "search_all_shifts",
    "search_places",
    "shift_queries",
]


class InnerProductIndex(Protocol):
    """The part of an index that a search needs (``core.gallery.index.TileIndex`` has it)."""

    def search(
        self, queries: Float32Array, k: int, rows: Int64Array | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """The best k of all (or the given) rows, best first: similarities and rows (Q, K).

        Fewer columns if there are fewer rows; row -1 if an inexact index found none.
        """
        ...  # pragma: no cover

    def reconstruct(self, rows: Int64Array) -> Float32Array:
        """The descriptors (n, D) of some rows."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class ShiftMatches:
    """The best places of Q queries, best first; filled with row -1 and -inf if fewer than k exist.

    Attributes:
        similarities: float32 (Q, k), at most 1 for unit descriptors.
        rows: int64 (Q, k), gallery rows, each at most once per query.
        azimuth_shifts: float32 (Q, k), in [0, bins): the best azimuth shift of the best viewpoint,
            refined between whole shifts if all shifts were searched.
        viewpoint_similarities: float32 (Q, k, S), the similarities of the viewpoints, each at its best
            azimuth shift.

    """

    similarities: Float32Array
    rows: Int64Array
    azimuth_shifts: Float32Array
    viewpoint_similarities: Float32Array


def shift_queries(
    descriptor: npt.ArrayLike,
    n_bins: int,
    bins: int = BINS,
    azimuth_shifts: npt.ArrayLike | None = None,
) -> Float32Array:
    """Place a query at each azimuth shift: (n_bins * D,) becomes float32 (K, bins * D).

    Bins without a view are zero. The factor sqrt(bins / n_bins) makes the inner product with a
    tile descriptor (every bin of length sqrt(1 / bins)) at most 1 for a unit query. Azimuth shifts (K,)
    are all whole shifts by default. A fractional shift is a linear mix of the two nearest whole shifts,
    so its similarity is too.

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
    wanted = (
        np.arange(bins)
        if azimuth_shifts is None
        else np.atleast_1d(np.asarray(azimuth_shifts, np.float64))
    )
    whole = np.floor(wanted).astype(np.int64)
    share = (wanted - whole).astype(np.float32)[:, None, None]
    places = np.arange(bins)[None, :]
    shifted = padded[(places - whole[:, None]) % bins]
    if np.any(share):
        shifted = (1 - share) * shifted + share * padded[(places - whole[:, None] - 1) % bins]
    return np.asarray(shifted.reshape(len(wanted), -1), dtype=np.float32)


def search_all_shifts(
    index: InnerProductIndex,
    descriptors: npt.ArrayLike,
    n_bins: int,
    k: int,
    rows: npt.ArrayLike | None = None,
    azimuth_shifts: npt.ArrayLike | None = None,
    bins: int = BINS,
    viewpoints: int = 1,
) -> ShiftMatches:
    """The k best places of each query, each at its best azimuth shift.

    Args:
        index: inner-product index over tile descriptors of bins * D values.
        descriptors: (Q, n_bins * D) or one (n_bins * D,), unit length.
        n_bins: azimuth bins the queries cover.
        k: number of places; every place appears once, at its best azimuth shift.
        rows: gallery rows to search, or None for all.
        azimuth_shifts: (K,) shifts to try, or (Q, K) if they differ by query (a known heading is one
            shift, possibly fractional), or None for all whole shifts and a refined result.
        bins: azimuth bins of a tile descriptor.
        viewpoints: S, descriptors of a place in the index.

    Raises:
        SettingError: sizes do not fit (see ``shift_queries``).

    """
    queries = np.atleast_2d(np.asarray(descriptors, dtype=np.float32))
    allowed = None if rows is None else np.asarray(rows, dtype=np.int64)
    parts = []
    for query, wanted in zip(queries, _shifts_of_each(azimuth_shifts, len(queries)), strict=True):
        laid = shift_queries(query, n_bins, bins, wanted)
        found, curves = search_places(index, laid, k, viewpoints, allowed)
        parts.append(_in_order(found, curves, wanted, k, bins))
    return ShiftMatches(*(np.stack(column) for column in zip(*parts, strict=True)))


def search_places(
    index: InnerProductIndex,
    queries: Float32Array,
    k: int,
    viewpoints: int = 1,
    rows: Int64Array | None = None,
) -> tuple[Int64Array, Float32Array]:
    """At least the k places whose best viewpoint is most similar to any of the queries.

    Up to twice as many are returned: among nearly equal places, one with several good viewpoints may
    be better.

    Args:
        index: over R * S descriptors; the S rows of a place are adjacent.
        queries: (K, size), one photo at K azimuth shifts.
        k: number of places; a smaller gallery or an inexact index gives fewer.
        viewpoints: S.
        rows: gallery rows to search, or None for all.

    Returns:
        Rows (n,) of the places, ascending, and similarities (n, S, K) of all their viewpoints.

    """
    each = np.arange(viewpoints)
    allowed = None if rows is None else (rows[:, None] * viewpoints + each).ravel()
    # The best viewpoint of each of the k best places is among the k * S best rows of one query.
    found, found_rows = index.search(queries, k * viewpoints, allowed)
    known = found_rows >= 0
    places, where = np.unique(found_rows[known] // viewpoints, return_inverse=True)
    best = np.full(len(places), -np.inf, np.float32)
    np.maximum.at(best, where, found[known])
    places = np.sort(places[np.argsort(-best, kind="stable")[: 2 * k]])
    stored = index.reconstruct((places[:, None] * viewpoints + each).ravel())
    return places, (stored @ queries.T).reshape(len(places), viewpoints, len(queries))


def _shifts_of_each(azimuth_shifts: npt.ArrayLike | None, count: int) -> list[Float64Array | None]:
    if azimuth_shifts is None:
        return [None] * count
    array = np.asarray(azimuth_shifts, dtype=np.float64)
    return list(array if array.ndim == 2 else np.broadcast_to(array, (count, array.size)))


def _in_order(
    rows: Int64Array,
    curves: Float32Array,
    azimuth_shifts: Float64Array | None,
    k: int,
    bins: int,
) -> tuple[Float32Array, Int64Array, Float32Array, Float32Array]:
    """Similarities, rows, azimuth shifts and viewpoints of places, best first, from their curves
    (n, S, K). Ties are in the order of rows. Filled up to k.
    """
    viewpoint_similarities = curves.max(axis=2)
    similarities = over_viewpoints(viewpoint_similarities)
    best = curves[np.arange(len(curves)), viewpoint_similarities.argmax(axis=1)]
    if azimuth_shifts is None:
        found = np.array([refine_shift(curve) for curve in best], dtype=np.float32)
    else:
        found = azimuth_shifts[best.argmax(axis=1)].astype(np.float32)
    order = np.argsort(-similarities, kind="stable")[:k]
    missing = (0, k - len(order))
    return (
        np.pad(similarities[order], missing, constant_values=-np.inf),
        np.pad(rows[order], missing, constant_values=-1),
        np.pad((found % bins)[order], missing),
        np.pad(viewpoint_similarities[order], (missing, (0, 0)), constant_values=-np.inf),
    )
