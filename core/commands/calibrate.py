"""``calibrate``: fit the probabilities on validation towns and store them in the model folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.commands.evaluate import described_town, open_models
from core.commands.options import Seed, Threads, use_threads
from core.errors import WorldError
from core.polar import BIN_DEG

if TYPE_CHECKING:
    from torch import nn

__all__ = ["calibrate", "with_calibration"]

CALIBRATED = "- calibrated on validation towns"


def calibrate(
    student: Annotated[Path, typer.Argument(help="Model folder of the student.")],
    validation: Annotated[Path, typer.Option(help="Folder of validation towns.")],
    teacher: Annotated[
        Path | None, typer.Option(help="Model folder of the teacher that re-ranks.")
    ] = None,
    other_towns: Annotated[
        Path | None, typer.Option(help="Folder of more towns, for photos from outside.")
    ] = None,
    queries: Annotated[int, typer.Option(min=10, help="Queries per town and width.")] = 100,
    seed: Seed = 1,
    viewpoints: Annotated[
        int,
        typer.Option(help="Number of viewpoints of a place, as in the galleries."),
    ] = 4,
    threads: Threads = None,
) -> None:
    """Fit probabilities on validation towns; weights and galleries stay valid.

    Photos from outside come from the other validation towns, from --other-towns and from sample
    pictures in Python packages; textures and rooms are drawn.
    """
    from core.checkpoints import model_hash
    from core.evaluation.fit import fit_calibration
    from core.training.towns import load_towns

    use_threads(threads)
    models = open_models(student, teacher, is_calibrated=False)
    folders = sorted(path.parent for path in validation.glob("*/world.json"))
    if not folders:
        raise WorldError(
            f"Validation {validation}: got no world folders in it, expected at least one. Build them "
            "with: python -m core world build"
        )
    towns = [described_town(folder, student, models, viewpoints)[-1] for folder in folders]
    others = [] if other_towns is None else load_towns(other_towns)
    alone, paired = fit_calibration(towns, others, queries, seed)
    names = [home.town.name for home in towns]
    fitted: dict[str, Any] = {"towns": names, "queries": queries}
    _note(student, models.student, models.student_config, {**alone.to_config(), **fitted})
    if teacher is not None and models.teacher is not None and paired is not None:
        fitted["student"] = model_hash(student)
        _note(teacher, models.teacher, models.teacher_config, {**paired.to_config(), **fitted})
    print(f"{student}: calibrated on {len(towns)} towns, {queries} queries each.")


def _note(folder: Path, model: nn.Module, config: dict[str, Any], fitted: dict[str, Any]) -> None:
    """Write a calibration into a model folder, and the model's results into its card.

    Half floats are written back as the same bytes.
    """
    from core.checkpoints import CARD, save_model

    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    save_model(folder, model, {**config, "calibration": fitted}, with_calibration(card, fitted))


def with_calibration(card: str, fitted: dict[str, Any]) -> str:
    """A card with one line of the calibration's results; an earlier such line is replaced."""
    radii = [view.get("refined_radius_m") or view["radius_m"] for view in fitted["views"]]
    shares = ", ".join(
        f"{view['bins'] * BIN_DEG:g}° {100 * view['located']:.1f} %"
        + ("" if radius is None else f" (to {radius:.0f} m)")
        for view, radius in zip(fitted["views"], radii, strict=True)
    )
    line = (
        f"{CALIBRATED} {', '.join(fitted['towns'])}, {fitted['queries']} queries each, heading unknown, "
        "all places of a town: first place within 25 m of the camera (and nine of ten of these within "
        f"so many metres of the answered point): {shares}"
    )
    lines = [text for text in card.splitlines() if not text.startswith(CALIBRATED)]
    bullets = [at for at, text in enumerate(lines) if text.startswith("- ")]
    lines.insert(bullets[-1] + 1 if bullets else len(lines), line)
    return "\n".join(lines) + "\n"
