"""Measured explanations: answers made by hand, a teacher that repeats geometry, damaged truth."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.checkpoints import save_model
from core.cli import main
from core.data.worlds import TILE_SIDE_M, PatchTruth, Town, load_town, load_truth
from core.errors import SettingError, WorldError
from core.evaluation import explained_town
from core.evaluation.answers import DescribedTown
from core.evaluation.descriptors import town_grid
from core.evaluation.explained_town import explain_town
from core.evaluation.explanations import (
    GROUPS,
    Looks,
    class_metrics,
    expected_error,
    group_of,
    heading_metrics,
    pointing_metrics,
    strongest_error,
)
from core.evaluation.queries import crop_queries
from core.evaluation.towns import TownReferences
from core.localization.answer import Models
from core.localization.ranking import Ranking
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import BIN_DEG, BINS, RINGS
from core.results.explanations import explanation_section
from core.results.pages import END, START, write_results
from core.results.reading import parse_report
from core.results.reports import ExplanationReport
from tests.conftest import TWO_BRANCH
from tests.towns import NAMES, SECTORS, ideal_truth, write_truth

ONE_ROW = {
    "queries": 1, "gallery": 1, "fov_deg": 360.0, "view": "crop", "heading": "known",
    "radius_m": None, "reranked": False, "within_25_m": 1.0, "chance_25_m": 0.1,
}  # fmt: skip


def looks_at(sector: np.ndarray, azimuth_shift: int = 0) -> Looks:
    """Photos whose patches attend to one sector each, (Q, N), and show its very centre."""
    attention = np.eye(RINGS * BINS)[sector]
    columns = sector.shape[1] // RINGS
    azimuth = (azimuth_shift + np.arange(columns) + 0.5) * BIN_DEG - 180
    return Looks(
        attention=attention,
        wrong_tile=np.full_like(attention, 1 / 128),
        phi=np.full(sector.shape, 1 / sector.shape[1]),
        groups=np.ones(sector.shape, dtype=np.int64),
        offsets_m=SECTORS[sector],
        azimuth_deg=np.tile(azimuth, (len(sector), 1)),
    )


def some_looks(seed: int = 0, count: int = 3, columns: int = 4) -> Looks:
    """Anything: soft attention and content anywhere, some of it beyond the tile, some of it sky."""
    random = np.random.default_rng(seed)
    patches = RINGS * columns
    attention = random.dirichlet(np.ones(128) * 0.1, (2, count, patches))
    offsets = random.uniform(-45, 45, (count, patches, 2))
    offsets[:, :2] = np.nan
    return Looks(
        *attention,
        phi=random.dirichlet(np.ones(patches), count),
        groups=random.integers(0, len(GROUPS), (count, patches)),
        offsets_m=offsets,
        azimuth_deg=np.tile(np.arange(columns) * BIN_DEG, (count, 1)),
    )


def by_guess(looks: Looks) -> dict[str, dict[str, float]]:
    return {str(row["guess"]): row for row in pointing_metrics(looks, TILE_SIDE_M)}  # type: ignore[misc]


def test_attention_on_the_truth_errs_by_nothing() -> None:
    metrics = by_guess(looks_at(np.arange(128).reshape(2, 64)))
    for guess in ("attention", "strongest sector", "nearest sector", "sector drawn by attention"):
        assert metrics[guess]["median_m"] == pytest.approx(0, abs=1e-9)
        assert metrics[guess]["mean_m"] == pytest.approx(0, abs=1e-9)
    assert metrics["tile's centre"]["mean_m"] == pytest.approx(TILE_SIDE_M / 4)


def test_even_attention_is_the_uniform_baseline_and_points_at_the_centre() -> None:
    looks = some_looks()
    even = replace(looks, attention=np.full_like(looks.attention, 1 / 128))
    metrics = by_guess(even)
    for key in ("median_m", "mean_m", "standard_error_m"):
        assert metrics["attention"][key] == pytest.approx(metrics["uniform attention"][key])
        assert metrics["attention"][key] == pytest.approx(metrics["tile's centre"][key], abs=1e-5)
        drawn = metrics["sector drawn by attention"][key]
        assert drawn == pytest.approx(metrics["sector drawn evenly"][key])


def test_equally_strong_sectors_count_against_attention() -> None:
    truth = SECTORS[[5]]
    farthest = np.linalg.norm(SECTORS - truth, axis=1).max()
    even = np.full((1, 128), 1 / 128)
    assert strongest_error(even, truth, TILE_SIDE_M)[0] == pytest.approx(farthest)


def test_errors_agree_with_the_slow_loop() -> None:
    looks = some_looks(seed=1)
    fast = expected_error(looks.attention, looks.offsets_m, TILE_SIDE_M)
    for photo, patch in np.ndindex(fast.shape):
        east = sum(looks.attention[photo, patch, m] * SECTORS[m, 0] for m in range(128))
        north = sum(looks.attention[photo, patch, m] * SECTORS[m, 1] for m in range(128))
        true = looks.offsets_m[photo, patch]
        slow = np.hypot(east - true[0], north - true[1])
        assert fast[photo, patch] == pytest.approx(slow, nan_ok=True)


def test_turning_photo_and_truth_together_changes_nothing() -> None:
    looks = some_looks(seed=2)
    angle = np.radians(3 * BIN_DEG)  # clockwise, so columns of the polar view go to the right
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def turned(attention: np.ndarray) -> np.ndarray:
        grid = attention.reshape(*attention.shape[:2], RINGS, BINS)
        return np.roll(grid, 3, axis=3).reshape(attention.shape)

    other = replace(
        looks,
        attention=turned(looks.attention),
        wrong_tile=turned(looks.wrong_tile),
        offsets_m=looks.offsets_m @ turn,
        azimuth_deg=looks.azimuth_deg + 3 * BIN_DEG,
    )
    before, after = by_guess(looks), by_guess(other)
    for guess, row in before.items():
        for key in ("median_m", "mean_m", "standard_error_m"):
            assert after[guess][key] == pytest.approx(row[key], abs=1e-4), guess


def test_only_content_within_the_circle_counts() -> None:
    looks = looks_at(np.arange(64).reshape(1, 64))
    beyond = looks.offsets_m.copy()
    beyond[0, :32] *= 2  # the outermost ring, now outside
    beyond[0, 40:] = np.nan
    other = replace(looks, offsets_m=beyond)
    assert other.inside(TILE_SIDE_M).sum() == 8
    assert by_guess(other)["attention"]["mean_m"] == pytest.approx(0, abs=1e-9)


def test_nothing_inside_means_no_metrics() -> None:
    looks = looks_at(np.arange(64).reshape(1, 64))
    sky = replace(looks, offsets_m=np.full_like(looks.offsets_m, np.nan))
    assert all(row["median_m"] is None for row in pointing_metrics(sky, TILE_SIDE_M))
    assert {row["attention_median_m"] for row in class_metrics(sky, TILE_SIDE_M)} == {None}


def test_own_azimuth_knows_all_that_geometry_can() -> None:
    # Ring 3 - r of the tile in row r of the canvas: azimuth and row say everything.
    sector = np.concatenate([(3 - row) * BINS + 4 + np.arange(6) for row in range(RINGS)])[None]
    assert by_guess(looks_at(sector, azimuth_shift=4))["own azimuth"]["mean_m"] < 1e-4
    assert by_guess(looks_at(sector, azimuth_shift=20))["own azimuth"]["mean_m"] > 20


def test_contribution_by_class_is_the_one_made_by_hand() -> None:
    looks = looks_at(np.arange(8).reshape(2, 4))  # one column: four patches are four rows
    names = list(GROUPS)
    sky, road = names.index("sky"), names.index("road")
    looks = replace(
        looks,
        phi=np.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.1, 0.1, 0.5]]),
        groups=np.array([[sky, sky, road, road], [sky, road, road, road]]),
    )
    rows = {row["class"]: row for row in class_metrics(looks, TILE_SIDE_M)}
    assert (rows["sky"]["patches"], rows["sky"]["photos"]) == (3, 2)
    assert rows["sky"]["contribution"] == pytest.approx(4 * (0.1 + 0.2 + 0.3) / 3)
    assert rows["road"]["contribution"] == pytest.approx(4 * (0.3 + 0.4 + 0.1 + 0.1 + 0.5) / 5)
    # Sky: 1.2 in two patches and 1.2 in one, mean 0.8: photos differ from it by -0.4 and 0.4.
    assert rows["sky"]["contribution_standard_error"] == pytest.approx((2 * 0.32) ** 0.5 / 3)
    # Means of the rows are 0.2, 0.15, 0.2 and 0.45 times four.
    assert rows["sky"]["beside_row"] == pytest.approx(4 * (-0.1 + 0.05 + 0.1) / 3)
    assert rows["tree"]["contribution"] is None
    assert rows["tree"]["patches"] == 0


def test_one_photo_has_no_standard_error() -> None:
    rows = class_metrics(looks_at(np.arange(4).reshape(1, 4)), TILE_SIDE_M)
    assert {row["contribution_standard_error"] for row in rows} == {None}


def test_every_class_belongs_to_one_group() -> None:
    together = [name for parts in GROUPS.values() for name in parts]
    assert len(together) == len(set(together)) == 18
    assert list(np.array(list(GROUPS))[group_of(("roof", "hedge", "moat"))]) == [
        "building", "tree", "other",
    ]  # fmt: skip


def test_headings_are_compared_around_north() -> None:
    guesses = {"exact": np.array([359.0, 1.0]), "late": np.array([9.0, 21.0])}
    exact, late = heading_metrics(np.array([359.0, 1.0]), guesses)
    assert (exact["median_deg"], exact["within_a_bin"]) == (0, 1)
    assert late["median_deg"] == pytest.approx(15)
    assert late["within_a_bin"] == pytest.approx(0.5)
    random = np.random.default_rng(0)
    chance = heading_metrics(random.uniform(0, 360, 4000), {"none": random.uniform(0, 360, 4000)})
    assert chance[0]["median_deg"] == pytest.approx(90, abs=3)


class GeometryTeacher:
    """Row r of a photo attends to ring r at its own azimuth, whatever the tile: it only repeats the
    azimuth shift.
    """

    ground_size, aerial_size = (64, 256), (128, 128)
    base = SimpleNamespace(bins=BINS)
    rows = RINGS

    def eval(self) -> GeometryTeacher:
        return self

    def ground_tokens(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, RINGS * images.shape[-1] // 8, 3)

    def aerial_tokens(
        self, tiles: torch.Tensor, rotations: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert tiles.shape == (1, 3, 128, 128)
        assert rotations is None or float(rotations.abs()) <= 0.5
        return torch.zeros(1, 128, 3)

    def factors(self, ground: torch.Tensor, aerial: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.full(ground.shape[:2], 1 / ground.shape[1]), torch.full((1, 128), 1 / 128)

    def attention(
        self, ground: torch.Tensor, aerial: torch.Tensor, azimuth_shifts: torch.Tensor
    ) -> torch.Tensor:
        patch = torch.arange(ground.shape[1])
        bins = len(patch) // RINGS
        sector = (patch // bins) * BINS + (azimuth_shifts[:, None] + patch % bins) % BINS
        return F.one_hot(sector, 128).float()[:, None]


def ideal_town(count: int = 5) -> tuple[Town, PatchTruth]:
    """Cameras on places of the grid, whose patch (r, c) shows the centre of its own sector."""
    random = np.random.default_rng(7)
    town = Town(
        name="ideal",
        size_m=192.0,
        panoramas=random.integers(0, 256, (count, 64, 256, 3), dtype=np.uint8),
        places=np.zeros((count, 2)),
        heading_deg=random.uniform(0, 360, count),
        mosaic=random.integers(0, 256, (320, 320, 3), dtype=np.uint8),
        pixel_m=0.6,
    )
    town.places[:] = town_grid(town)[np.arange(count) * 9]
    return town, ideal_truth(town)


def described(town: Town, student: TwoBranch, teacher: object, viewpoints: int = 1):
    references = TownReferences.describe(town, student, viewpoints)
    return DescribedTown(town, references, Models(student, teacher))  # type: ignore[arg-type]


@pytest.mark.parametrize("bins", [32, 16, 5])
def test_crops_carry_the_truth_of_their_own_patches(tiny_student, bins: int, monkeypatch) -> None:
    # Its cameras stand on places of the grid; this student could not tell where else.
    monkeypatch.setattr(
        explained_town,
        "_answered_positions",
        lambda described, teacher, queries, rows: described.references.centres_m[rows],
    )
    town, truth = ideal_town()
    home = described(town, tiny_student, GeometryTeacher())
    row = explain_town(home, truth, fields=[bins])[0]
    assert (row["queries"], row["patches"]) == (5, 5 * RINGS * bins)
    assert row["patches_in_tile"] == row["patches"]
    pointing = {each["guess"]: each for each in row["pointing"]}  # type: ignore[attr-defined]
    for guess in ("attention", "strongest sector", "attention, another tile", "own azimuth"):
        assert pointing[guess]["mean_m"] == pytest.approx(0, abs=1e-4)
    headings = {each["source"]: each for each in row["headings"]}  # type: ignore[attr-defined]
    # A teacher that repeats the azimuth shift it was given is found out by the wrong tile.
    assert headings["another tile at the true azimuth shift"]["median_deg"] == pytest.approx(
        0, abs=1e-4
    )
    helped = headings["attention at the student's azimuth shift"]["median_deg"]
    assert helped == pytest.approx(
        headings["student's azimuth shift"]["median_deg"], abs=BIN_DEG / 2
    )


def test_the_tile_lies_where_student_and_teacher_put_the_camera(
    tiny_world, tiny_student, monkeypatch
) -> None:
    """Of four viewpoints the one that scores best, and neighbours that score too low to count; from
    there the teacher refines it, at the student's azimuth shift.
    """
    town = load_town(tiny_world)
    home = described(town, tiny_student, GeometryTeacher(), viewpoints=4)
    grid, references = home.references.centres_m, home.references
    queries = crop_queries(town, 32, 3, 0)
    rows = np.linalg.norm(queries.places[:, None] - grid[None], axis=2).argmin(axis=1)
    own = iter(rows)

    def south_east(searched, descriptor, n_bins, heading_deg, near):
        row = next(own)
        assert (searched, n_bins, heading_deg) == (references, 32, None)
        assert near.tolist() == np.flatnonzero(np.hypot(*(grid - grid[row]).T) <= 28.801).tolist()
        scores = np.full((len(near), 4), -9.0, np.float32)
        scores[near == row, 3] = 1.0
        shifts = np.full(len(near), 3.5, np.float32)
        return Ranking(near, scores.max(axis=1), np.empty(0, np.float32), shifts, scores, len(near))

    def half_a_metre_west(searched, teacher, view, azimuth_shift, point):
        assert searched is references
        assert (view.shape, azimuth_shift) == (queries.views[0].shape, 3.5)
        return point - [0.5, 0.0]

    monkeypatch.setattr(explained_town, "rank_tiles", south_east)
    monkeypatch.setattr(explained_town, "refine_position", half_a_metre_west)
    teacher = home.models.teacher
    found = explained_town._answered_positions(home, teacher, queries, rows)
    limit = town.half_extent_m
    estimate = np.clip(grid[rows] + [4.8, -4.8], -limit, limit)
    expected = np.clip(estimate - [0.5, 0.0], -limit, limit)
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_tile_is_the_one_that_the_pipeline_would_refine(
    tiny_world, tiny_student, tiny_teacher
) -> None:
    """Where the right place comes first anyway, the position is that of the answer itself."""
    town = load_town(tiny_world)
    home = described(town, tiny_student, tiny_teacher, viewpoints=4)
    queries = crop_queries(town, 32, 12, 0)
    answers = home.answers(queries)
    rows = np.array([home._nearest(place) for place in queries.places])
    found = explained_town._answered_positions(home, tiny_teacher, queries, rows)
    firsts = [one.places[0] for one in answers.found]
    same = [at for at, first in enumerate(firsts) if first.row == rows[at]]
    assert len(same) >= 3
    for at in same:
        inside = home.references.inside(firsts[at].position_m)
        np.testing.assert_allclose(found[at], inside, atol=0.05)


def test_turned_panoramas_are_explained_alike(tiny_world, tiny_teacher, tiny_student) -> None:
    town = load_town(tiny_world)
    truth = ideal_truth(town)
    turned = replace(
        town,
        panoramas=np.roll(town.panoramas, 5 * 8, axis=2),
        heading_deg=(town.heading_deg - 5 * BIN_DEG) % 360,
    )
    along = replace(
        truth,
        class_id=np.roll(truth.class_id, 5, axis=2),
        places=np.roll(truth.places, 5, axis=2),
    )
    before, after = (
        explain_town(described(world, tiny_student, tiny_teacher), facts, fields=[32], count=2)[0]
        for world, facts in ((town, truth), (turned, along))
    )
    for part in ("pointing", "classes", "headings"):
        for old, new in zip(before[part], after[part], strict=True):  # type: ignore[call-overload]
            for key, value in old.items():
                if isinstance(value, float):
                    assert new[key] == pytest.approx(value, abs=1e-2), (part, old, key)
                else:
                    assert new[key] == value


def tokens_of(teacher: GeoSSK, count: int) -> torch.Tensor:
    return torch.randn(1, count, teacher.norm.normalized_shape[0])


def test_attention_at_many_shifts_is_that_of_each_pair(tiny_teacher) -> None:
    teacher = copy.deepcopy(tiny_teacher)
    torch.nn.init.normal_(teacher.azimuth_bias)
    ground, aerial = tokens_of(teacher, RINGS * 6), tokens_of(teacher, RINGS * BINS)
    together = teacher.attention(ground, aerial, torch.tensor([3, 31, 36]))
    for seen, azimuth_shift in zip(together, (3, 31, 4), strict=True):
        alone = teacher.interact(ground, aerial, azimuth_shift).ground_to_aerial
        torch.testing.assert_close(seen, alone)


def test_global_teachers_and_foreign_truth_are_refused(tiny_student) -> None:
    town, truth = ideal_town()
    home = described(town, tiny_student, GeometryTeacher())

    def refused(teacher: object) -> DescribedTown:
        return replace(home, models=replace(home.models, teacher=teacher))  # type: ignore[arg-type]

    base, rows = GeometryTeacher(), GeometryTeacher()
    base.base, rows.rows = SimpleNamespace(bins=None), 2
    for teacher in (base, rows, None):
        with pytest.raises(SettingError, match="expected one with azimuth bins and 4 rows"):
            explain_town(refused(teacher), truth)
    fewer = replace(truth, class_id=truth.class_id[:3])
    with pytest.raises(WorldError, match="truth of 3 panoramas, expected that of its 5"):
        explain_town(home, fewer)


def test_truth_is_read_as_it_was_written(tmp_path: Path) -> None:
    _, truth = ideal_town()
    write_truth(tmp_path, truth)
    read = load_truth(tmp_path)
    assert read.class_names == NAMES
    assert (read.class_id == truth.class_id).all()
    assert read.places == pytest.approx(truth.places, abs=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"class_id": None}, "truth.npz is damaged"),
        ({"east_m": np.zeros((5, 4, 16), np.float32)}, "truth.npz is damaged"),
        ({"class_names": np.array(["sky"])}, "has class 5, expected one of its 1 names"),
        ({"class_id": np.zeros((5, 4, 32))}, "expected uint8"),
        ({"class_id": np.zeros((4, 4, 32), np.uint8)}, "expected uint8"),
        ({"class_id": np.uint8(1)}, "expected uint8"),
        ({"class_names": np.array([{}], dtype=object)}, "truth.npz is damaged"),
    ],
)
def test_damaged_truth_is_one_clear_error(tmp_path: Path, changed: dict, said: str) -> None:
    write_truth(tmp_path, ideal_town()[1], **changed)
    with pytest.raises(WorldError, match=said):
        load_truth(tmp_path)


def test_missing_and_broken_files_of_truth_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"got no truth\.npz"):
        load_truth(tmp_path)
    write_truth(tmp_path, ideal_town()[1])
    whole = (tmp_path / "truth.npz").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "truth.npz").write_bytes(content)
        with pytest.raises(WorldError, match="damaged"):
            load_truth(tmp_path)
    flipped = bytearray(whole)
    for at in range(200, 260):
        flipped[at] ^= 255
    (tmp_path / "truth.npz").write_bytes(bytes(flipped))
    with pytest.raises(WorldError, match="damaged"):
        load_truth(tmp_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_world, tiny_student, tiny_teacher) -> Path:
    """student, teacher and a world folder with truth."""
    folder = tmp_path_factory.mktemp("explained")
    save_model(folder / "student", tiny_student, {"name": "convnet-s", "model": TWO_BRANCH}, "")
    teacher = {"name": "geossk", "model": {"base": {"name": "convnet-s", **TWO_BRANCH}}}
    save_model(folder / "teacher", tiny_teacher, teacher, "")
    shutil.copytree(tiny_world, folder / "world")
    write_truth(folder / "world", ideal_truth(load_town(tiny_world)))
    return folder


def test_the_command_measures_and_says_what(folders: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "explanations.json"
    arguments = ["pointing", str(folders / "teacher"), "--data", str(folders / "world")]
    assert main([*arguments, "--queries", "12", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("360°: 12 photos, 1536 patches, ")
    assert "own azimuth" in text
    report = json.loads(out.read_text())
    assert {"protocol", "model", "student", "data", "seed", "command", "date", "machine"} <= set(
        report
    )
    assert [row["fov_deg"] for row in report["rows"]] == [360, 180, 90]
    headings = {each["source"]: each["median_deg"] for each in report["rows"][0]["headings"]}
    # Twin branches over ideal views: the student and attention alone both find the heading.
    assert headings["student's azimuth shift"] < BIN_DEG
    assert headings["attention alone"] < 30
    section = explanation_section(parse_report(ExplanationReport, report))
    assert section.startswith(f"## Are the explanations true? ({folders / 'world'})")
    assert "| attention | " in section
    assert "nan" not in section.lower()
    origin = {"data": "assets/town", "command": "c", "date": "d", "machine": "m"}
    (out.parent / "town-1.json").write_text(json.dumps({**origin, "rows": [ONE_ROW]}))
    (tmp_path / "README.md").write_text(f"{START}\n{END}\n")
    write_results(out.parent, tmp_path / "page.md", tmp_path / "README.md")
    assert section in (tmp_path / "page.md").read_text()


def test_the_command_is_refused_in_one_sentence(folders: Path, tiny_world: Path, capsys) -> None:
    assert main(["pointing", str(folders / "teacher"), "--data", str(tiny_world)]) == 1
    assert "got no truth.npz" in capsys.readouterr().err
    assert main(["pointing", str(folders / "student"), "--data", str(folders / "world")]) == 1
    assert "another kind of model" in capsys.readouterr().err
