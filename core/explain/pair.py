"""Attention and contribution factors of a teacher for one pair, as arrays.

GeoSSK (Chen et al., MMM 2025) as this project reconstructs it. Cross-view attention shows which part
of the tile each patch of the photo attends to. The contribution factor is the share of a patch in
the descriptor of its image.

Patches are counted row by row: those of a canvas from the top left, sectors of a tile from the south
of the outermost ring (the top left of its polar view). A canvas of n azimuth bins has N = 4 n
patches, a tile M = 4 * 32 = 128 sectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.arrays import BoolArray, Float32Array, UInt8Array
from core.errors import SettingError
from core.models.alignment import aligned_scores
from core.models.geossk import GeoSSK
from core.photos.views import canvas_bins, ground_batch
from core.polar import (
    BINS,
    RINGS,
    heading_from_shift,
    refine_shift,
    residual_rotation,
    sector_map,
    to_batch,
)

__all__ = [
    "Explanation",
    "explain_pair",
    "ground_patch_at",
    "heading_from_attention",
    "sector_at",
    "sector_offsets_m",
]


@dataclass(frozen=True)
class Explanation:
    """One photo, one tile, and the teacher's attention and contribution factors for the pair.

    Attributes:
        canvas: uint8 (128, w, 3), the photo as the models are given it, w = 16 n.
        mask: bool (128, w), which pixels the photo covers.
        tile: uint8 (S, S, 3), north up.
        azimuth_shift: polar bin of the canvas's first bin, in [0, 32), seldom whole.
        heading_deg: heading of the canvas's centre at that azimuth shift, in [0, 360).
        ground_grid: (4, n) rows and columns of canvas patches.
        aerial_grid: (4, 32) rings, outermost first, and azimuth bins, from south clockwise; they are
            rotated by ``rotation`` bins, so that they lie under those of the canvas.
        ground_to_aerial: float32 (4 n, 128), heads averaged, rows sum to 1.
        aerial_to_ground: float32 (128, 4 n), heads averaged, rows sum to 1.
        phi_ground: float32 (4 n,), contribution factors, sum 1; even share 1 / (4 n).
        phi_aerial: float32 (128,), contribution factors, sum 1; even share 1 / 128.
        teacher_score: the pair's cosine in [-1, 1], by ``core.models.alignment.aligned_scores``.
        attention_heading_deg: heading in [0, 360) estimated from attention alone, averaged over all
            azimuth shifts.

    """

    canvas: UInt8Array
    mask: BoolArray
    tile: UInt8Array
    azimuth_shift: float
    heading_deg: float
    ground_grid: tuple[int, int]
    aerial_grid: tuple[int, int]
    ground_to_aerial: Float32Array
    aerial_to_ground: Float32Array
    phi_ground: Float32Array
    phi_aerial: Float32Array
    teacher_score: float
    attention_heading_deg: float

    @property
    def rotation(self) -> float:
        """Rotation of the sectors in bins, clockwise, at most half a bin to either side."""
        return residual_rotation(self.azimuth_shift)


@torch.inference_mode()
def explain_pair(
    teacher: GeoSSK,
    canvas: UInt8Array,
    tile: UInt8Array,
    azimuth_shift: float,
    mask: BoolArray | None = None,
    device: str = "cpu",
) -> Explanation:
    """Explain one pair by the teacher's attention and contribution factors.

    Args:
        teacher: in evaluation mode; its tokens must be 4 rows of bins and 4 rings of sectors.
        canvas: uint8 (128, 16 n, 3).
        tile: uint8 (S, S, 3), north up.
        azimuth_shift: in bins, at which the pair is aligned; taken modulo 32.
        mask: bool (128, 16 n), which pixels the photo covers; all by default.
        device: where the teacher is.

    Raises:
        SettingError: a canvas that is no whole number of bins, or a teacher whose tokens are no
            such grids.

    """
    bins, azimuth_shift = canvas_bins(canvas), float(azimuth_shift) % BINS
    view = ground_batch([canvas], teacher.ground_size, device)
    ground = teacher.ground_tokens(view)
    tiles = to_batch([tile], teacher.aerial_size, device)
    aerial = teacher.aerial_tokens(tiles, tiles.new_tensor([residual_rotation(azimuth_shift)]))
    if ground.shape[1] != RINGS * bins or aerial.shape[1] != RINGS * BINS:
        raise SettingError(
            f"Teacher: got {ground.shape[1]} canvas and {aerial.shape[1]} tile tokens, expected "
            f"{RINGS * bins} and {RINGS * BINS}. Explain with an azimuth teacher."
        )
    seen = teacher.interact(ground, aerial, round(azimuth_shift))
    ground_to_aerial = _to_numpy(seen.ground_to_aerial.mean(dim=0))
    # The position bias depends on the azimuth shift; the mean over all of them gives none away.
    at_all_shifts = teacher.attention(ground, aerial, torch.arange(BINS)).mean(dim=(0, 1))
    return Explanation(
        canvas=canvas,
        mask=np.ones(canvas.shape[:2], dtype=np.bool_) if mask is None else mask,
        tile=tile,
        azimuth_shift=azimuth_shift,
        heading_deg=heading_from_shift(azimuth_shift, bins),
        ground_grid=(RINGS, bins),
        aerial_grid=(RINGS, BINS),
        ground_to_aerial=ground_to_aerial,
        aerial_to_ground=_to_numpy(seen.aerial_to_ground.mean(dim=0)),
        phi_ground=_to_numpy(seen.phi_ground.flatten()),
        phi_aerial=_to_numpy(seen.phi_aerial.flatten()),
        teacher_score=float(
            aligned_scores(teacher, view, tiles, np.array([azimuth_shift], np.float32))[0][0]
        ),
        attention_heading_deg=heading_from_attention(
            _to_numpy(at_all_shifts), residual_rotation(azimuth_shift)
        ),
    )


def _to_numpy(values: Tensor) -> Float32Array:
    return values.detach().to("cpu", torch.float32).numpy()


def heading_from_attention(ground_to_aerial: Float32Array, rotation: float = 0.0) -> float:
    """Heading in [0, 360) estimated from attention, without an azimuth shift.

    The sum over rows of patches and over rings leaves the attention from azimuth bin i of the photo
    to bin b of the tile. The circular shift r with the largest sum over (i, r + i) aligns the two; a
    parabola refines it between whole bins (docs/geossk.md section 7).

    Args:
        ground_to_aerial: (4 n, 128).
        rotation: of the sectors, in bins.

    Rows of patches and rings are summed away, which leaves how much azimuth bin i of the photo
    asked bin b of the tile. The circular shift r with the largest sum over (i, r + i) aligns the
    two; a parabola finds it between whole bins (docs/geossk.md section 7).
    """
    attention = np.asarray(ground_to_aerial, dtype=np.float64)
    by_azimuth = attention.reshape(RINGS, -1, RINGS, BINS).sum(axis=(0, 2))
    bins = np.arange(len(by_azimuth))
    curve = [by_azimuth[bins, (azimuth_shift + bins) % BINS].sum() for azimuth_shift in range(BINS)]
    return heading_from_shift(refine_shift(curve) + rotation, len(by_azimuth))


def ground_patch_at(x: float, y: float, size: tuple[int, int], n_bins: int) -> int:
    """Patch (row-major in 4 x n) under pixel (x right, y down) of a canvas shown at (h, w) px.

    Points outside get the nearest patch.
    """
    row = int(np.clip(y * RINGS // size[0], 0, RINGS - 1))
    column = int(np.clip(x * n_bins // size[1], 0, n_bins - 1))
    return row * n_bins + column


def sector_at(x: float, y: float, side: int = 256, rotation: float = 0.0) -> int | None:
    """Sector (row-major in 4 x 32) under pixel (x right, y down) of a tile shown at ``side`` px.

    ``rotation``: of the sectors, in bins.

    None outside the circle of the polar view, and outside the tile.
    """
    if not (0 <= x < side and 0 <= y < side):
        return None
    sector = int(sector_map(side, rotation)[int(y), int(x)])
    return sector if sector >= 0 else None


def sector_offsets_m(side_m: float) -> Float32Array:
    """Centres (128, 2) of the sectors, not rotated, in metres east and north of a tile's centre."""
    ring, column = np.divmod(np.arange(RINGS * BINS), BINS)
    radius = (1 - (ring + 0.5) / RINGS) * side_m / 2
    azimuth = np.radians((column + 0.5) * 360.0 / BINS - 180.0)
    offsets = np.stack([radius * np.sin(azimuth), radius * np.cos(azimuth)], axis=1)
    return offsets.astype(np.float32)
