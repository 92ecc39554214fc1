"""Reports read from JSON, means over towns and progress with training, worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from core.errors import DataError
from core.explain.figures import accuracy_figure, progress_figure
from core.results.reading import parse_report, read_reports
from core.results.reports import SeenReport, TownReport, TrainingReport
from core.results.seen import seen_section
from core.results.towns import curve_section, mean_section, sweep_series, training_series

PROVENANCE = {"command": "python -m core evaluate m", "date": "2026-01-01", "machine": "two cores"}


def row(fov: float, share: float, view: str = "crop", **other: object) -> dict[str, object]:
    return {
        "fov_deg": fov,
        "view": view,
        "heading": "unknown",
        "radius_m": None,
        "reranked": False,
        "queries": 10,
        "gallery": 100,
        "within_25_m": share,
        "hit@1": share / 2,
        "chance_25_m": 0.01,
        "median_heading_error_located_deg": 1.0 + share,
        "median_position_error_m": 2.0 + share,
        **other,
    }


def town(name: str, student: float, again: float, near: float) -> TownReport:
    rows = [
        row(360.0, student),
        row(360.0, again, reranked=True),
        row(360.0, near, radius_m=200.0, reranked=True),
        row(90.0, student / 2),
        row(90.0, 0.0, view="photo", median_position_error_m=None),
    ]
    return parse_report(TownReport, {"data": name, "rows": rows, **PROVENANCE})


TOWNS = [town("one", 0.9, 1.0, 1.0), town("two", 0.7, 0.8, 0.9)]


def line(text: str, start: str) -> list[str]:
    found = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_the_mean_counts_every_town_alike_and_says_how_far_they_differ():
    text = mean_section(TOWNS, "results/sweep.png")
    wide = line(text, "360° crop")
    assert wide[1:3] == ["80.0 / 90.0", "14.1 / 14.1"]
    assert wide[3:6] == ["", "95.0", ""]
    assert wide[6:] == ["40.0 / 45.0", "1.8 / 1.9", "2.8 / 2.9"]
    assert line(text, "90° crop")[1] == "40.0"
    assert line(text, "90° photo frame")[8] == ""  # none was located, so no point to measure
    assert "(results/sweep.png)" in text
    assert "one, two" in text


def test_the_sweep_has_a_line_for_each_kind_of_help_and_gaps_where_nothing_is():
    fields, series = sweep_series(TOWNS)
    assert fields == [360.0, 90.0]
    assert list(series) == ["student", "re-ranked", "within 200 m, re-ranked"]
    assert series["student"] == pytest.approx([0.8, 0.4])
    assert series["re-ranked"][0] == pytest.approx(0.9)
    assert math.isnan(series["re-ranked"][1])
    assert len(accuracy_figure(fields, series).axes[0].lines) == 3


def test_progress_is_in_the_order_of_training(tmp_path: Path):
    kinds = ((360.0, "crop"), (180.0, "crop"), (90.0, "crop"), (90.0, "photo"), (67.5, "photo"))

    def report(steps: int, minutes: float, share: float, **of: str) -> TrainingReport:
        trained = {"all_steps": steps, "all_minutes": minutes, "offset_m": 5.5, **of}
        trained |= {"elsewhere": 0.75} if steps > 500 else {}
        rows = [row(fov, share, view) for fov, view in kinds]
        content = {"data": "v", "trained": trained, "rows": rows, **PROVENANCE}
        return parse_report(TrainingReport, content)

    faster = report(600, 1.0, 0.9, device="cuda", name="convnet-m")
    reports = [faster, report(800, 20.0, 0.6), report(200, 5.0, 0.4)]
    minutes, series = training_series(reports)
    assert minutes == [5.0, 20.0]
    assert series["90° photo frame"] == [0.4, 0.6]
    text = curve_section(reports)
    lines = [each for each in text.splitlines() if each.startswith("| convnet")]
    assert [[cell.strip() for cell in each.strip("|").split("|")] for each in lines] == [
        ["convnet-s", "cpu", "200", "5", "5.5", "0", *["40.0"] * 5],
        ["convnet-s", "cpu", "800", "20", "5.5", "0.75", *["60.0"] * 5],
        ["convnet-m", "cuda", "600", "1", "5.5", "0.75", *["90.0"] * 5],
    ]
    assert "![" not in text
    figure = progress_figure(minutes, series)
    figure.savefig(tmp_path / "progress.png")
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([40.0, 60.0])


def test_towns_learned_from_stand_beside_others():
    def measured(data: str, share: float) -> SeenReport:
        views = ((360.0, "crop"), (180.0, "crop"), (90.0, "crop"), (90.0, "photo"), (67.5, "photo"))
        rows = [row(fov, share, view) for fov, view in views]
        content = {"data": data, "model": "m", "trained": {"towns": 42}, "rows": rows}
        return parse_report(SeenReport, {**content, **PROVENANCE})

    text = seen_section(
        [
            measured("worlds/train/town-1000", 0.7),
            measured("worlds/validation/town-2000", 0.75),
            measured("worlds/train/town-1041", 0.9),
        ]
    )
    rows = [cells for cells in text.splitlines() if cells.startswith("| town-")]
    assert [cells.split(" | ")[:3] for cells in rows] == [
        ["| town-1000", "yes", "70.0"],
        ["| town-1041", "yes", "90.0"],
        ["| town-2000", "no", "75.0"],
    ]
    assert line(text, "mean ± s.d.: learned from")[2:] == ["80.0 ± 14.1"] * 5
    assert line(text, "mean ± s.d.: others")[2:] == ["75.0"] * 5
    assert "(42 in all)" in text


def content(**changed: object) -> dict[str, object]:
    """A town's report as JSON has it, with one row changed."""
    return {"data": "one", "rows": [row(360.0, 0.5) | changed], **PROVENANCE}


def test_a_report_is_read_into_typed_rows() -> None:
    report = parse_report(TownReport, content(within_25_m=1, unknown_key="ignored"), "town-1.json")
    assert (report.file, report.seed, report.photos) == ("town-1.json", 0, ())
    assert (report.rows[0].hit_at_1, report.rows[0].position_error_90_m) == (0.25, None)
    assert report.rows[0].within_25_m == 1.0
    assert report.rows[0].kind == (360.0, "crop", "unknown", None, False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (content(within_25_m="many"), r"got rows\[0\].within_25_m = 'many', expected a number"),
        (content(within_25_m=None), r"got rows\[0\].within_25_m = None, expected a number"),
        (content(reranked=1), r"got rows\[0\].reranked = 1, expected true or false"),
        (content(queries=True), r"got rows\[0\].queries = True, expected a whole number"),
        (content() | {"rows": {}}, "got rows = {}, expected a list"),
        (content() | {"rows": [3]}, r"got rows\[0\] = 3, expected an object"),
        (content() | {"rows": []}, "got no rows, expected at least one"),
        ({**PROVENANCE, "rows": []}, "got no data, expected one"),
    ],
)
def test_a_report_of_another_form_is_refused_by_name(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=rf"Results town-1\.json: {said}\. Measure again\."):
        parse_report(TownReport, wrong, "town-1.json")


def test_a_missing_view_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="got no row of the student alone at 180° crop"):
        seen_section([SeenReport(**{**vars(TOWNS[0]), "model": "m", "trained": None})])


def test_the_reports_of_this_repository_fit() -> None:
    reports = read_reports(Path(__file__).parent.parent / "docs" / "results")
    assert len(reports.towns) == 3
    assert all(vars(reports).values())
