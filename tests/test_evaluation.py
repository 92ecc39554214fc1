"""The protocol on a town of known answers: perfect and collapsed models, and what help changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.errors import DataError
from core.evaluation.answers import NOT_RANKED, DescribedTown, Help, rows_within
from core.evaluation.descriptors import town_grid
from core.evaluation.fit import fit_calibration
from core.evaluation.queries import crop_queries, framed
from core.evaluation.report import Setting, evaluate_town, settings_for
from core.evaluation.towns import TownReferences
from core.gallery.index import FLAT_8BIT, engine_of
from core.gallery.viewpoints import cell_viewpoints
from core.localization.answer import Models
from core.localization.calibration import Calibration, ViewCalibration
from core.localization.ranking import rank_tiles
from core.models import build_model
from core.models.geossk import GeoSSK
from core.polar import BINS
from core.results.pages import END, START, write_results
from tests.towns import telling_town

DIM = 4


class Oracle(torch.nn.Module):
    """A student that reads its answers: tiles by their colours, views by place and azimuth shown.

    Every bin of a place has a code of its own, drawn from the place; a view carries the codes of
    the azimuths it shows. So the first place, its azimuth shift and its heading must all come out right.
    """

    bins = BINS
    ground_size, aerial_size = (64, 256), (128, 128)

    def __init__(self, places: np.ndarray, town_size_m: float, collapsed: bool = False) -> None:
        super().__init__()
        self.places, self.size, self.collapsed = places, town_size_m, collapsed
        codes = torch.randn(len(places), BINS, DIM, generator=torch.Generator().manual_seed(0))
        self.codes = F.normalize(codes, dim=2)

    def describe_aerial(self, tiles: torch.Tensor) -> torch.Tensor:
        middle = tiles[:, :2, 60:68, 60:68].mean(dim=(2, 3)).numpy()
        at = (middle - 0.5) * self.size
        nearest = np.linalg.norm(self.places[None] - at[:, None], axis=2).argmin(axis=1)
        codes = torch.ones(len(at), BINS, DIM) if self.collapsed else self.codes[nearest]
        return (F.normalize(codes, dim=2) / BINS**0.5).flatten(1)

    def describe_ground(self, views: torch.Tensor) -> torch.Tensor:
        count = views.shape[3] * BINS // 256
        first = views[:, 0, 0, 4] * 360  # azimuth in the middle of the first bin
        azimuth_shift = torch.floor(((first + 180) % 360) / (360 / BINS)).long()
        place = torch.round(views[:, 2, 0, 0] * 255).long()
        aligned = (azimuth_shift[:, None] + torch.arange(count)) % BINS
        codes = torch.ones(len(views), count, DIM)
        if not self.collapsed:
            codes = self.codes[place[:, None], aligned]
        return F.normalize(codes.flatten(1), dim=1)


def town_and_oracle(collapsed: bool = False) -> tuple[object, Oracle]:
    """A telling town whose cameras stand on grid points, which blue gives away by number."""
    town = telling_town(count=40)
    grid = town_grid(town)
    town.places[:] = grid[np.arange(40) * 6 % len(grid)]
    town.panoramas[..., 2] = (np.arange(40) * 6 % len(grid))[:, None, None] % 256
    return town, Oracle(grid, town.size_m, collapsed)


@pytest.mark.parametrize("bins", [32, 8])
def test_a_perfect_student_is_called_perfect(bins: int) -> None:
    town, oracle = town_and_oracle()
    row = evaluate_town(town, oracle, settings=[Setting(bins)], count=24)[0]  # type: ignore[arg-type]
    assert row["hit@1"] == 1
    assert row["within_10_m"] == 1
    assert row["median_error_m"] < 1
    assert row["median_heading_error_deg"] < 360 / BINS
    assert row["median_position_error_m"] <= row["position_error_90_m"] < 28.8
    assert row["gallery"] == 441
    assert 0 < row["chance_25_m"] < 0.03


def test_a_collapsed_student_scores_nothing() -> None:
    """Every place is as good as the next: ties count against it, and only what lies beside the places
    that happen to be first is near.
    """
    town, oracle = town_and_oracle(collapsed=True)
    settings = [Setting(32), Setting(8), Setting(32, radius_m=200.0)]
    rows = evaluate_town(town, oracle, settings=settings, count=40)  # type: ignore[arg-type]
    for row in rows:
        assert row["hit@1"] == row["hit@5"] == row["hit@10"] == 0
    for row in rows[:2]:
        assert row["within_25_m"] <= 0.1
        assert row["within_50_m"] <= 0.1
        assert row["median_error_m"] > 100


def test_a_model_collapsed_in_part_is_judged_by_its_worst_tie() -> None:
    """Of tiles with one probability none is before the others, whichever the index lists first."""
    town, oracle = town_and_oracle()
    oracle.codes[0:441:4] = oracle.codes[0]  # 111 places look the same
    references = TownReferences.describe(town, oracle, viewpoints=1)  # type: ignore[arg-type]
    described = DescribedTown(town, references, Models(oracle))  # type: ignore[arg-type]
    found = described.answers(crop_queries(town, 32, 40, 0))  # type: ignore[arg-type]
    shared = np.arange(40) * 6 % 441 % 4 == 0
    assert 0 < shared.sum() < 40
    assert (found.rank[shared] == 110).all()
    assert (found.rank[~shared] == 0).all()


def test_a_place_that_is_not_among_the_tiles_has_no_rank() -> None:
    town, oracle = town_and_oracle()
    references = TownReferences.describe(town, oracle)  # type: ignore[arg-type]
    queries = crop_queries(town, 32, 4, 0)  # type: ignore[arg-type]
    moved = replace(queries, places=-queries.places)
    described = DescribedTown(town, references, Models(oracle))  # type: ignore[arg-type]
    near = described.answers(queries, Help(radius_m=60.0))
    assert (near.rank == 0).all()
    assert near.right == [True] * 4
    wrong = described.answers(moved, Help(radius_m=60.0))
    far = np.hypot(*(2 * queries.places).T) > 90
    assert far.any()
    assert (wrong.error_m[far] > 25).any()
    assert (described.answers(queries).rank < NOT_RANKED).all()


def test_help_changes_what_is_searched_and_its_chance() -> None:
    town, oracle = town_and_oracle()
    settings = [Setting(8), Setting(8, heading_known=True), Setting(8, radius_m=100.0)]
    rows = evaluate_town(town, oracle, settings=settings, count=24)  # type: ignore[arg-type]
    assert rows[2]["chance_25_m"] > 5 * rows[0]["chance_25_m"]
    assert rows[0]["median_heading_error_deg"] < 360 / BINS
    assert rows[1]["median_heading_error_deg"] is None
    assert rows[1]["heading"] == "known"


def references_of(descriptors: np.ndarray) -> SimpleNamespace:
    """Places (R, D) with one viewpoint each, to be searched."""
    index = engine_of(FLAT_8BIT).build([descriptors.astype(np.float16)], FLAT_8BIT)
    centres = np.zeros((len(descriptors), 2))
    return SimpleNamespace(index=index, centres_m=centres, viewpoints_m=np.zeros((1, 2)))


def test_a_known_heading_takes_that_shift_and_no_better_one() -> None:
    places = F.normalize(torch.randn(3, BINS, DIM), dim=2) / BINS**0.5
    query = F.normalize(places[1, 4:10].flatten(), dim=0).numpy()
    references = references_of(places.flatten(1).numpy())
    heading = -180 + (4 + 6 / 2) * 360 / BINS
    right = rank_tiles(references, query, 6, heading)  # type: ignore[arg-type]
    assert right.rows[0] == 1
    assert right.azimuth_shifts.tolist() == [4, 4, 4]
    assert right.similarities[0] == pytest.approx(1.0, abs=5e-3)  # 8 bits a number
    wrong = rank_tiles(references, query, 6, heading + 90)  # type: ignore[arg-type]
    assert wrong.azimuth_shifts.tolist() == [12, 12, 12]
    assert wrong.similarities[wrong.rows == 1] < 0.9


def test_global_descriptors_are_compared_as_they_are() -> None:
    places = np.array([[0.6, 0.8], [1.0, 0.0]])
    found = rank_tiles(references_of(places), np.array([1.0, 0.0], np.float32), None)  # type: ignore[arg-type]
    assert found.rows.tolist() == [1, 0]
    assert found.similarities.tolist() == pytest.approx([1.0, 0.6], abs=5e-3)
    assert np.isnan(found.azimuth_shifts).all()


def test_settings_hold_every_help_once() -> None:
    settings = settings_for()
    assert len(settings) == len(set(settings)) == 6 * 4 + 3 * 2
    assert Setting(8, "photo", True, 200.0) in settings


def test_framed_queries_keep_the_middle_and_grey_the_rest() -> None:
    queries = crop_queries(telling_town(), 8, 4, 0)
    cut = framed(queries)
    assert (cut.views[:, 0] == 127).all()
    assert (cut.views[:, 32] == queries.views[:, 32]).all()


@pytest.fixture(scope="module")
def searched() -> TownReferences:
    town, oracle = town_and_oracle()
    return TownReferences.describe(town, oracle, viewpoints=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [100, 400, 441, 10**6])
def test_a_smaller_gallery_is_a_square_part_around_the_camera(searched, places: int) -> None:
    described = DescribedTown(searched.town, searched, Models(None))  # type: ignore[arg-type]
    for camera in searched.town.places[:10] + 0.5:
        rows = described.evidence(camera, 0.0, Help(places=places)).rows
        if places >= 441:
            assert rows is None
            continue
        assert len(set(rows.tolist())) == len(rows) == places
        assert (np.diff(rows) > 0).all()
        part = searched.centres_m[rows]
        nearest = np.hypot(*(searched.centres_m - camera).T).argmin()
        assert nearest in rows
        sides = np.ptp(part, axis=0)
        assert sides.max() <= 19.2 * (np.sqrt(places) + 1)
        again = described.evidence(camera, 90.0, Help(places=places)).rows
        assert again.tolist() == rows.tolist()


def test_a_circle_holds_the_places_within_it_and_at_least_one(searched) -> None:
    camera = np.array([3.0, 40.0])
    apart = np.hypot(*(searched.centres_m - camera).T)
    within = rows_within(searched, camera, 50.0)
    assert within.tolist() == np.flatnonzero(apart <= 50).tolist()
    assert rows_within(searched, camera, 0.1).tolist() == [apart.argmin()]


def test_only_what_is_known_is_given(searched) -> None:
    described = DescribedTown(searched.town, searched, Models(None))  # type: ignore[arg-type]
    nothing = described.evidence(np.zeros(2), 33.0, Help())
    assert (nothing.heading_deg, nothing.rows) == (None, None)
    both = described.evidence(np.zeros(2), 33.0, Help(heading_known=True, radius_m=30.0))
    assert both.heading_deg == 33.0
    assert 0 < len(both.rows) < 15


def test_the_order_of_answers_follows_the_calibrated_logits() -> None:
    """Student and teacher count as the calibration says; tiles that the teacher left out come behind."""
    view = ViewCalibration(8, 2.0, 1.0)
    logits = view.logits(np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.6, 0.3]))
    assert logits.tolist() == pytest.approx([1.9, 2.2, 1.7, 0.5])
    assert Calibration((view,)).at(32) is view


def test_calibration_is_fitted_from_towns_and_teacher() -> None:
    town = telling_town(count=12)
    torch.manual_seed(0)
    student = build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4).eval()
    teacher = GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4)).eval()
    references = TownReferences.describe(town, student, viewpoints=1)
    described = DescribedTown(town, references, Models(student, teacher))
    alone, paired = fit_calibration([described], count=6, bins=(32, 8))
    assert [view.bins for view in alone.views] == [32, 8]
    assert all(view.teacher == 0 for view in alone.views)
    assert paired is not None
    assert all(view.student >= 0 and view.teacher > 0 for view in paired.views)
    assert alone.viewpoints == paired.viewpoints == 1


def report(rows: list[dict[str, object]]) -> str:
    origin = {"command": "python -m core evaluate s", "date": "2026-01-01", "machine": "m"}
    return json.dumps({"data": "assets/town", **origin, "rows": rows})


CONTEST = {
    "command": "python -m core bench models",
    "date": "2026-01-01",
    "machine": "m",
    "torch": "2",
    "load": 1.0,
    "rows": [
        {
            "model": "saig-d",
            "batch": 32,
            "precision": "float32",
            "runs": 3,
            "plain_ms": 900.0,
            "ours_ms": 500.0,
            "ratio": 1.8,
            "work_ratio": 1.9,
            "ceiling": 2.5,
            "largest_difference": 1e-7,
            "cosine_error": 2e-7,
        }
    ],
}


def test_pages_hold_the_measured_numbers_and_nothing_else_changes(tmp_path: Path) -> None:
    town, oracle = town_and_oracle()
    rows = evaluate_town(town, oracle, settings=settings_for((32, 16, 8)), count=24)  # type: ignore[arg-type]
    folder, readme, page = tmp_path / "json", tmp_path / "README.md", tmp_path / "results.md"
    folder.mkdir()
    (folder / "town-1.json").write_text(report(rows))
    (folder / "bench-models.json").write_text(json.dumps(CONTEST))
    trained = {"name": "saig-d", "pooling": "azimuth", "ground_size": [64, 512], "steps": 650}
    student = json.loads(report(rows)) | {
        "trained": {**trained, "minutes": 31.4, "towns": 42, "went_on": False}
    }
    (folder / "student-saig-d.json").write_text(json.dumps(student))
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_results(folder, page, readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "360° crop | 100.0" in text
    assert "100.0" in page.read_text()
    assert (
        "| saig-d | 32 | float32 | 900 | 500 | 1.80 | 1.90 | 2.50 | 1.0e-07 | 2.0e-07 |"
        in page.read_text()
    )
    assert "| saig-d | azimuth | 64 x 512 | 42 | 650 | 31 | 100.0 | 100.0 |" in page.read_text()
    write_results(folder, page, readme)
    assert readme.read_text() == text


def test_pages_refuse_missing_reports_and_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no markers")
    with pytest.raises(DataError, match="got no JSON files"):
        write_results(tmp_path, tmp_path / "page.md", readme)
    (tmp_path / "town-1.json").write_text(report([{"queries": 1, "gallery": 1, "fov_deg": 360.0,
        "view": "crop", "heading": "known", "radius_m": None, "reranked": False,
        "within_25_m": 1.0, "chance_25_m": 0.1}]))  # fmt: skip
    with pytest.raises(DataError, match="got no result markers"):
        write_results(tmp_path, tmp_path / "page.md", readme)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_places_are_described_from_as_many_viewpoints_none_beyond_the_grid(count: int) -> None:
    """Read off the tiles: the telling town's colours say where the middle of a tile is."""
    town = telling_town()
    middles = []

    class Noting(torch.nn.Module):
        aerial_size = (128, 128)

        def describe_aerial(self, tiles: torch.Tensor) -> torch.Tensor:
            middles.append((tiles[:, :2, 60:68, 60:68].mean(dim=(2, 3)) - 0.5) * town.size_m)
            return F.normalize(torch.ones(len(tiles), 4), dim=1)

    references = TownReferences.describe(town, Noting(), count)  # type: ignore[arg-type]
    centres = references.centres_m
    np.testing.assert_allclose(centres, town_grid(town), atol=1e-3)
    assert len(references.index) == len(centres) * count
    # Chunk by chunk, in each of them one viewpoint after another.
    chunks = [middles[at : at + count] for at in range(0, len(middles), count)]
    points = torch.cat([torch.stack(chunk, dim=1) for chunk in chunks]).numpy()
    assert points.shape == (len(centres), count, 2)
    tolerance_m = town.size_m / 255  # a step of a colour
    assert (points.min(axis=(0, 1)) >= centres.min(axis=0) - tolerance_m).all()
    assert (points.max(axis=(0, 1)) <= centres.max(axis=0) + tolerance_m).all()
    inner = np.abs(centres).max(axis=1) < np.abs(centres).max() - 1
    expected = centres[inner][:, None] + cell_viewpoints(count) * 19.2
    np.testing.assert_allclose(points[inner], expected, atol=tolerance_m)
    np.testing.assert_allclose(references.viewpoints_m, cell_viewpoints(count) * 19.2, atol=1e-9)
