"""Aerial imagery by window: rasters in any coordinate system, cut into tiles of a local metric frame.

A raster is never read whole: every tile is warped from the window it needs, with the raster's own
overviews where they serve. What counts as seen: not transparent, not no-data, not pure black (the
usual filling where no mask was written). Eight-bit bands are taken as they are; deeper ones are
scaled so that the 2nd to 98th percentile of a thumbnail of the scene becomes 0 to 255.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from core.arrays import AnyArray, BoolArray, UInt8Array
from core.errors import RasterError
from core.geo import LocalFrame
from core.records import Place

__all__ = ["Bounds", "RasterSource"]

_BLACK = 2
"""A pixel whose every band is at most this counts as unseen; JPEG blurs black by a step or two."""
_THUMBNAIL = 512
_WEB_MERCATOR = "EPSG:3857"


@dataclass(frozen=True)
class Bounds:
    """A box in metres of a local frame."""

    west_m: float
    south_m: float
    east_m: float
    north_m: float


@dataclass(frozen=True)
class _Bands:
    """How a raster's bands become RGB: which ones, a palette if any, and the range to scale."""

    indexes: tuple[int, ...]
    palette: UInt8Array | None
    low: float
    high: float


class RasterSource:
    """One georeferenced raster, seen in a local metric frame. Safe to share between threads."""

    def __init__(
        self, path: Path, frame: LocalFrame, bounds: Bounds, gsd_m: float, bands: _Bands
    ) -> None:
        self.path = path
        self.frame = frame
        self.bounds = bounds
        self.gsd_m = gsd_m
        """Metres per pixel of the raster itself, about."""
        self._bands = bands
        # A rasterio dataset must not be used by two threads, so every thread opens its own.
        self._local = threading.local()

    @classmethod
    def open(
        cls, path: str | Path, frame: LocalFrame | None = None, is_known: bool = False
    ) -> RasterSource:
        """Open a GeoTIFF, COG, VRT or whatever GDAL reads as one georeferenced picture.

        Args:
            path: a file on this machine.
            frame: the frame to see it in; by default the raster's own where that is azimuthal
                equidistant already, else one around its centre.
            is_known: it was opened before and found to hold a picture, so do not look again.

        Raises:
            RasterError: no such file, unreadable, without coordinate system or position, of a kind
                of bands that cannot be shown, or without any picture in it.

        """
        path = Path(path)
        if not path.is_file():
            raise RasterError(
                f"Raster {path.name}: got no such file, expected aerial imagery. Check the path."
            )
        try:
            with rasterio.open(path) as dataset:
                _check_georeference(dataset, path.name)
                frame = frame or _own_frame(dataset)
                bounds = _bounds_in(dataset, frame)
                area = (bounds.east_m - bounds.west_m) * (bounds.north_m - bounds.south_m)
                gsd_m = math.sqrt(area / (dataset.width * dataset.height))
                return cls(path, frame, bounds, gsd_m, _bands_of(dataset, path.name, is_known))
        except (RasterioError, OSError, ValueError) as error:
            raise RasterError(
                f"Raster {path.name}: got a file that cannot be read as imagery "
                f"({str(error)[:120]}), expected a GeoTIFF, COG or VRT. Check it with gdalinfo."
            ) from error

    def read_tile(
        self, east_m: float, north_m: float, side_m: float, pixels: int
    ) -> tuple[UInt8Array, float]:
        """A square of imagery, north up in the local frame.

        Args:
            east_m: centre, metres east of the frame's origin.
            north_m: centre, metres north of it.
            side_m: length of a side, metres.
            pixels: length of a side, pixels.

        Returns:
            (uint8 (pixels, pixels, 3) RGB, coverage): what is not seen is black, and the coverage
            is the share in [0, 1] that is seen; 0 for a square of one single colour.

        Raises:
            RasterError: the file vanished or is damaged there.

        """
        west, north, size = east_m - side_m / 2, north_m + side_m / 2, side_m / pixels
        transform = rasterio.Affine(size, 0.0, west, 0.0, -size, north)
        image, seen = self._warped(self.frame.crs.to_wkt(), transform, pixels, pixels)
        is_flat = bool((image == image[0, 0]).all())
        return image, 0.0 if is_flat else float(seen.mean())

    def overview(self, max_side: int) -> tuple[UInt8Array, tuple[float, float, float, float]]:
        """The whole raster as one picture for a web map.

        Args:
            max_side: longest side of the result, pixels.

        Returns:
            (uint8 (H, W, 4) RGBA in web Mercator, so that it fits a Leaflet ImageOverlay exactly
            and is transparent where nothing is seen; (west, south, east, north) in degrees).

        Raises:
            RasterError: the file vanished or is damaged.

        """
        with self._dataset() as dataset:
            box = _box_around(dataset, CRS.from_user_input(_WEB_MERCATOR))
            longest = min(max_side, max(dataset.width, dataset.height))
        width_m, height_m = box[2] - box[0], box[3] - box[1]
        size = max(width_m, height_m) / longest
        columns, rows = max(1, round(width_m / size)), max(1, round(height_m / size))
        across, down = width_m / columns, height_m / rows
        transform = rasterio.Affine(across, 0.0, box[0], 0.0, -down, box[3])
        image, seen = self._warped(_WEB_MERCATOR, transform, columns, rows)
        bounds = transform_bounds(_WEB_MERCATOR, "EPSG:4326", *box)
        alpha = np.where(seen, 255, 0).astype(np.uint8)
        return np.dstack([image, alpha]), (bounds[0], bounds[1], bounds[2], bounds[3])

    def place(self) -> Place:
        """The middle of the raster."""
        box = self.bounds
        return self.frame.to_place((box.west_m + box.east_m) / 2, (box.south_m + box.north_m) / 2)

    @contextmanager
    def _dataset(self) -> Iterator[Any]:
        """A handle of the calling thread; whatever GDAL cannot do inside becomes a RasterError."""
        try:
            if getattr(self._local, "dataset", None) is None:
                self._local.dataset = rasterio.open(self.path)
            yield self._local.dataset
        except RasterioError as error:
            raise RasterError(
                f"Raster {self.path.name}: got an error while reading ({str(error)[:120]}), "
                "expected whole imagery. Put the file back, or build the gallery again."
            ) from error

    def _warped(
        self, crs: str, transform: Any, width: int, height: int
    ) -> tuple[UInt8Array, BoolArray]:
        """RGB (height, width, 3) and where it is seen, in another system and geometry."""
        bands = self._bands
        with self._dataset() as dataset:
            has_alpha = ColorInterp.alpha in dataset.colorinterp
            nearest = bands.palette is not None
            options: dict[str, Any] = {
                "crs": crs,
                "transform": transform,
                "width": width,
                "height": height,
                "resampling": Resampling.nearest if nearest else Resampling.bilinear,
                # Alpha and no-data are followed by themselves; a plain raster is given an alpha.
                "add_alpha": not has_alpha and dataset.nodata is None,
            }
            with WarpedVRT(dataset, **options) as warped:
                values = warped.read(bands.indexes)
                seen = warped.dataset_mask() > 0
        image = _as_rgb(values, bands)
        seen &= image.max(axis=2) > _BLACK
        image[~seen] = 0
        return image, seen


