"""Files and folders: one writer at a time, whole files or none, checksums."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import CoreError

__all__ = ["file_hash", "folder_lock", "write_text"]


@contextmanager
def folder_lock(folder: Path, error: type[CoreError], what: str) -> Iterator[None]:
    """Hold the lock of a folder, which a killed process loses; the folder need not exist yet.

    The lock lies outside, so that the folder stays clean.

    Args:
        folder: where only one is to write.
        error: raised at once where another process is at work there.
        what: names the folder at the beginning of its sentence.

    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
    lock = FileLock(Path(tempfile.gettempdir()) / f"crossview-{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as timeout:
        raise error(
            f"{what}: got a second build while one is at work in this folder, expected one at a "
            "time. Wait for it, or choose another folder."
        ) from timeout
    try:
        yield
    finally:
        lock.release()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits; reads it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it."""
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
