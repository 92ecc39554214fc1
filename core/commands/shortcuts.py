"""``shortcuts``: what retrieval lives on, from photos and tiles of which only a part is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.commands.evaluate import check_out, open_models, tell
from core.commands.options import AsJson, JsonFile, Queries, Seed, Threads, use_threads
from core.commands.provenance import provenance

__all__ = ["shortcuts"]


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
        "model": str(student),
        "data": str(data),
        "seed": seed,
        **provenance(command),
        "rows": rows,
    }
    tell(report, shortcut_text(parse_report(ShortcutReport, report)), json, out)
