"""Rank of the right answers of each query, and distance to its first place, from descriptors.

The rule is that of ``core.evaluation.metrics``: 0 is best and **ties count against the model**.
Among equal similarities wrong answers come before right ones. At most one chunk of the similarity
matrix is in memory (``core.evaluation.chunks``).

``positives`` and ``ignored`` hold one list of reference indices per query, of any length. A
positive counts as found. An ignored reference counts neither as right nor as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.arrays import Float64Array, FloatArray, Int64Array
from core.errors import SettingError
from core.evaluation.chunks import (
    CHUNK_MB,
    check_descriptors,
    pair_similarity,
    similarity_chunks,
)

__all__ = [
    "Distance",
    "Lists",
    "TruthRanks",
    "best_ranks",
    "check_places",
    "first_place_errors_m",
    "positive_places",
    "truth_ranks",
]

Lists = Sequence[npt.ArrayLike]
Distance = Callable[[Float64Array, Float64Array], Float64Array]
"""Metres (n,) from one place (2,) to places (n, 2)."""


@dataclass(frozen=True)
class TruthRanks:
    """Ranks (Q,) of the true reference: ``among_all``, and ``without_ignored`` references."""

    among_all: Int64Array
    without_ignored: Int64Array


def truth_ranks(
    queries: FloatArray,
    references: FloatArray,
    positives: Lists,
    ignored: Lists | None = None,
    chunk_mb: float = CHUNK_MB,
) -> TruthRanks:
    """Rank of each query's first positive; its other positives compete like any reference.

    Args:
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.
        positives: of each query at least one, the true one first.
        ignored: of each query any number, none of them positive.
        chunk_mb: working memory in MB (10^6 bytes).

    Raises:
        SettingError: descriptors, lists or memory are not as described here.

    """
    case = _Case(queries, references, positives, ignored, chunk_mb)
    columns = case.positives.columns[case.positives.starts[:-1]]
    own = pair_similarity(queries, references, np.arange(len(queries)), columns, chunk_mb)
    among_all = case.at_least(own, np.arange(len(queries) + 1)) - 1
    aside = case.similarity(case.ignored)
    tied_or_better = aside >= own[case.ignored.rows]
    return TruthRanks(
        among_all, among_all - np.bincount(case.ignored.rows[tied_or_better], minlength=len(own))
    )


def best_ranks(
    queries: FloatArray,
    references: FloatArray,
    positives: Lists,
    ignored: Lists | None = None,
    chunk_mb: float = CHUNK_MB,
) -> Int64Array:
    """Rank (Q,) of each query's best positive: the number of wrong references at least as good.

    A reference is wrong if it is neither positive nor ignored. Arguments and errors as for
    ``truth_ranks``; the order of positives does not matter.
    """
    case = _Case(queries, references, positives, ignored, chunk_mb)
    right, aside = case.similarity(case.positives), case.similarity(case.ignored)
    best = np.maximum.reduceat(right, case.positives.starts[:-1])
    counts = case.at_least(best, np.arange(len(queries) + 1))
    for lists, values in ((case.positives, right), (case.ignored, aside)):
        as_good = values >= best[lists.rows]
        counts -= np.bincount(lists.rows[as_good], minlength=len(best))
    return counts


def positive_places(
    queries: FloatArray,
    references: FloatArray,
    positives: Lists,
    ignored: Lists | None = None,
    chunk_mb: float = CHUNK_MB,
) -> list[Int64Array]:
    """Places of all positives of each query in its ranking, ascending; 0 is the first place.

    Ignored references have no place. Wrong references come before equally good positives. Arguments
    and errors as for ``truth_ranks``; the order of positives does not matter.
    """
    case = _Case(queries, references, positives, ignored, chunk_mb)
    starts, aside_starts = case.positives.starts, case.ignored.starts
    right, aside = case.similarity(case.positives), case.similarity(case.ignored)
    right = right[np.lexsort((-right, case.positives.rows))]
    counts = case.at_least(right, starts)
    places = []
    for query in range(len(queries)):
        own = slice(starts[query], starts[query + 1])
        falling = -right[own]
        left_out = np.sort(-aside[aside_starts[query] : aside_starts[query + 1]])
        wrong = (
            counts[own]
            - np.searchsorted(falling, falling, side="right")
            - np.searchsorted(left_out, falling, side="right")
        )
        places.append(np.asarray(wrong + np.arange(len(falling)), dtype=np.int64))
    return places


def first_place_errors_m(
    queries: FloatArray,
    references: FloatArray,
    query_places: Float64Array,
    reference_places: Float64Array,
    distance: Distance,
    chunk_mb: float = CHUNK_MB,
) -> Float64Array:
    """Metres (Q,) from each query to its first place; if first places tie, to the farthest.

    Args:
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.
        query_places: (Q, 2), in the form that ``distance`` takes.
        reference_places: (R, 2), likewise.
        distance: metres from one place to others.
        chunk_mb: working memory in MB (10^6 bytes).

    Raises:
        SettingError: descriptors, places or memory are not as described here.

    """
    check_descriptors(queries, references)
    check_places(query_places, reference_places, len(queries), len(references))
    best = np.full(len(queries), -np.inf)
    errors = np.zeros(len(queries))
    for rows, columns, chunk in similarity_chunks(queries, references, chunk_mb):
        top = chunk.max(axis=1)
        for row in np.flatnonzero(top >= best[rows]):
            query = rows.start + int(row)
            tied = columns.start + np.flatnonzero(chunk[row] == top[row])
            farthest = float(distance(query_places[query], reference_places[tied]).max())
            is_tied = top[row] == best[query]
            errors[query] = max(errors[query], farthest) if is_tied else farthest
            best[query] = top[row]
    return errors


def check_places(
    query_places: Float64Array, reference_places: Float64Array, queries: int, references: int
) -> None:
    """Refuse places that are not (Q, 2) and (R, 2) finite numbers.

    Raises:
        SettingError: one of them is wrong; the message names it.

    """
    for name, places, count in (
        ("Query places", query_places, queries),
        ("Reference places", reference_places, references),
    ):
        if places.shape != (count, 2) or not np.isfinite(places).all():
            raise SettingError(
                f"{name}: got shape {places.shape}, expected ({count}, 2) finite numbers, one row "
                "for each descriptor. Leave out pictures without a place."
            )


@dataclass(frozen=True)
class _Flat:
    """Ragged lists end to end: pair i is (rows[i], columns[i]); query q has starts[q]:starts[q + 1]."""

    rows: Int64Array
    columns: Int64Array
    starts: Int64Array


class _Case:
    """Checked descriptors and lists, and the count on which all ranks are based."""

    def __init__(
        self,
        queries: FloatArray,
        references: FloatArray,
        positives: Lists,
        ignored: Lists | None,
        chunk_mb: float,
    ) -> None:
        check_descriptors(queries, references)
        self._queries, self._references, self._chunk_mb = queries, references, chunk_mb
        count = len(queries)
        self.positives = _flatten("Positives", positives, count, len(references))
        empty = np.flatnonzero(np.diff(self.positives.starts) == 0)
        if len(empty):
            raise SettingError(
                f"Positives of query {empty[0]}: got none, expected at least one. "
                "Leave out queries that nothing in the gallery answers."
            )
        none: Lists = [()] * count
        self.ignored = _flatten(
            "Ignored references", none if ignored is None else ignored, count, len(references)
        )
        _check_apart(self.positives, self.ignored, len(references))

    def similarity(self, lists: _Flat) -> Float64Array:
        """Similarity (P,) of each listed pair."""
        return pair_similarity(
            self._queries, self._references, lists.rows, lists.columns, self._chunk_mb
        )

    def at_least(self, thresholds: Float64Array, starts: Int64Array) -> Int64Array:
        """The number of references, of all R, that are at least as similar as each threshold, (P,).

        The thresholds of query q are starts[q]:starts[q + 1].
        """
        counts = np.zeros(len(thresholds), dtype=np.int64)
        lengths = np.diff(starts)
        for rows, _, chunk in similarity_chunks(self._queries, self._references, self._chunk_mb):
            for turn in range(int(lengths[rows].max())):
                asking = np.flatnonzero(lengths[rows] > turn)
                places = starts[rows][asking] + turn
                bar = np.full((len(chunk), 1), np.inf)  # no threshold left: nothing reaches it
                bar[asking, 0] = thresholds[places]
                counts[places] += (chunk >= bar).sum(axis=1)[asking]
        return counts


def _flatten(name: str, lists: Lists, queries: int, references: int) -> _Flat:
    if len(lists) != queries:
        raise SettingError(
            f"{name}: got {len(lists)} lists, expected one for each of {queries} queries."
        )
    arrays = [np.asarray(values) for values in lists]
    for query, values in enumerate(arrays):
        if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
            raise SettingError(
                f"{name} of query {query}: got {values.dtype} of shape {values.shape}, expected a "
                "list of reference indices."
            )
    lengths = np.array([len(values) for values in arrays], dtype=np.int64)
    rows = np.repeat(np.arange(queries), lengths)
    columns = np.concatenate(arrays).astype(np.int64)
    outside = np.flatnonzero((columns < 0) | (columns >= references))
    if len(outside):
        raise SettingError(
            f"{name} of query {rows[outside[0]]}: got index {columns[outside[0]]}, expected 0 to "
            f"{references - 1}. Count references from 0, in the order of their descriptors."
        )
    return _Flat(rows, columns, np.concatenate([[0], np.cumsum(lengths)]))


def _check_apart(positives: _Flat, ignored: _Flat, references: int) -> None:
    """Refuse a reference that is listed twice for one query, in one list or in both."""
    rows = np.concatenate([positives.rows, ignored.rows])
    columns = np.concatenate([positives.columns, ignored.columns])
    cells = np.sort(rows * references + columns)
    twice = np.flatnonzero(cells[1:] == cells[:-1])
    if len(twice):
        query, reference = divmod(int(cells[twice[0]]), references)
        raise SettingError(
            f"Query {query}: got reference {reference} twice among its positives and ignored "
            "references, expected once. It can only be one of them."
        )
