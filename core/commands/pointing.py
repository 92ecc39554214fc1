"""``pointing``: whether a teacher's explanations are true, on a town with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.commands.evaluate import check_out, described_town, open_models, tell
from core.commands.options import AsJson, JsonFile, Queries, Seed, Threads, use_threads
from core.commands.provenance import provenance

__all__ = ["pointing"]

PROTOCOL = (
    "Crops of panoramas at random headings. The true nearest place of a 19.2 m grid is given; the tile "
    "is cut around the position in it that student and teacher answer. For pointing the true azimuth "
    "shift is given too, to the nearest of 32 bins; contribution depends on no tile; the source of each "
    "heading names the given azimuth shift. Medians and means over patches; equally strong sectors "
    "count against attention."
)


def pointing(
    teacher: Annotated[Path, typer.Argument(help="Model folder of the teacher.")],
    data: Annotated[Path, typer.Option(help="World folder with panoramas and truth.npz.")],
    student: Annotated[
        Path | None, typer.Option(help="Student's folder; by default the one beside the teacher.")
    ] = None,
    queries: Queries = 200,
    seed: Seed = 0,
    threads: Threads = None,
    json: AsJson = False,
    out: JsonFile = None,
) -> None:
    """Measure whether explanations are true: where attention points, what contributes, headings.

    A rendered town records the class and the place of the content of each patch of a panorama. The
    report gives the distance from the place that attention points to, to the place of the content. It
    also gives the contribution of each class, and headings. All have baselines, at 360, 180 and 90
    degrees.
    """
    from core.data.worlds import load_truth
    from core.evaluation.explained_town import explain_town
    from core.evaluation.explanations import GROUPS
    from core.results.explanations import explanation_text
    from core.results.reading import parse_report
    from core.results.reports import ExplanationReport

    use_threads(threads)
    check_out(out)
    student = teacher.parent / "student" if student is None else student
    models = open_models(student, teacher)
    described = described_town(data, student, models)[-1]
    rows = explain_town(described, load_truth(data), count=queries, seed=seed)
    command = f"pointing {teacher} --student {student} --data {data} --queries {queries}"
    report = {
        "protocol": PROTOCOL,
        "model": str(teacher),
        "student": str(student),
        "data": str(data),
        "seed": seed,
        **provenance(f"{command} --seed {seed}"),
        "groups": {name: list(parts) for name, parts in GROUPS.items()},
        "rows": rows,
    }
    tell(report, explanation_text(parse_report(ExplanationReport, report)), json, out)
