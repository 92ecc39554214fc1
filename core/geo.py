"""Latitude and longitude, local metres, bearings, distances and tile grids.

The local frame of a place is azimuthal equidistant on WGS 84. Distances and bearings from its
origin are exact. Other distances within a town (some kilometres) are wrong by well under a
millimetre per metre.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Geod, Transformer

from core.arrays import Float64Array
from core.errors import SettingError
from core.records import Place

__all__ = [
    "EARTH",
    "LocalFrame",
    "angle_difference_deg",
    "bearing_deg",
    "distance_m",
    "grid_centres",
    "group_places",
    "local_crs",
    "wrap_deg",
]

EARTH = Geod(ellps="WGS84")


def local_crs(origin: Place) -> CRS:
    """Metric frame around ``origin``: azimuthal equidistant, x east and y north, in metres."""
    if not (-90 <= origin.lat_deg <= 90 and -180 <= origin.lon_deg <= 180):
        raise SettingError(
            f"Place: got latitude {origin.lat_deg}, longitude {origin.lon_deg}; expected -90..90 and "
            "-180..180 degrees. Check the order: latitude comes first."
        )
    return CRS.from_proj4(
        f"+proj=aeqd +lat_0={origin.lat_deg!r} +lon_0={origin.lon_deg!r} "
        "+datum=WGS84 +units=m +no_defs"
    )


@lru_cache(maxsize=64)
def _transformers(lat_deg: float, lon_deg: float) -> tuple[Transformer, Transformer]:
    local = local_crs(Place(lat_deg, lon_deg))
    world = CRS.from_epsg(4326)
    return (
        Transformer.from_crs(world, local, always_xy=True),
        Transformer.from_crs(local, world, always_xy=True),
    )


class LocalFrame:
    """Conversions between degrees and metres east and north of one origin."""

    def __init__(self, origin: Place) -> None:
        self.origin = origin
        self.crs = local_crs(origin)
        self._forward, self._inverse = _transformers(origin.lat_deg, origin.lon_deg)

    def to_metres(self, place: Place) -> tuple[float, float]:
        """(east_m, north_m) of one place."""
        east, north = self._forward.transform(place.lon_deg, place.lat_deg)
        return float(east), float(north)

    def to_place(self, east_m: float, north_m: float) -> Place:
        """The place at (east_m, north_m)."""
        lon, lat = self._inverse.transform(east_m, north_m)
        return Place(float(lat), float(lon))

    def to_degrees_many(self, east_m: Float64Array, north_m: Float64Array) -> Float64Array:
        """(n, 2) of latitude and longitude in degrees, from n easts and norths."""
        lon, lat = self._inverse.transform(np.asarray(east_m), np.asarray(north_m))
        return np.stack([lat, lon], axis=-1)


def distance_m(a: Place, b: Place) -> float:
    """Geodesic distance in metres."""
    return float(EARTH.inv(a.lon_deg, a.lat_deg, b.lon_deg, b.lat_deg)[2])


def bearing_deg(a: Place, b: Place) -> float:
    """Bearing from a to b, degrees clockwise from north in [0, 360)."""
    return float(EARTH.inv(a.lon_deg, a.lat_deg, b.lon_deg, b.lat_deg)[0]) % 360.0


def wrap_deg(angle_deg: float) -> float:
    """The same direction in [0, 360)."""
    wrapped = math.fmod(angle_deg, 360.0)
    wrapped = wrapped + 360.0 if wrapped < 0 else wrapped
    return 0.0 if wrapped == 360.0 else wrapped


def angle_difference_deg(a_deg: npt.ArrayLike, b_deg: npt.ArrayLike) -> Float64Array:
    """Absolute difference of two directions, degrees in [0, 180]; element by element."""
    difference = (np.asarray(a_deg, np.float64) - np.asarray(b_deg, np.float64) + 180.0) % 360.0
    return np.asarray(np.abs(difference - 180.0))


def grid_centres(
    west_m: float, south_m: float, east_m: float, north_m: float, step_m: float
) -> Float64Array:
    """Centres (n, 2) of a square grid inside a box, rows from north to south, each west to east.

    The grid is centred in the box, so what is left over at the borders is shared equally. A box
    smaller than one step has the single centre of the box.
    """
    if not step_m > 0:
        raise SettingError(f"Grid step: got {step_m} m, expected more than 0.")
    if east_m < west_m or north_m < south_m:
        raise SettingError("Grid box: its east must not lie west of its west, nor north of south.")

    def axis(low: float, high: float) -> Float64Array:
        count = math.floor((high - low) / step_m + 1e-9) + 1
        first = (low + high) / 2 - (count - 1) / 2 * step_m
        return np.asarray(first + step_m * np.arange(count), np.float64)

    easts, norths = axis(west_m, east_m), axis(south_m, north_m)[::-1]
    grid_north, grid_east = np.meshgrid(norths, easts, indexing="ij")
    return np.stack([grid_east.ravel(), grid_north.ravel()], axis=-1)


def group_places(
    centres_m: npt.ArrayLike, scores: npt.ArrayLike, limit_m: float
) -> list[tuple[int, ...]]:
    """Merge scored points that are the same place.

    Points are taken from the best score downwards. A point within ``limit_m`` of the best point of
    one or more places joins the best of these places; any other point begins a place of its own.
    Of equal scores the earlier point comes first.

    Args:
        centres_m: (n, 2) metres east and north.
        scores: (n,), larger is better.
        limit_m: in metres; a millimetre more counts as well, since a grid of quarter tiles has
            neighbours exactly half a tile away.

    Returns:
        Positions of the points of every place, its best one first; the best place first.

    """
    centres = np.asarray(centres_m, np.float64).reshape(-1, 2)
    leaders: list[int] = []
    members: list[list[int]] = []
    for position in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        offsets = centres[leaders] - centres[position]
        near = np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1]) <= limit_m + 1e-3)
        if len(near):
            members[near[0]].append(int(position))
        else:
            leaders.append(int(position))
            members.append([int(position)])
    return [tuple(group) for group in members]
