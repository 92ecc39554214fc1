"""FaissIndex: the descriptors of a gallery, searched by inner product with FAISS.

The default kind, ``flat-8bit``, stores every number of a descriptor in 8 bits, scaled between the least
and the greatest value of this number in the gallery. It compares a query with all descriptors, so it
misses none. It is also the only store of the descriptors. Similarities differ from those of unrounded
descriptors by about 0.001. Far larger galleries can use any ``faiss.index_factory`` string; such an
index may be inexact.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from core.arrays import AnyArray, Float32Array, Int64Array
from core.errors import GalleryError, SettingError

__all__ = ["FLAT_8BIT", "FaissIndex"]

# FAISS's stubs lack the keyword arguments of its selectors and parameters.
faiss: Any = typed_faiss

FLAT_8BIT = "flat-8bit"


class FaissIndex:
    """Rows of unit descriptors; see ``core.gallery.index.TileIndex``."""

    files: ClassVar[tuple[str, ...]] = ("index.faiss",)

    def __init__(self, index: Any, kind: str) -> None:
        self._index = index
        self.kind = kind

    @classmethod
    def build(cls, chunks: Iterable[AnyArray], kind: str = FLAT_8BIT) -> FaissIndex:
        """Index descriptors that arrive as several arrays (r, D) of floats.

        The chunks are read twice. ``kind``: ``flat-8bit``, or a string for
        ``faiss.index_factory``. Other kinds that need training load all chunks at once.

        Raises:
            GalleryError: there is no descriptor, or the chunks are not finite (r, D) with one D.
            SettingError: FAISS does not know the kind.

        """
        extent = _extent(chunks)
        if kind != FLAT_8BIT:
            return cls(_factory_index(np.concatenate([_checked(c) for c in chunks]), kind), kind)
        eight = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexScalarQuantizer(extent.shape[1], eight, faiss.METRIC_INNER_PRODUCT)
        index.train(extent)
        for chunk in chunks:
            index.add(_checked(chunk))
        return cls(index, kind)

    @classmethod
    def open(cls, folder: Path, kind: str = FLAT_8BIT) -> FaissIndex:
        """Map the index file of a folder into memory, read-only.

        FAISS parses files without checks: compare the file with the manifest's checksum first.

        Raises:
            GalleryError: FAISS cannot read it.

        """
        path = folder / cls.files[0]
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), kind)
        except RuntimeError as error:
            raise GalleryError(
                f"Index {path.name}: got a file FAISS cannot read, expected one written by "
                "gallery build. Build the gallery again."
            ) from error

    def save(self, folder: Path) -> None:
        """Write the index; the same descriptors give the same bytes."""
        faiss.write_index(self._index, str(folder / self.files[0]))

    def __len__(self) -> int:
        """Number of rows R."""
        return int(self._index.ntotal)

    @property
    def size(self) -> int:
        """Numbers per descriptor D."""
        return int(self._index.d)

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared with the query."""
        return self.kind == FLAT_8BIT

    def search(
        self, queries: npt.ArrayLike, k: int, rows: npt.ArrayLike | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """The best rows for each query; see ``TileIndex.search``."""
        wanted = self._checked_queries(queries)
        subset = None if rows is None else self._checked_rows(rows)
        available = len(self) if subset is None else len(subset)
        if k < 1:
            raise SettingError(f"Number of places: got {k}, expected at least 1.")
        k = min(k, available)
        if k == 0:
            return np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64)
        # One more than wanted shows whether the end of the list cuts a tie in two.
        parameters = self._parameters(subset)
        found = min(k + 1, available)
        similarities, hits = self._index.search(wanted, found, params=parameters)
        similarities[hits < 0] = -np.inf
        if self.is_exact and found > k:
            for query in np.flatnonzero(similarities[:, k - 1] == similarities[:, k]):
                ties = self._all_at_least(
                    wanted[query : query + 1], similarities[query, k - 1], parameters
                )
                similarities[query], hits[query] = ties[0][:found], ties[1][:found]
        order = np.lexsort((hits, -similarities), axis=1)[:, :k]
        return (
            np.take_along_axis(similarities, order, axis=1),
            np.take_along_axis(hits, order, axis=1),
        )

    def reconstruct(self, rows: npt.ArrayLike) -> Float32Array:
        """The stored descriptors of some rows, float32 (n, D), with the rounding of the kind.

        Raises:
            SettingError: rows outside the index.

        """
        chosen = np.asarray(rows, np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise SettingError(_rows_sentence(chosen, len(self)))
        stored = self._index.reconstruct_batch(chosen) if len(chosen) else []
        return np.asarray(stored, np.float32).reshape(len(chosen), self.size)

    def _all_at_least(
        self, query: Float32Array, similarity: np.float32, parameters: Any
    ) -> tuple[Float32Array, Int64Array]:
        """All rows with at least a given similarity, best first, ties by row.

        FAISS's two kinds of search may differ in the last bit, hence the margin. The order always
        comes from the same one.
        """
        below = float(similarity) - 1e-5
        _, similarities, rows = self._index.range_search(query, below, params=parameters)
        order = np.lexsort((rows, -similarities))
        return similarities[order], rows[order]

    def _parameters(self, subset: Int64Array | None) -> Any:
        """FAISS's search parameters: none, or a bitmap of the rows to search."""
        if subset is None:
            return None
        chosen = np.zeros(len(self), np.bool_)
        chosen[subset] = True
        selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        if isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector)
        return faiss.SearchParameters(sel=selector)

    def _checked_queries(self, queries: npt.ArrayLike) -> Float32Array:
        wanted = np.ascontiguousarray(queries, np.float32)
        if wanted.ndim != 2 or wanted.shape[1] != self.size or not np.isfinite(wanted).all():
            raise SettingError(
                f"Query descriptors: got {wanted.shape}, expected finite (Q, {self.size}). "
                "Describe the photo with the model the gallery was built with."
            )
        return wanted

    def _checked_rows(self, rows: npt.ArrayLike) -> Int64Array:
        chosen = np.unique(np.asarray(rows, np.int64))
        if len(chosen) and (chosen[0] < 0 or chosen[-1] >= len(self)):
            raise SettingError(_rows_sentence(chosen, len(self)))
        return chosen


