"""The training loop: one for students, teachers and distillation, on CPU and CUDA alike.

An ``Objective`` owns what is trained and turns a batch into a loss; the loop owns everything else:
towns, batches, schedule, precision, log, checkpoints. A batch depends on (seed, step) alone and a
checkpoint is written beside and renamed, so a run killed at any moment resumes with the same batches.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.data.worlds import Town
from core.errors import DataError
from core.training.sampling import Batch, SamplingConfig, sample_batch

__all__ = ["LoopConfig", "Objective", "computes_in_bfloat16", "learning_rate", "run_loop"]

Figures = dict[str, float]


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and with which batches.

    ``rate``: peak learning rate of AdamW, reached after ``warmup`` steps and falling to zero along a
    half cosine. ``clip``: greatest gradient norm. ``validate_every`` and ``save_every`` in steps.
    ``bfloat16``: mixed precision; None: where the device computes in it natively. A processor that
    emulates it is some ten times slower than in float32.
    """

    steps: int = 4000
    rate: float = 1.5e-3
    decay: float = 0.03
    warmup: int = 60
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool | None = None
    validate_every: int = 1000
    save_every: int = 250
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


class Objective(Protocol):
    """What is trained and how it is scored; also an ``nn.Module`` holding every trained parameter.

    It may have a ``slow`` module, one that was trained before and is only to be adjusted.
    """

    tile_pixels: int

    def __call__(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Figures]:
        """Loss (scalar with gradient) and figures for the log."""
        ...


def computes_in_bfloat16(device: str) -> bool:
    """Whether a device has instructions for bfloat16: CUDA ones asked, processors by AVX-512."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def learning_rate(step: int, config: LoopConfig) -> float:
    """Learning rate of one step: linear warm-up, then a half cosine to zero."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _batch_of(towns: Sequence[Town], config: LoopConfig, pixels: int, step: int) -> Batch:
    random = np.random.default_rng((config.seed, step))
    town = towns[int(random.integers(len(towns)))]
    return sample_batch(town, config.sampling, pixels, random)


def _batches(
    towns: Sequence[Town], config: LoopConfig, pixels: int, first: int
) -> Iterator[tuple[int, Batch]]:
    """Batches of steps first, first + 1, ...; each is drawn while the one before is trained on."""
    with ThreadPoolExecutor(1) as worker:
        pending: Future[Batch] = worker.submit(_batch_of, towns, config, pixels, first)
        for step in range(first, config.steps):
            batch = pending.result()
            pending = worker.submit(_batch_of, towns, config, pixels, step + 1)
            yield step, batch


def _save(path: Path, state: dict[str, Any]) -> None:
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    os.replace(beside, path)


def _identity(config: LoopConfig, towns: Sequence[Town], what: dict[str, Any]) -> str:
    """What a run must have in common with its checkpoint, as text; its length may be changed."""
    settings = asdict(config)
    for name in ("steps", "validate_every", "save_every", "device"):
        del settings[name]
    return json.dumps({**settings, "towns": [town.name for town in towns], **what}, sort_keys=True)


def _resume(
    path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        was, now = json.loads(state["identity"]), json.loads(identity)
        changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        raise DataError(
            f"Training run {path.parent}: got another {', '.join(changed)} than it was started with. "
            "Use the same, or another folder."
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
    config: LoopConfig,
) -> Figures:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) * group["share"]
    kind = torch.device(config.device).type
    is_mixed = config.bfloat16
    if is_mixed is None:
        is_mixed = computes_in_bfloat16(config.device)
    with torch.autocast(kind, torch.bfloat16, enabled=is_mixed):
        loss, figures = objective(batch, generator, config.device)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trained = [p for p in objective.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
    optimizer.step()
    return {"loss": float(loss.detach()), "gradient": float(norm), **figures}


def _groups(objective: nn.Module) -> list[dict[str, Any]]:
    """Parameters with their share of the learning rate; what an objective calls slow has a tenth."""
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
    towns: Sequence[Town],
    config: LoopConfig,
    folder: str | Path,
    validate: Callable[[], Figures] | None = None,
    what: dict[str, Any] | None = None,
) -> Path:
    """Train an objective and return the folder with ``state.pt``, ``log.jsonl`` and ``config.json``.

    ``validate`` is called every ``validate_every`` steps and at the end; its figures go to the log.
    ``what`` (JSON) says what is trained and from what, so that a checkpoint of another run is
    refused.

    Raises:
        DataError: no towns, or a folder that holds another run.

    """
    if not towns:
        raise DataError("Training: got no towns, expected at least one. Build some: make worlds")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    objective.to(config.device)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(_groups(objective), lr=config.rate, weight_decay=config.decay)
    identity = _identity(config, towns, what or {})
    first = _resume(folder / "state.pt", objective, optimizer, identity)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
    pixels: int = objective.tile_pixels  # type: ignore[assignment]
    started, bar = time.monotonic(), tqdm(total=config.steps, initial=first, desc=folder.name)
    for step, batch in _batches(towns, config, pixels, first):
        objective.train()
        figures = _train_step(objective, optimizer, batch, step, config)
        record: dict[str, Any] = {
            "step": step,
            "bins": batch.views.shape[2] * 32 // towns[0].panoramas.shape[2],
            "rate": learning_rate(step, config),
            "seconds": round(time.monotonic() - started, 2),
            **{name: round(value, 5) for name, value in figures.items()},
        }
        _append(folder / "log.jsonl", record)
        bar.update()
        bar.set_postfix(loss=f"{figures['loss']:.3f}")
        done = step + 1
        if done % config.save_every == 0 or done == config.steps:
            state = {"objective": objective.state_dict(), "optimizer": optimizer.state_dict()}
            _save(folder / "state.pt", {**state, "step": done, "identity": identity})
        if validate and (done % config.validate_every == 0 or done == config.steps):
            objective.eval()
            _append(folder / "log.jsonl", {"step": step, "validation": validate()})
    bar.close()
    return folder
