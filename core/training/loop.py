"""The training loop: one for students, teachers and distillation, on CPU and CUDA.

An ``Objective`` owns what is trained and turns a batch into a loss. A ``BatchSource`` owns the data.
The loop owns the rest: schedule, optimizer, precision, log and checkpoints. A batch and all random
numbers of a step depend on (seed, step) alone, and a checkpoint is written to a second file and then
renamed. So a run that is killed at any moment resumes with the same batches.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from core.devices import computes_in_bfloat16
from core.errors import DataError
from core.training.optimizers import SharpnessAware
from core.training.sampling import Batch

__all__ = [
    "BatchSource",
    "Objective",
    "RunConfig",
    "learning_rate",
    "run_loop",
]

Metrics = dict[str, float]


@dataclass(frozen=True)
class RunConfig:
    """How long and how fast.

    ``rate``: peak learning rate of AdamW, reached after ``warmup`` steps; it then falls along a half
    cosine to ``floor``, a share of it. ``decay``: weight decay of all weights. ``clip``: largest
    gradient norm, None for no clipping. ``validate_every`` and ``save_every``: in steps.
    ``bfloat16``: mixed precision; None: where the device computes in it natively, because a processor
    that emulates it is some ten times slower than in float32. ``sharpness``: plain, SAM or ASAM
    steps; ``rho``: their radius. ``workers``: processes that draw batches, for a fast device; with 0
    a thread of this process draws them.
    """

    steps: int = 4000
    rate: float = 1.5e-3
    decay: float = 0.03
    warmup: int = 60
    clip: float | None = 1.0
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool | None = None
    validate_every: int = 1000
    save_every: int = 250
    floor: float = 0.0
    eps: float = 1e-8
    sharpness: Literal["none", "sam", "asam"] = "none"
    rho: float = 0.05
    workers: int = 0


class Objective(Protocol):
    """What is trained and how it is scored; also an ``nn.Module`` holding every trained parameter.

    It may have a module ``slow``, which was trained before and learns at a tenth of the rate.
    """

    def __call__(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Metrics]:
        """Loss (scalar with gradient) and metrics for the log."""
        ...


class BatchSource(Protocol):
    """Where batches come from: towns (``TownBatches``) or a benchmark's pairs (``PairBatches``)."""

    def batch(self, step: int) -> Batch:
        """The batch of one step; it depends on the source's seed and the step alone."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON values that a resumed run must share with this one."""
        ...

    def remark(self, step: int, batch: Batch) -> dict[str, Any]:
        """Values of a batch for the log, ``bins`` of its views among them."""
        ...


def learning_rate(step: int, config: RunConfig) -> float:
    """Learning rate of one step: linear warm-up, then a half cosine to the floor.

    The first step already has a share of the rate; L2LTR's code begins at zero, one step behind.
    """
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.rate * (config.floor + (1 - config.floor) * cosine)


class _Drawn(Dataset[dict[str, Any]]):
    """A source's batches as dicts of tensors, which pass between processes without a copy."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def __getitem__(self, step: int) -> dict[str, Any]:
        """The fields of one step's batch."""
        drawn = vars(self.source.batch(step))
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in drawn.items()
        }


def _drawn_by_workers(source: BatchSource, steps: range, workers: int) -> Iterator[Batch]:
    """The batches of some steps, drawn by other processes."""
    loader = DataLoader(_Drawn(source), batch_size=None, sampler=steps, num_workers=workers)
    for drawn in loader:
        fields: dict[str, Any] = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in drawn.items()
        }
        yield Batch(**fields)


def _batches(
    source: BatchSource, first: int, steps: int, workers: int
) -> Iterator[tuple[int, Batch]]:
    """Batches of steps first, first + 1, ...; the next one is drawn during the step before it."""
    if workers:
        wanted = range(first, steps)
        yield from zip(wanted, _drawn_by_workers(source, wanted, workers), strict=True)
        return
    with ThreadPoolExecutor(1) as worker:
        pending: Future[Batch] | None = None
        for step in range(first, steps):
            batch = source.batch(step) if pending is None else pending.result()
            pending = worker.submit(source.batch, step + 1) if step + 1 < steps else None
            yield step, batch


def _save(path: Path, state: dict[str, Any]) -> None:
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    os.replace(beside, path)


