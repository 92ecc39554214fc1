"""Degrees and local metres, bearings and grids, against PROJ's geodesics and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import SettingError
from core.geo import (
    EARTH,
    LocalFrame,
    angle_difference_deg,
    bearing_deg,
    distance_m,
    grid_centres,
    local_crs,
    wrap_deg,
)
from core.records import Place

LATITUDES = st.floats(-85, 85)
LONGITUDES = st.floats(-179.9, 179.9)
METRES = st.floats(-5000, 5000)


@given(lat=LATITUDES, lon=LONGITUDES, east=METRES, north=METRES)
def test_metres_and_degrees_are_inverse(lat: float, lon: float, east: float, north: float) -> None:
    frame = LocalFrame(Place(lat, lon))
    back = frame.to_metres(frame.to_place(east, north))
    # A millimetre: PROJ takes what lies within 1e-10 radians (0.64 mm) of the origin for the origin.
    assert back == pytest.approx((east, north), abs=1e-3)


@given(lat=LATITUDES, lon=LONGITUDES, azimuth=st.floats(0, 359.9), length=st.floats(1, 20_000))
def test_frame_is_exact_from_its_origin(
    lat: float, lon: float, azimuth: float, length: float
) -> None:
    far_lon, far_lat, _ = EARTH.fwd(lon, lat, azimuth, length)
    origin, far = Place(lat, lon), Place(far_lat, far_lon)
    east, north = LocalFrame(origin).to_metres(far)
    assert np.hypot(east, north) == pytest.approx(length, abs=1e-3)
    assert distance_m(origin, far) == pytest.approx(length, abs=1e-3)
    # Seen from the origin, a millimetre (see above) is more than 0.01 degrees within 6 m.
    limit = max(0.01, np.degrees(1e-3 / length))
    assert angle_difference_deg(np.degrees(np.arctan2(east, north)), azimuth) < limit
    assert angle_difference_deg(bearing_deg(origin, far), azimuth) < 0.01


def test_axes_point_east_and_north() -> None:
    frame = LocalFrame(Place(0.0, 0.0))
    assert frame.to_metres(Place(0.0, 0.001)) == pytest.approx((111.32, 0.0), abs=0.01)
    assert frame.to_metres(Place(0.001, 0.0)) == pytest.approx((0.0, 110.574), abs=0.01)
    east, north = LocalFrame(Place(52.0, 5.0)).to_metres(Place(52.0, 5.001))
    assert east == pytest.approx(111.32 * np.cos(np.radians(52)), rel=3e-3)
    assert abs(north) < 0.01


def test_many_are_the_same_as_one_by_one() -> None:
    frame = LocalFrame(Place(47.4, 8.5))
    lats, lons = np.array([47.41, 47.39, 47.4]), np.array([8.52, 8.49, 8.5])
    metres = np.array(
        [frame.to_metres(Place(lat, lon)) for lat, lon in zip(lats, lons, strict=True)]
    )
    np.testing.assert_allclose(
        frame.to_degrees_many(metres[:, 0], metres[:, 1]), np.stack([lats, lons], 1), atol=1e-9
    )


def test_bearings_of_the_four_winds() -> None:
    centre = Place(0.0, 0.0)
    winds = [Place(1, 0), Place(0, 1), Place(-1, 0), Place(0, -1)]
    assert [bearing_deg(centre, wind) for wind in winds] == pytest.approx([0, 90, 180, 270])


@given(st.floats(-1e6, 1e6))
def test_wrapped_angles_are_the_same_direction(angle: float) -> None:
    wrapped = wrap_deg(angle)
    assert 0 <= wrapped < 360
    assert float(angle_difference_deg(wrapped, angle)) == pytest.approx(0, abs=1e-6)


def test_wrapping_by_hand() -> None:
    assert [wrap_deg(a) for a in (0, 360, -90, 725, -1e-20)] == [0, 0, 270, 5, 0]


@given(st.floats(-720, 720), st.floats(-720, 720))
def test_angle_difference_is_symmetric_and_at_most_half_a_turn(a: float, b: float) -> None:
    difference = float(angle_difference_deg(a, b))
    assert 0 <= difference <= 180
    assert difference == pytest.approx(float(angle_difference_deg(b, a)), abs=1e-9)


def test_angle_difference_by_hand() -> None:
    np.testing.assert_allclose(
        angle_difference_deg([350, 10, 90, 0], [10, 350, 270, 0]), [20, 20, 180, 0]
    )


def test_grid_of_the_demo_town() -> None:
    half = 1536 / 2 - 38.4
    centres = grid_centres(-half, -half, half, half, 19.2)
    assert centres.shape == (5929, 2)
    np.testing.assert_allclose(centres[0], [-729.6, 729.6])
    np.testing.assert_allclose(centres[1], [-710.4, 729.6])
    np.testing.assert_allclose(centres[77], [-729.6, 710.4])
    np.testing.assert_allclose(centres[-1], [729.6, -729.6])


@given(width=st.floats(0, 300), height=st.floats(0, 300), step=st.floats(1, 50), west=METRES)
def test_grid_lies_inside_and_is_centred(
    width: float, height: float, step: float, west: float
) -> None:
    centres = grid_centres(west, 10.0, west + width, 10.0 + height, step)
    assert centres[:, 0].min() >= west - 1e-6
    assert centres[:, 0].max() <= west + width + 1e-6
    np.testing.assert_allclose(
        (centres[:, 0].min() + centres[:, 0].max()) / 2, west + width / 2, atol=1e-6
    )
    assume(len(centres) > 1)
    nearest = np.hypot(*(centres[1:] - centres[0]).T).min()
    assert nearest == pytest.approx(step, rel=1e-6)


def test_impossible_places_and_grids_are_refused() -> None:
    with pytest.raises(SettingError, match="latitude comes first"):
        local_crs(Place(115.0, -8.0))
    with pytest.raises(SettingError, match="Grid step"):
        grid_centres(0, 0, 1, 1, 0)
    with pytest.raises(SettingError, match="Grid box"):
        grid_centres(1, 0, 0, 1, 1)
