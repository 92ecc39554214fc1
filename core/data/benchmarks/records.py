"""The common form of all benchmarks: lists of picture files, and arrays of the right answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.arrays import Float64Array, Int64Array, UInt8Array
from core.data.benchmarks.files import are_there, read_image
from core.data.safa_polar import safa_polar
from core.errors import DataError, SettingError

__all__ = ["Benchmark", "ImageFiles", "TilePlaces", "TrainingPairs", "nothing"]


@dataclass(frozen=True)
class ImageFiles:
    """Pictures of one view, opened when needed.

    ``files``: paths relative to ``root``. ``keeps_middle_half``: of the height of a full panorama
    only rows H/4 to 3H/4 are used (CVACT). ``computes_polar``: each is sent through ``safa_polar``.
    """

    root: Path
    files: tuple[str, ...]
    keeps_middle_half: bool = False
    computes_polar: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def open(self, index: int) -> UInt8Array:
        """One picture, uint8 (H, W, 3) RGB, cropped and transformed by the rules of this class.

        Raises:
            DataError: it cannot be read, or does not have the shape that the rule needs.

        """
        path = self.root / self.files[index]
        image = read_image(path)
        if self.keeps_middle_half:
            image = _middle_half(image, path)
        if self.computes_polar:
            image = _rounded_polar(image, path)
        return image

    def as_polar(self) -> ImageFiles:
        """The same aerial pictures, transformed when opened (112 x 616).

        Close to the published polar maps, not equal: see ``safa_polar``.
        """
        return replace(self, computes_polar=True)

    def from_polar_root(self, polar_root: str | Path) -> ImageFiles:
        """The published polar pictures of the same aerial files.

        ``polar_root`` replaces this ``root``: CVUSA/polarmap for CVUSA/bingmap, and CVACT's polarmap
        for its satview_polish. SAFA writes the same names ending in .png. SAIG's authors kept the whole
        name, in a folder called bingmap; then give that folder.

        Raises:
            DataError: a picture has no polar version.

        """
        polar_root = Path(polar_root)
        as_png = tuple(file.rpartition(".")[0] + ".png" for file in self.files)
        is_png, is_same = are_there(polar_root, as_png), are_there(polar_root, self.files)
        absent = np.flatnonzero(~(is_png | is_same))
        if len(absent):
            raise DataError(
                f"Polar pictures {polar_root}: got none for {len(absent)} of {len(self)} aerial "
                f"pictures, the first {as_png[absent[0]]}, expected all. "
                "Write them with SAFA's script, or let them be computed."
            )
        files = zip(as_png, self.files, is_png, strict=True)
        return ImageFiles(polar_root, tuple(png if is_png else file for png, file, is_png in files))


def _middle_half(image: UInt8Array, path: Path) -> UInt8Array:
    height, width = image.shape[:2]
    if width != 2 * height:  # otherwise a cropped panorama would be cropped again unnoticed
        raise DataError(
            f"Panorama {path}: got {width} x {height} px, expected a full one, twice as wide as "
            "high. Use the pictures as published, not cropped ones."
        )
    return image[height // 4 : height // 4 * 3]


def _rounded_polar(image: UInt8Array, path: Path) -> UInt8Array:
    try:
        return np.rint(safa_polar(image)).astype(np.uint8)
    except SettingError as error:
        raise DataError(f"Picture {path}: {error}") from error


@dataclass(frozen=True)
class TilePlaces:
    """Where VIGOR's panoramas and tiles are. Q panoramas, R tiles; degrees are WGS 84.

    ``tiles``: int (Q, 4), the positive and three semi-positive references of each panorama.
    ``offset_px``: (Q, 4, 2) as labelled: the camera is at row 320 + first, column 320 - second of the
    tile of 640 px. ``pixel_m``: (Q,) metres per pixel of an offset.
    """

    query_lat_deg: Float64Array
    query_lon_deg: Float64Array
    reference_lat_deg: Float64Array
    reference_lon_deg: Float64Array
    tiles: Int64Array
    offset_px: Float64Array
    pixel_m: Float64Array

    @property
    def camera_offset_m(self) -> Float64Array:
        """Camera positions, metres east and north of each tile's centre, (Q, 4, 2)."""
        return -self.offset_px[..., ::-1] * self.pixel_m[:, None, None]


@dataclass(frozen=True)
class Benchmark:
    """A test set with its right answers. Q queries, R references.

    ``positives``: per query, the references that count as found, at least one; a labelled one comes
    first. ``ignored``: per query, references that count neither as right nor as wrong
    (semi-positives; the query itself if it is also a reference). ``protocol``: a sentence about the
    measurement, printed with the metrics. ``skipped``: number of listed pairs left out because a
    picture is not on disk. ``query_xy_m``, ``reference_xy_m``: (Q, 2) and (R, 2) metres in one plane
    (CVACT: UTM east and north). ``places``: VIGOR's geography.
    """

    name: str
    split: str
    protocol: str
    queries: ImageFiles
    references: ImageFiles
    positives: tuple[Int64Array, ...]
    ignored: tuple[Int64Array, ...]
    skipped: int = 0
    query_xy_m: Float64Array | None = None
    reference_xy_m: Float64Array | None = None
    places: TilePlaces | None = None

    def __post_init__(self) -> None:
        assert len(self.queries) == len(self.positives) == len(self.ignored)
        assert all(len(positives) for positives in self.positives)


@dataclass(frozen=True)
class TrainingPairs:
    """A training set of N ground pictures (University-1652: drone pictures) and A aerial ones.

    ``aerial_of``: int (N,), the aerial picture of each ground picture; several may share one.
    ``semi_positives``: int (N, K), aerial pictures that must not be its negatives; K may be 0.
    ``skipped``: number of listed pairs left out because a picture is not on disk.
    """

    name: str
    ground: ImageFiles
    aerial: ImageFiles
    aerial_of: Int64Array
    semi_positives: Int64Array
    skipped: int = 0


def nothing(count: int) -> tuple[Int64Array, ...]:
    """An empty list of references for each of ``count`` queries."""
    return (np.empty(0, np.int64),) * count
