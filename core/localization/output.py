"""Predictions as records and files: JSON, GeoJSON, CSV, GeoPackage.

Every file holds one row or feature per candidate, so a folder of photos becomes one table. The column
``photo`` tells the photos apart: ``locate`` writes each photo's path there, as it was typed.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import SettingError
from core.records import Candidate, Prediction

__all__ = [
    "FORMATS",
    "candidate_rows",
    "check_output",
    "percent",
    "prediction_record",
    "write_predictions",
]

Rows = list[dict[str, Any]]

COLUMNS = (
    "photo", "fov_deg", "fov_source", "verdict", "confident", "confidence", "rest_probability",
    "outside_probability", "area_50_m2", "area_90_m2", "rank", "tile_id", "lat_deg", "lon_deg",
    "radius_m", "similarity", "teacher_score", "probability", "heading_deg",
)  # fmt: skip


def prediction_record(prediction: Prediction) -> dict[str, Any]:
    """The JSON object of ``locate --json`` and of the page's API, ready to dump.

    Degrees to 7 decimals (a centimetre), headings to 2, cosines to 6, areas in whole square metres.
    Probabilities to 9: those of all candidates, the rest and outside sum to 1 within a millionth.
    """
    return {
        **_prediction_fields(prediction),
        "heading_deg": _rounded(prediction.heading_deg, 2),
        "candidates": [_candidate_record(candidate) for candidate in prediction.candidates],
        "timings_ms": {name: round(ms, 1) for name, ms in prediction.timings_ms.items()},
    }


def _prediction_fields(prediction: Prediction) -> dict[str, Any]:
    """The fields about the photo as a whole."""
    return {
        "photo": prediction.photo,
        "fov_deg": _rounded(prediction.fov_deg, 2),
        "fov_source": prediction.fov_source,
        "verdict": prediction.verdict,
        "confident": prediction.confident,
        "confidence": _rounded(prediction.confidence, 9),
        "rest_probability": _rounded(prediction.rest_probability, 9),
        "outside_probability": _rounded(prediction.outside_probability, 9),
        "area_50_m2": _rounded(prediction.area_50_m2, 0),
        "area_90_m2": _rounded(prediction.area_90_m2, 0),
    }


def _candidate_record(candidate: Candidate) -> dict[str, Any]:
    return {
        "rank": candidate.rank,
        "tile_id": candidate.tile.tile_id,
        "lat_deg": _rounded(candidate.camera.lat_deg, 7),
        "lon_deg": _rounded(candidate.camera.lon_deg, 7),
        "radius_m": _rounded(candidate.radius_m, 1),
        "similarity": _rounded(candidate.similarity, 6),
        "teacher_score": _rounded(candidate.teacher_score, 6),
        "probability": _rounded(candidate.probability, 9),
        "heading_deg": _rounded(candidate.heading_deg, 2),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def candidate_rows(predictions: Sequence[Prediction]) -> Rows:
    """One flat row per candidate, keys as in ``COLUMNS``; units as in core.records."""
    return [
        {**_prediction_fields(prediction), **_candidate_record(candidate)}
        for prediction in predictions
        for candidate in prediction.candidates
    ]


def percent(share: float) -> str:
    """A probability in [0, 1] as a percentage, never 0 or 100."""
    if share < 0.001:
        return "< 0.1 %"
    if share < 0.1:
        return f"{100 * share:.1f} %"
    return f"{min(100 * share, 99):.0f} %"


def check_output(path: Path) -> None:
    """Before any work is done, refuse a path that cannot be written.

    Raises:
        SettingError: an ending other than those in ``FORMATS``, or a folder that does not exist.

    """
    if path.suffix.lower() not in FORMATS:
        raise SettingError(
            f"Output {path.name}: got the ending {path.suffix or 'none'!r}, expected one of "
            f"{', '.join(FORMATS)}. Choose one of these for --out."
        )
    if not path.parent.is_dir():
        raise SettingError(
            f"Output {path}: the folder {path.parent} does not exist. Make it first or choose "
            "another for --out."
        )


def write_predictions(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write all candidates to one file; its ending selects the format. An old file is replaced.

    Points are WGS 84; GeoJSON puts longitude first (RFC 7946). The GeoPackage has one layer,
    ``candidates``.

    Raises:
        SettingError: an unknown ending, a missing folder, or a place that cannot be written.

    """
    path = Path(path)
    check_output(path)
    # Write a temporary file and rename it: a killed run leaves the old file, never half a new one.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        FORMATS[path.suffix.lower()](partial, candidate_rows(predictions))
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # GDAL reports what it cannot write as RuntimeError
        raise SettingError(
            f"Output {path}: cannot be written ({error}). Choose another place for --out."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_geojson(path: Path, rows: Rows) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["lon_deg"], row["lat_deg"]]},
            "properties": row,
        }
        for row in rows
    ]
    collection = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(collection, ensure_ascii=False, indent=1), encoding="utf-8")


def _write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _write_gpkg(path: Path, rows: Rows) -> None:
    import geopandas

    table = {name: [row[name] for row in rows] for name in COLUMNS}
    points = geopandas.points_from_xy(table["lon_deg"], table["lat_deg"])
    frame = geopandas.GeoDataFrame(table, geometry=points, crs="EPSG:4326")
    numbers = ["area_50_m2", "area_90_m2", "radius_m", "teacher_score", "heading_deg"]
    frame[numbers] = frame[numbers].astype(float)  # a column of None alone would become text
    frame.to_file(path, layer="candidates", driver="GPKG")


FORMATS: dict[str, Callable[[Path, Rows], None]] = {
    ".geojson": _write_geojson,
    ".csv": _write_csv,
    ".gpkg": _write_gpkg,
}
"""Writers by file ending."""
