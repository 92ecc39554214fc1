"""Batches of one town: panoramas cut into views, tiles around their places, photometric change.

A batch is a function of (seed, step) alone, so a resumed run sees exactly the batches that the
uninterrupted one would have seen. The recipe is measured in the pilots: crops of whole bins instead
of a blank canvas, every panorama giving all its crops, one town per batch, tiles that also cover a
query's place masked, a random heading, an offset matched to the viewpoints of a gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.arrays import AnyArray, BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from core.data.transforms import change_light, photo_mask, soften, tilted
from core.data.worlds import PatchTruth, Town
from core.errors import DataError
from core.photos.canvas import UNSEEN
from core.photos.views import fill_canvas, view_size
from core.polar import BINS, rotated_back, to_batch

__all__ = ["PASSING", "Batch", "SamplingConfig", "TownBatches", "sample_batch", "to_model_views"]

PASSING = ("vehicle", "sky")
"""Classes of a world that say nothing of a place: a tile shows other vehicles, and no sky."""
ASPECTS = (0.5625, 0.667, 0.75, 0.75, 1.0, 1.333)
"""Height over width of photos: 16:9, 3:2, 4:3, square, and 4:3 upright."""
TILT_DEG = 2.5
"""Standard deviation of the pitch of a photo in the hand, twice that of its roll."""
Generator = np.random.Generator


@dataclass(frozen=True)
class SamplingConfig:
    """What a batch is made of.

    ``widths``: bins of a view and how often a step has that width; narrow views are the hard ones.
    ``offset_m``: the tile's centre lies up to this far from the camera, on either axis; half the way
    between two viewpoints of a gallery (``core.gallery.viewpoints``) and a little more. ``also_true_m``:
    another tile this near to the camera covers it as well and is no negative. ``local_share``: share
    of the batches whose places are neighbours, so that their negatives look alike. ``elsewhere``: so
    many more tiles for each place, as negatives, from anywhere around the batch's places or from
    where a student takes them to be (``core.training.mining``): a gallery covers yards and roofs and
    fields, a camera stands on a street. ``photo_share``: share of the views up to 12 bins wide that
    are tilted a little and cut to the frame of a perspective photo. ``every_crop``: each panorama gives
    all its crops of the step's width; else one, so that there is one view for each place. ``noise``:
    share of the views that are exchanged among each other while their labels stay, so that these are
    wrong.
    ``turn_error``: the polar view of a place's tile is turned so that its bins lie under those of the
    views, but for an error of up to so many bins: what a teacher meets, which knows where a student
    believes a camera; None: all tiles lie north up, as a gallery has them. ``remembered``: so many tiles
    of earlier steps of the same town are negatives too (``core.training.memory``), to a student of
    azimuth bins that learns alone.
    """

    batch: int = 80
    widths: tuple[tuple[int, float], ...] = (
        (32, 0.04),
        (24, 0.03),
        (16, 0.10),
        (12, 0.08),
        (10, 0.10),
        (9, 0.10),
        (8, 0.26),
        (7, 0.10),
        (6, 0.12),
        (5, 0.07),
    )
    offset_m: float = 5.5
    also_true_m: float = 19.2
    local_share: float = 0.5
    elsewhere: float = 0.75
    photo_share: float = 0.5
    every_crop: bool = True
    mirror: bool = True
    noise: float = 0.0
    turn_error: float | None = None
    remembered: int = 1024


@dataclass(frozen=True)
class Batch:
    """One training batch, still as bytes.

    views: uint8 (Q, h, w, 3), crops of n whole bins; seen: bool (Q, h, w), False where a photo's
    frame ends. tiles: uint8 (R, S, S, 3). true_columns: (Q,) the tile of each view. true_shifts:
    (Q,) in bins. ignored: bool (Q, R), semi-positives. is_ready: the pictures have the model's
    sizes and stay as they are (benchmarks); else they are resized and their light is changed.
    content: float32 (Q, 4 n, 2), where what each patch of a view shows lies, metres east and north
    of the centre of its own tile, which may be turned; nan for sky and outside a photo's frame.
    passing: uint8 (Q, 4 n), for patches in it that show a kind of ``PASSING`` its number, from 1 on,
    else 0. Both None where the town does not tell. turns: float32 (R,), bins by which the tiles' polar
    views are turned; None: they are not. town: its number. centres: float32 (R, 2), where in it the
    tiles' centres lie, metres east and north. places: float32 (Q, 2) of the cameras. All three only of
    batches of towns.
    """

    views: UInt8Array
    seen: BoolArray
    tiles: UInt8Array
    true_columns: Int64Array
    true_shifts: Float32Array
    ignored: BoolArray
    is_ready: bool = False
    content: Float32Array | None = None
    transient: UInt8Array | None = None
    turns: Float32Array | None = None
    town: int | None = None
    centres: Float32Array | None = None
    places: Float32Array | None = None


class TownBatches:
    """Batches of towns, one town per batch, as ``core.training.loop`` takes them in.

    ``tile_pixels``: side of a tile in pixels. ``confusing``: for each town (N, count, 2) points that
    the views of each camera are taken to be from; without them other tiles are from anywhere.

    Raises:
        DataError: no towns.

    """

    def __init__(
        self,
        towns: Sequence[Town],
        config: SamplingConfig,
        tile_pixels: int,
        seed: int,
        confusing: Sequence[Float64Array] = (),
    ) -> None:
        if not towns:
            raise DataError(
                "Training: got no towns, expected at least one. Build some: make worlds"
            )
        self.towns, self.config = towns, config
        self.tile_pixels, self.seed = tile_pixels, seed
        self.confusing = confusing

    def batch(self, step: int) -> Batch:
        """The batch of one step, the same whenever it is asked for."""
        random = np.random.default_rng((self.seed, step))
        chosen = int(random.integers(len(self.towns)))
        confusing = self.confusing[chosen] if self.confusing else None
        batch = sample_batch(self.towns[chosen], self.config, self.tile_pixels, random, confusing)
        return replace(batch, town=chosen)

    def identity(self) -> dict[str, Any]:
        """Where the batches come from; their sampling stands in the run's config."""
        return {"towns": [town.name for town in self.towns]}

    def remark(self, step: int, batch: Batch) -> dict[str, Any]:
        """Bins of the step's views, for the log."""
        return {"bins": batch.views.shape[2] * BINS // self.towns[0].panoramas.shape[2]}


def _choose_places(town: Town, config: SamplingConfig, random: Generator) -> Int64Array:
    count = min(config.batch, len(town.places))
    if random.random() >= config.local_share:
        return random.choice(len(town.places), count, replace=False)
    centre = town.places[random.integers(len(town.places))]
    distance = np.hypot(*(town.places - centre).T)
    pool = np.argsort(distance, kind="stable")[: 2 * count]
    return random.choice(pool, count, replace=False)


def _elsewhere(
    places: Float64Array,
    each: float,
    random: Generator,
    confusing: Float64Array | None,
) -> Float64Array:
    """Centres (n, 2) of tiles beside those of the places (B, 2), ``each`` for every place: of the
    points (B, C, 2) that it is taken for, or of the box around all places, evenly.
    """
    count = round(each * len(places))
    if confusing is None:
        return random.uniform(places.min(axis=0), places.max(axis=0), (count, 2))
    flat = confusing.reshape(-1, 2)
    return flat[random.choice(len(flat), min(count, len(flat)), replace=False)]


def _centres(
    town: Town,
    places: Float64Array,
    config: SamplingConfig,
    random: Generator,
    taken_for: Float64Array | None,
) -> Float64Array:
    """Centres (R, 2) of tiles: one near each of the places (B, 2), then those from elsewhere."""
    own = places + random.uniform(-config.offset_m, config.offset_m, places.shape)
    centres = np.concatenate([own, _elsewhere(places, config.elsewhere, random, taken_for)])
    return np.clip(centres, -town.half_extent_m, town.half_extent_m)


def _shifted(town: Town, chosen: Int64Array, random: Generator) -> tuple[UInt8Array, Int64Array]:
    """Canvases of cameras (B,), each moved right by so many columns (B,)."""
    canvases = town.panoramas[chosen]
    width = canvases.shape[2]
    # Headings are anything already; where patches are known by their place, they stay whole.
    unit = 1 if town.truth is None else width // BINS
    shift = random.integers(0, width // unit, len(chosen)) * unit
    moved = [np.roll(canvas, by, axis=1) for canvas, by in zip(canvases, shift, strict=True)]
    return np.stack(moved), shift


def _cut_views(canvases: UInt8Array, bins: int, every_crop: bool) -> tuple[UInt8Array, Int64Array]:
    """Crops of ``bins`` whole bins of each canvas and the first bin of each, crop by crop."""
    column = canvases.shape[2] // BINS
    starts = np.arange(BINS // bins if every_crop else 1) * bins
    views = np.stack([canvases[:, :, s * column : (s + bins) * column] for s in starts])
    return views.reshape(-1, *views.shape[2:]), np.repeat(starts, len(canvases))


def _patches(
    truth: PatchTruth,
    chosen: Int64Array,
    shift: Int64Array,
    centres: Float64Array,
) -> tuple[Float32Array, UInt8Array]:
    """Where the patches of canvases lie that were turned by so many bins, (B, 4, 32, 2) metres from the
    centres of their own tiles, and which kind of ``PASSING`` they show, (B, 4, 32).
    """
    columns = ((np.arange(BINS) - shift[:, None]) % BINS)[:, None]
    places = np.take_along_axis(truth.places[chosen], columns[..., None], axis=2)
    kinds = np.take_along_axis(truth.class_id[chosen], columns, axis=2)
    number = {name: kind for kind, name in enumerate(PASSING, start=1)}
    transient = np.array([number.get(name, 0) for name in truth.class_names], np.uint8)
    content = (places - centres[:, None, None]).astype(np.float32)
    return content, transient[kinds]


def _cut_patches(told: AnyArray, bins: int, starts: Int64Array) -> AnyArray:
    """What is told (B, 4, 32, ...) of the patches (Q, 4 n, ...) of crops that begin at these bins, crop
    by crop as ``_cut_views``.
    """
    crops = np.unique(starts)
    cut = np.concatenate([told[:, :, start : start + bins] for start in crops])
    return np.ascontiguousarray(cut.reshape(len(cut), -1, *told.shape[3:]))


def _shown_patches(seen: BoolArray, bins: int) -> BoolArray:
    """Which patches (Q, 4 n) of views (Q, h, w) a photo's frame shows at least half of."""
    rows = np.stack([part.mean(axis=1) for part in np.array_split(seen, 4, axis=1)], axis=1)
    patches = rows.reshape(len(seen), 4, bins, -1).mean(axis=3)
    return np.asarray(patches >= 0.5).reshape(len(seen), -1)


def _told(
    content: Float32Array,
    transient: UInt8Array,
    seen: BoolArray,
    bins: int,
    starts: Int64Array,
) -> tuple[Float32Array, UInt8Array]:
    """What crops tell of their patches, from what the canvases tell of theirs (``_patches``): nothing of
    those that a photo's frame hides.
    """
    shown = _shown_patches(seen, bins)
    cut = _cut_patches(content, bins, starts)
    told = np.where(shown[..., None], cut, np.float32(np.nan)).astype(np.float32)
    return told, np.asarray(shown * _cut_patches(transient, bins, starts), np.uint8)


def _exchanged(views: UInt8Array, share: float, random: Generator) -> UInt8Array:
    """The views, about ``share`` of them each in the place of another."""
    wrong = np.flatnonzero(random.random(len(views)) < share)
    views = views.copy()
    views[wrong] = views[np.roll(wrong, 1)]
    return views


def _turns(first: Float64Array, tiles: int, error: float, random: Generator) -> Float64Array:
    """By how many bins the polar views of tiles (R,) are turned: those of the B places by what the first
    bins (B,) of their canvases lack to whole bins, give or take an error; others anyhow.
    """
    own = first - np.rint(first) + random.uniform(-error, error, len(first))
    return np.concatenate([own, random.uniform(-0.5, 0.5, tiles - len(first))])


def _photographed(
    views: UInt8Array, bins: int, share: float, random: Generator
) -> tuple[UInt8Array, BoolArray]:
    """The views, a share of the narrow ones as a photo in the hand shows them: tilted a little, in its
    frame, which is as wide as the whole bins it is laid on but for half of one; and what is seen of each.
    """
    seen = np.ones(views.shape[:3], np.bool_)
    if bins > 12:
        return views, seen
    views, step_deg = views.copy(), 360.0 / BINS
    for index in np.flatnonzero(random.random(len(views)) < share):
        aspect = random.choice(ASPECTS)
        fov_deg = (bins + random.uniform(-0.5, 0.5)) * step_deg
        pitch_deg, roll_deg = random.normal(0.0, (TILT_DEG, TILT_DEG / 2))
        views[index] = tilted(views[index], bins * step_deg, pitch_deg, roll_deg)
        seen[index] = photo_mask(
            views.shape[1], views.shape[2], bins * step_deg, fov_deg, float(aspect)
        )
    return views, seen


def sample_batch(
    town: Town,
    config: SamplingConfig,
    tile_pixels: int,
    random: Generator,
    confusing: Float64Array | None = None,
) -> Batch:
    """Draw one batch from one town. See the module's text; ``confusing``: (N, count, 2), see
    ``SamplingConfig.elsewhere``.
    """
    bins_of, weights = zip(*config.widths, strict=True)
    bins = int(random.choice(bins_of, p=np.asarray(weights) / sum(weights)))
    chosen = _choose_places(town, config, random)
    places, heading = town.places[chosen], town.heading_deg[chosen]
    taken_for = None if confusing is None else confusing[chosen]
    centres = _centres(town, places, config, random, taken_for)
    tiles = town.crop_tiles(centres, tile_pixels)

    canvases, shift = _shifted(town, chosen, random)
    width = canvases.shape[2]
    heading = heading - shift * 360.0 / width
    told = None
    if town.truth is not None:
        turned = shift * BINS // width
        told = _patches(town.truth, chosen, turned, centres[: len(chosen)])
    if config.mirror and random.random() < 0.5:
        canvases, tiles, heading = canvases[:, :, ::-1], tiles[:, :, ::-1], -heading
        if told is not None:
            told = told[0][:, :, ::-1] * np.array([-1, 1], np.float32), told[1][:, :, ::-1]

    views, starts = _cut_views(canvases, bins, config.every_crop)
    views, seen = _photographed(views, bins, config.photo_share, random)
    crops = len(views) // len(chosen)
    # The first bin of the full canvas lies half a turn left of its heading.
    first = (np.tile(heading, crops) - 180.0 + 180.0) * BINS / 360.0 + starts
    ignored = np.linalg.norm(places[:, None] - centres[None], axis=2) < config.also_true_m
    np.fill_diagonal(ignored, False)
    true_columns = np.tile(np.arange(len(chosen)), crops)
    turns = None
    if config.turn_error is not None:
        turns = _turns(first[: len(chosen)], len(centres), config.turn_error, random)
        first = first - turns[true_columns]
    if config.noise:
        views = _exchanged(views, config.noise, random)
    content, transient = (None, None) if told is None else _told(*told, seen, bins, starts)
    if content is not None and turns is not None:
        content = rotated_back(content, turns[true_columns]).astype(np.float32)
    return Batch(
        views=np.ascontiguousarray(views),
        seen=seen,
        tiles=np.ascontiguousarray(tiles),
        true_columns=true_columns,
        true_shifts=(first % BINS).astype(np.float32),
        ignored=np.tile(ignored, (crops, 1)),
        content=content,
        transient=transient,
        turns=None if turns is None else turns.astype(np.float32),
        centres=centres.astype(np.float32),
        places=np.tile(places, (crops, 1)).astype(np.float32),
    )


def to_model_views(
    batch: Batch,
    ground_size: tuple[int, int],
    aerial_size: tuple[int, int],
    generator: torch.Generator,
    device: str = "cpu",
    strength: float = 0.2,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """Views (Q, 3, h, w) and tiles (R, 3, S, S) in [0, 1] at the model's sizes, light changed.

    ``whole``: views in the middle of full canvases (Q, 3, H, W), for a global model.
    """
    if batch.is_ready:
        tile_size = (batch.tiles.shape[1], batch.tiles.shape[2])  # a tile's, or a polar view's
        return to_batch(batch.views, ground_size, device), to_batch(batch.tiles, tile_size, device)
    views = to_batch(batch.views, view_size(batch.views[0], ground_size), device)
    tiles = to_batch(batch.tiles, aerial_size, device)
    views = soften(change_light(views, strength, generator), 0.25, generator)
    tiles = soften(change_light(tiles, strength, generator), 0.25, generator)
    seen = torch.from_numpy(batch.seen).to(device)[:, None].float()
    if seen.shape[-2:] != views.shape[-2:]:
        seen = F.interpolate(seen, size=views.shape[-2:], mode="nearest")
    views = views * seen + (UNSEEN / 255) * (1 - seen)
    return fill_canvas(views, ground_size[1]) if whole else views, tiles
