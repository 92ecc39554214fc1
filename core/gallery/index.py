"""The index of a gallery: the interface of a search engine, and the list of engines.

An index holds rows of unit descriptors and finds the most similar ones by inner product. A new engine
is a class with these methods in a file of its own, and its line in ``ENGINES``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy.typing as npt

from core.arrays import AnyArray, Float32Array, Int64Array
from core.gallery.faiss_index import FLAT_8BIT, FaissIndex

__all__ = ["ENGINES", "FLAT_8BIT", "IndexEngine", "TileIndex", "engine_of"]


class TileIndex(Protocol):
    """R rows of descriptors of D numbers each. A search changes nothing, so threads may share it."""

    @property
    def size(self) -> int:
        """Numbers per descriptor D."""
        ...  # pragma: no cover

    def __len__(self) -> int:
        """Number of rows R."""
        ...  # pragma: no cover

    def search(
        self, queries: npt.ArrayLike, k: int, rows: npt.ArrayLike | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """The best rows for each query, best first; equal similarities in the order of their rows.

        Args:
            queries: float (Q, D).
            k: number of results, at least 1; at most the number of searched rows is returned.
            rows: search only these rows, int (n,); None for all.

        Returns:
            (similarities float32 (Q, K), rows int64 (Q, K)), K = min(k, searched rows). An inexact
            engine may find fewer and fills the rest with -inf and row -1.

        Raises:
            SettingError: queries have another size or are not finite, k is below 1, or rows are
                outside the index.

        """
        ...  # pragma: no cover

    def reconstruct(self, rows: npt.ArrayLike) -> Float32Array:
        """The stored descriptors of some rows, float32 (n, D).

        Raises:
            SettingError: rows outside the index.

        """
        ...  # pragma: no cover

    def save(self, folder: Path) -> None:
        """Write the engine's ``files``; the same descriptors give the same bytes."""
        ...  # pragma: no cover


class IndexEngine(Protocol):
    """A search engine, as the registry holds it: the class itself."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the engine's files in a gallery folder."""
        ...  # pragma: no cover

    def build(self, chunks: Iterable[AnyArray], kind: str) -> TileIndex:
        """Index descriptors that arrive as several arrays (r, D) of floats, row by row.

        ``chunks`` can be iterated several times. ``kind``: the value of ``--index-kind``.

        Raises:
            GalleryError: there is no descriptor, or the chunks are not finite (r, D) with one D.
            SettingError: the kind is unknown.

        """
        ...  # pragma: no cover

    def open(self, folder: Path, kind: str) -> TileIndex:
        """Open the files in a folder, read-only; the caller has checked their checksums.

        Raises:
            GalleryError: they cannot be read.

        """
        ...  # pragma: no cover


ENGINES: dict[str, IndexEngine] = {FLAT_8BIT: FaissIndex}
"""Engines by kind of index. FAISS also builds every kind that is not named here."""


def engine_of(kind: str) -> IndexEngine:
    """The engine for a kind of index: a key of ``ENGINES``, or a string for ``faiss.index_factory``."""
    return ENGINES.get(kind, FaissIndex)
