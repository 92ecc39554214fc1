"""``ablate`` and ``results``: GeoSSK part by part, and the pages of figures."""

from __future__ import annotations

import json
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
    steps: Annotated[int, typer.Option(min=1, help="Steps of every arm.")] = 300,
    batch: Annotated[int, typer.Option(min=2, help="Panoramas per step.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 3e-4,
    queries: Annotated[int, typer.Option(min=1, help="Panoramas asked, at most.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same batches.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
) -> None:
    """Plain, CIM and CIM + CF teachers; students alone, with SSKD, with SSKD + IKF: equal budget."""
    import torch

    from core.training.ablation import run_ablation
    from core.training.loop import LoopConfig
    from core.training.recipes import load_towns
    from core.training.sampling import SamplingConfig

    if threads is not None:
        torch.set_num_threads(threads)
    loop = LoopConfig(
        steps=steps, rate=rate, seed=seed, warmup=20, sampling=SamplingConfig(batch=batch)
    )
    judged = [town for folder in data for town in load_towns(folder.parent, [folder.name])]
    rows = run_ablation(load_towns(worlds), judged, loop, start, run, queries)
    judges = " ".join(f"--data {folder}" for folder in data)
    command = (
        f"ablate --worlds {worlds} --start {start} {judges} --run {run} --out {out} "
        f"--steps {steps} --batch {batch} --rate {rate:g} --queries {queries} "
        f"--seed {seed}"
    )
    report = {"steps": steps, "seed": seed, **provenance(command), "rows": rows}
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
    from core.evaluation.pages import SWEEP, TRAINING, read_reports, write_results
    from core.evaluation.town_tables import sweep_series, training_series
    from core.viz import accuracy_figure, progress_figure

    reports = read_reports(folder)
    towns = [report for report in reports if report["file"].startswith("town")]
    training = [report for report in reports if report["file"].startswith("training-")]
    if len(towns) > 1:
        accuracy_figure(*sweep_series(towns)).savefig(folder / SWEEP, dpi=110)
    if training:
        progress_figure(*training_series(training)).savefig(folder / TRAINING, dpi=110)
    write_results(folder, page, readme)
    print(f"{page}: written from {folder}.")
