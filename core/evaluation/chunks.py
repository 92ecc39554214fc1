"""Similarities of many descriptors, a chunk at a time and exact to the last bit.

A full matrix of 92,802 x 92,802 float32 takes 34 GB, so only one chunk exists at a time. Chunks have
a trap: a matrix product rounds differently in the middle of a chunk and at its edge. The same two
descriptors then get similarities that differ in the last bit. Ties would depend on the chunk size,
the BLAS library and the number of threads.

Therefore descriptors are first rounded to multiples of 2^-26 (a change of at most 7e-9; a float32
product has an error of about 1e-7). Products of two such numbers are multiples of 2^-52, and for unit
vectors no partial sum exceeds 1. So float64 adds them without rounding, in any order. Equal
descriptors tie exactly, and no rank depends on the chunks.

Q queries, R references, D values of a descriptor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from core.arrays import Float64Array, FloatArray, Int64Array
from core.errors import SettingError

__all__ = ["CHUNK_MB", "check_descriptors", "pair_similarity", "similarity_chunks"]


CHUNK_MB = 128.0
"""Default working memory in MB (10^6 bytes), without the descriptors."""

SCALE = 2.0**26
CELL_BYTES = 9  # of a chunk: a float64 similarity and the bool of one comparison
LENGTH_TOLERANCE = 1e-3  # half precision passes; raw network output does not


def check_descriptors(queries: FloatArray, references: FloatArray) -> None:
    """Refuse descriptors that are not (Q, D) and (R, D), finite and of length 1.

    Raises:
        SettingError: they are wrong; the message names the side and the row.

    """
    for name, values in (("Query", queries), ("Reference", references)):
        if values.ndim != 2 or 0 in values.shape or values.dtype.kind != "f":
            raise SettingError(
                f"{name} descriptors: got {values.dtype} of shape {values.shape}, expected "
                "floating point (count, D), at least one. Describe the pictures first."
            )
        _check_lengths(name, values)
    if queries.shape[1] != references.shape[1]:
        raise SettingError(
            f"Descriptors: got {queries.shape[1]} values per query and {references.shape[1]} per "
            "reference, expected as many. Describe both with one model."
        )


def _check_lengths(name: str, values: FloatArray) -> None:
    lengths = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if not len(wrong):
        return
    row = int(wrong[0])
    got = f"length {lengths[row]:g}" if np.isfinite(lengths[row]) else "a value that is not finite"
    raise SettingError(
        f"{name} descriptor {row}: got {got}, expected a vector of length 1. "
        "Normalise what the model gives, or look for what made it overflow."
    )


def similarity_chunks(
    queries: FloatArray, references: FloatArray, chunk_mb: float = CHUNK_MB
) -> Iterator[tuple[slice, slice, Float64Array]]:
    """Yield (rows, columns, similarity) for the whole (Q, R) matrix, chunk by chunk.

    ``similarity``: float64, in units of 2^-52, comparable with ``pair_similarity``. The next chunk
    overwrites it, so do not keep it.

    Args:
        queries: (Q, D), checked.
        references: (R, D), checked.
        chunk_mb: upper limit for a chunk, one comparison and the converted descriptors together.

    Raises:
        SettingError: chunk_mb is too small for one pair.

    """
    side = _chunk_side(queries.shape[1], chunk_mb)
    buffer = np.empty(min(side, len(queries)) * min(side, len(references)))
    for rows in _slices(len(queries), side):
        asking = _fixed_point(queries[rows])
        for columns in _slices(len(references), side):
            answering = _fixed_point(references[columns])
            chunk = buffer[: len(asking) * len(answering)].reshape(len(asking), len(answering))
            np.matmul(asking, answering.T, out=chunk)
            del answering  # free the memory before the next chunk is made
            yield rows, columns, chunk
        del asking


def pair_similarity(
    queries: FloatArray,
    references: FloatArray,
    rows: Int64Array,
    columns: Int64Array,
    chunk_mb: float = CHUNK_MB,
) -> Float64Array:
    """Similarity (P,) of the pairs (rows[i], columns[i]), in units of 2^-52.

    Equal, bit by bit, to the cells of ``similarity_chunks``. The arguments are the same.

    Raises:
        SettingError: chunk_mb is too small for one pair.

    """
    similarity = np.empty(len(rows))
    for part in _slices(len(rows), _pairs_at_once(queries.shape[1], chunk_mb)):
        # Not bound to names, which would keep them alive beside the next part's.
        similarity[part] = np.einsum(
            "pd,pd->p",
            _fixed_point(queries[rows[part]]),
            _fixed_point(references[columns[part]]),
        )
    return similarity


def _fixed_point(descriptors: FloatArray) -> Float64Array:
    """Whole numbers, float64: the descriptors in units of 2^-26."""
    fixed = descriptors.astype(np.float64)
    fixed *= SCALE
    return np.rint(fixed, out=fixed)


def _chunk_side(size: int, chunk_mb: float) -> int:
    """Rows and columns n of a chunk: n^2 cells and 2 n descriptors (8 bytes per value) fit."""
    _pairs_at_once(size, chunk_mb)
    half = 8 * size / CELL_BYTES
    return int(math.sqrt(half * half + chunk_mb * 1e6 / CELL_BYTES) - half)


def _pairs_at_once(size: int, chunk_mb: float) -> int:
    """The number of pairs that fit: two descriptors each, as float64 and as the source copy."""
    pair_bytes = 2 * (8 + 8) * size
    if not chunk_mb * 1e6 >= pair_bytes + CELL_BYTES:
        raise SettingError(
            f"chunk_mb: got {chunk_mb:g}, expected at least {(pair_bytes + CELL_BYTES) / 1e6:.6f} "
            f"for descriptors of {size} values. Allow more memory; {CHUNK_MB:g} is usual."
        )
    return int(min(chunk_mb * 1e6 // pair_bytes, 2**31))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
