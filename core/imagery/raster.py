"""Aerial imagery by window: rasters in any coordinate system, cut into tiles of a local metric frame.

A raster is never read whole. Every tile is warped from the window it needs, using the raster's
overviews if they help. A tile on whole pixels of a plain raster is read without a warp. A pixel counts
as seen if it is not transparent, not no-data and not pure black (the usual fill value without a mask).
Eight-bit bands stay unchanged. Deeper bands are scaled so that the 2nd to 98th percentile of a
thumbnail of the scene becomes 0 to 255.
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
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from core.arrays import AnyArray, BoolArray, UInt8Array
from core.errors import RasterError
from core.geo import LocalFrame
from core.imagery.source import Bounds, Reference
from core.records import Place

__all__ = ["RasterSource"]

_BLACK = 2
"""A pixel counts as unseen if no band exceeds this value; JPEG changes black by one or two."""
_THUMBNAIL = 512
_WEB_MERCATOR = "EPSG:3857"
_WORLD_RASTER = "aerial.tif"
"""The raster's name in a world folder, and in a gallery with a copy."""
_WHOLE_PX = 1e-6
"""A tile lies on whole pixels if no edge deviates by more than this, in pixels."""


@dataclass(frozen=True)
class _Bands:
    """How a raster's bands become RGB: which ones, a palette if any, and the range to scale."""

    indexes: tuple[int, ...]
    palette: UInt8Array | None
    low: float
    high: float


@dataclass(frozen=True)
class _Grid:
    """The pixel grid of a raster that is in the frame already: north up, every pixel seen."""

    west_m: float
    north_m: float
    pixel_m: float
    columns: int
    rows: int

    def window(self, west_m: float, north_m: float, side_m: float, pixels: int) -> Window | None:
        """The pixel window of a square with this corner; None unless it lies on whole pixels."""
        left, top = (west_m - self.west_m) / self.pixel_m, (self.north_m - north_m) / self.pixel_m
        edges = (left, top, left + side_m / self.pixel_m)
        off = max(abs(edge - round(edge)) for edge in edges)
        if off > _WHOLE_PX or round(side_m / self.pixel_m) != pixels:
            return None
        return Window(round(left), round(top), pixels, pixels)


