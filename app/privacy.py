"""Reduce an uploaded photo's file to its pixels and the metadata of the camera and its lens.

Uploads lie in a cache, and anyone with a file's URL can fetch it. The photo's place stays in the
visitor's own session and is removed from the file. A place can be in many parts of a file (GPS,
captions, makers' notes, further pictures, a film behind the last byte). So the file is not searched for
it: the parts that core.photos.opening reads are kept, byte for byte, and everything else is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from app import tiff_sheet
from core.errors import PhotoError
from core.photos.metadata import GPANO_VALUE

__all__ = ["strip_place"]

EXIF_HEADER, XMP_HEADER = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
# What is read of XMP, with the sign that ends it.
XMP_KEPT = re.compile(
    rb"(?:" + GPANO_VALUE.encode() + rb"|tiff:Orientation(?:=[\"']|>)[0-9])[\"'<]?"
)
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A JPEG marker: no byte of the scan (FF 00), no restart, no filling."""
JPEG_COLOUR = (b"JFIF\x00", b"ICC_PROFILE\x00", b"Adobe")
PNG_KEPT = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB",
    b"cICP", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT",
}  # fmt: skip
PNG_XMP, PNG_EXIF_TEXT = b"XML:com.adobe.xmp", b"Raw profile type exif"
MAX_TEXT_BYTES = 4_000_000
WEBP_KEPT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
WEBP_EXIF_FLAG, WEBP_XMP_FLAG = 0x08, 0x04
GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def strip_place(path: Path) -> bool:
    """Rewrite a picture's file without its place, compass and captions; True if the file changed.

    Pixels, colour profile, camera, orientation and GPano values stay as they are.

    Raises:
        PhotoError: the file is not well-formed, so its parts cannot be separated.

    """
    content = path.read_bytes()
    try:
        cleaned = _cleaner(content)(content)
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        raise PhotoError(
            f"Photo {path.name}: got a file whose place cannot be taken out ({error}), expected a "
            "well-formed JPEG, PNG, WebP, TIFF, BMP or GIF. Save it anew."
        ) from error
    if cleaned == content:
        return False
    _replace(path, cleaned)
    return True


def _replace(path: Path, content: bytes) -> None:
    """Write a new file and rename it: a reader sees the old file or the new one, never half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _cleaner(content: bytes) -> Callable[[bytes], bytes]:
    if content[:2] == b"\xff\xd8":
        return _clean_jpeg
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return _clean_png
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _clean_webp
    if content[:3] == b"GIF":
        return _clean_gif
    if content[:2] == b"BM":
        return lambda content: content  # has no room for a place
    return lambda content: tiff_sheet.reduced(content, _clean_xmp)


def _clean_xmp(packet: bytes) -> bytes:
    """Blanks of the same length; the parts of the packet that are read stay in their positions."""
    blank = bytearray(b" " * len(packet))
    for kept in XMP_KEPT.finditer(packet):
        blank[kept.start() : kept.end()] = kept.group()
    return bytes(blank)


def _clean_exif(block: bytes) -> bytes | None:
    """An Exif block, with its header or without; None for an unreadable one."""
    header = EXIF_HEADER if block.startswith(EXIF_HEADER) else b""
    try:
        return header + tiff_sheet.reduced(block[len(header) :], _clean_xmp)
    except ValueError:
        return None


# JPEG: ITU T.81, annex B


def _clean_jpeg(content: bytes) -> bytes:
    """Only the first picture; further pictures of a multi-picture file lie behind its end."""
    parts, position, scanning = [content[:2]], 2, False
    while found := MARKER.search(content, position):
        start, marker = found.start(), content[found.start() + 1]
        if scanning:
            parts.append(content[position:start])
        position = start + 2
        if marker == 0xD9:  # the end
            return b"".join([*parts, b"\xff\xd9"])
        if marker in (0x01, 0xD8):  # without a body
            continue
        length = struct.unpack_from(">H", content, position)[0]
        if length < 2 or position + length > len(content):
            raise ValueError("a segment beyond the end")
        body = _clean_segment(marker, content[position + 2 : position + length])
        if body is not None:
            parts.append(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body)
        position += length
        scanning = scanning or marker == 0xDA
    return b"".join(parts) + (content[position:] if scanning else b"")


def _clean_segment(marker: int, body: bytes) -> bytes | None:
    """A segment's body; None for a segment to remove."""
    if marker == 0xE1 and body.startswith(EXIF_HEADER):
        return _clean_exif(body)
    if marker == 0xE1 and body.startswith(XMP_HEADER):
        return XMP_HEADER + _clean_xmp(body[len(XMP_HEADER) :])
    is_colour = marker != 0xFE and body.startswith(JPEG_COLOUR)
    return None if (0xE0 <= marker <= 0xEF or marker == 0xFE) and not is_colour else body


