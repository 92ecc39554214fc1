"""Reduce a TIFF structure (a TIFF file, or the Exif block of another file) to its known tags.

Kept parts are copied to their own positions on a blank sheet of the same length, so all offsets stay
right. Everything else is gone: places, serial numbers, makers' notes, thumbnails, further pictures.
TIFF 6.0 (Adobe 1992), Exif 2.32 (CIPA DC-008), BigTIFF (Aware Systems).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["reduced"]

EXIF_IFD, XMP = 0x8769, 700
# How pixels lie and what colours they mean; then make, model and orientation.
PICTURE_TAGS = {
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 290,
    291, 292, 293, 296, 301, 317, 318, 319, 320, 322, 323, 324, 325, 332, 334, 336, 338, 339, 340,
    341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675,
    271, 272, EXIF_IFD, XMP,
}  # fmt: skip
# Focal lengths, resolution of the focal plane, size as taken: what core.photos.metadata reads.
CAMERA_TAGS = {37386, 40962, 40963, 41486, 41487, 41488, 41989}
PIXELS = ((273, 279), (324, 325), (513, 514))
"""Tags of offsets, and of the lengths that belong to them: strips, tiles, old JPEG streams."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
         16: 8, 17: 8, 18: 8}  # fmt: skip
"""Bytes of one value, by type."""
NUMBERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Layout:
    """The layout of a directory. ``count``, ``offset``: formats of the entry count and of offsets."""

    order: str
    count: str
    offset: str
    first_at: int

    @property
    def width(self) -> int:
        """Bytes of an offset; also the largest size of values that an entry itself can hold."""
        return struct.calcsize("=" + self.offset)

    def read(self, kind: str, content: bytes | bytearray, at: int) -> int:
        return int(struct.unpack_from(self.order + kind, content, at)[0])


@dataclass(frozen=True)
class _Entry:
    """A tag of a directory; ``raw``: the entry itself, ``at`` and ``size``: its values' bytes."""

    tag: int
    kind: int
    raw: bytes
    at: int
    size: int


LAYOUTS = {
    b"II*\x00": _Layout("<", "H", "I", 4),
    b"MM\x00*": _Layout(">", "H", "I", 4),
    b"II+\x00": _Layout("<", "Q", "Q", 8),
    b"MM\x00+": _Layout(">", "Q", "Q", 8),
}


def reduced(content: bytes, clean_xmp: Callable[[bytes], bytes]) -> bytes:
    """The first picture of a TIFF structure with known tags only; the length stays the same.

    Args:
        content: from the byte order mark on.
        clean_xmp: makes an XMP packet clean without changing its length.

    Raises:
        ValueError: it is not a TIFF structure, or refers to more bytes than it has.

    """
    layout = LAYOUTS.get(content[:4])
    if layout is None:
        raise ValueError("no TIFF structure")
    try:
        return bytes(_Sheet(content, layout, clean_xmp).filled())
    except struct.error as error:
        raise ValueError("a directory outside the file") from error


class _Sheet:
    """The blank sheet, with the parts copied to it so far."""

    def __init__(
        self, content: bytes, layout: _Layout, clean_xmp: Callable[[bytes], bytes]
    ) -> None:
        self.content, self.layout, self.clean_xmp = content, layout, clean_xmp
        self.sheet = bytearray(len(content))
        # Else a small file of many entries that all name the same bytes would keep us for hours.
        self.left = 2 * len(content)

    def filled(self) -> bytearray:
        first = self.layout.read(self.layout.offset, self.content, self.layout.first_at)
        self._copy(0, self.layout.first_at + self.layout.width)
        kept = self._copy_directory(first, PICTURE_TAGS)
        if EXIF_IFD in kept:
            # A damaged one is left blank, which reads as empty: the picture does not need it.
            with contextlib.suppress(ValueError, struct.error):
                self._copy_directory(self._values(kept[EXIF_IFD])[0], CAMERA_TAGS)
        for offsets, lengths in PIXELS:
            if offsets in kept and lengths not in kept:
                raise ValueError("pixels of unknown length")
            if offsets in kept:
                pairs = zip(self._values(kept[offsets]), self._values(kept[lengths]), strict=True)
                for at, size in pairs:
                    self._copy(at, size)
        return self.sheet

    def _copy_directory(self, at: int, tags: set[int]) -> dict[int, _Entry]:
        """Copy the entries of these tags, with their values; no directory follows."""
        kept = {e.tag: e for e in self._entries(at) if e.tag in tags}
        for entry in kept.values():
            if entry.size > self.layout.width:  # others stand in the entry itself
                self._copy(entry.at, entry.size)
        if XMP in kept:
            start, end = kept[XMP].at, kept[XMP].at + kept[XMP].size
            self.sheet[start:end] = self.clean_xmp(self.content[start:end])
        count = struct.pack(self.layout.order + self.layout.count, len(kept))
        packed = count + b"".join(e.raw for e in kept.values()) + bytes(self.layout.width)
        self.sheet[at : at + len(packed)] = packed
        return kept

    def _entries(self, at: int) -> Iterable[_Entry]:
        """Entries whose values lie inside the file; the others are ignored."""
        layout, width = self.layout, self.layout.width
        start, length = at + struct.calcsize("=" + layout.count), 4 + 2 * width
        for i in range(min(layout.read(layout.count, self.content, at), 0xFFFF)):
            entry = start + i * length
            place = entry + 4 + width
            tag, kind = (layout.read("H", self.content, entry + 2 * part) for part in (0, 1))
            size = SIZES.get(kind, 0) * layout.read(layout.offset, self.content, entry + 4)
            value_at = place if size <= width else layout.read(layout.offset, self.content, place)
            if size > 0 and value_at + size <= len(self.content):
                yield _Entry(tag, kind, self.content[entry : entry + length], value_at, size)

    def _values(self, entry: _Entry) -> tuple[int, ...]:
        kind = NUMBERS.get(entry.kind)
        if kind is None:
            raise ValueError("a place that is no number")
        count = entry.size // SIZES[entry.kind]
        return struct.unpack_from(f"{self.layout.order}{count}{kind}", self.content, entry.at)

    def _copy(self, at: int, size: int) -> None:
        self.left -= size
        if at + size > len(self.content) or self.left < 0:
            raise ValueError("more bytes named than there are")
        self.sheet[at : at + size] = self.content[at : at + size]
