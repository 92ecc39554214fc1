"""VIGOR: panoramas anywhere on seamless aerial coverage of four cities of the USA.

Zhu, Yang, Chen: *VIGOR: Cross-View Image Geo-localization beyond One-to-one Retrieval*, CVPR 2021.
105,214 panoramas of 2048 x 1024 px, 90,618 tiles of 640 x 640 px. Each panorama has one positive
tile (the nearest) and three semi-positives (they show the place away from their middle).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.arrays import Float64Array
from core.data.benchmarks.files import Source, checked_name, read_lines, require_files
from core.data.benchmarks.records import Benchmark, ImageFiles, TilePlaces, TrainingPairs

__all__ = ["CITIES", "PIXEL_M", "load_vigor", "load_vigor_pairs"]

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
"""In the published order, which is the order of the gallery."""

NOMINAL_PIXEL_M = 0.114
"""The authors' factor from degrees to the pixel offsets of ``splits``, in every city."""

PIXEL_M = {
    "NewYork": 0.113248,
    "Seattle": 0.100817,
    "SanFrancisco": 0.118141,
    "Chicago": 0.111262,
}
"""True metres per pixel of the tiles (Web Mercator, zoom 20), used by ``splits__corrected``.

Lentsch et al., *SliceMatch*, CVPR 2023, supplement A.
"""

Area = Literal["same", "cross"]
SPLITS: dict[tuple[Area, str], tuple[tuple[str, ...], str]] = {
    ("same", "train"): (CITIES, "same_area_balanced_train"),
    ("same", "test"): (CITIES, "same_area_balanced_test"),
    ("cross", "train"): (CITIES[:2], "pano_label_balanced"),
    ("cross", "test"): (CITIES[2:], "pano_label_balanced"),
}

SOURCE = Source(
    name="VIGOR",
    tree="{Chicago,NewYork,SanFrancisco,Seattle}/{panorama,satellite}/, splits/CITY/"
    "{satellite_list,same_area_balanced_train,same_area_balanced_test,pano_label_balanced}.txt; "
    "corrected labels: splits__corrected/CITY/ with satellite_list.txt and the same names ending in "
    "__corrected.txt",
    access="Fill in the request form of the repository Jeff-Zilence/VIGOR (data/DATASET.md); "
    "splits__corrected is in the repository tudelft-iv/SliceMatch.",
)


@dataclass(frozen=True)
class _Labels:
    panoramas: ImageFiles
    satellites: ImageFiles
    places: TilePlaces


@dataclass(frozen=True)
class _Row:
    """One panorama: file, its four tiles as indices into the gallery, (4, 2) offsets in pixels."""

    file: str
    tiles: list[int]
    offset_px: Float64Array


def load_vigor(root: str | Path, area: Area, corrected: bool = False) -> Benchmark:
    """The test panoramas against all tiles of the test cities.

    ``area``: "same" tests in the four cities of training, "cross" trains in New York and Seattle and
    tests in San Francisco and Chicago. ``corrected``: SliceMatch's labels, with offsets correct to a
    metre; their positive tiles hardly differ.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    labels = _read_labels(Path(root), area, "test", corrected)
    return Benchmark(
        name="VIGOR",
        split=f"{area}-area",
        protocol=f"VIGOR {area}-area{', corrected labels' if corrected else ''}: recall counts the "
        "positive tile alone, the hit rate ignores the three semi-positives, the gallery is all tiles "
        f"of the test cities ({'90,618' if area == 'same' else '46,563'} as published).",
        queries=labels.panoramas,
        references=labels.satellites,
        positives=tuple(labels.places.tiles[:, :1]),
        ignored=tuple(row[row != row[0]] for row in labels.places.tiles),
        places=labels.places,
    )


def load_vigor_pairs(root: str | Path, area: Area, corrected: bool = False) -> TrainingPairs:
    """The training panoramas and their positive tiles; published recipes leave out the other tiles.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    labels = _read_labels(Path(root), area, "train", corrected)
    tiles = labels.places.tiles
    return TrainingPairs("VIGOR", labels.panoramas, labels.satellites, tiles[:, 0], tiles[:, 1:])


