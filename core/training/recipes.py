"""From worlds to model folders: train a student, train a teacher on it, distil a student from it.

Each recipe runs unchanged on CPU and CUDA and at any size; what ships was made by
``python -m core train`` and ``python -m core distill`` with the arguments in its card.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from core.arrays import Float64Array
from core.checkpoints import load_student, load_teacher, model_hash, save_model
from core.data.worlds import Town, load_town, load_truth, with_truth_of
from core.errors import DataError, SettingError
from core.evaluation.report import Setting, evaluate_town
from core.models import TEACHER, build_model, build_teacher
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import RINGS
from core.training.loop import LoopConfig, run_loop
from core.training.memory import TileMemory
from core.training.mining import confusing_points
from core.training.objectives import (
    DistillationConfig,
    DistillationObjective,
    StudentObjective,
    TeacherObjective,
)
from core.training.pointing import Lessons
from core.training.sampling import SamplingConfig, TownBatches

__all__ = [
    "ModelConfig",
    "distil_student",
    "load_towns",
    "mine",
    "model_card",
    "train_student",
    "train_teacher",
]

LESSONS = {
    "pointing": "attention was taught where things are",
    "transient": "contribution factors were taught that vehicles and sky count for little",
}
HARD_TILES = 3.0
"""A teacher's: for each place of a batch so many tiles that its student takes for such a place."""
ALIGNED: dict[str, Any] = {"offset_m": 3.5, "turn_error": 0.2}
"""A teacher's: its tiles lie under their views about as nearly as a student's answers do, where right."""
VALIDATED = (Setting(32), Setting(16), Setting(8))


@dataclass(frozen=True)
class ModelConfig:
    """Arguments of ``build_model``: what is trained when nothing is started from."""

    name: str = "convnet-s"
    pooling: str = "azimuth"
    ground_size: tuple[int, int] = (64, 256)
    aerial_size: tuple[int, int] = (128, 128)
    dim: int = 24


def load_towns(
    root: str | Path,
    names: Sequence[str] | None = None,
    tile_pixels: int = 128,
    with_truth: bool = False,
) -> list[Town]:
    """Towns under a folder, all or those named, in the order of their names.

    ``with_truth``: also what each patch of their panoramas shows.

    Raises:
        DataError: the folder holds no world, or lacks one that was named.
        WorldError: a world, or its truth, cannot be read.
    """
    root = Path(root)
    found = sorted(path.parent.name for path in root.glob("*/world.json"))
    missing = sorted(set(names or ()) - set(found))
    if missing or not found:
        raise DataError(
            f"Worlds {root}: got {len(found)} towns, "
            + (f"expected {', '.join(missing[:5])} among them. " if missing else "expected some. ")
            + "Build them: make worlds"
        )
    wanted = [name for name in found if not names or name in names]
    towns = [load_town(root / name, tile_pixels) for name in wanted]
    if not with_truth:
        return towns
    return [with_truth_of(town, load_truth(root / town.name)) for town in towns]


