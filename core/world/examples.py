"""Pictures of a world for people to try: panoramas and photos as JPEG, with their place in EXIF.

They are taken evenly from the world's lists, not picked by how well a model does on them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD
from pyarrow import parquet

from core.errors import WorldError
from core.records import Place
from core.world.cameras import photo_exif

__all__ = ["write_examples"]


def _rows(world: Path, name: str, count: int) -> list[dict[str, object]]:
    table = parquet.read_table(world / name)
    rows: list[dict[str, object]] = table.to_pylist()
    chosen = np.linspace(0, len(rows) - 1, count + 2).round().astype(int)[1:-1]
    return [rows[int(index)] for index in chosen]


def _write_panorama(world: Path, row: dict[str, object], path: Path) -> None:
    place = Place(float(str(row["lat_deg"])), float(str(row["lon_deg"])))
    exif = photo_exif(place, float(str(row["heading_deg"])), 0)
    del exif.get_ifd(IFD.Exif)[0xA405]  # a panorama has no focal length
    with Image.open(world / str(row["file"])) as picture:
        picture.convert("RGB").save(path, quality=92, exif=exif)


def write_examples(world: str | Path, out: str | Path, panoramas: int = 3, photos: int = 5) -> int:
    """Write ``panorama-1.jpg`` ... and ``photo-1-72deg.jpg`` ... into ``out``; returns their number.

    Raises:
        WorldError: the world is missing, packed, or has too few pictures.
    """
    world, out = Path(world), Path(out)
    if not (world / "panoramas").is_dir() or not (world / "photos.parquet").is_file():
        raise WorldError(f"World {world}: expected panoramas/ and photos. Build it unpacked.")
    out.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(_rows(world, "panoramas.parquet", panoramas), start=1):
        _write_panorama(world, row, out / f"panorama-{number}.jpg")
    for number, row in enumerate(_rows(world, "photos.parquet", photos), start=1):
        name = f"photo-{number}-{round(float(str(row['fov_deg'])))}deg.jpg"
        shutil.copyfile(world / str(row["file"]), out / name)
    return panoramas + photos
