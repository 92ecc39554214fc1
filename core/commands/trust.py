"""``trust``: whether the confidence of answers can be trusted, on towns it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from core.commands.evaluate import check_out, open_models, tell
from core.commands.provenance import provenance
from core.errors import SettingError
from core.results.tables import aligned

__all__ = ["trust", "trust_table"]

PROTOCOL = (
    "Crops of panoramas at random headings, photo frames up to 112.5 degrees, heading unknown, "
    "against all places of a 19.2 m grid, by the steps of the localizer; right: first place within "
    "25 m; a photo from elsewhere is never right; shares in 0..1."
)


def trust(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    data: Annotated[Path, typer.Option(help="World folder of the town that is searched.")],
    elsewhere: Annotated[
        list[Path], typer.Option(help="World folder of another town's photos; may be repeated.")
    ],
    teacher: Annotated[
        Path | None, typer.Option(help="Model folder of the teacher that re-ranks.")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=2, help="The town's own photos per width; a third of each other.")
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the photos and their headings.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
) -> None:
    """Measure calibration, coverage and rejection of strangers on towns never used for fitting."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    check_out(out)
    check_out(figure, "--figure")
    if figure is not None and figure.suffix.lower() != ".png":
        raise SettingError(
            f"Figure {figure}: got the ending {figure.suffix or 'none'!r}, expected .png. Name a PNG."
        )
    if data.resolve() in {folder.resolve() for folder in elsewhere}:
        raise SettingError(
            f"Elsewhere {data}: got the town that is searched, expected another. Name a town none of "
            "whose photos has a right answer."
        )
    report = _report(student, teacher, data, elsewhere, queries, seed)
    where = "".join(f" --elsewhere {folder}" for folder in elsewhere)
    looking = "" if teacher is None else f" --teacher {teacher}"
    command = f"trust {student}{looking} --data {data}{where} --queries {queries} --seed {seed}"
    report = {**report, **provenance(command)}
    tell(report, trust_table(report["rows"]), json, out)
    if figure is not None:
        _draw(report["rows"], figure)


def _report(
    student: Path,
    teacher: Path | None,
    data: Path,
    elsewhere: Sequence[Path],
    count: int,
    seed: int,
) -> dict[str, Any]:
    from core.data.worlds import load_town
    from core.evaluation.fit import STRANGERS
    from core.evaluation.pools import DescribedTown
    from core.evaluation.trust import measure_trust
    from core.localization.calibration import Calibration

    models = open_models(student, teacher)
    pixels = models.student.aerial_size[0]
    towns = [load_town(folder, tile_pixels=pixels) for folder in elsewhere]
    # As in the Localizer: the calibration of the two together stands with the one that looks last.
    config = models.student_config if teacher is None else models.teacher_config
    fitted = config.get("calibration", {})
    if data.name in fitted.get("towns", ()):
        raise SettingError(
            f"Town {data}: got one that the calibration was fitted on, expected another. Measure on a "
            "test town."
        )
    town = load_town(data, tile_pixels=pixels)
    home = DescribedTown(models.student, models.teacher, town)
    rows = measure_trust(home, towns, Calibration.from_config(fitted), count, seed)
    return {
        "protocol": PROTOCOL,
        "model": str(student),
        "teacher": None if teacher is None else str(teacher),
        "calibrated": bool(fitted),
        "data": str(data),
        "elsewhere": [str(folder) for folder in elsewhere],
        "strangers_share": STRANGERS,
        "seed": seed,
        "rows": rows,
    }


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from core.explain.figures import trust_figure

    everything = rows[-1]
    names = {"own": "the town's own photos", "mixture": "with one stranger in ten"}
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
        for row in rows
    }
    trust_figure(reliability, coverages, accuracy).savefig(path, dpi=110)


COLUMNS = (
    *("fov", "ECE", "Brier", "mixed ECE", "mixed Brier", "right", "area", "confident", "of these"),
    *("strangers", "own/else", "right/not"),
)


def trust_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a report as aligned text; "-" where nothing is."""
    lines = []
    for row in rows:
        own, mixture, sure = row["own"], row["mixture"], row["own"]["confident"]
        shares = [own["right"], own["area_under_coverage"], sure["coverage"], sure["right"]]
        shares += [row["strangers"]["false_match_rate"]]
        areas = [row["auroc"][key] for key in ("own_or_elsewhere", "right_or_not")]
        lines.append(
            ["all" if row["fov_deg"] is None else f"{row['fov_deg']:g}"]
            + [
                f"{part[key]:.3f}"
                for part in (own, mixture)
                for key in ("calibration_error", "brier_score")
            ]
            + ["-" if one is None else f"{one:.1%}" for one in shares]
            + ["-" if one is None else f"{one['area']:.3f}" for one in areas]
        )
    return aligned(COLUMNS, lines)
