"""Predictions as files: run alone with ``pytest tests/test_output.py``."""

from __future__ import annotations

import csv
import dataclasses
import json

import geopandas
import pytest

from core.errors import SettingError
from core.localization.output import check_output, prediction_record, write_predictions
from core.records import Candidate, Place, Prediction, Tile


def candidate(rank: int, teacher_score: float | None = 0.5) -> Candidate:
    tile = Tile(f"t{rank:04d}", Place(60.0 + rank, 24.1235), 10.0 * rank, 5.0, 76.8)
    camera = Place(60.0 + rank, 24.123456789)
    return Candidate(
        rank, 100 + rank, tile, 0.9, teacher_score, 0.25, 11.25 * rank, rank, camera, 4.25
    )


PREDICTION = Prediction(
    photo='Straße "1", <b>.jpg',
    fov_deg=65.0,
    fov_source="guess",
    confident=True,
    confidence=0.8,
    heading_deg=11.25,
    candidates=(candidate(1), candidate(2)),
    timings_ms={"describe": 12.345, "total": 99.99},
)
LOST = dataclasses.replace(
    PREDICTION,
    photo="lost.jpg",
    heading_deg=None,
    confident=False,
    candidates=(dataclasses.replace(candidate(1, None), heading_deg=None),),
)


def test_record_has_exactly_these_keys():
    record = prediction_record(PREDICTION)
    assert list(record) == [
        "photo", "fov_deg", "fov_source", "confident", "confidence", "heading_deg", "candidates",
        "timings_ms",
    ]  # fmt: skip
    assert list(record["candidates"][0]) == [
        "rank", "tile_id", "lat_deg", "lon_deg", "radius_m", "similarity", "teacher_score",
        "probability", "heading_deg",
    ]  # fmt: skip
    assert record["candidates"][0]["lon_deg"] == 24.1234568
    assert record["timings_ms"]["describe"] == 12.3
    assert json.loads(json.dumps(prediction_record(LOST)))["candidates"][0]["teacher_score"] is None


def test_geojson_has_longitude_first(tmp_path):
    write_predictions(tmp_path / "a.geojson", [PREDICTION, LOST])
    read = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert len(read["features"]) == 3
    assert read["features"][0]["geometry"]["coordinates"] == [24.1234568, 61.0]
    assert read["features"][0]["properties"]["photo"] == PREDICTION.photo


def test_csv_reads_back(tmp_path):
    write_predictions(tmp_path / "a.CSV", [PREDICTION, LOST])
    with (tmp_path / "a.CSV").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == [PREDICTION.photo] * 2 + ["lost.jpg"]
    assert rows[2]["heading_deg"] == ""
    assert float(rows[1]["lat_deg"]) == 62.0


@pytest.mark.parametrize("predictions", [[PREDICTION, LOST], [LOST], []])
def test_geopackage_reads_back_as_points(tmp_path, predictions):
    write_predictions(tmp_path / "a.gpkg", predictions)
    frame = geopandas.read_file(tmp_path / "a.gpkg", layer="candidates")
    assert frame.crs.to_epsg() == 4326
    assert len(frame) == sum(len(prediction.candidates) for prediction in predictions)
    if predictions:
        assert frame.geometry[0].y == 61.0
        assert frame["teacher_score"].dtype == float


def test_old_file_is_replaced_and_nothing_else_left(tmp_path):
    for predictions in ([PREDICTION, LOST], [LOST]):
        write_predictions(tmp_path / "a.gpkg", predictions)
    assert len(geopandas.read_file(tmp_path / "a.gpkg")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.gpkg"]


def test_wrong_places_are_refused_before_work(tmp_path):
    with pytest.raises(SettingError, match=r"ending '.shp', expected one of .geojson, .csv, .gpkg"):
        check_output(tmp_path / "a.shp")
    with pytest.raises(SettingError, match="ending 'none'"):
        check_output(tmp_path / "a")
    with pytest.raises(SettingError, match="does not exist"):
        check_output(tmp_path / "missing" / "a.csv")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(SettingError, match="cannot be written"):
        write_predictions(tmp_path / "a.csv", [PREDICTION])
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
