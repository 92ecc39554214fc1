"""A Prediction on a map: one Folium document that loads nothing from another host.

Folium loads its scripts from four hosts by default, so the map class below names our own copies
(assets/web). The document goes into a sandboxed frame. Events inside it (a marker clicked, a place
pointed at) come out as messages from assets/web/map.js.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import folium
import numpy as np
from branca.element import MacroElement
from folium.template import Template
from PIL import Image

from core.arrays import Float64Array
from core.geo import LocalFrame
from core.localization.output import percent
from core.records import Candidate, Place, SearchArea

__all__ = ["BaseMap", "Cells", "MapScene", "build_document", "file_url", "frame_html"]

WEB = Path(__file__).resolve().parent.parent / "assets" / "web"
OVERVIEW_SIDE = 3072
WEDGE_M = 70.0
LIKELY_SHARE = 0.03
"""Least probability for the second and third place to be inside the first view."""
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
_CIRCLE_RAD = np.linspace(0, 2 * np.pi, 48, endpoint=False)
CIRCLE = np.stack([np.sin(_CIRCLE_RAD), np.cos(_CIRCLE_RAD)], axis=-1)
CELL_COLOURS = ("#ffe08a", "#ffb347", "#ff7a3d", "#e8384f", "#a5146b")
"""From unlikely to likely; every step is darker than the one before, so it also works in grey."""

Corners = list[list[float]]


@dataclass(frozen=True)
class BaseMap:
    """The imagery at the bottom of the map: a picture's URL and its corners in degrees."""

    image_url: str
    west_deg: float
    south_deg: float
    east_deg: float
    north_deg: float

    @classmethod
    def write(cls, gallery: Any, folder: Path) -> BaseMap:
        """Write the gallery's overview into ``folder``, a folder that the page may serve.

        The gallery returns it in Web Mercator, so it can be stretched between its corners.
        """
        image, (west, south, east, north) = gallery.overview(OVERVIEW_SIDE)
        if image.shape[2] == 4 and image[..., 3].min() == 255:
            image = image[..., :3]  # nothing to see through: smaller, and drawn faster
        path = folder / "overview.webp"
        Image.fromarray(image).save(path, quality=80, method=2)
        return cls(file_url(path), west, south, east, north)

    def covers(self, place: Place) -> bool:
        """Whether a place lies on the imagery."""
        return (
            self.south_deg <= place.lat_deg <= self.north_deg
            and self.west_deg <= place.lon_deg <= self.east_deg
        )

    @property
    def corners(self) -> Corners:
        """[[south, west], [north, east]] in degrees, the form for Leaflet."""
        return [[self.south_deg, self.west_deg], [self.north_deg, self.east_deg]]


@dataclass(frozen=True)
class Cells:
    """Probabilities of n places: ``places`` (n, 2) of east_m, north_m; ``share`` (n,) in [0, 1]."""

    centres_m: Float64Array
    share: Float64Array
    side_m: float


@dataclass(frozen=True)
class MapScene:
    """The content of one map. ``truth``: the photo's true place, if it is known and may be shown.
    ``picking``: whether a click on the map chooses the centre of a search.
    """

    base: BaseMap
    frame: LocalFrame
    candidates: Sequence[Candidate] = ()
    fov_deg: float = 360.0
    selected: int | None = None
    cells: Cells | None = None
    near: SearchArea | None = None
    truth: Place | None = None
    truth_heading_deg: float | None = None
    picking: bool = False
    words: dict[str, str] = field(default_factory=dict)


def file_url(path: Path) -> str:
    """The URL of a file under the page; relative, so that a page below a sub-path works too."""
    return "gradio_api/file=" + quote(str(path.resolve()), safe="/:")


class _OfflineMap(folium.Map):
    """A Folium map that loads only our own copies of Leaflet and jQuery."""

    default_js = [  # noqa: RUF012 - Folium reads them from the class
        ("leaflet", file_url(WEB / "leaflet" / "leaflet.js")),
        ("jquery", file_url(WEB / "jquery" / "jquery.min.js")),
        ("crossview", file_url(WEB / "map.js")),
    ]
    default_css = [  # noqa: RUF012
        ("leaflet_css", file_url(WEB / "leaflet" / "leaflet.css")),
        ("crossview_css", file_url(WEB / "map.css")),
    ]


