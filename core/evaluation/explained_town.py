"""Let a teacher explain photos of a town with known truth, and measure the explanations.

A photo is a crop of a panorama. It starts at the border of a patch, so the truth of each of its patches
is known. Its heading is arbitrary, since the panoramas' headings are. The right answer is given: the
grid place nearest to the camera. The tile is cut as on the page: around the position that the pipeline
answers in that place. For pointing, the pair is aligned at the true azimuth shift. The contribution
factors of a photo depend on no tile. The heading error without a given heading is measured separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.data.worlds import TILE_SIDE_M, PatchTruth, with_truth_of
from core.errors import SettingError
from core.evaluation.answers import DescribedTown, rows_within
from core.evaluation.explanations import (
    Looks,
    Row,
    class_metrics,
    group_of,
    heading_metrics,
    pointing_metrics,
)
from core.evaluation.queries import Queries, cut_queries, draw_crops
from core.explain.pair import heading_from_attention
from core.localization.ranking import describe_view, rank_tiles
from core.localization.refinement import REACH, estimated_position, refine_position
from core.localization.search import shift_queries
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.views import ground_batch
from core.polar import (
    BIN_DEG,
    BINS,
    RINGS,
    heading_from_shift,
    refine_shift,
    residual_rotation,
    rotated_back,
    shift_from_heading,
    to_batch,
)

__all__ = ["CHANCE_DEG", "FIELDS_OF_VIEW", "explain_town"]

FIELDS_OF_VIEW = (32, 16, 8)
"""Bins of the photos: 360, 180 and 90 degrees."""

CHANCE_DEG = 90.0
"""Median error of a heading that is guessed."""


@dataclass(frozen=True)
class _Photos:
    """Q photos with their truth; tiles uint8 (Q, S, S, 3), centres (Q, 2) in metres."""

    queries: Queries
    tiles: UInt8Array
    centres: Float64Array
    wrong_tiles: UInt8Array
    kinds: Int64Array
    content: Float64Array
    azimuth_shifts: Float64Array

    @property
    def rotations(self) -> Float64Array:
        """Residual rotations (Q,) of the tiles in bins: azimuth shift minus the nearest whole one."""
        return np.asarray(self.azimuth_shifts - np.rint(self.azimuth_shifts))


def explain_town(
    described: DescribedTown,
    truth: PatchTruth,
    *,
    fields: Sequence[int] = FIELDS_OF_VIEW,
    count: int = 200,
    seed: int = 0,
) -> list[Row]:
    """One row for each field of view: pointing, contribution by class, heading.

    Args:
        described: a town. Its teacher, with azimuth bins, explains photos and refines positions.
        truth: the content of the patches of this town's panoramas.
        fields: bins of the photos, 1 to 32.
        count: photos of each field of view, at most as many as there are panoramas.
        seed: of panoramas, headings and wrong tiles; same seed, same numbers.

    Raises:
        SettingError: a teacher without azimuth bins. It attends to no sectors.
        WorldError: the truth has another number of panoramas.

    """
    teacher = described.models.teacher
    if teacher is None or teacher.base.bins is None or teacher.rows != RINGS:
        got = "none" if teacher is None else f"one of {teacher.rows} rows of tokens"
        raise SettingError(
            f"Teacher: got {got}, expected one with azimuth bins and {RINGS} rows: its tokens must be "
            "the sectors whose truth is known. Measure such a teacher."
        )
    with_truth_of(described.town, truth)  # refuse the truth of another town
    return [_row(described, teacher, truth, bins, count, seed) for bins in fields]


def _row(
    described: DescribedTown, teacher: GeoSSK, truth: PatchTruth, bins: int, count: int, seed: int
) -> Row:
    photos = _photos(described, teacher, truth, bins, count, seed)
    looks, headings = _explained(teacher, described.models.student, photos, truth.class_names)
    return {
        "fov_deg": bins * BIN_DEG,
        "queries": len(photos.tiles),
        "patches": looks.phi.size,
        "patches_in_tile": int(looks.inside(TILE_SIDE_M).sum()),
        "pointing": pointing_metrics(looks, TILE_SIDE_M),
        "classes": class_metrics(looks, TILE_SIDE_M),
        "headings": heading_metrics(photos.queries.heading_deg, headings),
        "heading_chance_deg": CHANCE_DEG,
    }


def _photos(
    described: DescribedTown, teacher: GeoSSK, truth: PatchTruth, bins: int, count: int, seed: int
) -> _Photos:
    town, references = described.town, described.references
    grid = references.centres_m
    chosen, start = draw_crops(town, bins, count, seed)
    column = start * BINS // town.panoramas.shape[2]
    queries = cut_queries(town, bins, chosen, column * (town.panoramas.shape[2] // BINS))
    columns = (column[:, None] + np.arange(bins)) % BINS
    # The tiles of all panoramas: a wrong tile must show streets, as every true tile does.
    nearest = np.linalg.norm(town.places[:, None] - grid[None], axis=2).argmin(axis=1)
    centres = _answered_positions(described, teacher, queries, nearest[chosen])
    wrong = _far_from(grid[nearest], chosen, np.random.default_rng((seed, bins, 1)))
    rows = np.arange(truth.class_id.shape[1])
    at = (chosen[:, None, None], rows[None, :, None], columns[:, None, :])
    return _Photos(
        queries=queries,
        tiles=references.tiles_at(centres),
        centres=centres,
        wrong_tiles=references.tiles_at(grid[nearest[wrong]]),
        kinds=truth.class_id[at].reshape(len(chosen), -1).astype(np.int64),
        content=truth.places[at].reshape(len(chosen), -1, 2),
        azimuth_shifts=np.array(
            [shift_from_heading(heading, bins) for heading in queries.heading_deg]
        ),
    )


def _answered_positions(
    described: DescribedTown, teacher: GeoSSK, queries: Queries, rows: Int64Array
) -> Float64Array:
    """Camera positions (Q, 2) that student and teacher estimate in places given by their grid rows.

    The steps are those of the pipeline, but only the place and its neighbours are searched.
    """
    references, student = described.references, described.models.student
    bins = queries.bins if student.bins else None
    found = []
    for view, row in zip(queries.views, rows, strict=True):
        reach = REACH * references.tile_side_m + 1e-6
        near = rows_within(references, references.centres_m[row], reach)
        ranking = rank_tiles(references, describe_view(student, view), bins, None, near)
        at = int(np.flatnonzero(ranking.rows == row)[0])
        position = estimated_position(references, ranking, at)
        shift = float(ranking.azimuth_shifts[at])
        if not np.isnan(shift):
            position = refine_position(references, teacher, view, shift, position)
        found.append(references.inside(position))
    return np.stack(found)


def _far_from(centres: Float64Array, chosen: Int64Array, random: np.random.Generator) -> Int64Array:
    """For each chosen place another place with a disjoint tile; the farthest one if there is none."""
    found = []
    for own in chosen:
        apart = np.abs(centres - centres[own]).max(axis=1)
        free = np.flatnonzero(apart >= TILE_SIDE_M)
        found.append(int(random.choice(free)) if len(free) else int(apart.argmax()))
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class _Explained:
    """A teacher's explanation of one photo: attention (N, M), factors (N,), headings in degrees."""

    attention: Float32Array
    wrong_tile: Float32Array
    phi: Float32Array
    heading_deg: float
    helped_deg: float


