"""The protocol on a town of known answers: perfect, collapsed and teacher-led models, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from core.evaluation.rerank import combined
from torch.nn import functional as F

from core.errors import DataError
from core.evaluation.descriptors import (
    crop_queries,
    framed,
    match,
    place_offsets,
    town_grid,
    town_viewpoints,
)
from core.evaluation.fit import fit_calibration
from core.evaluation.report import Setting, evaluate_town, settings_for
from core.localization.calibration import ViewCalibration
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
        meets = (azimuth_shift[:, None] + torch.arange(count)) % BINS
        codes = torch.ones(len(views), count, DIM)
        if not self.collapsed:
            codes = self.codes[place[:, None], meets]
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
    town, oracle = town_and_oracle(collapsed=True)
    row = evaluate_town(town, oracle, settings=[Setting(32)], count=24)[0]  # type: ignore[arg-type]
    assert row["hit@1"] == row["hit@10"] == row["within_50_m"] == 0
    assert row["median_position_error_m"] is None  # nothing to say where no place is right


def test_help_changes_what_is_searched_and_its_chance() -> None:
    town, oracle = town_and_oracle()
    settings = [Setting(8), Setting(8, heading_known=True), Setting(8, radius_m=100.0)]
    rows = evaluate_town(town, oracle, settings=settings, count=24)  # type: ignore[arg-type]
    assert rows[2]["chance_25_m"] > 5 * rows[0]["chance_25_m"]
    assert rows[0]["median_heading_error_deg"] < 360 / BINS
    assert rows[1]["median_heading_error_deg"] is None
    assert rows[1]["heading"] == "known"


def test_a_known_heading_takes_that_shift_and_no_better_one() -> None:
    places = F.normalize(torch.randn(3, BINS, DIM), dim=2) / BINS**0.5
    query = F.normalize(places[1, 4:10].flatten(), dim=0)[None]
    heading = -180 + (4 + 6 / 2) * 360 / BINS
    right = match(query, places.flatten(1)[:, None], np.array([heading]))
    assert right.similarity[0].argmax() == 1
    assert right.similarity[0, 1] == pytest.approx(1.0, abs=1e-4)
    wrong = match(query, places.flatten(1)[:, None], np.array([heading + 90]))
    assert wrong.similarity[0, 1] < 0.9


def test_settings_hold_every_help_once() -> None:
    settings = settings_for()
    assert len(settings) == len(set(settings)) == 6 * 4 + 3 * 2
    assert Setting(8, "photo", True, 200.0) in settings


def test_framed_queries_keep_the_middle_and_grey_the_rest() -> None:
    queries = crop_queries(telling_town(), 8, 4, 0)
    cut = framed(queries)
    assert (cut.views[:, 0] == 127).all()
    assert (cut.views[:, 32] == queries.views[:, 32]).all()


def test_combined_scores_follow_the_calibrated_logits() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.2]], np.float32)
    teacher = np.array([[0.1, 0.6, 0.3, -np.inf]], np.float32)
    scores = combined(similarity, teacher, ViewCalibration(8, 2.0, 1.0, 1.0, 0.0))
    assert scores[0].tolist() == pytest.approx([1.9, 2.2, 1.7, 0.5])


def test_calibration_is_fitted_from_towns_and_teacher() -> None:
    town = telling_town(count=12)
    torch.manual_seed(0)
    student = build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4).eval()
    teacher = GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (128, 128), dim=4)).eval()
    alone, paired = fit_calibration(student, teacher, [town], count=6, bins=(32, 8))
    assert [view.bins for view in alone.views] == [32, 8]
    assert all(view.teacher == 0 for view in alone.views)
    assert paired is not None
    assert all(view.student >= 0 and view.teacher > 0 for view in paired.views)


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


def test_pages_hold_the_measured_figures_and_nothing_else_changes(tmp_path: Path) -> None:
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


def test_pages_refuse_missing_figures_and_markers(tmp_path: Path) -> None:
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
    centres = town_grid(telling_town())
    points = town_viewpoints(centres, count)
    assert points.shape == (len(centres), count, 2)
    assert (points.min(axis=(0, 1)) >= centres.min(axis=0)).all()
    assert (points.max(axis=(0, 1)) <= centres.max(axis=0)).all()
    inner = np.abs(centres).max(axis=1) < np.abs(centres).max() - 1
    np.testing.assert_allclose(points[inner].mean(axis=1), centres[inner], atol=1e-9)
    apart = points[inner] - centres[inner][:, None]
    np.testing.assert_allclose(apart[0], place_offsets(count) * 38.4, atol=1e-9)