def _identity(config: RunConfig, source: BatchSource, what: dict[str, Any]) -> str:
    """JSON of what a run must share with its checkpoint; its length may change."""
    settings = asdict(config)
    for name in ("steps", "validate_every", "save_every", "device", "workers"):
        del settings[name]
    return json.dumps({**settings, **source.identity(), **what}, sort_keys=True)


def _resume(
    path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        # An older checkpoint lacks settings that are new since; they had their defaults then.
        known = {each.name: each.default for each in dataclasses.fields(RunConfig)}
        was, now = known | json.loads(state["identity"]), known | json.loads(identity)
        changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        if changed:
            raise DataError(
                f"Training run {path.parent}: got another {', '.join(changed)} than it was started "
                "with. Use the same, or another folder."
            )
    objective.load_state_dict(state["objective"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def _train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    config: RunConfig,
) -> Metrics:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) * group["share"]
    device = torch.device(config.device)
    is_mixed = config.bfloat16
    if is_mixed is None:
        is_mixed = computes_in_bfloat16(config.device)
    seed = config.seed * 1_000_003 + step
    metrics: Metrics = {}

    def closure() -> Tensor:
        """Forward and backward; both passes of SAM see the same change of light."""
        generator = torch.Generator().manual_seed(seed)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            loss, measured = objective(batch, generator, config.device)
        loss.backward()
        if not metrics:  # SAM's first pass is the one at the weights themselves
            metrics.update(loss=float(loss.detach()), **measured)
        return loss

    # Dropout draws from torch's own generator, whose state differs in a resumed run.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if config.sharpness == "none":
            metrics["gradient"] = _plain_step(objective, optimizer, closure, config.clip)
        else:
            is_adaptive = config.sharpness == "asam"
            SharpnessAware(optimizer, config.rho, is_adaptive, config.clip).step(closure)
    return metrics


def _plain_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    closure: Callable[[], Tensor],
    clip: float | None,
) -> float:
    """One step of the optimizer; returns the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    closure()
    trained = [p for p in objective.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(trained, math.inf if clip is None else clip)
    optimizer.step()
    return float(norm)


def _groups(objective: nn.Module) -> list[dict[str, Any]]:
    """Parameters with their share of the learning rate; those of ``slow`` have a tenth."""
    slow = getattr(objective, "slow", None)
    late = {id(p) for p in slow.parameters()} if slow is not None else set()
    trained = [p for p in objective.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in late], "share": 1.0},
        {"params": [p for p in trained if id(p) in late], "share": 0.1},
    ]
    return [group for group in groups if group["params"]]


def run_loop(
    objective: nn.Module,
    source: BatchSource,
    config: RunConfig,
    folder: str | Path,
    validate: Callable[[], Metrics] | None = None,
    what: dict[str, Any] | None = None,
) -> Path:
    """Train an objective and return the folder with ``state.pt``, ``log.jsonl`` and ``config.json``.

    ``validate`` is called every ``validate_every`` steps and at the end; its metrics go to the log.
    ``what`` (JSON) says what is trained and from what; a checkpoint of another run is refused.

    Raises:
        DataError: a folder that holds another run.

    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    objective.to(config.device)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        _groups(objective), lr=config.rate, eps=config.eps, weight_decay=config.decay
    )
    identity = _identity(config, source, what or {})
    first = _resume(folder / "state.pt", objective, optimizer, identity)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
    started, bar = time.monotonic(), tqdm(total=config.steps, initial=first, desc=folder.name)
    for step, batch in _batches(source, first, config.steps, config.workers):
        objective.train()
        metrics = _train_step(objective, optimizer, batch, step, config)
        record: dict[str, Any] = {
            "step": step,
            **source.remark(step, batch),
            "rate": learning_rate(step, config),
            "seconds": round(time.monotonic() - started, 2),
            **{name: round(value, 5) for name, value in metrics.items()},
        }
        _append(folder / "log.jsonl", record)
        bar.update()
        bar.set_postfix(loss=f"{metrics['loss']:.3f}")
        done = step + 1
        if done % config.save_every == 0 or done == config.steps:
            state = {"objective": objective.state_dict(), "optimizer": optimizer.state_dict()}
            _save(folder / "state.pt", {**state, "step": done, "identity": identity})
        if validate and (done % config.validate_every == 0 or done == config.steps):
            objective.eval()
            _append(folder / "log.jsonl", {"step": step, "validation": validate()})
    bar.close()
    return folder
