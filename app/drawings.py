"""Draw one explanation: the chosen patch, the colours over photo and tile, and a sentence.

The models see a canvas of 128 rows; people see the same canvas at four times the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from app import text
from core.arrays import UInt8Array
from core.explain import figures
from core.explain.pair import Explanation, ground_patch_at, sector_at
from core.photos.opening import Photo, canvas_of
from core.polar import sector_map

__all__ = [
    "Drawing",
    "ExplainedPair",
    "Lit",
    "clicked_patch",
    "draw",
    "first_patch",
    "sharp_canvas",
]

GROUND_HEIGHT, AERIAL_SIDE = 512, 640
"""Pixels at which canvas and tile are drawn."""
UNSEEN_COLOUR = (44, 52, 60)


@dataclass(frozen=True)
class ExplainedPair:
    """An explanation and the two pictures to draw it on.

    ``ground``: uint8 (512, 64 n, 3); ``aerial``: uint8 (S, S, 3), north up.
    """

    explanation: Explanation
    ground: UInt8Array
    aerial: UInt8Array


def sharp_canvas(photo: Photo) -> UInt8Array:
    """A photo's canvas for display, uint8 (512, 64 n, 3); dark where the photo shows nothing."""
    canvas = canvas_of(photo, size=(GROUND_HEIGHT, 4 * GROUND_HEIGHT))
    return np.where(canvas.mask[..., None], canvas.image, UNSEEN_COLOUR).astype(np.uint8)


@dataclass(frozen=True)
class Lit:
    """A clicked patch: ``view`` is 'ground' or 'aerial', ``region`` its number in that grid."""

    view: str
    region: int


@dataclass(frozen=True)
class Drawing:
    """Two pictures and a sentence about them."""

    ground: Image.Image
    aerial: Image.Image
    words: str


def first_patch(explanation: Explanation) -> Lit:
    """The patch of the photo with the largest contribution factor: the choice before any click."""
    rows, columns = explanation.ground_grid
    height, width = explanation.mask.shape
    blocks = explanation.mask.reshape(rows, height // rows, columns, width // columns)
    seen = blocks.mean(axis=(1, 3)).ravel() > 0.5
    return Lit("ground", int(np.argmax(np.where(seen, explanation.phi_ground, -1.0))))


def clicked_patch(pair: ExplainedPair, view: str, x: float, y: float) -> Lit | None:
    """The patch under a click at pixel (x right, y down) of a picture made by ``draw``.

    None outside the grid.
    """
    if view == "ground":
        bins = pair.explanation.ground_grid[1]
        return Lit("ground", ground_patch_at(x, y, pair.ground.shape[:2], bins))
    sector = sector_at(x, y, AERIAL_SIDE, pair.explanation.rotation)
    return None if sector is None else Lit("aerial", sector)


def draw(pair: ExplainedPair, lit: Lit | None, factors: bool, opacity: float) -> Drawing:
    """Paint an explanation over its two pictures.

    Args:
        pair: one photo and one candidate, explained.
        lit: the patch whose attention to show, or None.
        factors: show contribution factors instead of attention.
        opacity: of the strongest colour, in [0, 1].
    """
    explanation, ground = pair.explanation, pair.ground
    aerial = np.asarray(Image.fromarray(pair.aerial).resize(2 * (AERIAL_SIDE,)))
    patches = figures.canvas_regions(explanation.ground_grid, ground.shape[:2])
    sectors = sector_map(AERIAL_SIDE, explanation.rotation)
    if factors:
        return Drawing(
            figures.contribution_overlay(ground, patches, explanation.phi_ground, opacity),
            figures.contribution_overlay(aerial, sectors, explanation.phi_aerial, opacity),
            text.FACTORS_WORDS,
        )
    pictures = {"ground": Image.fromarray(ground), "aerial": Image.fromarray(aerial)}
    if lit is None:
        return Drawing(pictures["ground"], pictures["aerial"], text.ATTENTION_IDLE)
    if lit.view == "ground":
        regions, attention = patches, explanation.ground_to_aerial[lit.region]
        pictures["aerial"] = figures.attention_overlay(aerial, sectors, attention, opacity)
    else:
        regions, attention = sectors, explanation.aerial_to_ground[lit.region]
        pictures["ground"] = figures.attention_overlay(ground, patches, attention, opacity)
    pictures[lit.view] = figures.outline(pictures[lit.view], regions, lit.region, width=3)
    words = text.lit_patch(lit.view, _bearing(explanation, lit), float(attention.max()))
    return Drawing(pictures["ground"], pictures["aerial"], words)


def _bearing(explanation: Explanation, lit: Lit) -> float:
    """Compass bearing in degrees of a patch's middle, at the candidate's azimuth shift."""
    columns = explanation.ground_grid[1] if lit.view == "ground" else explanation.aerial_grid[1]
    column = lit.region % columns
    step = 360.0 / explanation.aerial_grid[1]
    if lit.view == "aerial":
        return (-180.0 + (column + 0.5 + explanation.rotation) * step) % 360.0
    return (explanation.heading_deg + (column + 0.5 - columns / 2) * step) % 360.0