# PNG, third edition (W3C 2025)


def _clean_png(content: bytes) -> bytes:
    parts, position, kind = [content[:8]], 8, b""
    while kind != b"IEND" and position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            raise ValueError("a chunk beyond the end")
        if kind in PNG_KEPT:
            parts.append(content[position:end])
        else:
            with contextlib.suppress(ValueError, IndexError, zlib.error):  # damaged notes go
                parts.append(_clean_png_note(kind, content[position + 8 : end - 4]))
        position = end
    return b"".join(parts)


def _clean_png_note(kind: bytes, data: bytes) -> bytes:
    """Exif or XMP as a chunk; empty for a note of another kind."""
    if kind == b"eXIf":
        return _exif_chunk(data)
    if kind == b"iTXt":
        word, _, rest = data.partition(b"\x00")
        packet = rest[2:].split(b"\x00", 2)[-1]
        if word != PNG_XMP:
            return b""
        packet = _inflated(packet) if rest[0] else packet
        return _chunk(b"iTXt", word + b"\x00" * 5 + _clean_xmp(packet))
    word, _, rest = data.partition(b"\x00")
    if kind in (b"tEXt", b"zTXt") and word == PNG_EXIF_TEXT:
        profile = _inflated(rest[1:]) if kind == b"zTXt" else rest
        # A line with its name, one with its length, then hexadecimal digits.
        return _exif_chunk(bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii")))
    return b""


def _exif_chunk(block: bytes) -> bytes:
    cleaned = _clean_exif(block)
    return b"" if cleaned is None else _chunk(b"eXIf", cleaned.removeprefix(EXIF_HEADER))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)


# WebP: RFC 9649


def _clean_webp(content: bytes) -> bytes:
    parts, flags = [], 0
    for kind, data in _webp_chunks(content):
        kept: bytes | None = None
        if kind in WEBP_KEPT:
            kept = data
        elif kind == b"EXIF":
            kept = _clean_exif(data)
            flags |= WEBP_EXIF_FLAG if kept is not None else 0
        elif kind == b"XMP ":
            kept, flags = _clean_xmp(data), flags | WEBP_XMP_FLAG
        if kept is not None:
            parts.append((kind, kept))
    body = b"WEBP" + b"".join(_webp_chunk(kind, data, flags) for kind, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunk(kind: bytes, data: bytes, flags: int) -> bytes:
    """A chunk to write. ``flags``: the kinds of metadata in the file."""
    if kind == b"VP8X":
        said = data[0] & ~(WEBP_EXIF_FLAG | WEBP_XMP_FLAG) | flags
        data = bytes([said]) + data[1:]
    return kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2)


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of every chunk."""
    position, end = 12, min(len(content), 8 + struct.unpack_from("<I", content, 4)[0])
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", content, position)
        position += 8
        if position + length > len(content):
            raise ValueError("a chunk beyond the end")
        yield kind, content[position : position + length]
        position += length + length % 2


# GIF 89a (CompuServe 1990)


def _clean_gif(content: bytes) -> bytes:
    """Pictures, their timing and number of repeats; no comments and no XMP."""
    position = 13 + _gif_colours(content[10])
    parts = [content[:position]]
    while position < len(content) and content[position] != 0x3B:
        start, kept = position, True
        if content[position] == 0x2C:
            position = _gif_end(content, position + 11 + _gif_colours(content[position + 9]))
        elif content[position] == 0x21:
            label = content[position + 1]
            kept = label == 0xF9 or (label == 0xFF and content[start + 3 : start + 14] in GIF_LOOPS)
            position = _gif_end(content, position + 2)
        else:
            raise ValueError("an unknown block")
        if kept:
            parts.append(content[start:position])
    return b"".join([*parts, b"\x3b"])


def _gif_colours(packed: int) -> int:
    """Size of a colour table in bytes, from the byte that announces it."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _gif_end(content: bytes, position: int) -> int:
    """The end of a row of sub-blocks."""
    while content[position]:
        position += 1 + content[position]
    return position + 1
