"""Batches of one town: views cut from panoramas, tiles around their places, changes of light.

A batch is a function of (seed, step) alone, so a resumed run sees the batches of the uninterrupted
one. Views are crops of whole azimuth bins. All views of a batch are from one town. A tile that also
covers the place of a query is masked. Tiles are offset from the cameras as a gallery's viewpoints are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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

__all__ = [
    "TRANSIENT",
    "Batch",
    "SamplingConfig",
    "TownBatches",
    "Widths",
    "sample_batch",
    "to_model_views",
]

TRANSIENT = ("vehicle", "sky")
"""Classes of a world that say nothing about a place: a tile shows other vehicles and no sky."""
ASPECTS = (0.5625, 0.667, 0.75, 0.75, 1.0, 1.333)
"""Height over width of photos: 16:9, 3:2, 4:3, square, and 4:3 upright."""
TILT_DEG = 2.5
"""Standard deviation of the pitch of a photo in the hand, twice that of its roll."""
Generator = np.random.Generator
Widths = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SamplingConfig:
    """How batches of towns are drawn.

    ``batch``: places of a batch. ``widths``: widths of views in bins, each with its weight; a step
    has one width. ``offset_m``: largest distance of a tile's centre from the camera, on either axis;
    half the distance of two viewpoints of a gallery (``core.gallery.viewpoints``) and a little more.
    ``also_true_m``: a tile nearer to the camera than this also covers it and is no negative.
    ``local_share``: share of the batches whose places are neighbours, which makes hard negatives.

    ``extra_negatives``: number of additional tiles per place, from anywhere in the box around the
    batch's places, or from its hard negatives (``core.training.mining``). A gallery covers yards,
    roofs and fields, where no camera stands. ``photo_share``: share of the views up to 12 bins wide
    that are tilted a little and masked to the frame of a perspective photo. ``every_crop``: each
    panorama gives all its crops of the step's width; otherwise one. ``mirror``: mirror half of the
    batches.

    ``rotation_error``: for a teacher's branches: each tile's polar view is rotated until its bins lie
    under those of the view, up to this error in bins, as in re-ranking. None: all tiles are north up,
    as in a gallery. ``remembered``: number of tiles of earlier steps that are negatives too
    (``core.training.memory``), for a student with azimuth bins.
    """

    batch: int = 80
    widths: Widths = (
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
    extra_negatives: float = 0.75
    photo_share: float = 0.5
    every_crop: bool = True
    mirror: bool = True
    rotation_error: float | None = None
    remembered: int = 1024


@dataclass(frozen=True)
class Batch:
    """One training batch, still as bytes: Q views of n bins, R tiles.

    ``views``: uint8 (Q, h, w, 3), crops of n whole bins. ``seen``: bool (Q, h, w), False outside a
    photo's frame. ``tiles``: uint8 (R, S, S, 3). ``true_columns``: (Q,), the tile of each view.
    ``true_shifts``: (Q,), azimuth shifts in bins. ``ignored``: bool (Q, R), semi-positives.
    ``is_ready``: the pictures have the model's sizes and stay unchanged (benchmarks); otherwise they
    are resized and their light is changed.

    ``content``: float32 (Q, 4 n, 2), where the content of each patch of a view lies, in metres east
    and north of the centre of its tile, which may be rotated; NaN for sky and outside a photo's
    frame. ``transient``: uint8 (Q, 4 n), the kind of ``TRANSIENT`` that a patch shows, from 1 on, or
    0. Both are None for a town without truth. ``residual_rotations``: float32 (R,), rotations of the
    tiles' polar views in bins; None for north up.

    Of towns only: ``town``, its number; ``centres``: float32 (R, 2) of the tiles, in metres east and
    north; ``places``: float32 (Q, 2) of the cameras.
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
    residual_rotations: Float32Array | None = None
    town: int | None = None
    centres: Float32Array | None = None
    places: Float32Array | None = None


