"""``results``: the pages of measured numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["results"]


def results(
    folder: Annotated[Path, typer.Option(help="Folder of measured JSON.")] = Path("docs/results"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/results.md"),
    readme: Annotated[Path, typer.Option(help="README with the two markers.")] = Path("README.md"),
) -> None:
    """Write docs/results.md and the README's table from measured JSON."""
    from core.explain.figures import accuracy_figure, progress_figure
    from core.results.pages import SWEEP, TRAINING, read_reports, reports_of, write_results
    from core.results.towns import sweep_series, training_series

    reports = read_reports(folder)
    towns, training = reports_of(reports, "town-"), reports_of(reports, "training-")
    if len(towns) > 1:
        accuracy_figure(*sweep_series(towns)).savefig(folder / SWEEP, dpi=110)
    if training:
        progress_figure(*training_series(training)).savefig(folder / TRAINING, dpi=110)
    write_results(folder, page, readme)
    print(f"{page}: written from {folder}.")
