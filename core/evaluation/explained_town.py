"""Let a teacher explain photos of a town whose truth is known, and measure what it said.

A photo is a crop of a panorama that starts at the border of a patch, so that each of its patches is
one whose truth is known; the panorama's own heading is anything, so the crop's is too. The nearest
place of the grid, which is the right answer, is given. The tile is cut as the page cuts it: around
the point in that place where student and teacher put the camera, which they are not told. The azimuth shift it
is met at is the true one for pointing; the contribution factors of a photo
depend on no tile. How far the heading is known without being told is measured by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from core.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from core.data.worlds import TILE_SIDE_M, PatchTruth, Town, with_truth_of
from core.errors import SettingError
from core.evaluation.descriptors import (
    Queries,
    cut_queries,
    describe_places,
    describe_views,
    draw_crops,
    match,
    town_grid,
    town_viewpoints,
)
from core.evaluation.explanations import (
    Looks,
    Row,
    class_figures,
    group_of,
    heading_figures,
    pointing_figures,
)
from core.evaluation.rerank import Reranker, believed_camera
from core.explain.pair import heading_from_attention
from core.localization.refinement import REACH
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.photos.views import ground_batch
from core.polar import (
    BIN_DEG,
    BINS,
    RINGS,
    heading_from_shift,
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
class _Asked:
    """Q photos with all that is known of them; tiles uint8 (Q, S, S, 3), places (Q, 2) in metres."""

    queries: Queries
    tiles: UInt8Array
    centres: Float64Array
    other_tiles: UInt8Array
    kinds: Int64Array
    content: Float64Array
    azimuth_shifts: Float64Array

    @property
    def turns(self) -> Float64Array:
        """By how many bins (Q,) the tiles are turned to meet the photos at whole azimuth shifts."""
        return np.asarray(self.azimuth_shifts - np.rint(self.azimuth_shifts))


def explain_town(
    town: Town,
    truth: PatchTruth,
    teacher: GeoSSK,
    student: TwoBranch,
    *,
    fields: Sequence[int] = FIELDS_OF_VIEW,
    count: int = 200,
    seed: int = 0,
) -> list[Row]:
    """One row for each field of view: pointing, contribution by class, heading.

    Args:
        town: with its imagery.
        truth: what the patches of this very town's panoramas show.
        teacher: with azimuth bins, in evaluation mode.
        student: finds where the camera stood, from where the teacher steps closer, and its own azimuth shift
            of the true pair; a global one finds none and has no heading.
        fields: bins of the photos, 1 to 32.
        count: photos of each field of view, at most as many as there are panoramas.
        seed: of panoramas, headings and foreign tiles; same seed, same figures.

    Raises:
        SettingError: a teacher without azimuth bins, which attends to no sectors.
        WorldError: the truth of another number of panoramas.

    """
    if teacher.base.bins is None or teacher.rows != RINGS:
        raise SettingError(
            f"Teacher: got one with a global descriptor or with {teacher.rows} rows of tokens, expected "
            f"azimuth bins and {RINGS} rows: its tokens must be the sectors whose truth is known. "
            "Measure such a teacher."
        )
    with_truth_of(town, truth)  # refuses another town's
    reranker = Reranker(teacher, town, town_grid(town))
    return [_row(reranker, truth, student, bins, count, seed) for bins in fields]


def _row(
    reranker: Reranker, truth: PatchTruth, student: TwoBranch, bins: int, count: int, seed: int
) -> Row:
    asked = _ask(reranker, truth, student, bins, count, seed)
    looks, headings = _look(reranker.teacher, student, asked, truth.class_names)
    return {
        "fov_deg": bins * BIN_DEG,
        "queries": len(asked.tiles),
        "patches": looks.phi.size,
        "patches_in_tile": int(looks.inside(TILE_SIDE_M).sum()),
        "pointing": pointing_figures(looks, TILE_SIDE_M),
        "classes": class_figures(looks, TILE_SIDE_M),
        "headings": heading_figures(asked.queries.heading_deg, headings),
        "heading_chance_deg": CHANCE_DEG,
    }


def _ask(
    reranker: Reranker, truth: PatchTruth, student: TwoBranch, bins: int, count: int, seed: int
) -> _Asked:
    town, grid = reranker.town, reranker.centres
    chosen, start = draw_crops(town, bins, count, seed)
    column = start * BINS // town.panoramas.shape[2]
    queries = cut_queries(town, bins, chosen, column * (town.panoramas.shape[2] // BINS))
    columns = (column[:, None] + np.arange(bins)) % BINS
    # The tiles of all panoramas: a foreign one must show streets too, as every true one does.
    nearest = np.linalg.norm(town.places[:, None] - grid[None], axis=2).argmin(axis=1)
    centres = _answered_cameras(reranker, student, queries, nearest[chosen])
    others = _far_from(grid[nearest], chosen, np.random.default_rng((seed, bins, 1)))
    pixels = round(TILE_SIDE_M / town.pixel_m)
    rows = np.arange(truth.class_id.shape[1])
    at = (chosen[:, None, None], rows[None, :, None], columns[:, None, :])
    return _Asked(
        queries=queries,
        tiles=town.crop_tiles(centres, pixels),
        centres=centres,
        other_tiles=town.crop_tiles(grid[nearest[others]], pixels),
        kinds=truth.class_id[at].reshape(len(chosen), -1).astype(np.int64),
        content=truth.places[at].reshape(len(chosen), -1, 2),
        azimuth_shifts=np.array(
            [shift_from_heading(heading, bins) for heading in queries.heading_deg]
        ),
    )


def _answered_cameras(
    reranker: Reranker, student: TwoBranch, queries: Queries, rows: Int64Array
) -> Float64Array:
    """Where (Q, 2) student and teacher put the cameras in places that are given by their grid rows.

    As the Localizer answers, but that it is told the place and looks at all of its neighbours. Points
    are moved inwards to where whole tiles can be cut.
    """
    town, grid = reranker.town, reranker.centres
    points = town_viewpoints(grid)
    found = []
    for index, (row, view) in enumerate(zip(rows, describe_views(student, queries), strict=True)):
        near = np.flatnonzero(np.hypot(*(grid - grid[row]).T) <= REACH * TILE_SIDE_M + 1e-6)
        matches = match(view[None], describe_places(student, town, points[near]), bins=student.bins)
        first = int(np.flatnonzero(near == row)[0])
        believed = believed_camera(grid[near], matches.viewpoint_similarities[0], first)
        azimuth_shift = float(matches.azimuth_shift[0, first])
        found.append(reranker.refine_position(queries.views[index], azimuth_shift, believed))
    return np.clip(np.stack(found), -town.half_extent_m, town.half_extent_m)


def _far_from(centres: Float64Array, chosen: Int64Array, random: np.random.Generator) -> Int64Array:
    """For each chosen place another one whose tile has no part in common; the farthest if none."""
    found = []
    for own in chosen:
        apart = np.abs(centres - centres[own]).max(axis=1)
        free = np.flatnonzero(apart >= TILE_SIDE_M)
        found.append(int(random.choice(free)) if len(free) else int(apart.argmax()))
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class _Said:
    """What the teacher said of one photo: attention (N, M), factors (N,), headings in degrees."""

    attention: Float32Array
    elsewhere: Float32Array
    phi: Float32Array
    heading_deg: float
    helped_deg: float


def _look(
    teacher: GeoSSK, student: TwoBranch, asked: _Asked, class_names: tuple[str, ...]
) -> tuple[Looks, dict[str, Float64Array]]:
    """What the teacher says of every photo, and headings (Q,) by their source."""
    teacher.eval()
    queries = asked.queries
    azimuth_shifts = _student_shifts(student, asked)
    title = f"{queries.bins * BIN_DEG:g} degrees"
    said = [
        _hear(teacher, asked, i, azimuth_shifts)
        for i in tqdm(range(len(azimuth_shifts)), title, leave=False)
    ]
    # Everything as it lies from tiles that are turned: distances are the same.
    headings_deg = queries.heading_deg - asked.turns * BIN_DEG
    looks = Looks(
        attention=np.stack([one.attention for one in said]),
        elsewhere=np.stack([one.elsewhere for one in said]),
        phi=np.stack([one.phi for one in said]),
        groups=group_of(class_names)[asked.kinds],
        offsets_m=rotated_back(asked.content - asked.centres[:, None], asked.turns),
        azimuth_deg=headings_deg[:, None]
        + (np.arange(queries.bins) + 0.5 - queries.bins / 2) * BIN_DEG,
    )
    headings = {
        "student's azimuth shift": [
            heading_from_shift(azimuth_shift, queries.bins) for azimuth_shift in azimuth_shifts
        ],
        "attention at the student's azimuth shift": [one.helped_deg for one in said],
        "attention alone": [one.heading_deg for one in said],
        "attention at the true azimuth shift": [
            heading_from_attention(one.attention, turn)
            for one, turn in zip(said, asked.turns, strict=True)
        ],
        "another tile at the true azimuth shift": [
            heading_from_attention(one.elsewhere, turn)
            for one, turn in zip(said, asked.turns, strict=True)
        ],
    }
    known = {source: np.array(found) for source, found in headings.items()}
    return looks, {source: found for source, found in known.items() if not np.isnan(found).any()}


@torch.inference_mode()
def _hear(teacher: GeoSSK, asked: _Asked, index: int, student_shifts: Float64Array) -> _Said:
    """What the teacher says of one photo, met with its own tile and with a foreign one."""
    view = asked.queries.views[index : index + 1]
    ground = teacher.ground_tokens(ground_batch(view, teacher.ground_size))
    tile, other = (
        to_batch(tiles[index : index + 1], teacher.aerial_size)
        for tiles in (asked.tiles, asked.other_tiles)
    )
    azimuth_shift, found = float(asked.azimuth_shifts[index]), float(student_shifts[index])
    north_up = teacher.aerial_tokens(tile)
    every = teacher.attention(ground, north_up, torch.arange(BINS)).mean(dim=(0, 1))
    helped_deg = np.nan
    if not np.isnan(found):
        attention = _attention(teacher, ground, tile, found)
        helped_deg = heading_from_attention(attention, residual_rotation(found))
    return _Said(
        attention=_attention(teacher, ground, tile, azimuth_shift),
        elsewhere=_attention(teacher, ground, other, azimuth_shift),
        phi=teacher.factors(ground, north_up)[0][0].numpy(),
        # A learned bias knows the azimuth shift a pair is met at; met at all of them, none is given away.
        heading_deg=heading_from_attention(every.cpu().float().numpy()),
        helped_deg=helped_deg,
    )


def _attention(teacher: GeoSSK, ground: Tensor, tile: Tensor, azimuth_shift: float) -> Float32Array:
    """Attention (N, M) from ground to a tile that is turned to meet it at an azimuth shift, heads averaged, as
    shown.
    """
    turns = tile.new_tensor([residual_rotation(azimuth_shift)])
    azimuth_shifts = torch.tensor([round(azimuth_shift) % BINS])
    attention = teacher.attention(ground, teacher.aerial_tokens(tile, turns), azimuth_shifts)
    return attention.mean(dim=1)[0].cpu().float().numpy()


def _student_shifts(student: TwoBranch, asked: _Asked) -> Float64Array:
    """Azimuth shifts (Q,) in bins, refined, that the student finds for the true pairs; nan: a global one."""
    views = describe_views(student, asked.queries)
    found = []
    for view, tile in zip(views, asked.tiles, strict=True):
        with torch.inference_mode():
            place = student.describe_aerial(to_batch(tile[None], student.aerial_size)).float()
        found.append(
            float(match(view[None], place[:, None], bins=student.bins).azimuth_shift[0, 0])
        )
    return np.array(found)