def validation_figures(
    student: TwoBranch, towns: Sequence[Town], teacher: GeoSSK | None = None, count: int = 200
) -> dict[str, float]:
    """Mean share within 25 m over validation towns at 360, 180 and 90 degrees; hit@1 beside it."""
    figures: dict[str, list[float]] = {}
    for town in towns:
        for row in evaluate_town(town, student, teacher, settings=VALIDATED, count=count):
            name = f"{row['fov_deg']:.0f}{'_reranked' if row['reranked'] else ''}"
            figures.setdefault(f"within_25_m_{name}", []).append(float(str(row["within_25_m"])))
            figures.setdefault(f"hit@1_{name}", []).append(float(str(row["hit@1"])))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _record(
    kind: str,
    towns: Sequence[Town],
    loop: LoopConfig,
    folder: Path,
    command: str,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the card says; ``before`` is the record of the model that was started from."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    return {
        "kind": kind,
        "command": command,
        "towns": [town.name for town in towns],
        "panoramas": sum(len(town.panoramas) for town in towns),
        "loop": asdict(loop),
        "minutes": round(_seconds(log) / 60, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {loop.device}",
        "torch": torch.__version__,
        "last": log[-1],
        **({} if before is None else {"before": before}),
    }


def _seconds(log: Sequence[dict[str, Any]]) -> float:
    """Seconds of all sittings of a run: each step says how long its sitting has lasted."""
    total = last = 0.0
    for record in log:
        now = float(record.get("seconds", last))
        if now < last:
            total += last
        last = now
    return total + last


def model_card(title: str, record: dict[str, Any]) -> str:
    """The card of a trained model, from the training record in its config."""
    loop = record["loop"]
    before = record.get("before")
    if before is None:
        began = ""
    elif "data_set" in before:
        began = (
            f"- went on from a model of {before['loop']['steps']} steps on {before['data_set']}, "
            f"peak rate {before['loop']['rate']}\n"
        )
    else:
        began = (
            f"- went on from a model of {before['loop']['steps']} steps and {before['minutes']} minutes "
            f"on {len(before['towns'])} towns, peak rate {before['loop']['rate']}\n"
        )
    if "blend" in record:
        began += f"- weights: {record['blend']:g} of those trained, the rest of those before\n"
    taught = "".join(
        f"- {lesson} (auxiliary loss, weight {record[name]:g})\n"
        for name, lesson in LESSONS.items()
        if record.get(name)
    )
    return (
        f"# {title}\n\n"
        f"Trained on {len(record['towns'])} rendered (synthetic) towns with "
        f"{record['panoramas']} panoramas; seeds of the towns: {', '.join(record['towns'])}. "
        "No test town and no real photo was seen.\n\n"
        f"- command: `{record['command']}`\n"
        f"- steps {loop['steps']}, peak rate {loop['rate']}, batch {loop['sampling']['batch']}, "
        f"seed {loop['seed']}\n"
        f"- {record['minutes']} minutes on {record['machine']}, torch {record['torch']}\n"
        f"{began}"
        f"{taught}"
        f"- {_how_well(record['last'])}\n\n"
        "GeoSSK is rebuilt from its abstract; every figure is this project's own. These weights: CC0.\n"
    )


def _how_well(last: dict[str, Any]) -> str:
    """What validation said of a model, from the last line of its log."""
    figures = last.get("validation", {})
    told = [
        f"{field}° {100 * figures[key]:.1f} %"
        + (f" ({100 * figures[again]:.1f} % re-ranked)" if again in figures else "")
        for field in (360, 180, 90)
        if (key := f"within_25_m_{field}") in figures
        for again in (f"{key}_reranked",)
    ]
    if not told:
        return "not judged on validation towns (no `--validation`): measure it with `evaluate`"
    return (
        "first place within 25 m of the camera on validation towns, of all places of a town, heading "
        f"unknown: {', '.join(told)}"
    )


def _run(
    objective: nn.Module,
    student: TwoBranch,
    towns: Sequence[Town],
    validation: Sequence[Town],
    loop: LoopConfig,
    run: Path,
    what: dict[str, Any],
    teacher: GeoSSK | None = None,
    confusing: Sequence[Float64Array] = (),
) -> None:

    def validate() -> dict[str, float]:
        """Towns are judged on the processor, wherever the models are trained."""
        student.cpu()
        figures = validation_figures(student, validation, teacher and teacher.cpu())
        objective.to(loop.device)
        return figures

    run_loop(
        objective,
        TownBatches(towns, loop.sampling, student.aerial_size[0], loop.seed, confusing),
        loop,
        run,
        validate if validation else None,
        what,
    )


def _fresh(model: ModelConfig) -> tuple[TwoBranch, dict[str, Any]]:
    """A student with fresh weights, and its configuration."""
    built = asdict(model)
    name = built.pop("name")
    return build_model(name, **built), {"name": name, "model": built}


def _aligned(student: TwoBranch, sampling: SamplingConfig) -> SamplingConfig:
    """What branches of a teacher learn from before there is one."""
    if student.bins is None:
        raise SettingError(
            "Aligned: got a model with a global descriptor, expected azimuth bins, which can be laid "
            "under one another."
        )
    return replace(sampling, **ALIGNED, elsewhere=0.5)


def _student_objective(student: TwoBranch, loop: LoopConfig, towns: int) -> StudentObjective:
    """The task, with a memory of tiles where a model has azimuth bins."""
    kept = loop.sampling.remembered if student.bins is not None else 0
    memory = TileMemory(towns, student.dim, kept) if kept else None
    return StudentObjective(student, memory, loop.sampling.also_true_m)


def train_student(
    towns: Sequence[Town],
    validation: Sequence[Town],
    loop: LoopConfig,
    run: Path,
    out: Path,
    model: ModelConfig | None = None,
    start: Path | None = None,
    command: str = "",
    aligned: bool = False,
    blend: float = 1.0,
) -> Path:
    """Train a student from scratch, or on from a model folder; write its model folder ``out``.

    ``run`` keeps checkpoint and log: the same call resumes there. ``command`` is for the card.
    ``aligned``: for pairs that lie over one another, as the branches of a teacher meet them. ``blend``:
    share of the trained weights in those that are written, the rest are those that were started from:
    what was learned in addition, and what was known before ("Robust fine-tuning of zero-shot models",
    Wortsman et al., CVPR 2022).

    Raises:
        SettingError: ``aligned`` and a model without azimuth bins.
    """
    torch.manual_seed(loop.seed)
    student, config = _fresh(model or ModelConfig()) if start is None else load_student(start)
    if student.bins is None:
        # Each of its crops costs a full canvas, not a share of one.
        loop = replace(loop, sampling=replace(loop.sampling, every_crop=False))
    if aligned:
        loop = replace(loop, sampling=_aligned(student, loop.sampling))
    model_of = {"name": config["name"], **config["model"]}
    what = {"trained": "student", "model": model_of, "start": start and model_hash(start)}
    _run(_student_objective(student, loop, len(towns)), student, towns, validation, loop, run, what)
    record = _record("student", towns, loop, run, command, config.get("training"))
    if start is not None and blend < 1:
        _blend(student.cpu(), load_student(start)[0], blend)
        record["blend"] = blend
        record["last"] = {"step": loop.steps - 1}
        if validation:
            record["last"]["validation"] = validation_figures(student, validation)
    kept = {"name": config["name"], "model": config["model"], "training": record}
    save_model(out, student.cpu(), kept, model_card(f"Student {config['name']}", record))
    return out


def _blend(student: TwoBranch, before: TwoBranch, share: float) -> None:
    """Move a student's weights and statistics back: ``share`` of its own, the rest of those before."""
    old = before.state_dict()
    mixed = {
        name: torch.lerp(old[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in student.state_dict().items()
    }
    student.load_state_dict(mixed)


def _check_lessons(student: TwoBranch, lessons: Lessons) -> None:
    """What is taught is told by sectors, four rings of 32: refuse models that have none."""
    rows = getattr(student.ground_pool, "rows", None)
    if lessons and (student.bins is None or rows != RINGS):
        raise SettingError(
            f"Pointing and passing: got a student with {rows or 'no'} rows of azimuth bins, expected "
            f"{RINGS}: towns know what each of four rows of patches shows. Leave both out."
        )


def mine(student: TwoBranch, towns: Sequence[Town], device: str = "cpu") -> list[Float64Array]:
    """For each town where a student takes its cameras to be; none for a global student."""
    if student.bins is None:
        return []
    student.eval().to(device)
    return [
        confusing_points(student, town, device=device)
        for town in tqdm(towns, desc="hard negatives")
    ]


def train_teacher(
    towns: Sequence[Town],
    validation: Sequence[Town],
    loop: LoopConfig,
    run: Path,
    out: Path,
    start: Path,
    command: str = "",
    lessons: Lessons | None = None,
    confusing: Sequence[Float64Array] | None = None,
    **switches: Any,
) -> Path:
    """Train a GeoSSK teacher whose branches start as a student's; write its model folder ``out``.

    ``lessons``: what truth teaches; the towns must have theirs for it. ``confusing``: for each town what
    ``mine`` finds, where it is known already. ``switches``: fields of ``GeoSSKConfig`` (interaction,
    contribution, heads).
    """
    torch.manual_seed(loop.seed)
    student, config = load_student(start)
    lessons = lessons or Lessons()
    _check_lessons(student, lessons)
    base = {"name": config["name"], **config["model"]}
    teacher = build_teacher(base, **switches)
    teacher.base.load_state_dict(student.state_dict())
    mined = mine(student, towns, loop.device) if confusing is None else confusing
    sampling = replace(loop.sampling, every_crop=False, elsewhere=HARD_TILES)
    if student.bins is not None:
        sampling = replace(sampling, **ALIGNED)
    loop = replace(loop, sampling=sampling)
    what = {"trained": "teacher", "start": model_hash(start), **asdict(lessons), **switches}
    objective = TeacherObjective(teacher, lessons)
    _run(objective, student, towns, validation, loop, run, what, teacher, mined)
    before = config.get("training")
    record = {**_record("teacher", towns, loop, run, command, before), **asdict(lessons)}
    kept = {"name": TEACHER, "model": {"base": base, **switches}, "training": record}
    save_model(out, teacher.cpu(), kept, model_card("Teacher GeoSSK (reconstruction)", record))
    return out


def distil_student(
    towns: Sequence[Town],
    validation: Sequence[Town],
    loop: LoopConfig,
    run: Path,
    out: Path,
    start: Path | ModelConfig,
    teacher: Path,
    knowledge: DistillationConfig | None = None,
    command: str = "",
) -> Path:
    """Train a student under a frozen teacher, on from a model folder or from scratch; write its
    model folder ``out``.
    """
    torch.manual_seed(loop.seed)
    student, config = _fresh(start) if isinstance(start, ModelConfig) else load_student(start)
    loop = replace(loop, sampling=replace(loop.sampling, every_crop=False))
    objective = DistillationObjective(student, load_teacher(teacher)[0], knowledge)
    told = asdict(knowledge or DistillationConfig())
    began = asdict(start) if isinstance(start, ModelConfig) else model_hash(start)
    what = {"trained": "distilled", "start": began, "teacher": model_hash(teacher)}
    _run(objective, student, towns, validation, loop, run, {**what, "knowledge": told})
    before = config.get("training")
    record = _record("distilled student", towns, loop, run, command, before)
    record["knowledge"] = told
    kept = {"name": config["name"], "model": config["model"], "training": record}
    save_model(out, student.cpu(), kept, model_card(f"Distilled student {config['name']}", record))
    return out
