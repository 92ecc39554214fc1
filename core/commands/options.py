"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "JsonFile", "Queries", "Seed", "Threads", "use_threads"]

Queries = Annotated[int, typer.Option(min=1, help="Panoramas used, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all random draws: same seed, same numbers.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonFile = Annotated[Path | None, typer.Option("--out", help="JSON file to write.")]


def use_threads(threads: int | None) -> None:
    """Set torch's number of threads; None keeps torch's default."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
