"""Batches on a town whose every pixel says where it is, so that wrong crops and signs show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.data.transforms import change_light, photo_mask, soften, tilted
from core.evaluation.descriptors import town_grid
from core.evaluation.queries import crop_queries
from core.polar import BINS
from core.research.batches import NoisyBatches
from core.training.sampling import SamplingConfig, TownBatches, sample_batch, to_model_views
from tests.towns import WIDTH, telling_town, with_truth


def azimuth_shown(view: np.ndarray) -> np.ndarray:
    return view[0, :, 0].astype(float) / 255 * 360


@pytest.mark.parametrize("bins", [32, 8, 5])
@pytest.mark.parametrize("mirror", [False, True])
def test_true_shifts_say_where_the_first_bin_looks(bins: int, mirror: bool) -> None:
    town = telling_town()
    config = SamplingConfig(batch=12, widths=((bins, 1.0),), mirror=mirror)
    for seed in range(6):
        batch = sample_batch(town, config, 128, np.random.default_rng(seed))
        assert len(batch.views) == 12 * (BINS // bins)
        column = WIDTH // BINS
        flipped = batch.tiles[0][0, 0, 0] > batch.tiles[0][0, -1, 0]  # red falls to the east
        assert mirror or not flipped
        for view, azimuth_shift in zip(batch.views, batch.true_shifts, strict=True):
            middle = azimuth_shown(view)[column // 2 : column // 2 + 1].mean()
            shown = -middle if flipped else middle
            expected = -180 + (azimuth_shift + 0.5) * 360 / BINS
            assert abs((shown - expected + 180) % 360 - 180) < 3


@pytest.mark.parametrize("bins", [32, 5])
@pytest.mark.parametrize("mirror", [False, True])
def test_rotated_tiles_lie_under_their_views(bins: int, mirror: bool) -> None:
    """Column by column the polar view shows what lies where its canvas looks, to within the error."""
    town = telling_town()
    config = SamplingConfig(
        batch=6, widths=((bins, 1.0),), mirror=mirror, offset_m=0.0, rotation_error=0.1
    )
    whole = replace(config, rotation_error=None)
    for seed in range(6):
        batch = sample_batch(town, config, 128, np.random.default_rng(seed))
        off = batch.true_shifts - np.rint(batch.true_shifts)
        assert np.abs(off).max() <= 0.1 + 1e-5
        assert batch.residual_rotations is not None
        assert np.abs(batch.residual_rotations).max() <= 0.6
        north_up = sample_batch(town, whole, 128, np.random.default_rng(seed)).true_shifts
        expected = north_up - batch.residual_rotations[batch.true_columns]
        apart = (batch.true_shifts - expected + BINS / 2) % BINS - BINS / 2
        np.testing.assert_allclose(apart, 0, atol=1e-4)


@pytest.mark.parametrize("rotation_error", [None, 0.2])
@pytest.mark.parametrize("every_crop", [False, True])
@pytest.mark.parametrize("bins", [32, 8, 5])
def test_content_lies_where_its_patch_looks(
    bins: int, every_crop: bool, rotation_error: float | None
) -> None:
    """East and north, relative to a tile that may be rotated."""
    town = with_truth(telling_town())
    config = SamplingConfig(
        batch=9,
        widths=((bins, 1.0),),
        offset_m=0.0,
        every_crop=every_crop,
        photo_share=0.0,
        rotation_error=rotation_error,
    )
    flips = set()
    for seed in range(6):
        batch = sample_batch(town, config, 128, np.random.default_rng(seed))
        assert batch.content is not None
        content = batch.content.reshape(len(batch.views), 4, bins, 2)
        assert np.isnan(content[:, 3]).all()
        assert np.linalg.norm(content[:, :3], axis=-1) == pytest.approx(20, abs=1e-3)
        flipped = batch.tiles[0][0, 0, 0] > batch.tiles[0][0, -1, 0]
        flips.add(bool(flipped))
        turned = batch.residual_rotations
        rotations = np.zeros(len(batch.tiles)) if turned is None else turned
        for view, places, own in zip(batch.views, content, batch.true_columns, strict=True):
            shown = azimuth_shown(view).reshape(bins, -1)[:, WIDTH // BINS // 2]
            bearing = np.degrees(np.arctan2(places[0, :, 0], places[0, :, 1]))
            expected = (-shown if flipped else shown) - rotations[own] * 360 / BINS
            assert np.abs((bearing - expected + 180) % 360 - 180).max() < 3
    assert flips == {False, True}


@pytest.mark.parametrize("bins", [32, 8])
def test_vehicles_turn_and_are_cut_with_the_views(bins: int) -> None:
    """Each camera's own patch of its lowest row shows a vehicle: the one that looks north."""
    town = with_truth(telling_town())
    kinds = town.truth.class_id.copy()
    column = (np.arange(BINS) + 0.5) / BINS * 360 - 180
    north = np.abs((town.heading_deg[:, None] + column + 180) % 360 - 180).argmin(axis=1)
    kinds[np.arange(len(kinds)), 3, north] = 2
    truth = replace(town.truth, class_id=kinds, class_names=("sky", "wall", "vehicle"))
    config = SamplingConfig(batch=9, widths=((bins, 1.0),), offset_m=0.0, photo_share=0.0)
    for step in range(4):
        batch = sample_batch(replace(town, truth=truth), config, 128, np.random.default_rng(step))
        assert (batch.transient == 1).sum() == 9
        transient = (batch.transient == 1).reshape(-1, 4, bins)
        assert not transient[:, :3].any()
        for view, shown in zip(batch.views, transient[:, 3], strict=True):
            azimuth = azimuth_shown(view).reshape(bins, -1)[:, WIDTH // BINS // 2]
            assert np.abs((azimuth[shown] + 180) % 360 - 180).max(initial=0) <= 360 / BINS / 2 + 3


def test_a_photo_gives_no_content_of_what_it_does_not_show() -> None:
    town = with_truth(telling_town())
    kinds = np.full_like(town.truth.class_id, 2)
    truth = replace(town.truth, class_id=kinds, class_names=("sky", "wall", "vehicle"))
    config = SamplingConfig(batch=9, widths=((8, 1.0),), photo_share=1.0)
    batch = sample_batch(replace(town, truth=truth), config, 128, np.random.default_rng(1))
    shares = batch.seen.reshape(len(batch.seen), 4, 16, 8, 8).mean(axis=(2, 4)).reshape(-1, 32)
    assert 0.1 < (shares < 0.5).mean() < 0.9
    np.testing.assert_array_equal(batch.transient == 1, shares >= 0.5)
    assert np.isnan(batch.content[shares < 0.5]).all()
    lowest = np.arange(32) >= 24  # sky, in this town
    assert not np.isnan(batch.content[(shares >= 0.5) & ~lowest]).any()


def test_content_is_relative_to_the_tile_and_not_to_the_camera() -> None:
    town = with_truth(telling_town())
    config = SamplingConfig(
        batch=12, widths=((32, 1.0),), offset_m=9.0, mirror=False, extra_negatives=0.0
    )
    batch = sample_batch(town, config, 128, np.random.default_rng(1))
    assert batch.content is not None
    # All around the camera: the mean of the content is the camera's own place beside the tile's centre.
    camera = batch.content.reshape(12, 4, 32, 2)[:, 0].mean(axis=1)
    assert 1 < np.abs(camera).max() <= 9.0 + 1e-3
    middle = batch.tiles[:, 60:68, 60:68, :2].astype(float).mean(axis=(1, 2)) / 255
    absolute = (middle - 0.5) * town.size_m + camera
    apart = np.linalg.norm(absolute[:, None] - town.places[None], axis=2).min(axis=1)
    assert apart.max() < 2.5  # colours are that coarse


def test_towns_without_truth_give_batches_without_content() -> None:
    batch = sample_batch(telling_town(), SamplingConfig(batch=4), 128, np.random.default_rng(0))
    assert batch.content is None


def test_tiles_lie_around_their_queries_and_semi_positives_are_masked() -> None:
    town = telling_town()
    config = SamplingConfig(
        batch=30, widths=((16, 1.0),), mirror=False, also_true_m=60, extra_negatives=0.0
    )
    batch = sample_batch(town, config, 128, np.random.default_rng(3))
    centre = batch.tiles[:, 60:68, 60:68, :2].astype(float).mean(axis=(1, 2)) / 255
    places = (centre - 0.5) * town.size_m
    assert batch.ignored.shape == (60, 30)
    assert batch.ignored.any()
    assert not batch.ignored[np.arange(60), batch.true_columns].any()
    assert (batch.true_columns == np.tile(np.arange(30), 2)).all()
    assert len(np.unique(places.round(1), axis=0)) > 20


def test_same_seed_and_step_give_the_same_batch() -> None:
    town = telling_town()
    first, second = (
        sample_batch(town, SamplingConfig(batch=8), 128, np.random.default_rng((5, 7)))
        for _ in range(2)
    )
    assert (first.views == second.views).all()
    assert (first.true_shifts == second.true_shifts).all()


def test_crops_of_a_town_are_cut_to_its_border() -> None:
    town = telling_town()
    tiles = town.crop_tiles(np.array([[1e6, 0.0], [0.0, -1e6], [0.0, 0.0]]), 128)
    assert tiles.shape == (3, 128, 128, 3)
    assert tiles[0, 64, -1, 0] >= 254
    assert tiles[1, -1, 64, 1] <= 1
    assert abs(int(tiles[2, 64, 64, 0]) - 127) <= 1


def test_grid_of_the_demo_size_has_5929_places() -> None:
    town = telling_town(1536.0, 2)
    grid = town_grid(town)
    assert grid.shape == (77 * 77, 2)
    assert grid[0].tolist() == pytest.approx([-729.6, 729.6])


@pytest.mark.parametrize("bins", [32, 10, 6])
def test_queries_look_where_they_say(bins: int) -> None:
    queries = crop_queries(telling_town(), bins, 20, seed=1)
    for view, heading in zip(queries.views, queries.heading_deg, strict=True):
        middle = np.radians(azimuth_shown(view))
        span = view.shape[1] // 2
        seen = np.degrees(np.angle(np.exp(1j * middle[span - 1 : span + 1]).mean()))
        assert abs((seen - heading + 180) % 360 - 180) < 3


def test_photo_mask_is_the_frame_of_a_pinhole() -> None:
    """At the centre column a 90 degree, 4:3 photo reaches atan(0.75) = 36.87 degrees up and down."""
    mask = photo_mask(900, 91, 90.0, 90.0, 0.75)
    reach = np.degrees(np.arctan(0.75))
    assert mask[:, 45].sum() == pytest.approx(2 * reach * 10, abs=2)
    edge = np.degrees(np.arctan(0.75 * np.cos(np.radians(44.5))))
    assert mask[:, 0].sum() == pytest.approx(2 * edge * 10, abs=3)
    narrower = photo_mask(900, 90, 90.0, 86.0, 0.75)
    assert not narrower[:, [0, 1, -2, -1]].any()
    assert narrower[450, 2:-2].all()


def test_a_tilted_canvas_is_what_a_tilted_camera_takes_for_level() -> None:
    """Against the exact rotation of the pinhole's rays, where a row is a tenth of a degree."""
    rows = np.arange(900, dtype=np.uint16)
    canvas = np.stack([rows // 256, rows % 256, 0 * rows], axis=1).astype(np.uint8)
    canvas = np.broadcast_to(canvas[:, None], (900, 90, 3))
    pitch, azimuth_shift = np.radians([4.0, 3.0])
    got = tilted(canvas, 90.0, 4.0, 3.0)
    found = 45 - (got[..., 0] * 256.0 + got[..., 1] + 0.5) / 10
    azimuth, elevation = np.meshgrid(
        np.radians(np.arange(90) + 0.5 - 45), np.radians(45 - (np.arange(900) + 0.5) / 10)
    )
    right, up, ahead = (
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
        np.cos(elevation) * np.cos(azimuth),
    )
    # Right side down: what is on the right of the picture lies lower; then lifted.
    up, right = (
        up * np.cos(azimuth_shift) - right * np.sin(azimuth_shift),
        right * np.cos(azimuth_shift) + up * np.sin(azimuth_shift),
    )
    up = up * np.cos(pitch) + ahead * np.sin(pitch)
    seen = np.degrees(np.arcsin(up))
    middle = (np.abs(np.degrees(elevation)) < 35) & (np.abs(seen) < 40)
    assert np.abs(found - seen)[middle].mean() < 0.2
    assert np.abs(found - seen)[middle].max() < 0.6  # of 4 to 5 degrees


def test_light_changes_each_image_alone_and_repeats_with_its_seed() -> None:
    images = torch.rand(4, 3, 8, 8)
    first, second = (change_light(images, 0.3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first - images).abs().amax(dim=(1, 2, 3)).min() > 0
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.allclose(change_light(images, 0.0, torch.Generator()), images, atol=1e-6)


def test_softening_keeps_a_flat_image() -> None:
    flat = torch.full((3, 3, 6, 6), 0.4)
    assert torch.allclose(soften(flat, 1.0, torch.Generator()), flat, atol=1e-6)


def test_views_outside_a_photo_frame_are_mid_grey() -> None:
    config = SamplingConfig(batch=6, widths=((8, 1.0),), photo_share=1.0, extra_negatives=0.5)
    batch = sample_batch(telling_town(), config, 128, np.random.default_rng(0))
    assert not batch.seen.all()
    views, tiles = to_model_views(batch, (64, 256), (128, 128), torch.Generator().manual_seed(0))
    hidden = ~torch.from_numpy(batch.seen)
    assert torch.allclose(views.permute(0, 2, 3, 1)[hidden], torch.tensor(127 / 255))
    assert views.shape == (24, 3, 64, 64)
    assert tiles.shape == (9, 3, 128, 128)


@pytest.mark.parametrize("local_share", [0.0, 1.0])
def test_other_tiles_are_negatives_from_all_around_the_batch(local_share: float) -> None:
    town = telling_town()
    config = SamplingConfig(
        batch=6,
        widths=((8, 1.0),),
        mirror=False,
        every_crop=False,
        extra_negatives=20.0,
        local_share=local_share,
        also_true_m=60.0,
    )
    batch = sample_batch(town, config, 128, np.random.default_rng(1))
    assert len(batch.tiles) == 6 + 120
    assert batch.ignored.shape == (6, 126)
    assert batch.true_columns.tolist() == list(range(6))
    middle = batch.tiles[:, 60:68, 60:68, :2].astype(float).mean(axis=(1, 2)) / 255
    points = (middle - 0.5) * town.size_m
    own, others = points[:6], points[6:]
    slack = config.offset_m + 3.0  # of the own tiles' offsets, and colours are that coarse
    low, high = own.min(axis=0), own.max(axis=0)
    assert ((others >= low - slack) & (others <= high + slack)).all()
    # From all of the box: each of its quarters has its share.
    quarter = ((others > (low + high) / 2) * [1, 2]).sum(axis=1)
    assert np.bincount(quarter, minlength=4).min() > 15
    apart = np.linalg.norm(own[:, None] - others[None], axis=2)
    assert batch.ignored[:, 6:][apart < 60 - slack].all()
    assert not batch.ignored[:, 6:][apart > 60 + slack].any()


def test_wrong_labels_exchange_views_and_leave_the_labels() -> None:
    town = telling_town()
    config = SamplingConfig(batch=30, widths=((8, 1.0),), every_crop=False, mirror=False)
    right = TownBatches([town], config, 128, 4).batch(0)
    wrong = NoisyBatches([town], config, 128, 4, noise=0.3).batch(0)
    np.testing.assert_array_equal(wrong.true_columns, right.true_columns)
    np.testing.assert_array_equal(wrong.true_shifts, right.true_shifts)
    np.testing.assert_array_equal(wrong.tiles, right.tiles)
    camera = [int(view[0, 0, 2]) for view in right.views]
    shown = [int(view[0, 0, 2]) for view in wrong.views]
    assert sorted(shown) == sorted(camera)
    assert 4 <= sum(one != other for one, other in zip(camera, shown, strict=True)) <= 14
    none = NoisyBatches([town], config, 128, 4, noise=0.0).batch(0)
    np.testing.assert_array_equal(none.views, right.views)
