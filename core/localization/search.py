"""Search a gallery under every azimuth shift: a photo's azimuth bins are laid at each heading in turn.

An azimuth descriptor keeps ``bins`` equal sectors of the horizon (Shi et al., "Where Am I Looking
At? Joint Location and Orientation Estimation by Cross-View Matching", CVPR 2020). A query of n bins
laid at azimuth shift r fills the sectors r .. r + n - 1 (mod bins) of an otherwise empty descriptor, so a
plain inner-product index answers for one heading, and the best over all azimuth shifts answers for all.

A place is described from several viewpoints (``core.gallery.viewpoints``), whose descriptors lie one
after another in the index; it is found at each one's own best azimuth shift and scores by all of them.

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
    """What a search needs of an index (core.gallery.index.TileIndex has it)."""

    def search(
        self, queries: Float32Array, k: int, rows: Int64Array | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """The best k of all (or the given) rows, best first: similarities and rows (Q, K).

        Fewer columns where there are fewer rows; row -1 where an inexact index found none.
        """
        ...  # pragma: no cover

    def reconstruct(self, rows: Int64Array) -> Float32Array:
        """The descriptors (n, D) of some rows."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class ShiftMatches:
    """The best places of Q queries, best first; where fewer than k exist, row -1 and -inf.

    Attributes:
        similarities: float32 (Q, k), at most 1 for unit descriptors.
        rows: int64 (Q, k), gallery rows, each at most once per query.
        azimuth_shifts: float32 (Q, k), in [0, bins): the azimuth shift with the best similarity of the
            best viewpoint, refined between whole azimuth shifts where all azimuth shifts were searched.
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
    """Lay a query at each azimuth shift: (n_bins * D,) becomes float32 (K, bins * D), ready to search.

    Bins without a view are zero. The factor sqrt(bins / n_bins) makes the inner product with a
    tile descriptor (every bin of length sqrt(1 / bins)) at most 1 for a unit query. Azimuth shifts (K,)
    are all whole ones by default; between whole azimuth shifts the two nearest are mixed linearly, which
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
        k: number of places wanted; every place appears once, at its best azimuth shift.
        rows: gallery rows to search, or None for all.
        azimuth_shifts: azimuth shifts (K,) to try, or (Q, K) where they differ by query (a known
            heading is one azimuth shift, possibly between whole ones), or None for all whole azimuth
            shifts with the azimuth shift refined.
        bins: azimuth bins of a tile descriptor.
        viewpoints: S, descriptors of a place in the index.

    Raises:
        SettingError: sizes that do not fit (see shift_queries).

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
    """At least the k places whose best viewpoint is most like the best of some queries.

    Up to twice as many come back: of places that are nearly as good, the one with several good
    viewpoints may be the better one.

    Args:
        index: over R * S descriptors, those of a place one after another.
        queries: (K, size), one photo laid in K ways.
        k: how many places; of a smaller gallery, or an index that is not exact, fewer.
        viewpoints: S.
        rows: gallery rows to search, or None for all.

    Returns:
        Rows (n,) of the places, ascending, and similarities (n, S, K) of all their viewpoints.

    """
    each = np.arange(viewpoints)
    allowed = None if rows is None else (rows[:, None] * viewpoints + each).ravel()
    # A place among the k best is, with its best viewpoint, among the k * S best of one query.
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
    """Similarities, rows, azimuth shifts and viewpoints of places with these curves (n, S, K), best
    first; ties go by row. Filled up to k.
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
