"""GeoSSK's parts one by one, at equal budget: what CIM, CF, SSKD and IKF bring here.

All arms start from one student and run the same number of steps on the same batches with the same
seed. Teachers are judged by the re-ranked rows, students by their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.checkpoints import load_student, load_teacher
from core.data.worlds import Town
from core.evaluation.report import Setting, evaluate_town
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.training.loop import LoopConfig
from core.training.objectives import DistillationConfig
from core.training.recipes import distil_student, train_teacher

__all__ = ["STUDENTS", "TEACHERS", "run_ablation"]

TEACHERS: dict[str, dict[str, Any]] = {
    "plain": {"interaction": False, "contribution": False},
    "cim": {"interaction": True, "contribution": False},
    "cim+cf": {"interaction": True, "contribution": True},
}
STUDENTS: dict[str, DistillationConfig] = {
    "alone": DistillationConfig(relation=0.0, local=0.0),
    "sskd": DistillationConfig(is_filtered=False),
    "sskd+ikf": DistillationConfig(),
}
JUDGED = (Setting(32), Setting(16), Setting(8))


def _rows(
    kind: str,
    arm: str,
    student: TwoBranch,
    teacher: GeoSSK | None,
    towns: Sequence[Town],
    count: int,
) -> list[dict[str, Any]]:
    rows = []
    for town in towns:
        for row in evaluate_town(town, student, teacher, settings=JUDGED, count=count):
            if row["reranked"] == (teacher is not None):
                rows.append({"kind": kind, "arm": arm, "town": town.name, **row})
    return rows


def run_ablation(
    towns: Sequence[Town],
    judged: Sequence[Town],
    loop: LoopConfig,
    start: Path,
    folder: Path,
    count: int = 300,
) -> list[dict[str, Any]]:
    """Train every arm from ``start`` and evaluate it with ``count`` queries of each of ``judged``.

    Every arm resumes from its own folder under ``folder``. The students of all arms learn from the
    teacher with CIM and CF.

    Raises:
        CheckpointError: ``start`` is no student.
    """
    before = load_student(start)[0]
    rows = _rows("start", "before", before, None, judged, count)
    loop = replace(loop, validate_every=loop.steps + 1)
    for arm, switches in TEACHERS.items():
        out = train_teacher(towns, [], loop, folder / f"run-{arm}", folder / arm, start, **switches)
        rows += _rows("teacher", arm, before, load_teacher(out)[0], judged, count)
    for arm, knowledge in STUDENTS.items():
        run, out = folder / f"run-{arm}", folder / arm
        distil_student(towns, [], loop, run, out, start, folder / "cim+cf", knowledge)
        rows += _rows("student", arm, load_student(out)[0], None, judged, count)
    return rows