def _rows_sentence(rows: Int64Array, count: int) -> str:
    return f"Gallery rows: got {rows.min()} to {rows.max()}, expected 0 to {count - 1}."


def _extent(chunks: Iterable[AnyArray]) -> Float32Array:
    """The least and the greatest value of each number of the descriptors: (2, D)."""
    extent: Float32Array | None = None
    for chunk in map(_checked, chunks):
        if extent is not None and chunk.shape[1] != extent.shape[1]:
            raise GalleryError(
                f"Descriptors: got {chunk.shape[1]} numbers per tile after {extent.shape[1]}, "
                "expected one size throughout. Describe all tiles with one model."
            )
        if len(chunk):
            seen = chunk if extent is None else np.concatenate([extent, chunk])
            extent = np.stack([seen.min(axis=0), seen.max(axis=0)])
    if extent is None:
        raise GalleryError("Descriptors: got none, expected at least one tile's.")
    return extent


def _checked(chunk: AnyArray) -> Float32Array:
    """A chunk of finite descriptors (r, D) as float32."""
    if chunk.ndim != 2 or not np.isfinite(chunk).all():
        raise GalleryError(
            f"Descriptors: got {chunk.shape} with numbers missing or not finite, expected finite "
            "(tiles, D). The model is broken: check its weights."
        )
    return np.ascontiguousarray(chunk, np.float32)


def _factory_index(descriptors: Float32Array, kind: str) -> Any:
    try:
        index = faiss.index_factory(descriptors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise SettingError(
            f"Index kind: got {kind!r}, expected {FLAT_8BIT} or a faiss.index_factory string such "
            "as 'HNSW32,SQfp16'."
        ) from error
    index.train(descriptors)
    index.add(descriptors)
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
    return index
