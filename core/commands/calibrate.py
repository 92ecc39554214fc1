"""``calibrate``: learn on validation towns how sure answers are, and note it in the model folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.commands.evaluate import open_models

if TYPE_CHECKING:
    from torch import nn

__all__ = ["calibrate"]


def calibrate(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    validation: Annotated[Path, typer.Option(help="Folder of validation towns.")],
    teacher: Annotated[
        Path | None, typer.Option(help="Model folder of the teacher that re-ranks.")
    ] = None,
    queries: Annotated[int, typer.Option(min=10, help="Queries per town and width.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the queries.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
) -> None:
    """Fit probabilities and confidence on validation towns; weights and galleries stay valid."""
    import torch

    from core.checkpoints import model_hash
    from core.evaluation.fit import fit_calibration
    from core.training.recipes import load_towns

    if threads is not None:
        torch.set_num_threads(threads)
    models = open_models(student, teacher, is_calibrated=False)
    towns = load_towns(validation, tile_pixels=models.student.aerial_size[0])
    alone, paired = fit_calibration(models.student, models.teacher, towns, queries, seed)
    _note(student, models.student, models.student_config, alone.to_config())
    if teacher is not None and models.teacher is not None and paired is not None:
        fitted = {**paired.to_config(), "student": model_hash(student)}
        _note(teacher, models.teacher, models.teacher_config, fitted)
    print(f"{student}: calibrated on {len(towns)} towns, {queries} queries each.")


def _note(
    folder: Path, model: nn.Module, config: dict[str, Any], calibration: dict[str, Any]
) -> None:
    """Write a calibration into a model folder; half floats come back as the same bytes."""
    from core.checkpoints import CARD, save_model

    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    save_model(folder, model, {**config, "calibration": calibration}, card)
