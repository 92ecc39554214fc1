"""Plain image retrieval by class: CUB-200-2011, Cars-196, Stanford Online Products.

There is one view: every test picture is a query for the other pictures of its class, and training never
saw these classes. The splits are those of Song et al., *Deep Metric Learning via Lifted Structured
Feature Embedding*, CVPR 2016: the first half of the classes is for training, the second for the test.
The archives of CUB and Cars also hold splits for classification; these are not used. Only the test
halves are read, because no loss here learns from classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.arrays import BoolArray, Int64Array
from core.data.benchmarks.files import (
    Source,
    checked_path,
    read_lines,
    read_mat,
    require_files,
    whole_numbers,
)
from core.data.benchmarks.records import Benchmark, ImageFiles

__all__ = ["load_cars", "load_cub", "load_products"]

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


def load_cub(root: str | Path) -> Benchmark:
    """The test half of CUB-200-2011; ``root`` is the folder CUB_200_2011.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    root = Path(root)
    # Both files are rows of "id value" with one id per picture.
    names = dict(_two_columns(root / "images.txt"))
    classes = dict(_two_columns(root / "image_class_labels.txt"))
    where = str(root / "image_class_labels.txt")
    if names.keys() != classes.keys():
        raise CUB.damaged(where, "other picture ids than images.txt has", "the same")
    labels = np.asarray([_class_number(CUB, where, classes[key]) for key in names], dtype=np.int64)
    files = [checked_path(CUB, str(root / "images.txt"), name) for name in names.values()]
    return _retrieval(CUB, root / "images", files, labels, labels > CUB_TRAIN_CLASSES)


def load_cars(root: str | Path) -> Benchmark:
    """The test half of Cars-196; ``root`` holds cars_annos.mat.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    root = Path(root)
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
    return _retrieval(CARS, root, files, labels, labels > CARS_TRAIN_CLASSES)


def load_products(root: str | Path) -> Benchmark:
    """The test half of Stanford Online Products; ``root`` is the folder Stanford_Online_Products.

    Raises:
        DataError: the data set is not there, not in its published layout, or not complete.

    """
    root = Path(root)
    path = root / "Ebay_test.txt"
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
    classes = np.asarray(labels, dtype=np.int64)
    return _retrieval(PRODUCTS, root, files, classes, np.ones(len(files), np.bool_))


def _two_columns(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for where, line in read_lines(CUB, path):
        fields = line.split()
        if len(fields) != 2:
            raise CUB.damaged(where, f"{len(fields)} columns", "2: picture id and value")
        pairs.append((fields[0], fields[1]))
    return pairs


def _class_number(source: Source, where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise source.damaged(where, f"the class {text!r}", "a whole number")
    return int(text)


def _retrieval(
    source: Source, root: Path, files: list[str], labels: Int64Array, is_test: BoolArray
) -> Benchmark:
    """Every test picture is a query, all are references; the query itself is ignored."""
    kept = tuple(file for file, is_kept in zip(files, is_test, strict=True) if is_kept)
    if not kept:
        raise source.damaged(root, "no picture of the test half", "classes of both halves")
    require_files(source, root, kept)
    order = np.argsort(labels[is_test], kind="stable")
    edges = np.flatnonzero(np.diff(labels[is_test][order])) + 1
    positives: dict[int, Int64Array] = {}
    for members in np.split(order, edges):
        if len(members) == 1:
            raise source.damaged(kept[members[0]], "the only picture of its class", "at least two")
        positives.update({int(own): members[members != own] for own in members})
    images = ImageFiles(root, kept)
    return Benchmark(
        name=source.name,
        split="test",
        protocol=f"{source.name}: every test picture against all others of classes unseen in training; "
        "R@K counts the first one of its class.",
        queries=images,
        references=images,
        positives=tuple(positives[own] for own in range(len(kept))),
        ignored=tuple(np.arange(len(kept))[:, None]),
    )
