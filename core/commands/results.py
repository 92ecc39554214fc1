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
