"""Predictions as files: run alone with ``pytest tests/test_output.py``."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest

from core.errors import SettingError
from core.localization.output import (
    FORMATS,
    check_output,
    percent,
    prediction_record,
    write_predictions,
)
from core.records import Candidate, Place, Prediction, Tile


def candidate(rank: int, teacher_score: float | None = 0.5, probability: float = 0.25) -> Candidate:
    tile = Tile(f"t{rank:04d}", Place(60.0 + rank, 24.1235), 10.0 * rank, 5.0, 76.8)
    camera = Place(60.0 + rank, 24.123456789)
    return Candidate(
        rank, 100 + rank, tile, 0.9, teacher_score, probability, 11.25 * rank, rank, camera, 4.25
    )


PREDICTION = Prediction(
    photo='Straße "1", <b>.jpg',
    fov_deg=65.0,
    fov_source="guess",
    confident=True,
    candidates=(candidate(1, probability=0.6123456789), candidate(2)),
    rest_probability=0.1,
    outside_probability=0.0376543211,
    area_50_m2=368.64,
    timings_ms={"describe": 12.345, "total": 99.99},
)
LOST = dataclasses.replace(
    PREDICTION,
    photo="lost.jpg",
    confident=False,
    candidates=(dataclasses.replace(candidate(1, None), heading_deg=None),),
    rest_probability=0.5,
    outside_probability=0.25,
    area_50_m2=None,
)


def test_record_has_exactly_these_keys():
    record = prediction_record(PREDICTION)
    assert list(record) == [
        "photo", "fov_deg", "fov_source", "verdict", "confident", "confidence", "rest_probability",
        "outside_probability", "area_50_m2", "area_90_m2", "heading_deg", "candidates",
        "timings_ms",
    ]  # fmt: skip
    assert list(record["candidates"][0]) == [
        "rank", "tile_id", "lat_deg", "lon_deg", "radius_m", "similarity", "teacher_score",
        "probability", "heading_deg",
    ]  # fmt: skip
    assert record["candidates"][0]["lon_deg"] == 24.1234568
    assert record["heading_deg"] == record["candidates"][0]["heading_deg"] == 11.25
    assert record["confidence"] == record["candidates"][0]["probability"] == 0.612345679
    assert (record["area_50_m2"], record["area_90_m2"]) == (369, None)
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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of any format."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".geojson":
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        return [feature["properties"] for feature in features]
    return geopandas.read_file(path, layer="candidates").to_dict("records")


NUMBERS = (
    "confidence", "rest_probability", "outside_probability", "probability", "fov_deg", "lat_deg",
    "lon_deg", "radius_m", "similarity",
)  # fmt: skip


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_every_format_says_what_the_record_says(tmp_path, ending):
    """One prediction has one probability, in whichever file it is read."""
    record = prediction_record(PREDICTION)
    path = tmp_path / f"a{ending}"
    write_predictions(path, [PREDICTION])
    rows = read_rows(path)
    assert len(rows) == len(record["candidates"])
    for row, listed in zip(rows, record["candidates"], strict=True):
        expected = {**record, **listed}
        for name in NUMBERS:
            assert float(row[name]) == expected[name], name
        assert float(row["area_50_m2"]) == expected["area_50_m2"]
        assert row["area_90_m2"] in (None, "") or math.isnan(row["area_90_m2"])
        assert str(row["confident"]) in ("True", "1")


@pytest.mark.parametrize("top_k", [1, 2, 3, 40, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_probabilities_of_a_record_sum_to_one_for_every_top_k(seed, top_k):
    shares = np.random.default_rng(seed).dirichlet(np.full(102, 0.2))
    *listed, rest, outside = np.concatenate([-np.sort(-shares[:100]), shares[100:]]).tolist()
    candidates = tuple(candidate(rank + 1, probability=share) for rank, share in enumerate(listed))
    everything = dataclasses.replace(
        PREDICTION, candidates=candidates, rest_probability=rest, outside_probability=outside
    )
    record = prediction_record(everything.shortened(top_k))
    assert len(record["candidates"]) == top_k
    total = sum(one["probability"] for one in record["candidates"])
    total += record["rest_probability"] + record["outside_probability"]
    assert total == pytest.approx(1, abs=1e-6)
    assert record["confidence"] == record["candidates"][0]["probability"]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "< 0.1 %"), (0.0123, "1.2 %"), (0.5, "50 %"), (0.9999, "99 %"), (1.0, "99 %")],
)
def test_percentages_never_claim_certainty(share, words):
    assert percent(share) == words


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
