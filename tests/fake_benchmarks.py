"""Small fake data sets in the true layouts of the published benchmarks.

Every builder writes beneath ``root`` and returns it. Pictures are blocks of random colours, a
fifteenth of the published sides, of the same proportions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

METRES_PER_DEGREE = np.pi * 6371004.0 / 180

CITY_ORIGINS = {
    "NewYork": (40.72, -74.0),
    "Seattle": (47.6, -122.33),
    "SanFrancisco": (37.77, -122.42),
    "Chicago": (41.88, -87.63),
}
CITY_COLUMNS = {"NewYork": 3, "Seattle": 4, "SanFrancisco": 5, "Chicago": 6}
"""Tiles per row of three rows, so that each city's share of the gallery has its own size."""

TRUE_PIXEL_M = {"NewYork": 0.1132, "Seattle": 0.1008, "SanFrancisco": 0.1181, "Chicago": 0.1113}
PANORAMAS = 6
"""Per city of the fake VIGOR; the first four train, the others test."""


def write_picture(path: Path, width: int, height: int, seed: int = 0) -> None:
    """Coloured blocks of 8 px, as JPEG or PNG by the name's ending."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width]).save(path)


def write_cvusa(root: Path, train: int = 6, val: int = 4) -> Path:
    """CVUSA; the rows of the lists are not in the order of the file names."""
    (root / "splits").mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("val", val)):
        rows = []
        for _ in range(count):
            number += 1
            name = f"{number * 7919 % 10_000_000:07d}"
            write_picture(root / f"bingmap/19/{name}.jpg", 48, 48, number)
            write_picture(root / f"streetview/panos/{name}.jpg", 88, 16, number)
            rows.append(
                f"bingmap/19/{name}.jpg,streetview/panos/{name}.jpg,"
                f"streetview/annotations/{name}.png"
            )
        (root / f"splits/{split}-19zl.csv").write_text("\n".join(rows) + "\n")
    return root


def pano_id(number: int) -> str:
    """Twenty-two characters, as Google's."""
    return f"-fake_Pano{number:012d}"


def write_cvact(root: Path, train: int = 6, val: int = 4, test: int = 5) -> Path:
    """CVACT; ACT_data.mat lists the test panoramas first, then training, then validation.

    Positions lie 100 m apart, but the second test panorama stands 4 m from the first and the third
    6 m from it on the other side.
    """
    count = train + val + test
    ids = [pano_id(number) for number in range(count)]
    utm = np.stack([690_000.0 + 100 * np.arange(count), np.full(count, 6_090_000.0)], axis=1)
    utm[1, 0], utm[2, 0] = utm[0, 0] + 4, utm[0, 0] - 6
    rows = {
        "test": range(test),
        "train": range(test, test + train),
        "val": range(test + train, count),
    }
    write_act_data(root, ids, utm, {split: np.asarray(rows[split]) + 1 for split in rows})
    for number, name in enumerate(ids):
        folder = root / ("ANU_data_test" if number < test else "ANU_data_small")
        write_picture(folder / f"streetview/{name}_grdView.jpg", 112, 56, number)
        write_picture(folder / f"satview_polish/{name}_satView_polish.jpg", 80, 80, number)
    return root


def write_act_data(
    root: Path, ids: list[str], utm: np.ndarray, one_based: dict[str, np.ndarray]
) -> None:
    """ACT_data.mat with nested structs of column vectors: ``mat['trainSet']['trainInd'][0][0]``."""
    root.mkdir(parents=True, exist_ok=True)
    columns = {
        split: np.asarray(rows, dtype=np.float64)[:, None] for split, rows in one_based.items()
    }
    savemat(
        root / "ACT_data.mat",
        {
            "panoIds": np.asarray(ids),
            "utm": utm,
            "trainSet": {"trainNum": len(columns["train"]), "trainInd": columns["train"]},
            "valSet": {"valNum": len(columns["val"]), "valInd": columns["val"]},
            "valSetAll": {"valNum": len(columns["test"]), "valInd": columns["test"]},
        },
    )


def write_vigor(root: Path, corrected: bool = False) -> Path:
    """VIGOR: tiles half a side apart, panoramas near tile centres, offsets from their places."""
    ending = "__corrected.txt" if corrected else ".txt"
    for seed, city in enumerate(CITY_ORIGINS):
        folder = root / ("splits__corrected" if corrected else "splits") / city
        folder.mkdir(parents=True)
        pixel_m = TRUE_PIXEL_M[city] if corrected else 0.114
        tiles = _vigor_tiles(city)
        (folder / "satellite_list.txt").write_text("".join(f"{name}\n" for name in tiles))
        for number, name in enumerate(tiles):
            write_picture(root / city / "satellite" / name, 40, 40, 100 * seed + number)
        rows = [_vigor_row(city, number, tiles, pixel_m) for number in range(PANORAMAS)]
        for number, row in enumerate(rows):
            write_picture(root / city / "panorama" / row.split()[0], 128, 64, 100 * seed + number)
        parts = {
            "same_area_balanced_train": rows[:4],
            "same_area_balanced_test": rows[4:],
            "pano_label_balanced": rows,
        }
        for stem, part in parts.items():
            (folder / f"{stem}{ending}").write_text("".join(f"{row}\n" for row in part))
    return root