def _explained(
    teacher: GeoSSK, student: TwoBranch, photos: _Photos, class_names: tuple[str, ...]
) -> tuple[Looks, dict[str, Float64Array]]:
    """Attention and factors of every photo, and headings (Q,) by their source."""
    teacher.eval()
    queries = photos.queries
    shifts = _student_shifts(student, photos)
    title = f"{queries.bins * BIN_DEG:g} degrees"
    each = [
        _explain(teacher, photos, i, shifts) for i in tqdm(range(len(shifts)), title, leave=False)
    ]
    # In the frame of the rotated tiles everything is rotated; distances stay the same.
    headings_deg = queries.heading_deg - photos.rotations * BIN_DEG
    looks = Looks(
        attention=np.stack([one.attention for one in each]),
        wrong_tile=np.stack([one.wrong_tile for one in each]),
        phi=np.stack([one.phi for one in each]),
        groups=group_of(class_names)[photos.kinds],
        offsets_m=rotated_back(photos.content - photos.centres[:, None], photos.rotations),
        azimuth_deg=headings_deg[:, None]
        + (np.arange(queries.bins) + 0.5 - queries.bins / 2) * BIN_DEG,
    )
    headings = {
        "student's azimuth shift": [heading_from_shift(shift, queries.bins) for shift in shifts],
        "attention at the student's azimuth shift": [one.helped_deg for one in each],
        "attention alone": [one.heading_deg for one in each],
        "attention at the true azimuth shift": [
            heading_from_attention(one.attention, rotation)
            for one, rotation in zip(each, photos.rotations, strict=True)
        ],
        "another tile at the true azimuth shift": [
            heading_from_attention(one.wrong_tile, rotation)
            for one, rotation in zip(each, photos.rotations, strict=True)
        ],
    }
    known = {source: np.array(found) for source, found in headings.items()}
    return looks, {source: found for source, found in known.items() if not np.isnan(found).any()}


