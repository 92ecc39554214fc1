"""Small towns whose pictures say where they were taken, and the truth of what their patches show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.data.worlds import TILE_SIDE_M, PatchTruth, Town
from core.explain.pair import sector_offsets_m
from core.polar import BIN_DEG, BINS, RINGS, rotated_back

WIDTH = 256
"""Pixels of a canvas of ``telling_town``."""
NAMES = ("sky", "road", "wall", "tree", "vehicle", "grass")
SECTORS = sector_offsets_m(TILE_SIDE_M).astype(np.float64)


def telling_town(size_m: float = 460.8, count: int = 40) -> Town:
    """Red of the mosaic is east, green is north; red of a canvas is the azimuth it looks at."""
    random = np.random.default_rng(0)
    side = round(size_m / 0.6)
    ramp = (np.arange(side) + 0.5) / side * 255
    mosaic = np.zeros((side, side, 3), np.uint8)
    mosaic[..., 0], mosaic[..., 1] = ramp[None, :], ramp[::-1, None]
    heading = random.uniform(0, 360, count)
    azimuth = heading[:, None] + ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5) * 360
    canvases = np.zeros((count, 64, WIDTH, 3), np.uint8)
    canvases[..., 0] = ((azimuth % 360) / 360 * 255)[:, None, :]
    canvases[..., 2] = random.integers(0, 256, (count, 1, 1))  # each camera has a colour of its own
    limit = size_m / 2 - TILE_SIDE_M / 2
    places = random.uniform(-limit, limit, (count, 2))
    return Town("telling", size_m, canvases, places, heading, mosaic, 0.6)


def with_truth(town: Town, away_m: float = 20.0) -> Town:
    """The town, and that every patch shows something so far away, but for the lowest row: sky."""
    column = (np.arange(BINS) + 0.5) / BINS - 0.5
    azimuth = np.radians(town.heading_deg[:, None] + 360 * column)
    ahead = away_m * np.stack([np.sin(azimuth), np.cos(azimuth)], axis=-1)
    places = np.repeat((town.places[:, None] + ahead)[:, None], 4, axis=1)
    places[:, 3] = np.nan
    return replace(
        town, truth=PatchTruth(np.ones(places.shape[:3], np.uint8), places, ("sky", "wall"))
    )


def ideal_truth(town: Town) -> PatchTruth:
    """The truth of cameras that see their own tile's polar view."""
    turned = town.heading_deg / BIN_DEG
    whole = np.rint(turned).astype(int)
    sectors = SECTORS.reshape(RINGS, BINS, 2)
    shifted = np.stack([np.roll(sectors, -turn, axis=1) for turn in whole])
    content = rotated_back(shifted.reshape(len(whole), -1, 2), whole - turned)
    places = content.reshape(shifted.shape) + town.places[:, None, None]
    kinds = np.broadcast_to(np.array([3, 2, 5, 1], np.uint8)[None, :, None], places.shape[:3])
    return PatchTruth(np.ascontiguousarray(kinds), places, NAMES)


def write_truth(folder: Path, truth: PatchTruth, **changed: np.ndarray) -> None:
    arrays = {
        "class_id": truth.class_id,
        "east_m": truth.places[..., 0].astype(np.float32),
        "north_m": truth.places[..., 1].astype(np.float32),
        "class_names": np.array(truth.class_names),
    }
    kept = {name: array for name, array in {**arrays, **changed}.items() if array is not None}
    np.savez_compressed(folder / "truth.npz", **kept)
