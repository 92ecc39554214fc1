"""The look of things: materials, seasons, noise, window grids and roof tiles.

Colours are linear reflectances in [0, 1]. Textures are functions of places in metres, so an object
looks the same from above and from the street.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.arrays import BoolArray, Float32Array, FloatArray, UInt8Array
from core.world.style import TOWN, Style

__all__ = [
    "CLASS_NAMES", "CODE", "MATERIALS", "SEASONS", "Material", "Season", "class_table", "f32",
    "facade", "ground_table", "hash01", "noise", "roof", "rough_table",
]  # fmt: skip


CLASS_NAMES = (
    "sky", "road", "marking", "pavement", "path", "parking", "grass", "field", "bare", "water",
    "rail", "wall", "roof", "tree", "hedge", "fence", "furniture", "vehicle",
)  # fmt: skip


class Material(NamedTuple):
    """One surface: its truth class, its reflectance, and how strong its noise is."""

    name: str
    kind: str
    rgb: tuple[float, float, float]
    fine: float
    coarse: float


MATERIALS = tuple(
    Material(*row)
    for row in [
        ("meadow", "grass", (0.13, 0.15, 0.06), 0.45, 0.40),
        ("lawn", "grass", (0.085, 0.135, 0.042), 0.32, 0.28),
        ("garden", "grass", (0.10, 0.15, 0.05), 0.38, 0.35),
        ("asphalt", "road", (0.155, 0.153, 0.15), 0.16, 0.14),
        ("asphalt_dark", "road", (0.095, 0.095, 0.10), 0.18, 0.16),
        ("slabs", "pavement", (0.27, 0.26, 0.245), 0.14, 0.12),
        ("kerb", "pavement", (0.36, 0.35, 0.34), 0.10, 0.05),
        ("paint", "marking", (0.68, 0.67, 0.64), 0.16, 0.12),
        ("gravel", "path", (0.33, 0.29, 0.23), 0.26, 0.15),
        ("parking", "parking", (0.17, 0.17, 0.17), 0.17, 0.20),
        ("water", "water", (0.020, 0.040, 0.042), 0.10, 0.25),
        ("crop", "field", (0.11, 0.17, 0.045), 0.30, 0.20),
        ("grain", "field", (0.36, 0.29, 0.12), 0.24, 0.18),
        ("plough", "field", (0.17, 0.115, 0.075), 0.36, 0.20),
        ("soil", "bare", (0.26, 0.20, 0.145), 0.35, 0.25),
        ("sand", "bare", (0.48, 0.41, 0.29), 0.16, 0.12),
        ("ballast", "rail", (0.19, 0.17, 0.155), 0.50, 0.15),
        ("steel", "rail", (0.34, 0.31, 0.29), 0.10, 0.05),
        ("cobbles", "pavement", (0.25, 0.22, 0.20), 0.32, 0.12),
        ("woodland", "grass", (0.075, 0.080, 0.038), 0.55, 0.40),
        ("patio", "path", (0.34, 0.30, 0.26), 0.20, 0.10),
        ("pitch", "bare", (0.30, 0.125, 0.075), 0.12, 0.10),
        ("drive", "path", (0.23, 0.22, 0.21), 0.22, 0.15),
        ("pool", "water", (0.10, 0.40, 0.46), 0.08, 0.05),
        ("repair", "road", (0.075, 0.075, 0.078), 0.14, 0.06),
        ("bed", "bare", (0.13, 0.085, 0.055), 0.45, 0.20),
        ("wall", "wall", (0.5, 0.5, 0.5), 0.07, 0.06),
        ("tiles", "roof", (0.3, 0.2, 0.15), 0.16, 0.16),
        ("flat_roof", "roof", (0.3, 0.3, 0.3), 0.12, 0.20),
        ("chimney", "roof", (0.3, 0.17, 0.12), 0.2, 0.1),
        ("glass", "vehicle", (0.03, 0.035, 0.04), 0.0, 0.0),
        ("paintwork", "vehicle", (0.5, 0.5, 0.5), 0.0, 0.0),
        ("tyre", "vehicle", (0.03, 0.03, 0.03), 0.1, 0.0),
        ("leaves", "tree", (0.1, 0.14, 0.05), 1.0, 0.10),
        ("bark", "tree", (0.16, 0.12, 0.085), 0.3, 0.0),
        ("hedge", "hedge", (0.07, 0.11, 0.035), 0.55, 0.2),
        ("metal", "furniture", (0.25, 0.26, 0.27), 0.05, 0.0),
        ("boards", "fence", (0.30, 0.22, 0.15), 0.25, 0.1),
        ("concrete", "furniture", (0.42, 0.41, 0.39), 0.14, 0.1),
        ("sign", "furniture", (0.5, 0.5, 0.5), 0.0, 0.0),
    ]
)

CODE = {material.name: number for number, material in enumerate(MATERIALS)}


@dataclass(frozen=True)
class Season:
    """How plants look: grass and field tints, leaf tints, and the share of leaves that is out."""

    name: str
    grass: tuple[float, float, float]
    field: tuple[float, float, float]
    leaf: tuple[float, float, float]
    spread: float
    leaves: float


SEASONS = {
    season.name: season
    for season in (
        Season("spring", (1.0, 1.12, 0.85), (0.9, 1.15, 0.9), (1.25, 1.3, 0.85), 0.10, 0.85),
        Season("summer", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.95, 1.0, 0.95), 0.10, 1.0),
        Season("dry summer", (1.55, 1.2, 1.0), (1.3, 1.05, 0.9), (1.05, 0.95, 0.9), 0.12, 1.0),
        Season("autumn", (1.15, 0.95, 0.85), (1.1, 0.85, 0.8), (1.9, 1.05, 0.45), 0.45, 0.8),
        Season("bare", (1.25, 0.95, 0.9), (1.1, 0.8, 0.8), (1.3, 0.8, 0.6), 0.15, 0.0),
    )
}


def f32(*values: float) -> Float32Array:
    """The values as a float32 array, so that arithmetic with pictures stays in float32."""
    return np.array(values, np.float32)


def class_table() -> UInt8Array:
    """Truth class of every material, indexed by material code."""
    return np.array([CLASS_NAMES.index(m.kind) for m in MATERIALS], np.uint8)


def rough_table() -> Float32Array:
    """(materials, 2): strength of the fine and of the coarse noise."""
    return np.array([(m.fine, m.coarse) for m in MATERIALS], np.float32)


def ground_table(season: Season, style: Style = TOWN) -> Float32Array:
    """(materials, 3) reflectances of the ground in one season and style."""
    table = np.array([style.ground.get(m.name, m.rgb) for m in MATERIALS], np.float32)
    for number, material in enumerate(MATERIALS):
        if material.kind == "grass":
            table[number] *= season.grass
        if material.kind == "field":
            table[number] *= season.field
    return table


@lru_cache(maxsize=4)
def _noise_tile(kind: int) -> Float32Array:
    """1024 x 1024 tileable noise of about unit spread; 0: mostly fine, 1: cloudy, 2: smooth."""
    rng = np.random.default_rng(900 + kind)
    f = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None]) * 1024
    power = np.maximum(f, 2.0) ** (-0.75, -1.6, -2.3)[kind]
    power[0, 0] = 0
    spectrum = np.fft.rfft2(rng.normal(size=(1024, 1024))) * power
    tile = np.fft.irfft2(spectrum)
    return np.asarray(np.clip(tile / tile.std(), -2.5, 2.5), np.float32)


def noise(kind: int, x: Float32Array, y: Float32Array, texel_m: float) -> Float32Array:
    """Noise of unit spread at places in metres, nearest texel of ``texel_m`` metres."""
    i = np.floor(x * (1 / texel_m)).astype(np.int32) & 1023
    j = np.floor(y * (1 / texel_m)).astype(np.int32) & 1023
    return np.asarray(_noise_tile(kind).ravel()[(i << 10) | j])


def hash01(*keys: npt.NDArray[np.int32]) -> Float32Array:
    """Repeatable numbers in [0, 1) from whole-number keys."""
    mixed = np.zeros(np.broadcast(*keys).shape, np.uint32)
    for number, key in enumerate(keys):
        mixed = (mixed ^ key.astype(np.uint32)) * np.uint32(0x9E3779B1 + 2 * number)
        mixed ^= mixed >> np.uint32(15)
    mixed = mixed * np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(1 / (1 << 24))


def _mix(base: Float32Array, where: BoolArray, colour: FloatArray) -> None:
    base[where] = colour[where] if colour.ndim == 2 else colour


def facade(
    uv: Float32Array,
    info: Float32Array,
    ident: npt.NDArray[np.int32],
    wall: Float32Array,
    sky: Float32Array,
) -> Float32Array:
    """Wall colours with windows, frames, doors, shops, balconies and plinths.

    ``uv`` (n, 2): metres along the wall and above the ground; ``info`` (n, 4): wall length, eave
    height, storey height, style (0 plain, 1 boards, 2 shops below, 3 balconies, 4 industry);
    ``wall`` (n, 3): reflectance; ``sky`` (3,): colour that panes mirror. Returns (n, 3).
    """
    u, z = uv[:, 0], uv[:, 1]
    length, eave, storey, style = info.T
    bay = np.where(style == 4, 5.5, 2.3 + 1.1 * hash01(ident, np.int32(7) + 0 * ident))
    count = np.maximum(np.round(length / bay), 1)
    bay = length / count
    column, floor = np.floor(u / bay), np.floor(z / storey)
    du = np.abs(u - (column + 0.5) * bay)
    dz = z - floor * storey
    pane = hash01(ident, column.astype(np.int32), floor.astype(np.int32))
    shop = (style == 2) & (floor == 0)
    half = np.where(shop, bay * 0.43, np.where(style == 4, 1.9, 0.45 + 0.3 * (ident % 3 == 0)))
    low = np.where(shop, 0.35, np.where(style == 4, storey * 0.62, storey * 0.32))
    high = np.where(style == 4, storey * 0.85, storey * 0.80)
    holed = (z < eave - 0.25) & (length > 2.0) & (half < bay * 0.48)
    in_frame = holed & (du < half + 0.09) & (dz > low - 0.09) & (dz < high + 0.09)
    in_pane = in_frame & (du < half) & (dz > low) & (dz < high) & (np.abs(du) > 0.035)
    colour = wall.copy()
    boards = (style == 1) & (np.abs((z * 5.5) % 1 - 0.5) > 0.40)
    colour[boards] *= np.float32(0.82)
    colour[z < 0.45] = colour[z < 0.45] * 0.35 + 0.12
    ledge = (style != 1) & (dz < 0.10) & (floor > 0) & (z < eave)
    colour[ledge] *= np.float32(1.12)
    balcony = (style == 3) & (floor > 0) & (column % 3 == ident % 3) & (dz < 1.05) & (z < eave)
    colour[balcony] = colour[balcony] * 0.5 + 0.2
    dark_recess = (style == 3) & (floor > 0) & (column % 3 == ident % 3) & ~balcony & (z < eave)
    colour[dark_recess] *= np.float32(0.55)
    trim = np.where(hash01(ident, 0 * ident) < 0.65, 0.62, 0.16).astype(np.float32)
    _mix(colour, in_frame, np.repeat(trim[:, None], 3, 1))
    glass = f32(0.022, 0.028, 0.032) + sky * (0.05 + 0.24 * pane[:, None] ** 2)
    curtains = f32(0.42, 0.39, 0.34) * (0.6 + 0.4 * pane[:, None])
    drawn = (pane > 0.72) & (dz > low + 0.45 * (high - low) * (pane < 0.86))
    _mix(colour, in_pane, np.where(drawn[:, None] & ~shop[:, None], curtains, glass))
    entry = (column == ident % 97 % count) & (floor == 0) & (du < 0.55) & (z < 2.15) & (style != 4)
    gate = (style == 4) & (column % 4 == 1) & (du < 1.9) & (z < 3.4)
    tint = np.stack([0.65 + 0.7 * hash01(ident, ident + k) for k in (1, 2, 3)], 1)
    door = (0.05 + 0.28 * hash01(ident, ident + 4))[:, None] * tint
    _mix(colour, entry & ~shop, door)
    _mix(colour, gate, door * 1.4 * (0.85 + 0.15 * ((z * 4) % 1 > 0.2))[:, None])
    return np.asarray(colour, np.float32)


def roof(
    uv: Float32Array,
    info: Float32Array,
    ident: npt.NDArray[np.int32],
    base: Float32Array,
    detail: float,
) -> Float32Array:
    """Roof colours: tile rows, seams, stains, panels and roof windows.

    ``uv`` (n, 2): metres along the eave and up the slope; ``info`` (n, 4): eave length, slope
    length, 0, style (0 tiles, 1 seams, 2 flat felt); ``detail`` 0 to 1 weakens what is finer
    than a pixel. Returns (n, 3).
    """
    u, v = uv[:, 0], uv[:, 1]
    length, depth, _, style = info.T
    stain = noise(1, u + ident % 911, v * 0.22, 0.05)
    value = 1 + 0.13 * stain
    tile = (style == 0) * detail
    value *= 1 - tile * (0.34 * (1 - (v / 0.34) % 1) - 0.10) - tile * 0.10 * ((u / 0.3) % 1 < 0.3)
    shade = hash01(np.floor(u / 0.3).astype(np.int32), np.floor(v / 0.34).astype(np.int32), ident)
    value *= 1 + tile * (shade - 0.5) * 0.35
    seam = (style == 1) & ((u / 0.62) % 1 < 0.12)
    value = np.where(seam, value * (0.72 + 0.1 * (1 - detail)), value)
    felt = (style == 2) & ((u / 2.4) % 1 < 0.05)
    value = np.where(felt, value * 0.8, value)
    edge = np.minimum(np.minimum(u, length - u), np.minimum(v, depth - v))
    colour = base * value[:, None].astype(np.float32)
    rim = (style == 2) & (edge < 0.45)
    colour[rim] = colour[rim] * 0.4 + 0.24
    lucky = hash01(ident, 0 * ident + 3)
    pitched = style < 2
    panel = pitched & (lucky < 0.14) & (np.abs(u - length * 0.5) < length * 0.3)
    panel &= (v > depth * 0.28) & (v < depth * 0.82)
    grid = ((u / 1.05) % 1 < 0.07) | ((v / 1.7) % 1 < 0.05)
    colour[panel] = np.where(grid[panel, None], 0.22, f32(0.018, 0.025, 0.055))
    window = pitched & (lucky > 0.62) & ((u / 3.1) % 1 > 0.72) & (np.abs(v - depth * 0.5) < 0.55)
    window &= edge > 0.8
    colour[window] = f32(0.16, 0.19, 0.22)
    return np.asarray(colour, np.float32)
