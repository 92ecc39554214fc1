"""What the map says and whom it asks: run alone with ``pytest tests/test_map_view.py``."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.map_view import (
    WEB,
    BaseMap,
    Cells,
    MapScene,
    build_document,
    file_url,
    frame_html,
)
from core.geo import LocalFrame, bearing_deg, distance_m
from core.records import Candidate, Place, SearchArea, Tile

ORIGIN = Place(52.0, 5.0)
FRAME = LocalFrame(ORIGIN)


def candidate(rank: int, east_m: float, north_m: float, heading_deg: float | None = 90.0):
    tile = Tile(f"t{rank}", FRAME.to_place(east_m, north_m), east_m, north_m, 76.8)
    return Candidate(rank, rank, tile, 0.9, None, 0.5 / rank, heading_deg, 0, tile.place, 4.0)


def base_map() -> BaseMap:
    low, high = FRAME.to_place(-500, -400), FRAME.to_place(500, 400)
    return BaseMap("overview.webp", low.lon_deg, low.lat_deg, high.lon_deg, high.lat_deg)


@pytest.fixture
def scene() -> MapScene:
    cells = Cells(
        np.array([[0.0, 0.0], [200.0, 0.0], [0.0, 300.0]]), np.array([0.5, 0.25, 1e-5]), 38.4
    )
    return MapScene(
        base=base_map(),
        frame=FRAME,
        candidates=(candidate(1, 0, 0), candidate(2, 200, 0, None)),
        fov_deg=60.0,
        selected=1,
        cells=cells,
        near=SearchArea(ORIGIN, 150.0),
        truth=FRAME.to_place(10, 20),
        truth_heading_deg=0.0,
        words={"truth": "Where it was taken"},
    )


def features(document: str) -> list[dict]:
    """Every GeoJSON feature that the document adds."""
    found = re.findall(r"_add\((\{.*\})\);", document)
    return [feature for text in found for feature in json.loads(text)["features"]]


def ring(feature: dict) -> list[Place]:
    return [Place(lat, lon) for lon, lat in feature["geometry"]["coordinates"][0]]


def settings(document: str) -> dict:
    return json.loads(re.search(r"crossviewMap\(\w+, (\{.*\})\);", document).group(1))


def test_the_document_names_no_other_host(scene):
    document = build_document(scene)
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", document)
    assert any(a.endswith("leaflet.js") for a in addresses)
    assert all(a.startswith(("gradio_api/file=", "data:", "#")) for a in addresses)
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[\w-]+\.[\w.-]+", document)


def test_every_script_and_style_of_the_document_is_ours_and_there(scene):
    document = build_document(scene)
    for address in re.findall(r'(?:src|href)="gradio_api/file=([^"]+)"', document):
        assert Path(address).is_file()
        assert WEB in Path(address).parents


def test_candidates_are_numbered_and_the_best_lies_on_top(scene):
    document = build_document(scene)
    plain = document.replace("\\u003c", "<").replace("\\u003e", ">").replace('\\"', '"')
    plain = plain.replace("\\u0022", '"')
    assert re.findall(r'cv-pin">(\d+)<', plain) == ["2", "1"]
    assert document.count('"rank": 1') >= 2


def test_footprints_have_the_size_of_the_tile(scene):
    [first] = [
        f
        for f in features(build_document(scene))
        if f["properties"].get("kind") == "footprint" and f["properties"]["rank"] == 1
    ]
    south_west, south_east, north_east, _, again = ring(first)
    assert again == south_west
    assert distance_m(south_west, south_east) == pytest.approx(76.8, abs=0.05)
    assert distance_m(south_east, north_east) == pytest.approx(76.8, abs=0.05)
    assert south_west.lat_deg < ORIGIN.lat_deg < north_east.lat_deg
    assert south_west.lon_deg < ORIGIN.lon_deg < north_east.lon_deg


def test_the_wedge_opens_around_the_heading_by_the_field_of_view(scene):
    wedges = [f for f in features(build_document(scene)) if f["properties"].get("kind") == "wedge"]
    assert [f["properties"]["rank"] for f in wedges] == [1]  # the second has no heading
    corners = ring(wedges[0])
    assert distance_m(corners[0], ORIGIN) < 0.05
    bearings = [bearing_deg(ORIGIN, corner) for corner in corners[1:-1]]
    assert min(bearings) == pytest.approx(60.0, abs=0.1)
    assert max(bearings) == pytest.approx(120.0, abs=0.1)


def test_the_circle_around_a_camera_is_as_wide_as_the_answer_is_unsure(scene):
    from dataclasses import replace

    first = replace(scene.candidates[0], camera=FRAME.to_place(5.0, -3.0))
    bare = replace(scene.candidates[1], radius_m=None)
    document = build_document(replace(scene, candidates=(first, bare)))
    [circle] = [f for f in features(document) if f["properties"].get("kind") == "radius"]
    assert circle["properties"]["rank"] == 1
    assert all(
        distance_m(corner, first.camera) == pytest.approx(4.0, abs=0.05) for corner in ring(circle)
    )
    [wedge] = [f for f in features(document) if f["properties"].get("kind") == "wedge"]
    assert distance_m(ring(wedge)[0], first.camera) < 0.05


def test_a_panorama_has_a_hand_not_a_disc(scene):
    from dataclasses import replace

    document = build_document(replace(scene, fov_deg=360.0))
    [wedge] = [f for f in features(document) if f["properties"].get("kind") == "wedge"]
    bearings = [bearing_deg(ORIGIN, corner) for corner in ring(wedge)[1:-1]]
    assert max(bearings) - min(bearings) < 20


def test_cells_are_one_layer_and_leave_out_what_is_negligible(scene):
    cells = [f for f in features(build_document(scene)) if "share" in f["properties"]]
    assert [f["properties"]["share"] for f in cells] == [0.25, 0.5]


def test_a_cell_likelier_than_another_is_darker_and_denser(scene):
    from app.map_view import _cell_style

    likely, less = _cell_style(0.5), _cell_style(0.01)
    assert likely["fillOpacity"] > less["fillOpacity"]
    assert likely["fillColor"] != less["fillColor"]


def test_the_view_holds_the_leading_places_and_the_truth_only_on_the_imagery(scene):
    from dataclasses import replace

    (south, west), (north, east) = settings(build_document(scene))["view"]
    for place in (scene.candidates[0].tile.place, scene.candidates[1].tile.place, scene.truth):
        assert south < place.lat_deg < north
        assert west < place.lon_deg < east
    far = replace(scene, truth=Place(60.0, 25.0))
    assert settings(build_document(far))["view"][1][0] < 53


def test_the_view_is_close_where_the_other_places_are_hopeless(scene):
    from dataclasses import replace

    first, second = scene.candidates
    sure = replace(scene, candidates=(first, replace(second, probability=0.01)), truth=None)
    (south, west), (_, east) = settings(build_document(sure))["view"]
    assert west < first.camera.lon_deg < east < second.camera.lon_deg
    assert distance_m(Place(south, west), Place(south, east)) == pytest.approx(220, abs=1)


def test_without_an_answer_the_whole_imagery_is_shown():
    document = build_document(MapScene(base=base_map(), frame=FRAME))
    assert settings(document)["view"] == base_map().corners
    assert features(document) == []


def test_the_circle_is_handed_over_in_degrees_and_metres(scene):
    near = settings(build_document(scene))["near"]
    assert near == {"lat_deg": 52.0, "lon_deg": 5.0, "radius_m": 150.0}


def test_words_cannot_leave_the_document(scene):
    from dataclasses import replace

    hostile = "</script><script>alert(1)</script>"
    document = build_document(replace(scene, words={"truth": hostile}))
    assert "<script>alert(1)" not in document


def test_the_frame_runs_scripts_and_nothing_more(scene):
    document = build_document(scene)
    frame = frame_html(document, 'a "map"')
    assert re.search(r'sandbox="([^"]*)"', frame).group(1) == "allow-scripts"
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame).group(1)) == document
    assert 'title="a &quot;map&quot;"' in frame


def test_the_base_map_is_a_file_by_address_with_its_corners(tmp_path):
    class Gallery:
        def overview(self, max_side):
            assert max_side >= 2048
            return np.full((20, 30, 4), 200, np.uint8), (4.9, 51.9, 5.1, 52.1)

    base = BaseMap.write(Gallery(), tmp_path)
    [written] = tmp_path.iterdir()
    assert base.image_url == file_url(written)
    with Image.open(written) as picture:
        assert picture.size == (30, 20)
    assert base.corners == [[51.9, 4.9], [52.1, 5.1]]
    assert base.covers(ORIGIN)
    assert not base.covers(Place(0.0, 0.0))


def test_addresses_are_quoted(tmp_path):
    url = file_url(tmp_path / 'a "b" <c>.webp')
    assert url.startswith("gradio_api/file=/")
    assert not re.search(r'["<>\s]', url)


def test_wedges_reach_as_far_as_they_say():
    from app.map_view import WEDGE_M, _wedge

    radii = [math.hypot(*corner) for corner in _wedge(200.0, 90.0)]
    assert radii[0] == 0
    assert radii[1:] == pytest.approx([WEDGE_M] * 17)