class _Behaviour(MacroElement):
    """Pass the finished map to assets/web/map.js, with its settings."""

    _template = Template(
        "{% macro script(this, kwargs) %}"
        "crossviewMap({{ this._parent.get_name() }}, {{ this.settings|tojson }});"
        "{% endmacro %}"
    )

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = "Behaviour"
        self.settings = settings


def build_document(scene: MapScene) -> str:
    """The whole map as one HTML document, for a frame."""
    base = scene.base
    middle = [(base.south_deg + base.north_deg) / 2, (base.west_deg + base.east_deg) / 2]
    document = _OfflineMap(
        location=middle,
        zoom_start=15,
        tiles=None,
        prefer_canvas=True,
        attributionControl=False,
        zoomSnap=0.25,
        maxZoom=20,
        minZoom=12,
    )
    # Folium takes a relative address for a file to embed, so the address is put in afterwards.
    overlay = folium.raster_layers.ImageOverlay("file:", base.corners, zindex=1)
    overlay.url = base.image_url
    overlay.add_to(document)
    if scene.cells is not None:
        _add_cells(document, scene.cells, scene.frame)
    _add_shapes(document, scene)
    for candidate in reversed(scene.candidates):
        _add_marker(document, candidate)
    if scene.truth is not None:
        _add_truth(document, scene.truth, scene.words.get("truth", ""))
    document.add_child(_Behaviour(_settings(scene)))
    return str(document.get_root().render())


def frame_html(document: str, title: str) -> str:
    """The document in a frame that may only run scripts: no cookies, no forms, no access to the page
    around it.
    """
    return (
        f'<iframe class="cv-frame" title="{html.escape(title)}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(document)}"></iframe>'
    )


def _settings(scene: MapScene) -> dict[str, Any]:
    near = scene.near
    return {
        "bounds": scene.base.corners,
        "view": _view(scene),
        "selected": scene.selected,
        "picking": scene.picking,
        "near": None
        if near is None
        else {
            "lat_deg": near.centre.lat_deg,
            "lon_deg": near.centre.lon_deg,
            "radius_m": near.radius_m,
        },
    }


def _view(scene: MapScene) -> Corners:
    """The first view: the likely places and the truth, or the whole imagery without any."""
    likely = [c for c in scene.candidates[:3] if c.rank == 1 or c.probability >= LIKELY_SHARE]
    places = [c.camera for c in likely]
    if scene.truth is not None and places and scene.base.covers(scene.truth):
        places.append(scene.truth)
    if not places:
        return scene.base.corners
    metres = np.array([scene.frame.to_metres(place) for place in places])
    low, high = metres.min(axis=0) - 110.0, metres.max(axis=0) + 110.0
    corners = scene.frame.to_degrees_many(np.array([low[0], high[0]]), np.array([low[1], high[1]]))
    return [[float(lat), float(lon)] for lat, lon in corners]


def _add_cells(document: folium.Map, cells: Cells, frame: LocalFrame) -> None:
    """One square per place, coloured by its probability. Places below a hundredth of the best are
    left out; they would only dim the picture.
    """
    if not len(cells.share) or not cells.share.max() > 0:
        return
    best = float(cells.share.max())
    keep = np.flatnonzero(cells.share >= best / 100)
    features = []
    for row in keep[np.argsort(cells.share[keep])]:
        ring = cells.centres_m[row] + cells.side_m / 2 * SQUARE
        features.append(_polygon(frame, ring, share=round(float(cells.share[row]), 5)))
    folium.GeoJson(
        {"type": "FeatureCollection", "features": features},
        style_function=lambda feature: _cell_style(feature["properties"]["share"]),
        name="cells",
        interactive=False,
    ).add_to(document)


def _cell_style(share: float) -> dict[str, Any]:
    # From 0.5 % to 50 %, two decades of probability over the colours: on a linear scale only the
    # best place would be seen. The same colour means the same probability on every map.
    strength = min(max(math.log10(max(share, 1e-9) / 0.005) / 2, 0.0), 1.0)
    step = min(int(strength * len(CELL_COLOURS)), len(CELL_COLOURS) - 1)
    return {
        "stroke": False,
        "fillColor": CELL_COLOURS[step],
        "fillOpacity": 0.18 + 0.42 * strength,
        "interactive": False,
    }


