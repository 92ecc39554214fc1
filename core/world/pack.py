"""Make a world small enough to ship: the same town without its layout, with re-encoded pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import rasterio
import rasterio.shutil
from PIL import Image
from tqdm import tqdm

from core.errors import WorldError

__all__ = ["pack_world"]

KEPT = ("panoramas.parquet", "photos.parquet", "truth.npz")


def _pack_panoramas(source: Path, out: Path, quality: int) -> None:
    (out / "panoramas").mkdir()
    for path in tqdm(sorted((source / "panoramas").glob("*.webp")), desc="panoramas"):
        with Image.open(path) as picture:
            picture.save(out / "panoramas" / path.name, quality=quality, method=6)


def _pack_aerial(source: Path, out: Path, quality: int) -> None:
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        rasterio.shutil.copy(
            source / "aerial.tif",
            out / "aerial.tif",
            driver="COG",
            COMPRESS="WEBP",
            QUALITY=quality,
            OVERVIEW_QUALITY=quality,
        )


def pack_world(
    source: str | Path, out: str | Path, panorama_quality: int = 75, aerial_quality: int = 75
) -> Path:
    """Write a smaller copy of an unpacked world into ``out``: first beside it, then renamed.

    Args:
        source: a world folder with panoramas as pictures.
        out: folder to make; must not exist.
        panorama_quality: WebP quality of the panoramas, 1 to 100.
        aerial_quality: WebP quality of the aerial picture, 1 to 100.

    Raises:
        WorldError: ``source`` is not such a world, or ``out`` exists.
    """
    source, out = Path(source), Path(out)
    if not (source / "world.json").is_file() or not (source / "panoramas").is_dir():
        raise WorldError(f"World {source}: expected world.json and panoramas/. Build it unpacked.")
    if out.exists():
        raise WorldError(f"World {out}: it exists already. Remove it or name another folder.")
    beside = out.with_name(out.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _pack_panoramas(source, beside, panorama_quality)
    _pack_aerial(source, beside, aerial_quality)
    for name in KEPT:
        if (source / name).exists():
            shutil.copyfile(source / name, beside / name)
    if (source / "photos").is_dir():
        shutil.copytree(source / "photos", beside / "photos")
    record = json.loads((source / "world.json").read_text(encoding="utf-8"))
    record["packed_from"] = {"panorama_quality": panorama_quality, "aerial_quality": aerial_quality}
    (beside / "world.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    beside.rename(out)
    return out
