"""``evaluate``: measure a model on a town or on a published benchmark."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.commands.benchmarks import benchmark_report, benchmark_text
from core.commands.options import AsJson, JsonFile, Queries, Seed, Threads, use_threads
from core.commands.provenance import provenance
from core.commands.typed import refuse_beside
from core.data.benchmarks import BENCHMARKS
from core.errors import SettingError
from core.gallery.viewpoints import VIEWPOINTS
from core.results.tables import aligned

if TYPE_CHECKING:
    from core.evaluation.answers import DescribedTown
    from core.localization.answer import Models
    from core.models.geossk import GeoSSK
    from core.models.two_branch import TwoBranch

__all__ = [
    "OpenModels",
    "check_out",
    "described_town",
    "evaluate",
    "evaluation_table",
    "open_models",
    "tell",
]

PROTOCOL = (
    "Crops of panoramas at random headings against all places of a 19.2 m grid, each described from "
    "{} viewpoints of its cell, answered as the Localizer answers; shares in 0..1; errors from the "
    "answered position of the first place to the camera; hit: the place of the grid nearest to the "
    "camera among the first tiles, ties against the model."
)
COLUMNS = (
    ("fov", "fov_deg", "{:.0f}"),
    ("view", "view", "{}"),
    ("heading", "heading", "{}"),
    ("radius", "radius_m", "{:.0f}"),
    ("re-ranked", "reranked", "{}"),
    ("hit@1", "hit@1", "{:.1%}"),
    ("10 m", "within_10_m", "{:.1%}"),
    ("25 m", "within_25_m", "{:.1%}"),
    ("50 m", "within_50_m", "{:.1%}"),
    ("chance", "chance_25_m", "{:.1%}"),
    ("error m", "median_error_m", "{:.1f}"),
    ("point m", "median_position_error_m", "{:.1f}"),
    ("heading err", "median_heading_error_deg", "{:.1f}"),
)


OF_TOWNS = ("teacher", "reranked", "queries", "seed", "viewpoints")
OF_BENCHMARKS = ("polar_root", "device", "batch")


def evaluate(
    context: typer.Context,
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    data: Annotated[
        Path, typer.Option(help="World folder with panoramas; with --benchmark its data set's.")
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(help=f"A published test part instead of a town: {', '.join(BENCHMARKS)}."),
    ] = None,
    polar_root: Annotated[
        Path | None,
        typer.Option(
            help="Benchmark: folder of stored polar pictures, in place of the folder of aerial "
            "pictures; by default a polar model's are computed."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Benchmark: cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Benchmark: pictures at a time.")] = 32,
    teacher: Annotated[
        Path | None, typer.Option(help="Teacher's folder; by default the one beside the student.")
    ] = None,
    reranked: Annotated[bool, typer.Option(help="Add the teacher's re-ranked rows.")] = True,
    queries: Queries = 600,
    seed: Seed = 0,
    viewpoints: Annotated[
        int, typer.Option(help="From how many points of its cell a place is described: 1, 4 or 9.")
    ] = 4,
    threads: Threads = None,
    json: AsJson = False,
    out: JsonFile = None,
) -> None:
    """Measure a model on a town with known answers, or on a published benchmark."""
    use_threads(threads)
    check_out(out)
    if benchmark is not None:
        why = "a benchmark is described as a whole, by the student alone"
        refuse_beside(context, "--benchmark", OF_TOWNS, why)
        report = benchmark_report(student, data, benchmark, polar_root, device, batch)
        tell(report, benchmark_text(report), json, out)
        return
    refuse_beside(context, "a town", OF_BENCHMARKS, "it is for --benchmark")
    report = _town_report(student, teacher, data, reranked, queries, seed, viewpoints)
    tell(report, evaluation_table(report["rows"]), json, out)


def _town_report(
    student: Path,
    teacher: Path | None,
    data: Path,
    reranked: bool,
    queries: int,
    seed: int,
    viewpoints: int,
) -> dict[str, Any]:
    """All rows of one town, with their protocol and command."""
    from core.data.worlds import has_photos, load_photos
    from core.evaluation.report import photo_rows, town_rows
    from core.localization.localizer import teacher_for
    from core.results.students import training_record

    models = open_models(student, teacher_for(student, teacher, reranked))
    towns = described_town(data, student, models, viewpoints)
    rows = town_rows(towns, count=queries, seed=seed)
    photos = []
    if has_photos(data) and models.student.bins is not None:
        photos = photo_rows(towns, load_photos(data))
    command = f"evaluate {student} --data {data} --queries {queries} --seed {seed}"
    command += "" if reranked else " --no-reranked"
    command += "" if viewpoints == VIEWPOINTS else f" --viewpoints {viewpoints}"
    return {
        "protocol": PROTOCOL.format(viewpoints),
        "viewpoints": viewpoints,
        "model": str(student),
        "data": str(data),
        "seed": seed,
        "trained": training_record(models.student_config),
        **provenance(command),
        "rows": rows,
        "photos": photos,
    }


def check_out(out: Path | None, option: str = "--out") -> None:
    """Before hours of work, refuse a file that cannot be written; makes its folder.

    Raises:
        SettingError: the path is a folder, or its folder cannot be made; names the option to change.

    """
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"Output {out}: got no folder for it ({error.strerror}), expected one that can be made. "
            f"Choose another {option}."
        ) from error
    if out.is_dir():
        raise SettingError(
            f"Output {out}: got a folder, expected a file. Name a file in it for {option}."
        )


def tell(report: Mapping[str, Any], text: str, as_json: bool, out: Path | None) -> None:
    """Print a report, as JSON or in words, and write it to a file if one is given."""
    print(json_module.dumps(report) if as_json else text)
    if out is not None:
        beside = out.with_name(f"{out.name}.part")
        beside.write_text(json_module.dumps(report, indent=1), encoding="utf-8")
        beside.replace(out)


@dataclass(frozen=True)
class OpenModels:
    """A student, its teacher if any, and their configs."""

    student: TwoBranch
    student_config: dict[str, Any]
    teacher: GeoSSK | None
    teacher_config: dict[str, Any]

    @property
    def ways(self) -> list[Models]:
        """The student alone, then with the teacher if there is one, each with its calibration."""
        from core.localization.answer import Models
        from core.localization.calibration import Calibration

        def fitted(config: dict[str, Any]) -> Calibration:
            return Calibration.from_config(config.get("calibration", {}))

        alone = Models(self.student.eval(), None, fitted(self.student_config))
        if self.teacher is None:
            return [alone]
        return [alone, Models(self.student, self.teacher.eval(), fitted(self.teacher_config))]


def open_models(student: Path, teacher: Path | None, is_calibrated: bool = True) -> OpenModels:
    """Load model folders and check that each holds the expected kind of model.

    ``is_calibrated``: whether a calibrated teacher must have been calibrated with this student.

    Raises:
        CheckpointError: a folder is missing, damaged, or holds another kind of model, or the two do
            not belong together.

    """
    from core.checkpoints import load_student, load_teacher, require_calibrated_for

    model, config = load_student(student)
    if teacher is None:
        return OpenModels(model, config, None, {})
    looking, looking_config = load_teacher(teacher)
    if is_calibrated:
        require_calibrated_for(teacher, looking_config, student)
    return OpenModels(model, config, looking, looking_config)


def described_town(
    data: Path, student: Path, models: OpenModels, viewpoints: int = VIEWPOINTS
) -> list[DescribedTown]:
    """A world folder, described for the student alone, then for re-ranking if there is a teacher.

    One photo per processor is answered at a time, each with one thread of torch.
    """
    import torch

    from core.checkpoints import model_hash
    from core.data.worlds import load_town
    from core.evaluation.answers import DescribedTown
    from core.evaluation.towns import GALLERY_PIXELS, references_of

    town = load_town(data, tile_pixels=GALLERY_PIXELS)
    references = references_of(data, town, models.student, model_hash(student), viewpoints)
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    return [DescribedTown(town, references, each, workers) for each in models.ways]


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a report (see ``core.results.reports.TownRow``) as aligned text; "-" if not measured."""
    lines = [
        ["" if row.get(key) is None else form.format(row[key]) for _, key, form in COLUMNS]
        for row in rows
    ]
    return aligned([title for title, _, _ in COLUMNS], lines)
