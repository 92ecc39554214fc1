"""``train`` and ``distill``: rendered towns, or a benchmark and a recipe, in; model folders out."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.commands.devices import checked_device
from core.commands.recipes import check_options, run_recipe
from core.commands.world import parse_canvas
from core.errors import SettingError

if TYPE_CHECKING:
    from core.data.worlds import Town
    from core.training.loop import LoopConfig
    from core.training.pointing import Lessons

__all__ = ["distill", "train"]

Worlds = Annotated[Path | None, typer.Option(help="Folder of training towns.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        help="Train on a published data set as this TOML file says, instead of on towns; see recipes/."
    ),
]
Data = Annotated[Path | None, typer.Option(help="Recipe: folder of its data set.")]
PolarRoot = Annotated[
    Path | None,
    typer.Option(
        help="Recipe with polar views: folder of stored ones, which stands for the folder of the "
        "aerial pictures; by default they are computed."
    ),
]
Validation = Annotated[Path | None, typer.Option(help="Folder of validation towns.")]
Run = Annotated[Path, typer.Option(help="Folder of checkpoints and log; a stopped run goes on.")]
Out = Annotated[Path, typer.Option(help="Model folder to write.")]
Start = Annotated[Path | None, typer.Option(help="Model folder of a student to go on from.")]
TeacherFlag = Annotated[
    bool, typer.Option("--teacher", help="Train a GeoSSK teacher on the student of --start.")
]
Interaction = Annotated[bool, typer.Option(help="Teacher: cross-view attention (CIM).")]
Contribution = Annotated[bool, typer.Option(help="Teacher: contribution gates (CF).")]
Heads = Annotated[int, typer.Option(min=1, help="Teacher: attention heads.")]
Pointing = Annotated[
    float, typer.Option(min=0, help="Teacher: weight of teaching attention where things are.")
]
Passing = Annotated[
    float,
    typer.Option(min=0, help="Teacher: weight of teaching that vehicles and sky count little."),
]
Aligned = Annotated[
    bool,
    typer.Option(
        "--aligned",
        help="Student: learn pairs whose tile lies under the view, as the branches of a teacher.",
    ),
]
Blend = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Student: share of the trained weights, the rest of --start's."
    ),
]
Model = Annotated[str, typer.Option(help="Student: a name in core.models.MODELS, or timm/<name>.")]
Pooling = Annotated[str, typer.Option(help="Student: azimuth, gap or smd; cls for l2ltr.")]
GroundSize = Annotated[
    str, typer.Option(metavar="HEIGHTxWIDTH", help="Student: pixels of a full canvas.")
]
AerialSize = Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Student: pixels of a tile.")]
Dim = Annotated[int, typer.Option(min=1, help="Student: values per azimuth bin, with azimuth.")]
Relation = Annotated[
    float | None, typer.Option(min=0, help="Weight of the knowledge between images.")
]
Local = Annotated[float | None, typer.Option(min=0, help="Weight of the knowledge between parts.")]
Descriptors = Annotated[
    float | None, typer.Option(min=0, help="Weight of how each view is described.")
]
Filter = Annotated[bool, typer.Option(help="Keep the teacher's mistakes to itself (IKF).")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Training steps; with a recipe only for a trial.")
]
Rate = Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")]
Batch = Annotated[int | None, typer.Option(min=2, help="Panoramas per step.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same batches.")]
ValidateEvery = Annotated[int | None, typer.Option(min=1, help="Steps between validations.")]
SaveEvery = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]
Bfloat16 = Annotated[
    bool | None,
    typer.Option(help="Compute in bfloat16; by default where the device is made for it."),
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that draw batches, for a GPU; 0: a thread does.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all by default.")]


def train(
    context: typer.Context,
    run: Run,
    out: Out,
    worlds: Worlds = None,
    recipe: RecipeFile = None,
    data: Data = None,
    polar_root: PolarRoot = None,
    validation: Validation = None,
    start: Start = None,
    teacher: TeacherFlag = False,
    interaction: Interaction = True,
    contribution: Contribution = True,
    heads: Heads = 2,
    pointing: Pointing = 0.0,
    transient: Passing = 0.0,
    aligned: Aligned = False,
    blend: Blend = 1.0,
    model: Model = "convnet-s",
    pooling: Pooling = "azimuth",
    ground_size: GroundSize = "64x256",
    aerial_size: AerialSize = "128x128",
    dim: Dim = 24,
    steps: Steps = None,
    rate: Rate = None,
    batch: Batch = None,
    seed: Seed = 0,
    validate_every: ValidateEvery = None,
    save_every: SaveEvery = None,
    bfloat16: Bfloat16 = None,
    device: Device = "cpu",
    workers: Workers = 0,
    threads: Threads = None,
) -> None:
    """Train a student, or with --teacher a teacher, on rendered towns; or by a recipe.

    A recipe says what is trained on which published data set and how; --start is the model folder
    that it begins with (an ImageNet backbone of convert, the student of a teacher).
    """
    check_options(context, recipe, data)
    device = _prepared(device, threads)
    if recipe is not None and data is not None:
        from core.training.benchmarks import Folders, Session

        folders = Folders(data, run, out, start, None, polar_root)
        session = Session(seed, device, steps, save_every, _command())
        _tell(run, run_recipe(recipe, "train", folders, session))
        return
    from core.training.pointing import Lessons
    from core.training.recipes import ModelConfig, train_student, train_teacher

    lessons = Lessons(pointing, transient)
    _check_teacher(teacher, start, lessons, aligned)
    _check_blend(teacher, start, blend)
    config = ModelConfig(model, pooling, parse_canvas(ground_size), parse_canvas(aerial_size), dim)
    loop = _loop(steps, rate, batch, seed, validate_every, save_every, bfloat16, device, workers)
    towns, held_out = _towns(worlds, validation, start, config.aerial_size, bool(lessons))
    told: dict[str, Any]
    if teacher and start is not None:
        parts = {"interaction": interaction, "contribution": contribution, "heads": heads}
        told = {"command": _command(), "lessons": lessons, **parts}
        written = train_teacher(towns, held_out, loop, run, out, start, **told)
    else:
        told = {"command": _command(), "aligned": aligned, "blend": blend}
        written = train_student(towns, held_out, loop, run, out, config, start, **told)
    _tell(run, f"{written}: trained for {loop.steps} steps on {len(towns)} towns.")


def distill(
    context: typer.Context,
    start: Annotated[Path, typer.Option(help="Model folder of the student to go on from.")],
    teacher: Annotated[Path, typer.Option(help="Model folder of the GeoSSK teacher.")],
    run: Run,
    out: Out,
    worlds: Worlds = None,
    recipe: RecipeFile = None,
    data: Data = None,
    polar_root: PolarRoot = None,
    validation: Validation = None,
    relation: Relation = None,
    local: Local = None,
    descriptors: Descriptors = None,
    filter: Filter = True,
    steps: Steps = None,
    rate: Rate = None,
    batch: Batch = None,
    seed: Seed = 0,
    validate_every: ValidateEvery = None,
    save_every: SaveEvery = None,
    bfloat16: Bfloat16 = None,
    device: Device = "cpu",
    workers: Workers = 0,
    threads: Threads = None,
) -> None:
    """Train a student on under a frozen teacher (SSKD, IKF), on rendered towns or by a recipe."""
    check_options(context, recipe, data)
    device = _prepared(device, threads)
    if recipe is not None and data is not None:
        from core.training.benchmarks import Folders, Session

        folders = Folders(data, run, out, start, teacher, polar_root)
        session = Session(seed, device, steps, save_every, _command())
        _tell(run, run_recipe(recipe, "distill", folders, session))
        return
    loop = _loop(steps, rate, batch, seed, validate_every, save_every, bfloat16, device, workers)
    towns, held_out = _towns(worlds, validation, start, None)
    from core.training.objectives import DistillationConfig
    from core.training.recipes import distil_student

    given = _given(relation=relation, local=local, descriptors=descriptors, is_filtered=filter)
    knowledge = dataclasses.replace(DistillationConfig(), **given)
    written = distil_student(towns, held_out, loop, run, out, start, teacher, knowledge, _command())
    _tell(run, f"{written}: distilled for {loop.steps} steps on {len(towns)} towns.")


def _check_teacher(teacher: bool, start: Path | None, lessons: Lessons, aligned: bool) -> None:
    """Refuse what a teacher lacks and what only a teacher can have, before any work."""
    if teacher and start is None:
        raise SettingError(
            "Teacher: got no --start, expected the model folder of a student. Train one first."
        )
    if aligned and teacher:
        raise SettingError(
            "Option --aligned: got it with --teacher, expected one of them: a teacher's pairs are "
            "aligned anyhow. Leave it out."
        )
    if aligned and start is None:
        raise SettingError(
            "Option --aligned: got it without --start, expected a student to make a teacher's branches "
            "of. Name its model folder."
        )
    if lessons and not teacher:
        raise SettingError(
            "Options --pointing and --transient: got one without --teacher, expected both: a student's "
            "attention is not taught. Leave it out, or train a teacher."
        )


def _check_blend(teacher: bool, start: Path | None, blend: float) -> None:
    if blend < 1 and (teacher or start is None):
        raise SettingError(
            f"Option --blend: got {blend:g} {'for a teacher' if teacher else 'without --start'}, "
            "expected it for a student that goes on from another. Leave it out."
        )


def _command() -> str:
    return "python -m core " + shlex.join(sys.argv[1:])


def _tell(run: Path, sentence: str) -> None:
    """Draw the log of a run as a picture beside it and say what was done."""
    from core.explain.figures import training_figure

    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    training_figure([json.loads(line) for line in lines]).savefig(run / "curve.png", dpi=110)
    print(sentence)


def _prepared(device: str, threads: int | None) -> str:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return checked_device(device)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _loop(
    steps: int | None,
    rate: float | None,
    batch: int | None,
    seed: int,
    validate_every: int | None,
    save_every: int | None,
    bfloat16: bool | None,
    device: str,
    workers: int,
) -> LoopConfig:
    """The recipe's own settings, and what was typed instead."""
    from core.training.loop import LoopConfig

    config = LoopConfig(seed=seed, bfloat16=bfloat16, device=device, workers=workers)
    sampling = dataclasses.replace(config.sampling, **_given(batch=batch))
    typed = _given(steps=steps, rate=rate, validate_every=validate_every, save_every=save_every)
    return dataclasses.replace(config, sampling=sampling, **typed)


def _towns(
    worlds: Path | None,
    validation: Path | None,
    start: Path | None,
    aerial_size: Any,
    with_truth: bool = False,
) -> tuple[list[Town], list[Town]]:
    """Training and validation towns, their imagery at the resolution of the model's tiles."""
    from core.checkpoints import load_state
    from core.training.recipes import load_towns

    assert worlds is not None, "check_options has seen to it"
    if start is not None:
        aerial_size = load_state(start)[0]["model"].get("aerial_size", aerial_size)
    pixels = int((aerial_size or (256, 256))[0])
    held_out = [] if validation is None else load_towns(validation, tile_pixels=pixels)
    return load_towns(worlds, tile_pixels=pixels, with_truth=with_truth), held_out
