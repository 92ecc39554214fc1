"""``trust``: whether the probabilities can be trusted, on towns that were not used for fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from core.commands.evaluate import check_out, described_town, open_models, tell
from core.commands.options import AsJson, JsonFile, Seed, Threads, use_threads
from core.commands.provenance import provenance
from core.errors import SettingError
from core.results.tables import aligned

__all__ = ["trust", "trust_table"]

PROTOCOL = (
    "Crops of panoramas at random headings, photo frames up to 112.5 degrees, against places of a 19.2 m "
    "grid, answered as the Localizer answers; right: answered position of the first place within 25 m; a "
    "photo from outside is never right; shares in 0..1."
)


def trust(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    data: Annotated[Path, typer.Option(help="World folder of the town that is searched.")],
    other_town: Annotated[
        list[Path],
        typer.Option(
            help="World folder of another town, for photos from outside; may be repeated."
        ),
    ],
    teacher: Annotated[
        Path | None, typer.Option(help="Model folder of the teacher that re-ranks.")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=2, help="The town's own photos per width; as many from outside.")
    ] = 300,
    seed: Seed = 0,
    threads: Threads = None,
    json: AsJson = False,
    out: JsonFile = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
) -> None:
    """Measure calibration, coverage and rejection on towns never used for fitting.

    Without help, with a compass, within a circle, and for smaller galleries. Photos from outside are of
    other towns, sample pictures from Python packages, textures and rooms.
    """
    use_threads(threads)
    check_out(out)
    check_out(figure, "--figure")
    if figure is not None and figure.suffix.lower() != ".png":
        raise SettingError(
            f"Figure {figure}: got the ending {figure.suffix or 'none'!r}, expected .png. Name a PNG."
        )
    if data.resolve() in {folder.resolve() for folder in other_town}:
        raise SettingError(
            f"Other town {data}: got the town that is searched, expected another. Name a town none of "
            "whose photos has a right answer."
        )
    report = _report(student, teacher, data, other_town, queries, seed)
    where = "".join(f" --other-town {folder}" for folder in other_town)
    reranking = "" if teacher is None else f" --teacher {teacher}"
    command = f"trust {student}{reranking} --data {data}{where} --queries {queries} --seed {seed}"
    report = {**report, **provenance(command)}
    tell(report, trust_table(report["rows"]), json, out)
    if figure is not None:
        _draw(report["rows"], figure)


def _report(
    student: Path,
    teacher: Path | None,
    data: Path,
    other_towns: Sequence[Path],
    count: int,
    seed: int,
) -> dict[str, Any]:
    from core.data.worlds import load_town
    from core.evaluation.trust import OUTSIDE_SHARE, measure_trust

    models = open_models(student, teacher)
    config = models.student_config if teacher is None else models.teacher_config
    fitted = config.get("calibration", {})
    if data.name in fitted.get("towns", ()):
        raise SettingError(
            f"Town {data}: got one that the calibration was fitted on, expected another. Measure on a "
            "test town."
        )
    home = described_town(data, student, models)[-1]
    rows = measure_trust(home, [load_town(folder) for folder in other_towns], count, seed)
    return {
        "protocol": PROTOCOL,
        "model": str(student),
        "teacher": None if teacher is None else str(teacher),
        "calibrated": bool(fitted),
        "data": str(data),
        "other_towns": [str(folder) for folder in other_towns],
        "outside_share": OUTSIDE_SHARE,
        "seed": seed,
        "rows": rows,
    }


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from core.explain.figures import trust_figure

    plain = [row for row in rows if row["case"] == rows[0]["case"]]
    everything = plain[-1]
    names = {"own": "the town's own photos", "mixture": "with one photo in ten from outside"}
    reliability = {
        name: [
            (point["confidence"], point["right"], point["weight"])
            for point in everything[key]["reliability"]
        ]
        for key, name in names.items()
    }
    coverages = [point["coverage"] for point in everything["own"]["coverage"]]
    accuracy = {
        "all widths" if row["fov_deg"] is None else f"{row['fov_deg']:g}°": [
            point["right"] for point in row["own"]["coverage"]
        ]
        for row in plain
    }
    trust_figure(reliability, coverages, accuracy).savefig(path, dpi=110)


COLUMNS = (
    *("case", "fov", "ECE", "Brier", "mixed ECE", "mixed Brier", "right", "area", "confident"),
    *("of these", "outside", "own/outside", "right/not"),
)


def trust_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a report as aligned text; "-" if not measured."""
    lines = []
    for row in rows:
        own, mixture, sure = row["own"], row["mixture"], row["own"]["confident"]
        shares = [own["right"], own["area_under_coverage"], sure["coverage"], sure["right"]]
        shares += [row["outside"]["confident"]]
        areas = [row["auroc"][key] for key in ("own_or_outside", "right_or_not")]
        lines.append(
            [row["case"], "all" if row["fov_deg"] is None else f"{row['fov_deg']:g}"]
            + [
                f"{part[key]:.3f}"
                for part in (own, mixture)
                for key in ("calibration_error", "brier_score")
            ]
            + ["-" if one is None else f"{one:.1%}" for one in shares]
            + ["-" if one is None else f"{one['area']:.3f}" for one in areas]
        )
    return aligned(COLUMNS, lines)