class TownBatches:
    """Batches of towns, one town per batch, as ``core.training.loop`` takes them in.

    ``tile_pixels``: side of a tile in pixels. ``hard_negatives``: for each town points (N, count, 2)
    around which the extra negatives of each camera lie; without them these lie anywhere.

    Raises:
        DataError: no towns.

    """

    def __init__(
        self,
        towns: Sequence[Town],
        config: SamplingConfig,
        tile_pixels: int,
        seed: int,
        hard_negatives: Sequence[Float64Array] = (),
    ) -> None:
        if not towns:
            raise DataError(
                "Training: got no towns, expected at least one. Build some: make worlds"
            )
        self.towns, self.config = towns, config
        self.tile_pixels, self.seed = tile_pixels, seed
        self.hard_negatives = hard_negatives

    def batch(self, step: int) -> Batch:
        """The batch of one step, whenever it is called."""
        return self._drawn(np.random.default_rng((self.seed, step)))

    def _drawn(self, random: Generator) -> Batch:
        chosen = int(random.integers(len(self.towns)))
        hard = self.hard_negatives[chosen] if self.hard_negatives else None
        batch = sample_batch(self.towns[chosen], self.config, self.tile_pixels, random, hard)
        return replace(batch, town=chosen)

    def identity(self) -> dict[str, Any]:
        """The towns and how batches are drawn from them."""
        return {"towns": [town.name for town in self.towns], "sampling": asdict(self.config)}

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


def _extra_centres(
    places: Float64Array, each: float, random: Generator, hard: Float64Array | None
) -> Float64Array:
    """Centres (n, 2) of extra negatives, ``each`` of them per place (B, 2).

    They are drawn from the hard negatives (B, C, 2), or evenly from the box around all places.
    """
    count = round(each * len(places))
    if hard is None:
        return random.uniform(places.min(axis=0), places.max(axis=0), (count, 2))
    flat = hard.reshape(-1, 2)
    return flat[random.choice(len(flat), min(count, len(flat)), replace=False)]


def _centres(
    town: Town,
    places: Float64Array,
    config: SamplingConfig,
    random: Generator,
    hard: Float64Array | None,
) -> Float64Array:
    """Centres (R, 2) of tiles: one near each of the places (B, 2), then the extra negatives."""
    own = places + random.uniform(-config.offset_m, config.offset_m, places.shape)
    centres = np.concatenate([own, _extra_centres(places, config.extra_negatives, random, hard)])
    return np.clip(centres, -town.half_extent_m, town.half_extent_m)


def _shifted(town: Town, chosen: Int64Array, random: Generator) -> tuple[UInt8Array, Int64Array]:
    """Canvases of cameras (B,), each moved right by so many columns (B,)."""
    canvases = town.panoramas[chosen]
    width = canvases.shape[2]
    # With truth the shift is by whole bins, so that patches stay whole.
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
    """Content and transient kinds of the patches of canvases that were shifted by whole bins.

    Content: (B, 4, 32, 2), metres from the centre of each canvas's own tile. Kinds: (B, 4, 32).
    """
    columns = ((np.arange(BINS) - shift[:, None]) % BINS)[:, None]
    places = np.take_along_axis(truth.places[chosen], columns[..., None], axis=2)
    kinds = np.take_along_axis(truth.class_id[chosen], columns, axis=2)
    number = {name: kind for kind, name in enumerate(TRANSIENT, start=1)}
    transient = np.array([number.get(name, 0) for name in truth.class_names], np.uint8)
    content = (places - centres[:, None, None]).astype(np.float32)
    return content, transient[kinds]


def _cut_patches(patches: AnyArray, bins: int, starts: Int64Array) -> AnyArray:
    """Values (Q, 4 n, ...) of crops that begin at these bins, from values (B, 4, 32, ...) of canvases.

    Crop by crop, in the order of ``_cut_views``.
    """
    crops = np.unique(starts)
    cut = np.concatenate([patches[:, :, start : start + bins] for start in crops])
    return np.ascontiguousarray(cut.reshape(len(cut), -1, *patches.shape[3:]))


def _shown_patches(seen: BoolArray, bins: int) -> BoolArray:
    """Which patches (Q, 4 n) of views (Q, h, w) a photo's frame shows at least half of."""
    rows = np.stack([part.mean(axis=1) for part in np.array_split(seen, 4, axis=1)], axis=1)
    patches = rows.reshape(len(seen), 4, bins, -1).mean(axis=3)
    return np.asarray(patches >= 0.5).reshape(len(seen), -1)