def _vigor_tiles(city: str) -> dict[str, tuple[float, float]]:
    """Centres by name."""
    lat, lon = CITY_ORIGINS[city]
    north = 320 * TRUE_PIXEL_M[city] / METRES_PER_DEGREE
    east = float(north / np.cos(np.radians(lat)))
    centres = [
        (lat + row * north, lon + column * east)
        for row in range(3)
        for column in range(CITY_COLUMNS[city])
    ]
    return {f"satellite_{lat!r}_{lon!r}.png": (lat, lon) for lat, lon in centres}


def _vigor_row(
    city: str, number: int, tiles: dict[str, tuple[float, float]], pixel_m: float
) -> str:
    """A label: panorama, then the four nearest tiles with (down, left) of the camera from each."""
    random = np.random.default_rng(number)
    home = list(tiles.values())[number % len(tiles)]
    metre = np.array([1, 1 / np.cos(np.radians(home[0]))]) / METRES_PER_DEGREE
    camera = np.round(home + random.uniform(-15, 15, 2) * metre, 6)
    away = {name: (np.asarray(centre) - camera) / metre for name, centre in tiles.items()}
    nearest = sorted(away, key=lambda name: float(np.hypot(*away[name])))[:4]
    fields = [f"fake{city}{number:04d},{camera[0]:.6f},{camera[1]:.6f},.jpg"]
    for name in nearest:
        south_m, west_m = away[name]  # how far the camera is south and west of the tile's centre
        fields += [name, f"{south_m / pixel_m:.1f}", f"{west_m / pixel_m:.1f}"]
    return " ".join(fields)


def write_university(root: Path, buildings: int = 3, distractors: int = 2, drones: int = 4) -> Path:
    """University-1652: ``buildings`` to train, as many others to test, among distractors."""
    train = [f"{number:04d}" for number in range(839, 839 + buildings)]
    test = [f"{number:04d}" for number in range(1, 1 + buildings)]
    more = [f"{number:04d}" for number in range(1000, 1000 + distractors)]
    groups = {
        "train/drone": (train, drones, "image-{:02d}.jpeg"),
        "train/satellite": (train, 1, "{}.jpg"),
        "train/street": (train, 2, "{}.jpg"),
        "train/google": (train, 2, "{}.jpg"),
        "test/query_drone": (test, drones, "image-{:02d}.jpeg"),
        "test/gallery_drone": (test + more, drones, "image-{:02d}.jpeg"),
        "test/query_satellite": (test, 1, "{}.jpg"),
        "test/gallery_satellite": (test + more, 1, "{}.jpg"),
        "test/query_street": (test, 1, "{}.jpg"),
        "test/gallery_street": (test + more, 1, "{}.jpg"),
    }
    for folder, (ids, count, name) in groups.items():
        for building in ids:
            for number in range(1, count + 1):
                path = root / folder / building / name.format(number)
                write_picture(path, 32, 32, int(building))
    return root


def write_cub(root: Path, pictures: int = 3) -> Path:
    """CUB-200-2011 with classes 1, 2, 100, 101 and 200, its classification split beside them."""
    names, classes, parts = [], [], []
    picture = 0
    for number in (1, 2, 100, 101, 200):
        for _ in range(pictures):
            picture += 1
            file = f"{number:03d}.Fake_Bird/Fake_Bird_{picture:04d}.jpg"
            write_picture(root / "images" / file, 40, 32, number)
            names.append(f"{picture} {file}\n")
            classes.append(f"{picture} {number}\n")
            parts.append(f"{picture} {picture % 2}\n")
    (root / "images.txt").write_text("".join(names))
    (root / "image_class_labels.txt").write_text("".join(classes))
    (root / "train_test_split.txt").write_text("".join(parts))
    return root


def write_cars(root: Path, pictures: int = 3) -> Path:
    """Cars-196 with classes 1, 98, 99 and 196, all in one folder."""
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    classes = np.repeat([1, 98, 99, 196], pictures)
    annotations = np.empty((1, len(classes)), dtype=[(field, object) for field in fields])
    for row, number in enumerate(classes):
        file = f"car_ims/{row + 1:06d}.jpg"
        write_picture(root / file, 40, 24, int(number))
        annotations[0, row] = (file, 1, 1, 39, 23, np.uint8(number), np.uint8(row % 2))
    savemat(root / "cars_annos.mat", {"annotations": annotations})
    return root


def write_products(root: Path, classes: int = 3, pictures: int = 2) -> Path:
    """Stanford Online Products; the classes of the test half go on counting."""
    picture, number = 0, 0
    for half in ("train", "test"):
        rows = ["image_id class_id super_class_id path\n"]
        for _ in range(classes):
            number += 1
            for view in range(pictures):
                picture += 1
                file = f"bicycle_final/{111085122871 + number}_{view}.JPG"
                write_picture(root / file, 32, 32, number)
                rows.append(f"{picture} {number} 1 {file}\n")
        (root / f"Ebay_{half}.txt").write_text("".join(rows))
    return root
