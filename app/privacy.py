"""Take the place out of an uploaded photo's file, and leave everything else as it is.

Uploads lie in a cache whose files can be fetched by whoever knows their address. The place stays
in the visitor's own session; the file no longer tells it.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
from pathlib import Path

from PIL import Image

__all__ = ["strip_place"]

GPS_IFD = 0x8825
EXIF_HEADER, XMP_HEADER = b"Exif\x00\x00", b"http://ns.adobe.com/"
# In XMP a place is attributes or elements of these names; blanks of the same length keep every
# offset in the file right.
XMP_PLACE = re.compile(
    rb"""exif:GPS\w+\s*=\s*("[^"]*"|'[^']*')|<exif:GPS(\w+)>.*?</exif:GPS\2>""", re.S
)


def strip_place(path: Path) -> bool:
    """Remove position and compass from a picture's metadata, in place; True if there were any.

    JPEG keeps its pixels byte for byte; other formats are written anew only if they hold a place.
    A file that is no picture is left alone: opening it has reported that already.
    """
    try:
        content = path.read_bytes()
        cleaned = _clean_jpeg(content) if content[:2] == b"\xff\xd8" else _clean_other(path)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return False
    if cleaned is None or cleaned == content:
        return False
    _replace(path, cleaned)
    return True


def _replace(path: Path, content: bytes) -> None:
    """Write beside and rename: a reader sees the old file or the new one, never half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _clean_jpeg(content: bytes) -> bytes:
    """The same JPEG with its Exif and XMP segments cleaned (JPEG markers: ITU T.81, annex B)."""
    parts, position = [content[:2]], 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xDA:  # the picture itself begins
            break
        length = struct.unpack(">H", content[position + 2 : position + 4])[0]
        if length < 2 or position + 2 + length > len(content):
            break
        body = content[position + 4 : position + 2 + length]
        if marker == 0xE1:
            body = _clean_segment(body)
        parts.append(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body)
        position += 2 + length
    return b"".join(parts) + content[position:]


def _clean_segment(body: bytes) -> bytes:
    if body.startswith(EXIF_HEADER):
        exif = Image.Exif()
        exif.load(body)
        if GPS_IFD not in exif:
            return body
        del exif[GPS_IFD]
        cleaned = exif.tobytes()
        return cleaned if cleaned.startswith(EXIF_HEADER) else EXIF_HEADER + cleaned
    if body.startswith(XMP_HEADER):
        return XMP_PLACE.sub(lambda match: b" " * len(match.group()), body)
    return body


def _clean_other(path: Path) -> bytes | None:
    """PNG, WebP and TIFF through Pillow; None where there is nothing to remove."""
    with Image.open(path) as picture:
        exif, kind = picture.getexif(), picture.format
        if GPS_IFD not in exif or kind is None:
            return None
        del exif[GPS_IFD]
        picture.load()
        handle, name = tempfile.mkstemp(dir=path.parent)
        os.close(handle)
        try:
            options = {"lossless": True} if kind == "WEBP" else {}
            picture.save(name, format=kind, exif=exif, **options)
            return Path(name).read_bytes()
        finally:
            os.unlink(name)