def _crop_patches(
    content: Float32Array,
    transient: UInt8Array,
    seen: BoolArray,
    bins: int,
    starts: Int64Array,
) -> tuple[Float32Array, UInt8Array]:
    """``_patches`` of canvases, cut to their crops: NaN and 0 where a photo's frame hides a patch."""
    shown = _shown_patches(seen, bins)
    cut = _cut_patches(content, bins, starts)
    visible = np.where(shown[..., None], cut, np.float32(np.nan)).astype(np.float32)
    return visible, np.asarray(shown * _cut_patches(transient, bins, starts), np.uint8)


def _residual_rotations(
    first: Float64Array, tiles: int, error: float, random: Generator
) -> Float64Array:
    """Rotations (R,) in bins of the tiles' polar views.

    The tiles of the B places are rotated by what the first bins (B,) of their canvases lack to whole
    bins, up to an error; the other tiles at random.
    """
    own = first - np.rint(first) + random.uniform(-error, error, len(first))
    return np.concatenate([own, random.uniform(-0.5, 0.5, tiles - len(first))])


def _photographed(
    views: UInt8Array, bins: int, share: float, random: Generator
) -> tuple[UInt8Array, BoolArray]:
    """Turn a share of the narrow views into hand-held photos; returns views and what is seen of each.

    Such a photo is tilted a little and masked to its frame, whose width differs from the whole bins
    by up to half a bin.
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
    hard_negatives: Float64Array | None = None,
) -> Batch:
    """Draw one batch from one town; ``hard_negatives``: (N, count, 2), see ``TownBatches``."""
    bins_of, weights = zip(*config.widths, strict=True)
    bins = int(random.choice(bins_of, p=np.asarray(weights) / sum(weights)))
    chosen = _choose_places(town, config, random)
    places, heading = town.places[chosen], town.heading_deg[chosen]
    hard = None if hard_negatives is None else hard_negatives[chosen]
    centres = _centres(town, places, config, random, hard)
    tiles = town.crop_tiles(centres, tile_pixels)

    canvases, shift = _shifted(town, chosen, random)
    width = canvases.shape[2]
    heading = heading - shift * 360.0 / width
    patches = None
    if town.truth is not None:
        patches = _patches(town.truth, chosen, shift * BINS // width, centres[: len(chosen)])
    if config.mirror and random.random() < 0.5:
        canvases, tiles, heading = canvases[:, :, ::-1], tiles[:, :, ::-1], -heading
        if patches is not None:
            east_flipped = patches[0][:, :, ::-1] * np.array([-1, 1], np.float32)
            patches = east_flipped, patches[1][:, :, ::-1]

    views, starts = _cut_views(canvases, bins, config.every_crop)
    views, seen = _photographed(views, bins, config.photo_share, random)
    crops = len(views) // len(chosen)
    # The first bin of the full canvas lies half a turn left of its heading.
    first = (np.tile(heading, crops) - 180.0 + 180.0) * BINS / 360.0 + starts
    ignored = np.linalg.norm(places[:, None] - centres[None], axis=2) < config.also_true_m
    np.fill_diagonal(ignored, False)
    true_columns = np.tile(np.arange(len(chosen)), crops)
    rotations = None
    if config.rotation_error is not None:
        own = first[: len(chosen)]
        rotations = _residual_rotations(own, len(centres), config.rotation_error, random)
        first = first - rotations[true_columns]
    content, transient = (
        (None, None) if patches is None else _crop_patches(*patches, seen, bins, starts)
    )
    if content is not None and rotations is not None:
        content = rotated_back(content, rotations[true_columns]).astype(np.float32)
    return Batch(
        views=np.ascontiguousarray(views),
        seen=seen,
        tiles=np.ascontiguousarray(tiles),
        true_columns=true_columns,
        true_shifts=(first % BINS).astype(np.float32),
        ignored=np.tile(ignored, (crops, 1)),
        content=content,
        transient=transient,
        residual_rotations=None if rotations is None else rotations.astype(np.float32),
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
        tile_size = (batch.tiles.shape[1], batch.tiles.shape[2])  # of a tile, or of a polar view
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
