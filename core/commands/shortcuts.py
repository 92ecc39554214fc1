"""``shortcuts``: what retrieval lives on, from photos and tiles of which only a part is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.commands.evaluate import check_out, open_models, tell
from core.commands.provenance import provenance

__all__ = ["shortcuts"]


def shortcuts(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    data: Annotated[Path, typer.Option(help="World folder with panoramas and truth.npz.")],
    queries: Annotated[int, typer.Option(min=1, help="Panoramas asked, at most.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the panoramas and of drawn orders.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure what is still found from sky, vehicles or colours alone, or from tiles' corners."""
    import torch

    from core.data.worlds import load_town, load_truth
    from core.evaluation.towns import GALLERY_PIXELS
    from core.research.shortcuts import measure_shortcuts
    from core.results.reading import parse_report
    from core.results.reports import ShortcutReport
    from core.results.shortcuts import shortcut_text

    if threads is not None:
        torch.set_num_threads(threads)
    check_out(out)
    models = open_models(student, None).ways[0]
    town = load_town(data, tile_pixels=GALLERY_PIXELS)
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = measure_shortcuts(town, load_truth(data), models, queries, seed, workers)
    command = f"shortcuts {student} --data {data} --queries {queries} --seed {seed}"
    report = {
        "model": str(student),
        "data": str(data),
        "seed": seed,
        **provenance(command),
        "rows": rows,
    }
    tell(report, shortcut_text(parse_report(ShortcutReport, report)), json, out)