def _check_georeference(dataset: Any, name: str) -> None:
    if dataset.crs is None:
        raise RasterError(
            f"Raster {name}: got no coordinate system, expected one that says where on Earth it "
            "lies. Give it one with gdal_edit.py -a_srs EPSG:NUMBER, or export it as GeoTIFF."
        )
    if dataset.transform.is_identity or dataset.transform.determinant == 0:
        raise RasterError(
            f"Raster {name}: got a coordinate system but no position, expected a geotransform. "
            "Keep its world file beside it, or export it as GeoTIFF."
        )


def _map_position(transform: Any, columns: Any, rows: Any) -> tuple[Any, Any]:
    """Raster columns and rows -> x and y; written out, as affine 2 and 3 disagree on the operator."""
    return (
        transform.a * columns + transform.b * rows + transform.c,
        transform.d * columns + transform.e * rows + transform.f,
    )


def _own_frame(dataset: Any) -> LocalFrame:
    """The raster's own azimuthal equidistant frame, else one around its centre."""
    crs = CRS.from_wkt(dataset.crs.to_wkt())
    operation = crs.coordinate_operation
    if operation is not None and "azimuthal equidistant" in operation.method_name.lower():
        values = {parameter.name.lower(): parameter.value for parameter in operation.params}
        lat = values.get("latitude of natural origin", 0.0)
        lon = values.get("longitude of natural origin", 0.0)
        frame = LocalFrame(Place(float(lat), float(lon)))
        if frame.crs.is_exact_same(crs) or frame.crs.equals(crs, ignore_axis_order=True):
            return frame
    column, row = dataset.width / 2, dataset.height / 2
    x, y = _map_position(dataset.transform, column, row)
    to_degrees = Transformer.from_crs(crs, CRS.from_epsg(4326), always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise RasterError(
            "Raster: got a position outside its own coordinate system, expected a place on Earth. "
            "Check its coordinate system with gdalinfo."
        )
    # Six decimals are a decimetre: the origin can be read, typed and written without loss.
    return LocalFrame(Place(round(lat, 6), round(lon, 6)))


def _bounds_in(dataset: Any, frame: LocalFrame) -> Bounds:
    # A tenth of a millimetre: what projections lose must not decide how many tiles fit in.
    west, south, east, north = (round(edge, 4) for edge in _box_around(dataset, frame.crs))
    return Bounds(west, south, east, north)


def _box_around(dataset: Any, crs: CRS) -> tuple[float, float, float, float]:
    """West, south, east, north in ``crs``; the raster's sides are followed, not only its corners."""
    share = np.linspace(0.0, 1.0, 22)
    zero, one = np.zeros_like(share), np.ones_like(share)
    columns = np.concatenate([share, one, share, zero]) * dataset.width
    rows = np.concatenate([zero, share, one, share]) * dataset.height
    x, y = _map_position(dataset.transform, columns, rows)
    own = CRS.from_wkt(dataset.crs.to_wkt())
    east, north = Transformer.from_crs(own, crs, always_xy=True).transform(x, y)
    box = (float(np.min(east)), float(np.min(north)), float(np.max(east)), float(np.max(north)))
    if not np.isfinite(box).all():
        raise RasterError(
            "Raster: got a position that cannot be placed on Earth, expected one near the gallery. "
            "Check its coordinate system with gdalinfo."
        )
    return box


def _bands_of(dataset: Any, name: str, is_known: bool) -> _Bands:
    """Choose the bands to show and how to scale them; refuse a scene with nothing in it."""
    roles = list(dataset.colorinterp)
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    palette = None
    if roles[0] == ColorInterp.palette:
        palette = np.zeros((256, 3), np.uint8)
        for value, colour in dataset.colormap(1).items():
            if 0 <= value < 256:
                palette[value] = colour[:3]
        indexes: tuple[int, ...] = (1,)
    elif all(colour in roles for colour in colours):
        indexes = tuple(roles.index(colour) + 1 for colour in colours)
    else:
        shown = [i + 1 for i, role in enumerate(roles) if role != ColorInterp.alpha]
        indexes = tuple(shown[:3]) if len(shown) >= 3 else tuple(shown[:1])
    if not indexes or np.dtype(dataset.dtypes[indexes[0] - 1]).kind not in "uif":
        raise RasterError(
            f"Raster {name}: got bands of {dataset.dtypes[0]}, expected grey, RGB or RGBA numbers. "
            "Convert it with gdal_translate -ot Byte."
        )
    if is_known and dataset.dtypes[indexes[0] - 1] == "uint8":
        return _Bands(indexes, palette, 0.0, 255.0)
    return _scaled(dataset, name, indexes, palette)


def _scaled(
    dataset: Any, name: str, indexes: tuple[int, ...], palette: UInt8Array | None
) -> _Bands:
    """Look at a thumbnail: is there anything, and what range do deep bands fill?"""
    shrink = max(1.0, max(dataset.width, dataset.height) / _THUMBNAIL)
    shape = (max(1, round(dataset.height / shrink)), max(1, round(dataset.width / shrink)))
    values = dataset.read(indexes, out_shape=(len(indexes), *shape)).astype(np.float64)
    seen = (dataset.dataset_mask(out_shape=shape) > 0) & np.isfinite(values).all(axis=0)
    seen &= (values != 0).any(axis=0) | (palette is not None)
    shown = values[:, seen]
    if shown.size == 0 or float(shown.max()) == float(shown.min()):
        raise RasterError(
            f"Raster {name}: got an empty picture (all transparent or of one colour), expected "
            "aerial imagery. Check that the right bands and no-data value were exported."
        )
    if dataset.dtypes[indexes[0] - 1] == "uint8":
        return _Bands(indexes, palette, 0.0, 255.0)
    low, high = np.percentile(shown, (2.0, 98.0))
    return _Bands(indexes, palette, float(low), float(max(high, low + 1e-6)))


def _as_rgb(values: AnyArray, bands: _Bands) -> UInt8Array:
    """(bands, H, W) of any type -> uint8 (H, W, 3)."""
    if bands.palette is not None:
        return np.asarray(bands.palette[np.clip(values[0], 0, 255).astype(np.intp)])
    if values.dtype != np.uint8:
        scaled = (np.nan_to_num(values.astype(np.float64)) - bands.low) / (bands.high - bands.low)
        values = np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
    if values.shape[0] == 1:
        values = np.repeat(values, 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))
