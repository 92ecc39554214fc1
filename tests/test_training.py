"""The loop learns, resumes as if nothing had happened, and the objectives are what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.data.worlds import Town
from core.errors import DataError, SettingError
from core.models import build_model
from core.models.geossk import GeoSSK
from core.training.loop import RunConfig, learning_rate, run_loop
from core.training.memory import TileMemory
from core.training.objectives import (
    DistillationConfig,
    DistillationObjective,
    StudentObjective,
    TeacherObjective,
    batch_accuracy,
)
from core.training.sampling import Batch, SamplingConfig, TownBatches, sample_batch
from tests.towns import telling_town

NARROW = SamplingConfig(batch=8, widths=((4, 1.0),), every_crop=False)


class Line(nn.Module):
    """Fits one number to the mean of the first view; small enough to train in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([2.0, -1.0]))

    def forward(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, dict[str, float]]:
        target = float(batch.views.mean()) / 255 + float(torch.rand(1, generator=generator))
        return (self.value - target).square().sum(), {"target": target}


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def config(steps: int, **changes: object) -> RunConfig:
    values = {"rate": 0.05, "warmup": 2, "bfloat16": False, "save_every": 4}
    return RunConfig(steps=steps, **{**values, **changes})  # type: ignore[arg-type]


def run_towns(
    objective: nn.Module,
    towns: list[Town],
    run: RunConfig,
    folder: Path,
    *more: Any,
    sampling: SamplingConfig = NARROW,
) -> None:
    run_loop(objective, TownBatches(towns, sampling, 32, run.seed), run, folder, *more)