class RasterSource:
    """One georeferenced raster, seen in a local metric frame. Safe to share between threads."""

    def __init__(
        self,
        path: Path,
        frame: LocalFrame,
        bounds: Bounds,
        gsd_m: float,
        bands: _Bands,
        grid: _Grid | None,
    ) -> None:
        self.path = path
        self.frame = frame
        self.bounds = bounds
        self.gsd_m = gsd_m
        """Approximate metres per pixel of the raster."""
        self._bands = bands
        self._grid = grid
        # Two threads must not use one rasterio dataset, so every thread opens its own.
        self._local = threading.local()

    @staticmethod
    def accepts(path: Path) -> bool:
        """Accept any file (GDAL decides on opening), and a world folder for the raster in it."""
        return not path.is_dir() or (path / _WORLD_RASTER).is_file()

    @classmethod
    def open(
        cls, path: str | Path, frame: LocalFrame | None = None, is_known: bool = False
    ) -> RasterSource:
        """Open a GeoTIFF, COG, VRT or any file that GDAL reads as one georeferenced picture.

        Args:
            path: a file on this machine, or a world folder with ``aerial.tif``.
            frame: the local frame; by default the raster's own if that is azimuthal equidistant,
                else one around its centre.
            is_known: an earlier opening found a picture in it, so skip that check.

        Raises:
            RasterError: the file is missing, unreadable, without coordinate system or position, has
                unsupported bands, or is empty.

        """
        path = Path(path)
        if path.is_dir():
            path /= _WORLD_RASTER
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
                bands = _bands_of(dataset, path.name, is_known)
                return cls(path, frame, bounds, gsd_m, bands, _grid_of(dataset, frame, bands))
        except (RasterioError, OSError, ValueError) as error:
            raise RasterError(
                f"Raster {path.name}: got a file that cannot be read as imagery "
                f"({str(error)[:120]}), expected a GeoTIFF, COG or VRT. Check it with gdalinfo."
            ) from error

    def read_tile(
        self, east_m: float, north_m: float, side_m: float, pixels: int
    ) -> tuple[UInt8Array, float]:
        """A square of imagery, north up in the local frame; see ``ImagerySource.read_tile``."""
        west, north, size = east_m - side_m / 2, north_m + side_m / 2, side_m / pixels
        window = self._grid and self._grid.window(west, north, side_m, pixels)
        if window is not None:
            image, seen = self._cut(window)
        else:
            transform = rasterio.Affine(size, 0.0, west, 0.0, -size, north)
            image, seen = self._warped(self.frame.crs.to_wkt(), transform, pixels, pixels)
        return image, 0.0 if _is_flat(image) else float(seen.mean())

    def overview(self, max_side: int) -> tuple[UInt8Array, tuple[float, float, float, float]]:
        """The whole raster as one picture that fits a Leaflet ImageOverlay exactly; see
        ``ImagerySource.overview``.
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

    def fingerprint(self) -> str:
        """Name, size and modification time of the file."""
        state = self.path.stat()
        return f"{self.path.name} {state.st_size} {state.st_mtime_ns}"

    def reference(self) -> Reference:
        """The file; a GeoTIFF that is complete in itself can be copied."""
        with rasterio.open(self.path) as dataset:
            # A VRT, or a raster with its position in a sidecar, needs other files.
            is_complete = dataset.driver == "GTiff" and len(dataset.files) == 1
        return Reference(self.path, _WORLD_RASTER if is_complete else None)

    def place(self) -> Place:
        """The middle of the raster."""
        box = self.bounds
        return self.frame.to_place((box.west_m + box.east_m) / 2, (box.south_m + box.north_m) / 2)

    @contextmanager
    def _dataset(self) -> Iterator[Any]:
        """The calling thread's handle; a GDAL error inside becomes a RasterError."""
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
        """RGB (height, width, 3) and its mask of seen pixels, in another system and geometry."""
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
                # The warp respects alpha and no-data by itself; a plain raster gets an alpha band.
                "add_alpha": not has_alpha and dataset.nodata is None,
            }
            with WarpedVRT(dataset, **options) as warped:
                values = warped.read(bands.indexes)
                seen = warped.dataset_mask() > 0
        return _without_black(_as_rgb(values, bands), seen)

    def _cut(self, window: Window) -> tuple[UInt8Array, BoolArray]:
        """RGB of a window and its mask of seen pixels; pixels beyond the raster are unseen."""
        assert self._grid is not None
        left, right = np.clip(
            [window.col_off, window.col_off + window.width], 0, self._grid.columns
        )
        top, bottom = np.clip([window.row_off, window.row_off + window.height], 0, self._grid.rows)
        values = np.zeros((len(self._bands.indexes), window.height, window.width), np.uint8)
        seen = np.zeros((window.height, window.width), np.bool_)
        if left < right and top < bottom:
            inside = (
                slice(top - window.row_off, bottom - window.row_off),
                slice(left - window.col_off, right - window.col_off),
            )
            part = Window(left, top, right - left, bottom - top)
            with self._dataset() as dataset:
                values[(slice(None), *inside)] = dataset.read(self._bands.indexes, window=part)
            seen[inside] = True
        return _without_black(_as_rgb(values, self._bands), seen)


def _without_black(image: UInt8Array, seen: BoolArray) -> tuple[UInt8Array, BoolArray]:
    """Mark black pixels as unseen, and make unseen pixels black."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    seen &= np.maximum(np.maximum(red, green), blue) > _BLACK  # 30 times faster than max(axis=2)
    if not seen.all():
        image[~seen] = 0
    return image, seen


def _is_flat(image: UInt8Array) -> bool:
    """Whether all pixels have one colour; for most pictures the first row is enough."""
    colour = image[0, 0]
    return bool((image[0] == colour).all()) and bool((image == colour).all())


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
    # Six decimals are a decimetre; the origin can then be written and read without loss.
    return LocalFrame(Place(round(lat, 6), round(lon, 6)))


def _grid_of(dataset: Any, frame: LocalFrame, bands: _Bands) -> _Grid | None:
    """The raster's own pixels, where a warp to the frame would copy them; else None."""
    transform = dataset.transform
    is_upright = transform.b == transform.d == 0 and transform.a == -transform.e > 0
    masks = [flags for index in bands.indexes for flags in dataset.mask_flag_enums[index - 1]]
    is_plain = bands.palette is None and set(dataset.dtypes) == {"uint8"}
    if not is_upright or not is_plain or set(masks) != {MaskFlags.all_valid}:
        return None
    # Compare by meaning, not by name: the same system can be written in several ways.
    if CRS.from_wkt(dataset.crs.to_wkt()) != frame.crs:
        return None
    return _Grid(transform.c, transform.f, transform.a, dataset.width, dataset.height)


def _bounds_in(dataset: Any, frame: LocalFrame) -> Bounds:
    # A tenth of a millimetre: rounding in projections must not change the number of tiles.
    west, south, east, north = (round(edge, 4) for edge in _box_around(dataset, frame.crs))
    return Bounds(west, south, east, north)


def _box_around(dataset: Any, crs: CRS) -> tuple[float, float, float, float]:
    """West, south, east, north in ``crs``, from points along all sides, not only the corners."""
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
    """Choose the bands to show and their scaling; refuse an empty scene."""
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
    """From a thumbnail, refuse an empty picture and find the value range of deep bands."""
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
