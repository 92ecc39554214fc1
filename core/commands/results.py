"""``ablate`` and ``results``: GeoSSK part by part, and the pages of figures."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.commands.evaluate import evaluation_table
from core.commands.provenance import provenance

__all__ = ["ablate", "results"]


def ablate(
    worlds: Annotated[Path, typer.Option(help="Folder of training towns.")],
    start: Annotated[Path, typer.Option(help="Model folder of the student all arms start from.")],
    data: Annotated[list[Path], typer.Option(help="World folder to judge on; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder of all arms; a stopped run goes on.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    teacher: Annotated[
        Path | None,
        typer.Option(help="Compare students alone, that learn from the teacher of this folder."),
    ] = None,
    pupil: Annotated[
        str | None,
        typer.Option(
            help="Students are fresh ones of this model; by default they go on from --start."
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of wrong labels in training.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every arm.")] = 300,
    batch: Annotated[int, typer.Option(min=2, help="Panoramas per step.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 3e-4,
    queries: Annotated[int, typer.Option(min=1, help="Panoramas asked, at most.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every arm, seeds 0, 1, ...")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
) -> None:
    """Plain, CIM and CIM + CF teachers; students alone, taught, taught with IKF: equal budget."""
    import torch

    from core.training.ablation import AblationConfig, run_ablation
    from core.training.loop import LoopConfig
    from core.training.recipes import ModelConfig, load_towns
    from core.training.sampling import SamplingConfig

    if threads is not None:
        torch.set_num_threads(threads)
    sampling = SamplingConfig(batch=batch, noise=noise)
    loop = LoopConfig(steps=steps, rate=rate, warmup=20, sampling=sampling)
    fresh = None if pupil is None else ModelConfig(pupil)
    config = AblationConfig(start, teacher, fresh, range(seeds), queries)
    judged = [town for folder in data for town in load_towns(folder.parent, [folder.name])]
    rows = run_ablation(load_towns(worlds), judged, loop, config, run)
    told = {"steps": steps, "batch": batch, "seeds": seeds, "noise": noise, "pupil": pupil}
    report = {**told, **provenance(shlex.join(sys.argv[1:])), "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    for row in rows:
        row["view"] = f"{row['kind']}: {row['arm']}"
    print(evaluation_table(rows))


def results(
    folder: Annotated[Path, typer.Option(help="Folder of measured JSON.")] = Path("docs/results"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/results.md"),
    readme: Annotated[Path, typer.Option(help="README with the two markers.")] = Path("README.md"),
) -> None:
    """Write docs/results.md and the README's table from measured JSON."""
    from core.explain.figures import accuracy_figure, progress_figure
    from core.results.pages import SWEEP, TRAINING, write_results
    from core.results.reading import read_reports
    from core.results.towns import sweep_series, training_series

    reports = read_reports(folder)
    if len(reports.towns) > 1:
        accuracy_figure(*sweep_series(reports.towns)).savefig(folder / SWEEP, dpi=110)
    if reports.training:
        progress_figure(*training_series(reports.training)).savefig(folder / TRAINING, dpi=110)
    write_results(folder, page, readme)
    print(f"{page}: written from {folder}.")