def _add_shapes(document: folium.Map, scene: MapScene) -> None:
    """Footprints of the candidates, the cameras' views and the radii of their positions. For the
    chosen candidate map.js shows the last two.
    """
    features = []
    for candidate in reversed(scene.candidates):
        tile = candidate.tile
        square = np.array([tile.east_m, tile.north_m]) + tile.side_m / 2 * SQUARE
        camera = np.array(scene.frame.to_metres(candidate.camera))
        features.append(_polygon(scene.frame, square, kind="footprint", rank=candidate.rank))
        if candidate.radius_m is not None:
            circle = candidate.radius_m * CIRCLE + camera
            features.append(_polygon(scene.frame, circle, kind="radius", rank=candidate.rank))
        if candidate.heading_deg is not None:
            wedge = _wedge(candidate.heading_deg, scene.fov_deg) + camera
            features.append(_polygon(scene.frame, wedge, kind="wedge", rank=candidate.rank))
    if scene.truth is not None and scene.truth_heading_deg is not None:
        centre = np.array(scene.frame.to_metres(scene.truth))
        wedge = _wedge(scene.truth_heading_deg, min(scene.fov_deg, 30.0)) + centre
        features.append(_polygon(scene.frame, wedge, kind="truth", rank=0))
    if features:
        folium.GeoJson(
            {"type": "FeatureCollection", "features": features},
            style_function=lambda feature: _shape_style(feature["properties"]["kind"]),
            name="shapes",
        ).add_to(document)


def _shape_style(kind: str) -> dict[str, Any]:
    if kind == "footprint":
        return {"color": "#ffffff", "weight": 1.5, "opacity": 0.85, "fillOpacity": 0.0}
    if kind == "radius":
        return {"color": "#ffffff", "weight": 2, "fillColor": "#ffffff", "fillOpacity": 0.25}
    colour = "#2f6df6" if kind == "truth" else "#ff5a36"
    return {"color": colour, "weight": 1, "opacity": 0.9, "fillColor": colour, "fillOpacity": 0.3}


def _wedge(heading_deg: float, fov_deg: float) -> Float64Array:
    """Corners (n, 2), metres east and north of the camera, of the photo's view. A panorama sees all
    directions; its wedge is a narrow hand in the direction of its centre.
    """
    width = fov_deg if fov_deg < 300 else 16.0
    angles = np.radians(heading_deg + np.linspace(-width / 2, width / 2, 17))
    arc = WEDGE_M * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return np.concatenate([np.zeros((1, 2)), arc])


def _polygon(frame: LocalFrame, ring_m: Float64Array, **properties: float | str) -> dict[str, Any]:
    """GeoJSON polygon, longitude first, from a ring (n, 2) of metres; seven decimals are 1 cm."""
    degrees = frame.to_degrees_many(ring_m[:, 0], ring_m[:, 1])
    ring = [[round(float(lon), 7), round(float(lat), 7)] for lat, lon in degrees]
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
    }


def _add_marker(document: folium.Map, candidate: Candidate) -> None:
    place = candidate.camera
    icon = folium.DivIcon(
        html=f'<span class="cv-pin">{candidate.rank}</span>',
        icon_size=(30, 30),
        icon_anchor=(15, 15),
        class_name="cv-marker",
    )
    folium.Marker(
        [place.lat_deg, place.lon_deg],
        icon=icon,
        rank=candidate.rank,
        alt=f"Place {candidate.rank}",
        title=f"Place {candidate.rank}: {percent(candidate.probability)}",
        zIndexOffset=1000 - 10 * candidate.rank,
    ).add_to(document)


def _add_truth(document: folium.Map, truth: Place, title: str) -> None:
    icon = folium.DivIcon(
        html='<span class="cv-truth"></span>',
        icon_size=(22, 22),
        icon_anchor=(11, 11),
        class_name="cv-marker",
    )
    folium.Marker(
        [truth.lat_deg, truth.lon_deg], icon=icon, title=title, alt=title, zIndexOffset=-500
    ).add_to(document)