def test_rate_warms_up_and_ends_at_zero() -> None:
    run = RunConfig(steps=100, rate=1.0, warmup=10)
    rates = [learning_rate(step, run) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    low = RunConfig(steps=100, rate=1.0, warmup=10, floor=1e-6)
    assert learning_rate(100, low) == learning_rate(500, low) == pytest.approx(1e-6)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, halved = Line(), Line()
    town = telling_town()
    run_towns(whole, [town], config(12), tmp_path / "whole")

    def stop() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_towns(halved, [town], config(12, validate_every=6), tmp_path / "halved", stop)
    fresh = Line()
    run_towns(fresh, [town], config(12), tmp_path / "halved")
    assert torch.equal(whole.value, fresh.value)
    steps = [line["step"] for line in log_of(tmp_path / "halved")]
    assert steps == [0, 1, 2, 3, 4, 5, *range(4, 12)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_draw_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    towns = [telling_town(), telling_town(count=30)]
    for workers in (0, 2):
        run_towns(Line(), towns, config(7, workers=workers), tmp_path / str(workers))
    here, there = (log_of(tmp_path / str(workers)) for workers in (0, 2))
    assert [line["target"] for line in here] == [line["target"] for line in there]
    assert [line["loss"] for line in here] == [line["loss"] for line in there]
    # A run goes on with another number of them: it is no setting of what is learned.
    run_towns(Line(), towns, config(9, workers=1), tmp_path / "2")
    assert len(log_of(tmp_path / "2")) == 9


def remembering_student() -> StudentObjective:
    torch.manual_seed(0)
    student = build_model("convnet-s", "azimuth", (64, 256), (32, 32), dim=4)
    return StudentObjective(student, TileMemory(1, student.dim, capacity=12), apart_m=19.2)


def test_a_stopped_run_goes_on_with_the_tiles_that_it_remembered(tmp_path: Path) -> None:
    town = telling_town()
    whole, halved = remembering_student(), remembering_student()
    run_towns(whole, [town], config(6, rate=1e-3, save_every=3), tmp_path / "whole")
    run_towns(halved, [town], config(3, rate=1e-3, save_every=3), tmp_path / "halved")
    # The schedule of a shorter run is another; only what is remembered is compared.
    again = remembering_student()
    run_towns(again, [town], config(3, rate=1e-3, save_every=3), tmp_path / "halved")
    assert halved.memory is not None
    assert again.memory is not None
    assert int(again.memory.written) == int(halved.memory.written) == 3 * 14
    assert torch.equal(again.memory.described, halved.memory.described)
    lines = log_of(tmp_path / "whole")
    assert "above_memory" not in lines[0]  # nothing is remembered yet
    assert all(0 <= line["above_memory"] <= 1 for line in lines[1:])


def test_what_is_remembered_makes_the_task_harder() -> None:
    objective = remembering_student().eval()
    batch = sample_batch_of(0)
    alone = objective(batch, torch.Generator().manual_seed(0), "cpu")[0]
    objective.train()
    objective(sample_batch_of(1), torch.Generator().manual_seed(1), "cpu")
    objective.eval()
    beside = objective(batch, torch.Generator().manual_seed(0), "cpu")[0]
    assert beside > alone


def sample_batch_of(seed: int) -> Batch:
    drawn = sample_batch(telling_town(), NARROW, 32, np.random.default_rng(seed))
    return replace(drawn, town=0)


def test_a_run_with_another_seed_is_not_mixed_in(tmp_path: Path) -> None:
    run_towns(Line(), [telling_town()], config(4), tmp_path)
    with pytest.raises(DataError, match="got another seed than it was started with"):
        run_towns(Line(), [telling_town()], config(6, seed=1), tmp_path)
    with pytest.raises(DataError, match="got no towns"):
        run_towns(Line(), [], config(4), tmp_path / "none")


def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    run_towns(Line(), [telling_town()], config(4), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    identity = json.loads(state["identity"])
    for name in ("floor", "eps", "sharpness", "rho"):
        del identity[name]
    torch.save({**state, "identity": json.dumps(identity, sort_keys=True)}, tmp_path / "state.pt")
    with pytest.raises(DataError, match="another sharpness than"):
        run_towns(Line(), [telling_town()], config(6, sharpness="sam"), tmp_path)
    run_towns(Line(), [telling_town()], config(6), tmp_path)
    assert [line["step"] for line in log_of(tmp_path)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("pooling", ["azimuth", "gap"])
def test_a_student_learns_on_one_batch_of_places(tmp_path: Path, pooling: str) -> None:
    """Eight places with views of their own: the loss must fall below that of guessing."""
    torch.manual_seed(0)
    student = build_model("convnet-s", pooling, (64, 256), (32, 32), dim=4)
    wide = SamplingConfig(batch=8, widths=((32, 1.0),))
    run_towns(
        StudentObjective(student),
        [telling_town(count=8)],
        config(24, rate=4e-3),
        tmp_path,
        lambda: {"within": 0.5},
        sampling=wide,
    )
    lines = log_of(tmp_path)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert lines[-1]["validation"] == {"within": 0.5}
    assert (tmp_path / "state.pt").is_file()


def make_pair() -> tuple[nn.Module, GeoSSK]:
    torch.manual_seed(0)
    student = build_model("convnet-s", "azimuth", (64, 256), (32, 32), dim=4)
    return student, GeoSSK(build_model("convnet-s", "azimuth", (64, 256), (32, 32), dim=4))


def test_the_teacher_trains_all_it_has(tmp_path: Path) -> None:
    _, teacher = make_pair()
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    run_towns(TeacherObjective(teacher), [telling_town()], config(3, rate=1e-2), tmp_path)
    same = [name for name, value in teacher.named_parameters() if torch.equal(value, before[name])]
    assert not same


def test_distillation_moves_the_student_and_leaves_the_teacher(tmp_path: Path) -> None:
    student, teacher = make_pair()
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = DistillationObjective(student, teacher)  # type: ignore[arg-type]
    run_towns(objective, [telling_town()], config(3), tmp_path)
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())
    line = log_of(tmp_path)[-1]
    assert 0 <= line["kept_rows"] <= 1
    assert line["relation"] >= 0
    assert line["local"] >= 0
    assert 0 <= line["descriptors"] <= 4
    assert not [name for name in objective.state_dict() if "teacher" in name]


def test_without_knowledge_distillation_is_plain_training(tmp_path: Path) -> None:
    student, teacher = make_pair()
    objective = DistillationObjective(
        student,
        teacher,
        DistillationConfig(relation=0, local=0, descriptors=0),  # type: ignore[arg-type]
    )
    run_towns(objective, [telling_town()], config(1), tmp_path)
    assert "kept_rows" not in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize(("local", "descriptors"), [(0.1, 0.0), (0.0, 50.0)])
def test_a_filtered_query_is_left_out_of_the_task_too(
    monkeypatch, local: float, descriptors: float
) -> None:
    """IKF keeps two labels of six: the other views have no gradient but from their descriptors."""
    student, teacher = make_pair()
    batch = sample_batch(
        telling_town(),
        SamplingConfig(batch=6, widths=((8, 1.0),), every_crop=False, extra_negatives=0.0),
        32,
        np.random.default_rng(0),
    )
    right = torch.tensor([True, False, False, True, False, False])
    monkeypatch.setattr(
        "core.training.objectives.filter_incorrect_knowledge", lambda *given: right.float()
    )
    seen = []
    original = student.ground_map

    def keep_views(views: torch.Tensor) -> torch.Tensor:
        seen.append(views.requires_grad_())
        return original(views)

    monkeypatch.setattr(student, "ground_map", keep_views)
    student.eval()  # batch statistics would tie the views to each other
    moved = {}
    for filtered in (True, False):
        knowledge = DistillationConfig(0.0, local, descriptors, is_filtered=filtered)
        objective = DistillationObjective(student, teacher, knowledge)  # type: ignore[arg-type]
        loss, _ = objective(batch, torch.Generator().manual_seed(0), "cpu")
        loss.backward()
        moved[filtered] = seen[-1].grad.abs().sum(dim=(1, 2, 3)) > 0
    assert torch.equal(moved[True], right | (descriptors > 0))
    assert moved[False].all()


def test_where_ikf_keeps_no_label_nothing_is_learned(monkeypatch) -> None:
    student, teacher = make_pair()
    batch = sample_batch(telling_town(), NARROW, 32, np.random.default_rng(0))
    monkeypatch.setattr(
        "core.training.objectives.filter_incorrect_knowledge",
        lambda known, columns, *more: torch.zeros(len(columns)),
    )
    knowledge = DistillationConfig(relation=0.0, descriptors=0.0, local=0.1)
    objective = DistillationObjective(student, teacher, knowledge)  # type: ignore[arg-type]
    loss, _ = objective(batch, torch.Generator().manual_seed(0), "cpu")
    loss.backward()
    assert float(loss.detach()) == 0
    moved = [value.grad for value in student.parameters() if value.grad is not None]
    assert moved
    assert not any(gradient.any() for gradient in moved)


def test_students_of_other_widths_are_refused_unless_their_descriptors_are_left_alone() -> None:
    teacher = make_pair()[1]
    wider = build_model("convnet-s", "azimuth", (64, 256), (32, 32), dim=6)
    with pytest.raises(SettingError, match="got a student of 6 values and a teacher of 4"):
        DistillationObjective(wider, teacher)
    DistillationObjective(wider, teacher, DistillationConfig(descriptors=0.0))


def test_batch_accuracy_counts_ties_as_lost_and_ignores_semi_positives() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.5, 0.7], [0.0, 0.0, 0.3]])
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    assert batch_accuracy(scores, torch.arange(3), nothing) == pytest.approx(1 / 3)
    ignored = nothing.clone()
    ignored[0, 1] = ignored[1, 2] = True
    assert batch_accuracy(scores, torch.arange(3), ignored) == 1.0
