"""The journal of a gallery build: finished chunks as files, so that a stopped build can continue.

Every file is written under another name and then renamed, so an existing file is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.arrays import Float16Array, Float64Array
from core.errors import GalleryError
from core.files import write_text

__all__ = ["CHUNK_TILES", "Chunk", "Journal", "Plan"]

CHUNK_TILES = 64
"""Grid points per chunk; also the largest batch for a model."""


@dataclass(frozen=True)
class Plan:
    """The grid: centres (n, 2) in metres east and north, and an id for each."""

    centres: Float64Array
    ids: tuple[str, ...]

    def chunks(self) -> list[range]:
        """Consecutive grid points, 64 at a time."""
        count = len(self.ids)
        starts = range(0, count, CHUNK_TILES)
        return [range(start, min(start + CHUNK_TILES, count)) for start in starts]


@dataclass(frozen=True)
class Chunk:
    """Coverage (n,) of a chunk's grid points, and descriptors float16 (kept, D) of the kept points."""

    coverage: Float64Array
    descriptors: Float16Array


class Journal:
    """Finished chunks of one build, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> Journal:
        """Continue the journal of the same build; delete the journal of another build."""
        about = folder / "build.json"
        try:
            same = json.loads(about.read_text(encoding="utf-8"))["fingerprint"] == fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            write_text(about, json.dumps({"fingerprint": fingerprint}))
        return cls(folder)

    def read(self, number: int, points: int) -> Chunk | None:
        """A finished chunk, or None if it is missing or was cut off by a power failure."""
        try:
            with (
                self._file(number).open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                chunk = Chunk(arrays["coverage"], arrays["descriptors"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return chunk if len(chunk.coverage) == points else None

    def write(self, number: int, chunk: Chunk) -> None:
        """Store a finished chunk."""
        beside = self._file(number).with_suffix(".part")
        with beside.open("wb") as file:
            np.savez(file, coverage=chunk.coverage, descriptors=chunk.descriptors)
        os.replace(beside, self._file(number))

    def all(self, plan: Plan) -> Iterator[Chunk]:
        """All chunks in order.

        Raises:
            GalleryError: one is missing.

        """
        for number, points in enumerate(plan.chunks()):
            chunk = self.read(number, len(points))
            if chunk is None:
                raise GalleryError(
                    f"Gallery {self.folder.parent}: got a journal that loses files, expected it to "
                    "be left alone. Give the same gallery build command again."
                )
            yield chunk

    def _file(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06d}.npz"
