"""Plain image retrieval by class: CUB-200-2011, Cars-196, Stanford Online Products.

One view, and classes that training never saw: every test picture asks for another one of its class.
The splits are those of Song et al., *Deep Metric Learning via Lifted Structured Feature Embedding*,
CVPR 2016: the first half of the classes trains, the second half tests. They are not the splits
for classification that the archives of CUB and Cars also hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from core.arrays import Int64Array
from core.data.benchmarks.files import (
    Source,
    checked_path,
    read_lines,
    read_mat,
    require_files,
    whole_numbers,
)
from core.data.benchmarks.records import Benchmark, ClassImages, ImageFiles

__all__ = [
    "load_cars",
    "load_cars_classes",
    "load_cub",
    "load_cub_classes",
    "load_products",
    "load_products_classes",
]

CUB = Source(
    name="CUB-200-2011",
    tree="images.txt, image_class_labels.txt, images/CLASS/*.jpg (the folder CUB_200_2011)",
    access="It is on the data page of Caltech's Computational Vision group.",
)
CARS = Source(
    name="Cars-196",
    tree="cars_annos.mat, car_ims/*.jpg (the one-folder release car_ims.tgz)",
    access="It was published by the Stanford AI Lab (Krause et al., 2013); ask there for both files.",
)
PRODUCTS = Source(
    name="Stanford Online Products",
    tree="Ebay_train.txt, Ebay_test.txt, bicycle_final/*.JPG and eleven more such folders",
    access="It is on the project page of Lifted Structured Feature Embedding (Stanford CVGL).",
)

CUB_TRAIN_CLASSES = 100
"""Classes 1 to 100 train (5,864 pictures), 101 to 200 test (5,924)."""

CARS_TRAIN_CLASSES = 98
"""Classes 1 to 98 train (8,054 pictures), 99 to 196 test (8,131)."""

PRODUCTS_HEADER = ["image_id", "class_id", "super_class_id", "path"]

Half = Literal["train", "test"]


def load_cub(root: str | Path) -> Benchmark:
    """The test half of CUB-200-2011; ``root`` is the folder CUB_200_2011.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    return _retrieval(CUB, _read_cub(Path(root), "test"))


def load_cub_classes(root: str | Path) -> ClassImages:
    """The training half of CUB-200-2011; see ``load_cub``."""
    return _read_cub(Path(root), "train")


def load_cars(root: str | Path) -> Benchmark:
    """The test half of Cars-196; ``root`` holds cars_annos.mat.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    return _retrieval(CARS, _read_cars(Path(root), "test"))


def load_cars_classes(root: str | Path) -> ClassImages:
    """The training half of Cars-196; see ``load_cars``."""
    return _read_cars(Path(root), "train")


def load_products(root: str | Path) -> Benchmark:
    """The test half of Stanford Online Products; ``root`` is the folder Stanford_Online_Products.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    return _retrieval(PRODUCTS, _read_products(Path(root), "test"))


def load_products_classes(root: str | Path) -> ClassImages:
    """The training half of Stanford Online Products; see ``load_products``."""
    return _read_products(Path(root), "train")


def _read_cub(root: Path, half: Half) -> ClassImages:
    """Both files are rows of "id value" with one id per picture."""
    names = dict(_two_columns(root / "images.txt"))
    classes = dict(_two_columns(root / "image_class_labels.txt"))
    where = str(root / "image_class_labels.txt")
    if names.keys() != classes.keys():
        raise CUB.damaged(where, "other picture ids than images.txt has", "the same")
    labels = np.asarray([_class_number(CUB, where, classes[key]) for key in names], dtype=np.int64)
    files = [checked_path(CUB, str(root / "images.txt"), name) for name in names.values()]
    chosen = _halves(labels, CUB_TRAIN_CLASSES)[half]
    return _class_images(CUB, root / "images", files, labels, chosen)


def _two_columns(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for where, line in read_lines(CUB, path):
        fields = line.split()
        if len(fields) != 2:
            raise CUB.damaged(where, f"{len(fields)} columns", "2: picture id and value")
        pairs.append((fields[0], fields[1]))
    return pairs


def _read_cars(root: Path, half: Half) -> ClassImages:
    path = root / "cars_annos.mat"
    annotations = np.asarray(read_mat(CARS, path, ("annotations",))["annotations"]).ravel()
    try:
        names = [str(np.asarray(cell).item()) for cell in annotations["relative_im_path"]]
        classes = [np.asarray(cell).item() for cell in annotations["class"]]
    except (ValueError, IndexError, TypeError) as error:
        expected = "a struct array with relative_im_path and class"
        raise CARS.damaged(path, "other annotations", expected) from error
    labels = whole_numbers(CARS, f"{path}, class", classes)
    files = [checked_path(CARS, str(path), name) for name in names]
    return _class_images(CARS, root, files, labels, _halves(labels, CARS_TRAIN_CLASSES)[half])


def _read_products(root: Path, half: Half) -> ClassImages:
    path = root / f"Ebay_{half}.txt"
    (where, header), *rows = read_lines(PRODUCTS, path)
    if header.split() != PRODUCTS_HEADER:
        raise PRODUCTS.damaged(where, repr(header[:80]), " ".join(PRODUCTS_HEADER))
    files, labels = [], []
    for where, line in rows:
        fields = line.split()
        if len(fields) != 4:
            raise PRODUCTS.damaged(where, f"{len(fields)} columns", "4, as the header says")
        labels.append(_class_number(PRODUCTS, where, fields[1]))
        files.append(checked_path(PRODUCTS, where, fields[3]))
    everything = np.arange(len(files))
    return _class_images(PRODUCTS, root, files, np.asarray(labels, dtype=np.int64), everything)


def _class_number(source: Source, where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise source.damaged(where, f"the class {text!r}", "a whole number")
    return int(text)


def _halves(labels: Int64Array, last_train_class: int) -> dict[Half, Int64Array]:
    """Rows of each half; classes are counted from 1."""
    is_train = labels <= last_train_class
    return {"train": np.flatnonzero(is_train), "test": np.flatnonzero(~is_train)}


def _class_images(
    source: Source, root: Path, files: list[str], labels: Int64Array, chosen: Int64Array
) -> ClassImages:
    if not len(chosen):
        raise source.damaged(root, "no picture of this half", "classes of both halves")
    kept = tuple(files[row] for row in chosen)
    require_files(source, root, kept)
    counted = np.unique(labels[chosen], return_inverse=True)[1]
    return ClassImages(source.name, ImageFiles(root, kept), counted.astype(np.int64))


def _retrieval(source: Source, data: ClassImages) -> Benchmark:
    """Every picture asks, all others answer; its own is neither right nor wrong."""
    order = np.argsort(data.labels, kind="stable")
    edges = np.flatnonzero(np.diff(data.labels[order])) + 1
    positives: dict[int, Int64Array] = {}
    for members in np.split(order, edges):
        if len(members) == 1:
            alone = data.images.files[members[0]]
            raise source.damaged(alone, "the only picture of its class", "at least two")
        positives.update({int(own): members[members != own] for own in members})
    count = len(data.images)
    return Benchmark(
        name=data.name,
        split="test",
        protocol=f"{data.name}: every test picture against all others of classes unseen in training; "
        "R@K counts the first one of its class.",
        queries=data.images,
        references=data.images,
        positives=tuple(positives[own] for own in range(count)),
        ignored=tuple(np.arange(count)[:, None]),
    )