def _read_labels(root: Path, area: Area, split: str, corrected: bool) -> _Labels:
    cities, stem = SPLITS[area, split]
    folder = root / ("splits__corrected" if corrected else "splits")
    ending = "__corrected.txt" if corrected else ".txt"
    satellites: list[str] = []
    rows: list[_Row] = []
    pixel_m: list[float] = []
    for city in cities:
        index = _read_tiles(folder / city / "satellite_list.txt", len(satellites))
        satellites += [f"{city}/satellite/{name}" for name in index]
        found = _read_panoramas(folder / city / f"{stem}{ending}", city, index)
        rows += found
        pixel_m += [PIXEL_M[city] if corrected else NOMINAL_PIXEL_M] * len(found)
    panoramas = ImageFiles(root, tuple(row.file for row in rows))
    for files in (panoramas.files, satellites):
        require_files(SOURCE, root, files)
    places = _places(panoramas.files, satellites, rows, pixel_m)
    return _Labels(panoramas, ImageFiles(root, tuple(satellites)), places)


def _read_tiles(path: Path, first: int) -> dict[str, int]:
    """Tile names of one city with their indices, counted from ``first``."""
    index: dict[str, int] = {}
    for where, line in read_lines(SOURCE, path):
        name = checked_name(SOURCE, where, line.strip())
        if name in index:  # otherwise the gallery would hold one picture under two numbers
            raise SOURCE.damaged(where, f"{name!r} a second time", "every tile once")
        index[name] = first + len(index)
    return index


def _read_panoramas(path: Path, city: str, index: dict[str, int]) -> list[_Row]:
    rows = []
    for where, line in read_lines(SOURCE, path):
        fields = line.split()
        if len(fields) != 13:
            expected = "13: panorama, then 4 x (tile, two offsets)"
            raise SOURCE.damaged(where, f"{len(fields)} columns", expected)
        name = checked_name(SOURCE, where, fields[0])
        unknown = [tile for tile in fields[1::3] if tile not in index]
        if unknown:
            raise SOURCE.damaged(where, f"the tile {unknown[0]!r}", f"one of {city}'s tiles")
        offsets = [_number(where, fields[k]) for k in (2, 3, 5, 6, 8, 9, 11, 12)]
        tiles = [index[tile] for tile in fields[1::3]]
        rows.append(_Row(f"{city}/panorama/{name}", tiles, np.reshape(offsets, (4, 2))))
    return rows


def _places(
    panoramas: tuple[str, ...], satellites: list[str], rows: list[_Row], pixel_m: list[float]
) -> TilePlaces:
    """Places from file names: ``id,lat,lon,.jpg`` and ``satellite_lat_lon.png``."""
    cameras = np.asarray([_lat_lon(file, file.split(",")[-3:-1]) for file in panoramas])
    centres = np.asarray([_lat_lon(file, Path(file).stem.split("_")[-2:]) for file in satellites])
    return TilePlaces(
        query_lat_deg=cameras[:, 0],
        query_lon_deg=cameras[:, 1],
        reference_lat_deg=centres[:, 0],
        reference_lon_deg=centres[:, 1],
        tiles=np.asarray([row.tiles for row in rows], dtype=np.int64),
        offset_px=np.stack([row.offset_px for row in rows]),
        pixel_m=np.asarray(pixel_m),
    )


def _lat_lon(file: str, parts: list[str]) -> tuple[float, float]:
    if len(parts) != 2:
        raise SOURCE.damaged(file, "a name without a place", "latitude and longitude in it")
    lat, lon = (_number(file, part) for part in parts)
    if abs(lat) > 90 or abs(lon) > 180:
        raise SOURCE.damaged(file, f"the place {lat}, {lon}", "latitude and longitude in degrees")
    return lat, lon


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise SOURCE.damaged(where, repr(text), "a number") from error
    if not np.isfinite(value):
        raise SOURCE.damaged(where, repr(text), "a finite number")
    return value
