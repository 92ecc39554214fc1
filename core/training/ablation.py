"""GeoSSK's parts one by one, at equal budget: what CIM, CF, SSKD and IKF bring here.

All arms run the same number of steps; the teachers of a seed on the same batches, and its students on
the same. Teachers start from one student
and are judged by the re-ranked rows; students go on from it too, or are small ones with fresh
weights (pupils), and are judged by their own rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.arrays import Float64Array
from core.checkpoints import load_student, load_teacher
from core.data.worlds import Town
from core.evaluation.report import Setting, evaluate_town
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.training.loop import LoopConfig
from core.training.objectives import DistillationConfig
from core.training.recipes import ModelConfig, distil_student, mine, train_teacher

__all__ = ["STUDENTS", "TEACHERS", "AblationConfig", "run_ablation"]

TEACHERS: dict[str, dict[str, Any]] = {
    "plain": {"interaction": False, "contribution": False},
    "cim": {"interaction": True, "contribution": False},
    "cim+cf": {"interaction": True, "contribution": True},
}
STUDENTS: dict[str, DistillationConfig] = {
    "alone": DistillationConfig(relation=0.0, local=0.0, descriptors=0.0),
    # What GeoSSK names, and then what this project teaches besides (``DistillationConfig``).
    "sskd": DistillationConfig(descriptors=0.0, is_filtered=False),
    "sskd+ikf": DistillationConfig(descriptors=0.0),
    "sskd+descriptors": DistillationConfig(is_filtered=False),
    "sskd+descriptors+ikf": DistillationConfig(),
}
JUDGED = (Setting(32), Setting(16), Setting(8))
Row = dict[str, Any]


@dataclass(frozen=True)
class AblationConfig:
    """What is compared.

    ``start``: model folder of the student that all teachers start from. ``teacher``: one that is
    trained already, for all students to learn from; without one three are trained for every seed and
    compared too, and students learn from that with CIM and CF. ``pupil``: what the students are, with
    fresh weights; without one they go on from ``start``. ``seeds``: every arm is run under each.
    ``queries``: of each town judged on.
    """

    start: Path
    teacher: Path | None = None
    pupil: ModelConfig | None = None
    seeds: Sequence[int] = (0,)
    queries: int = 300


def _rows(
    student: TwoBranch, teacher: GeoSSK | None, towns: Sequence[Town], count: int, **arm: Any
) -> list[Row]:
    return [
        {**arm, "town": town.name, **row}
        for town in towns
        for row in evaluate_town(town, student, teacher, settings=JUDGED, count=count)
        if row["reranked"] == (teacher is not None)
    ]


def _teachers(
    towns: Sequence[Town],
    loop: LoopConfig,
    folder: Path,
    start: Path,
    confusing: Sequence[Float64Array],
) -> Iterator[tuple[str, Path]]:
    for arm, switches in TEACHERS.items():
        run, out = folder / f"run-{arm}", folder / arm
        yield arm, train_teacher(towns, [], loop, run, out, start, confusing=confusing, **switches)


def _fresh_like(pupil: ModelConfig, teacher: Path) -> ModelConfig:
    """A pupil whose bins have as many values as its teacher's, whose descriptors it learns."""
    return replace(pupil, dim=load_teacher(teacher)[0].base.ground_pool.dim)


def run_ablation(
    towns: Sequence[Town],
    judged: Sequence[Town],
    loop: LoopConfig,
    config: AblationConfig,
    folder: Path,
) -> list[Row]:
    """Train every arm under every seed and evaluate it on each of ``judged``.

    Every arm resumes from its own folder under ``folder``.

    Raises:
        CheckpointError: ``start`` is no student, or ``teacher`` no teacher.
    """
    before = load_student(config.start)[0]
    confusing = mine(before, towns) if config.teacher is None else []
    rows: list[Row] = []
    if config.pupil is None:
        rows += _rows(before, None, judged, config.queries, kind="start", arm="before", seed=None)
    for seed in config.seeds:
        under = replace(loop, seed=seed, validate_every=loop.steps + 1)
        place, teacher = folder / f"seed-{seed}", config.teacher
        if teacher is None:
            for arm, out in _teachers(towns, under, place, config.start, confusing):
                looks = load_teacher(out)[0]
                rows += _rows(
                    before, looks, judged, config.queries, kind="teacher", arm=arm, seed=seed
                )
            teacher = place / "cim+cf"
        for arm, knowledge in STUDENTS.items():
            run, out = place / f"run-{arm}", place / arm
            began = _fresh_like(config.pupil, teacher) if config.pupil else config.start
            distil_student(towns, [], under, run, out, began, teacher, knowledge)
            student = load_student(out)[0]
            rows += _rows(student, None, judged, config.queries, kind="student", arm=arm, seed=seed)
    return rows
