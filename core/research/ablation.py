"""GeoSSK's parts one by one, at equal budget: what CIM, CF, SSKD and IKF each contribute.

All arms run the same number of steps. All teachers of a seed see the same batches, and so do all its
students. Teachers start from one student and are judged by their re-ranked rows. Students continue
that student, or start with fresh weights, and are judged by their own rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.checkpoints import load_student, load_teacher
from core.data.worlds import Town
from core.models.geossk import GeoSSK, GeoSSKConfig
from core.models.two_branch import TwoBranch
from core.research.batches import NoisyBatches
from core.training.mining import mine_hard_negatives
from core.training.objectives import DistillationConfig
from core.training.recipe_files import (
    TOWNS,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
)
from core.training.sampling import SamplingConfig
from core.training.tasks import Folders, Session, model_settings
from core.training.towns import TownData, train_on_towns
from core.training.validation import town_rows

__all__ = ["STUDENTS", "TEACHERS", "AblationConfig", "run_ablation"]

TEACHERS = {
    "plain": GeoSSKConfig(interaction=False, contribution=False),
    "cim": GeoSSKConfig(contribution=False),
    "cim+cf": GeoSSKConfig(),
}
STUDENTS = {
    "alone": DistillationConfig(relation=0.0, local=0.0, descriptors=0.0),
    # GeoSSK's abstract names these two parts; descriptor distillation is ours (DistillationConfig).
    "sskd": DistillationConfig(descriptors=0.0, is_filtered=False),
    "sskd+ikf": DistillationConfig(descriptors=0.0),
    "sskd+descriptors": DistillationConfig(is_filtered=False),
    "sskd+descriptors+ikf": DistillationConfig(),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class AblationConfig:
    """The compared arms, and the budget of each.

    ``start``: model folder of the student that all teachers start from. ``teacher``: model folder of
    a trained teacher for all students. None: three teachers are trained for every seed and compared
    too, and students learn from the one with CIM and CF. ``fresh``: model name for students with
    fresh weights. None: students continue ``start``. ``noise``: share of wrong labels in training.
    ``seeds``: every arm runs once for each. ``queries``: per judged town.
    """

    start: Path
    teacher: Path | None = None
    fresh: str | None = None
    noise: float = 0.0
    steps: int = 300
    batch: int = 32
    rate: float = 3e-4
    seeds: Sequence[int] = (0,)
    queries: int = 300

    def recipe(self, model: ModelSettings, arm: GeoSSKConfig | DistillationConfig) -> Recipe:
        """The training recipe of one arm.

        A teacher's pairs are aligned about as exactly as in re-ranking. It learns from its student's
        hard negatives, as in ``recipes/town-teacher.toml``.
        """
        sampling = SamplingConfig(batch=self.batch, every_crop=False)
        is_teacher = isinstance(arm, GeoSSKConfig)
        if is_teacher:
            sampling = replace(sampling, extra_negatives=3.0)
        if is_teacher and model.pooling == "azimuth":
            sampling = replace(sampling, offset_m=3.5, rotation_error=0.2)
        return Recipe(
            kind="teacher" if is_teacher else "distill",
            data=TOWNS,
            model=model,
            optimizer=OptimizerSettings(self.rate, 0.03, mixed_precision=True, clip=1.0),
            schedule=ScheduleSettings(self.batch, steps=self.steps, warmup=20),
            sampling=sampling,
            teacher=arm if isinstance(arm, GeoSSKConfig) else None,
            knowledge=arm if isinstance(arm, DistillationConfig) else None,
        )


def run_ablation(
    towns: Sequence[Town], judged: Sequence[Town], config: AblationConfig, folder: Path
) -> list[Row]:
    """Train every arm under every seed and evaluate it on each of ``judged``.

    Every arm resumes from its own folder under ``folder``.

    Raises:
        CheckpointError: ``start`` is not a student, or ``teacher`` is not a teacher.

    """
    start, started = load_student(config.start)
    model = model_settings(start, started)
    hard = mine_hard_negatives(start, towns) if config.teacher is None else []
    data = TownData(towns, hard_negatives=hard)
    rows: list[Row] = []
    if config.fresh is None:
        arm: Row = {"kind": "start", "arm": "before", "seed": None}
        rows += _rows(start, None, judged, config.queries, arm)
    for seed in config.seeds:
        place, teacher = folder / f"seed-{seed}", config.teacher
        if teacher is None:
            for name, out in _teachers(data, config, model, place, seed):
                arm = {"kind": "teacher", "arm": name, "seed": seed}
                rows += _rows(start, load_teacher(out)[0], judged, config.queries, arm)
            teacher = place / "cim+cf"
        for name, out in _students(data, config, model, place, seed, teacher):
            arm = {"kind": "student", "arm": name, "seed": seed}
            rows += _rows(load_student(out)[0], None, judged, config.queries, arm)
    return rows


def _rows(
    student: TwoBranch, teacher: GeoSSK | None, towns: Sequence[Town], count: int, arm: Row
) -> list[Row]:
    """Rows of one arm on every town: re-ranked ones for a teacher, else the student's own."""
    return [
        {**arm, "town": town.name, **row}
        for town in towns
        for row in town_rows(town, student, teacher, count)
        if row["reranked"] == (teacher is not None)
    ]


def _teachers(
    data: TownData, config: AblationConfig, model: ModelSettings, place: Path, seed: int
) -> Iterator[tuple[str, Path]]:
    """Train the teachers of one seed; returns each arm's name and model folder."""
    for name, switches in TEACHERS.items():
        folders = Folders(place, place / f"run-{name}", place / name, config.start)
        yield name, _train(data, config, config.recipe(model, switches), folders, seed)


def _students(
    data: TownData,
    config: AblationConfig,
    model: ModelSettings,
    place: Path,
    seed: int,
    teacher: Path,
) -> Iterator[tuple[str, Path]]:
    """Train the students of one seed under a teacher; returns each arm's name and model folder."""
    start: Path | None = config.start
    if config.fresh is not None:
        # Fresh students get the teacher's descriptor size per bin, because they learn its descriptors.
        base = model_settings(*_base_of(teacher))
        start, model = None, replace(base, name=config.fresh)
    for name, knowledge in STUDENTS.items():
        folders = Folders(place, place / f"run-{name}", place / name, start, teacher)
        yield name, _train(data, config, config.recipe(model, knowledge), folders, seed)


def _base_of(teacher: Path) -> tuple[TwoBranch, dict[str, Any]]:
    """The branches of a teacher, with the config of a student's folder."""
    loaded, config = load_teacher(teacher)
    base = dict(config["model"]["base"])
    return loaded.base, {"name": base.pop("name"), "model": base}


def _train(
    data: TownData, config: AblationConfig, recipe: Recipe, folders: Folders, seed: int
) -> Path:
    batches = partial(NoisyBatches, noise=config.noise)
    return train_on_towns(recipe, folders, Session(seed=seed), data, batches).folder
