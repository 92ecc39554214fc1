"""The command line of experiments: ``python -m core.research <command>``.

Exit codes are those of ``python -m core``.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.commands.evaluate import PROTOCOL, check_out, evaluation_table, open_models, tell
from core.commands.exit_codes import run_app
from core.commands.options import AsJson, JsonFile, Queries, Seed, Threads, use_threads
from core.commands.provenance import provenance
from core.gallery.viewpoints import VIEWPOINTS

__all__ = ["app", "main"]

PROGRAM = "python -m core.research"

app = typer.Typer(
    help="Experiments on Crossview's models; not needed to use or train one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (``sys.argv`` by default) and return its exit code: 0, 1 or 2."""
    return run_app(app, PROGRAM, arguments)


@app.command(
    epilog="Example: python -m core.research ablate --worlds build/worlds/train --start "
    "assets/models/student --data assets/town --run build/ablation --out docs/results/ablation.json"
)
def ablate(
    worlds: Annotated[Path, typer.Option(help="Folder of training towns.")],
    start: Annotated[Path, typer.Option(help="Model folder of the student all arms start from.")],
    data: Annotated[list[Path], typer.Option(help="World folder to judge on; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder of all arms; a stopped run is continued.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    teacher: Annotated[
        Path | None,
        typer.Option(help="Compare students only, all with the teacher in this folder."),
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(
            help="Train fresh students of this model; by default students start from --start."
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of wrong labels in training.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every arm.")] = 300,
    batch: Annotated[int, typer.Option(min=2, help="Panoramas per step.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 3e-4,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each town, at most.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every arm, seeds 0, 1, ...")] = 1,
    threads: Threads = None,
) -> None:
    """Compare GeoSSK's parts at equal budget.

    Teachers: plain, CIM, CIM + CF. Students: alone, with SSKD, with IKF, with descriptors.
    """
    from core.research.ablation import AblationConfig, run_ablation
    from core.training.towns import load_towns

    use_threads(threads)
    config = AblationConfig(start, teacher, fresh, noise, steps, batch, rate, range(seeds), queries)
    judged = [town for folder in data for town in load_towns(folder.parent, [folder.name])]
    rows = run_ablation(load_towns(worlds), judged, config, run)
    budget = {
        "protocol": PROTOCOL.format(VIEWPOINTS),
        "steps": steps,
        "batch": batch,
        "seeds": seeds,
        "noise": noise,
        "fresh": fresh,
    }
    measured = provenance(shlex.join(sys.argv[1:]), PROGRAM)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**budget, **measured, "rows": rows}, indent=1), encoding="utf-8")
    for row in rows:
        row["view"] = f"{row['kind']}: {row['arm']}"
    print(evaluation_table(rows))


@app.command(
    epilog="Example: python -m core.research blend build/before build/trained --share 0.5 "
    "--out build/between"
)
def blend(
    before: Annotated[Path, typer.Argument(help="Model folder that the student started from.")],
    trained: Annotated[Path, typer.Argument(help="Model folder of the trained student.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the trained weights.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
) -> None:
    """Write a student between two: a weighted mean of its weights before and after training."""
    from core.research.blend import blend_students

    print(f"{blend_students(before, trained, share, out)}: {share:g} of {trained}'s weights.")


@app.command(
    epilog="Example: python -m core.research shortcuts assets/models/student --data assets/town "
    "--out docs/results/shortcuts.json"
)
def shortcuts(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    data: Annotated[Path, typer.Option(help="World folder with panoramas and truth.npz.")],
    queries: Queries = 300,
    seed: Seed = 0,
    threads: Threads = None,
    json: AsJson = False,
    out: JsonFile = None,
) -> None:
    """Measure what is still found from sky, vehicles or colours alone, or from tiles' corners."""
    import torch

    from core.data.worlds import load_town, load_truth
    from core.evaluation.towns import GALLERY_PIXELS
    from core.research.shortcuts import measure_shortcuts
    from core.results.reading import parse_report
    from core.results.reports import ShortcutReport
    from core.results.shortcuts import shortcut_text

    use_threads(threads)
    check_out(out)
    models = open_models(student, None).ways[0]
    town = load_town(data, tile_pixels=GALLERY_PIXELS)
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = measure_shortcuts(town, load_truth(data), models, queries, seed, workers)
    command = f"shortcuts {student} --data {data} --queries {queries} --seed {seed}"
    report = {
        "protocol": PROTOCOL.format(VIEWPOINTS),
        "model": str(student),
        "data": str(data),
        "seed": seed,
        **provenance(command, PROGRAM),
        "rows": rows,
    }
    tell(report, shortcut_text(parse_report(ShortcutReport, report)), json, out)
