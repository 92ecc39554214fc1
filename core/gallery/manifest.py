"""The manifest of a gallery folder: its contents, its origin, and checksums of its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import GalleryError
from core.gallery.viewpoints import COUNTS
from core.records import Place

__all__ = ["BUILDING", "FORMAT", "MANIFEST", "TILES", "Manifest"]

FORMAT = 3
MANIFEST = "manifest.json"
TILES = "tiles.parquet"
BUILDING = ".building"
"""Folder of an unfinished build inside the gallery folder."""


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``; readable as attributes and as ``manifest["tiles"]``.

    Lengths in metres, angles in degrees. ``imagery``: path of the imagery, relative to the gallery;
    ``imagery_bytes``: its size. ``index_kind``: selects the engine and so the files of the index.
    ``viewpoints``: number of descriptors per place (``core.gallery.viewpoints``).
    ``model_hash``: of the model folder that described the tiles. ``checksums``: SHA-256 by file.
    ``synthetic``: the imagery is of a rendered world.
    """

    format: int
    tiles: int
    skipped: int
    tile_side_m: float
    tile_pixels: int
    gsd_m: float
    step_m: float
    viewpoints: int
    min_coverage: float
    origin_lat_deg: float
    origin_lon_deg: float
    crs: str
    model_id: str
    model_hash: str
    descriptor_size: int
    index_kind: str
    source: str
    imagery: str
    imagery_bytes: int
    synthetic: bool
    checksums: dict[str, str]

    def __getitem__(self, key: str) -> Any:
        """The value of a field by its name."""
        return asdict(self)[key]

    @property
    def origin(self) -> Place:
        """Origin of the local metric frame."""
        return Place(self.origin_lat_deg, self.origin_lon_deg)

    def to_json(self) -> str:
        """The text of the file; the same manifest gives the same text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a gallery folder.

        Raises:
            GalleryError: it is missing, damaged or of another format, or its path of the imagery is
                not relative.

        """
        path = folder / MANIFEST
        if not path.is_file():
            raise GalleryError(_no_manifest_sentence(folder))
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GalleryError(_damaged_sentence(folder, "text that is not JSON")) from error
        if not isinstance(values, dict) or "format" not in values:
            raise GalleryError(_damaged_sentence(folder, "no format version"))
        if values["format"] != FORMAT:
            raise GalleryError(
                f"Gallery {folder}: got format {str(values['format'])[:20]}, expected {FORMAT}. "
                "Build it again with this version of the program."
            )
        return cls._from_values(folder, values)

    @classmethod
    def _from_values(cls, folder: Path, values: dict[str, Any]) -> Manifest:
        kinds: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
        for field in fields(cls):
            expected = kinds.get(str(field.type), dict)
            value = values.get(field.name)
            if not isinstance(value, expected) or (field.type == "int" and value is True):
                raise GalleryError(_damaged_sentence(folder, f"no usable {field.name!r}"))
        if values["viewpoints"] not in COUNTS:
            raise GalleryError(_damaged_sentence(folder, "no usable 'viewpoints'"))
        # A path from a downloaded manifest must not reach another drive or GDAL's network drivers.
        imagery = PurePosixPath(values["imagery"])
        if imagery.is_absolute() or ":" in values["imagery"] or "\\" in values["imagery"]:
            raise GalleryError(_damaged_sentence(folder, "imagery outside a relative path"))
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def _no_manifest_sentence(folder: Path) -> str:
    if (folder / BUILDING).is_dir():
        return (
            f"Gallery {folder}: got an unfinished build, expected {MANIFEST}. "
            "Give the same gallery build command again; it goes on where it stopped."
        )
    return (
        f"Gallery {folder}: got no {MANIFEST}, expected a folder written by gallery build. Check "
        f"the path, or run: python -m core gallery build SOURCE --model MODEL --out {folder}"
    )


def _damaged_sentence(folder: Path, got: str) -> str:
    return (
        f"Gallery {folder}: got a manifest with {got}, expected one written by gallery build. "
        f"Run: python -m core gallery build SOURCE --model MODEL --out {folder}"
    )
