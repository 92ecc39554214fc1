"""The common look of a region's towns: colours, proportions, trees and air.

Training, validation and test towns all have the default style. Another style gives towns unlike all
training data, for photos from outside a gallery and for held-out tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import WorldError

__all__ = ["STYLES", "TOWN", "Style", "style_named"]

Colour = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Choices of one region. Colours are linear reflectances in [0, 1], ranges are drawn from evenly.

    ``walls``, ``shed_walls``, ``roofs``, ``flat_roofs``: palettes. ``ground``: colours of materials that
    differ from ``core.world.materials``. ``seamed_share``: share of pitched roofs with metal sheets
    instead of tiles. ``pitch``: rise over run of roofs. ``block_m``: distance of streets.
    ``road_scale``, ``pavement_scale``: factors on the usual widths. ``kerb_m``: how far kerbs reach
    beyond the road. ``species``: trees planted instead of others. ``leaf_tint``, ``air_tint``: factors
    on the colours of leaves and of the horizon. ``aerial_sun_deg``, ``street_sun_deg``: height of the
    sun. ``haze_m``: distance at which 63 % of the light is lost.
    """

    name: str
    walls: tuple[Colour, ...]
    shed_walls: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    flat_roofs: tuple[Colour, ...]
    ground: Mapping[str, Colour] = field(default_factory=dict)
    seamed_share: float = 0.3
    pitch: Range = (0.45, 1.0)
    block_m: Range = (60, 95)
    road_scale: float = 1.0
    pavement_scale: float = 1.0
    kerb_m: float = 0.16
    species: Mapping[str, str] = field(default_factory=dict)
    leaf_tint: Colour = (1.0, 1.0, 1.0)
    air_tint: Colour = (1.0, 1.0, 1.0)
    aerial_sun_deg: Range = (30, 60)
    street_sun_deg: Range = (14, 60)
    haze_m: Range = (900, 3500)


TOWN = Style(
    name="town",
    walls=((0.62, 0.58, 0.50), (0.72, 0.70, 0.66), (0.55, 0.42, 0.26), (0.42, 0.18, 0.12),
           (0.60, 0.50, 0.30), (0.33, 0.36, 0.38), (0.30, 0.10, 0.075), (0.45, 0.50, 0.42),
           (0.52, 0.38, 0.30), (0.40, 0.44, 0.52), (0.24, 0.17, 0.12), (0.66, 0.60, 0.42)),
    shed_walls=((0.5, 0.51, 0.52), (0.35, 0.38, 0.42), (0.62, 0.61, 0.58), (0.3, 0.14, 0.1)),
    roofs=((0.30, 0.115, 0.07), (0.40, 0.17, 0.10), (0.075, 0.075, 0.08), (0.13, 0.13, 0.14),
           (0.20, 0.14, 0.11), (0.22, 0.085, 0.06), (0.28, 0.27, 0.26), (0.12, 0.16, 0.14),
           (0.34, 0.22, 0.15)),
    flat_roofs=((0.20, 0.20, 0.20), (0.34, 0.33, 0.31), (0.50, 0.49, 0.47), (0.11, 0.11, 0.115),
                (0.28, 0.25, 0.22), (0.22, 0.25, 0.20)),
)  # fmt: skip
"""The usual style: a green town of tiled roofs."""

STEPPE = Style(
    name="steppe",
    walls=((0.46, 0.36, 0.25), (0.38, 0.28, 0.18), (0.60, 0.52, 0.40), (0.30, 0.21, 0.14),
           (0.52, 0.50, 0.46), (0.22, 0.33, 0.42), (0.34, 0.40, 0.30), (0.66, 0.64, 0.60)),
    shed_walls=((0.40, 0.36, 0.30), (0.25, 0.31, 0.36), (0.52, 0.48, 0.42), (0.28, 0.33, 0.27)),
    roofs=((0.07, 0.13, 0.26), (0.06, 0.16, 0.11), (0.42, 0.44, 0.46), (0.10, 0.075, 0.06),
           (0.18, 0.04, 0.055), (0.55, 0.54, 0.51), (0.06, 0.065, 0.07), (0.15, 0.13, 0.19),
           (0.15, 0.165, 0.08), (0.24, 0.30, 0.34)),
    flat_roofs=((0.40, 0.34, 0.26), (0.55, 0.51, 0.44), (0.26, 0.23, 0.19), (0.15, 0.14, 0.13)),
    ground={
        "meadow": (0.25, 0.205, 0.115), "lawn": (0.165, 0.16, 0.075), "garden": (0.21, 0.17, 0.10),
        "woodland": (0.13, 0.115, 0.06), "crop": (0.075, 0.105, 0.04), "grain": (0.30, 0.22, 0.115),
        "plough": (0.21, 0.13, 0.08), "asphalt": (0.205, 0.185, 0.16), "water": (0.06, 0.062, 0.045),
        "asphalt_dark": (0.145, 0.13, 0.115), "parking": (0.22, 0.19, 0.15),
        "slabs": (0.23, 0.19, 0.145), "kerb": (0.30, 0.26, 0.21), "gravel": (0.36, 0.28, 0.19),
        "drive": (0.28, 0.225, 0.16),
    },
    seamed_share=0.85,
    pitch=(0.22, 0.6),
    block_m=(75, 130),
    road_scale=1.3,
    pavement_scale=0.6,
    kerb_m=0.34,
    species={"round": "poplar", "linden": "poplar", "birch": "pine", "conifer": "bush",
             "fruit": "bush"},
    leaf_tint=(0.85, 0.78, 0.75),
    air_tint=(1.06, 0.95, 0.80),
    aerial_sun_deg=(40, 70),
    street_sun_deg=(18, 70),
    haze_m=(350, 1400),
)  # fmt: skip
"""A held-out style: dry ground, wide roads, metal roofs of every colour but orange, dusty air."""

STYLES = {style.name: style for style in (TOWN, STEPPE)}


def style_named(name: str) -> Style:
    """The style of ``STYLES``.

    Raises:
        WorldError: there is no such style.

    """
    if name not in STYLES:
        raise WorldError(f"World style: got {name[:40]!r}, expected {' or '.join(STYLES)}.")
    return STYLES[name]