@torch.inference_mode()
def _explain(
    teacher: GeoSSK, photos: _Photos, index: int, student_shifts: Float64Array
) -> _Explained:
    """One photo, aligned with its own tile and with a wrong one."""
    view = photos.queries.views[index : index + 1]
    ground = teacher.ground_tokens(ground_batch(view, teacher.ground_size))
    tile, wrong = (
        to_batch(tiles[index : index + 1], teacher.aerial_size)
        for tiles in (photos.tiles, photos.wrong_tiles)
    )
    shift, found = float(photos.azimuth_shifts[index]), float(student_shifts[index])
    north_up = teacher.aerial_tokens(tile)
    every = teacher.attention(ground, north_up, torch.arange(BINS)).mean(dim=(0, 1))
    helped_deg = np.nan
    if not np.isnan(found):
        attention = _attention(teacher, ground, tile, found)
        helped_deg = heading_from_attention(attention, residual_rotation(found))
    return _Explained(
        attention=_attention(teacher, ground, tile, shift),
        wrong_tile=_attention(teacher, ground, wrong, shift),
        phi=teacher.factors(ground, north_up)[0][0].numpy(),
        # A learned bias depends on a pair's azimuth shift; the average over all shifts reveals none.
        heading_deg=heading_from_attention(every.cpu().float().numpy()),
        helped_deg=helped_deg,
    )


def _attention(teacher: GeoSSK, ground: Tensor, tile: Tensor, azimuth_shift: float) -> Float32Array:
    """Attention (N, M) from ground to a tile aligned at an azimuth shift, averaged over heads."""
    rotation = tile.new_tensor([residual_rotation(azimuth_shift)])
    whole = torch.tensor([round(azimuth_shift) % BINS])
    attention = teacher.attention(ground, teacher.aerial_tokens(tile, rotation), whole)
    return attention.mean(dim=1)[0].cpu().float().numpy()


@torch.inference_mode()
def _student_shifts(student: TwoBranch, photos: _Photos) -> Float64Array:
    """The student's refined azimuth shifts (Q,) of the true pairs, in bins; nan if it is global."""
    if student.bins is None:
        return np.full(len(photos.tiles), np.nan)
    found = []
    for view, tile in zip(photos.queries.views, photos.tiles, strict=True):
        place = (
            student.describe_aerial(to_batch(tile[None], student.aerial_size))[0].float().numpy()
        )
        curve = shift_queries(describe_view(student, view), photos.queries.bins) @ place
        found.append(refine_shift(curve))
    return np.array(found)
