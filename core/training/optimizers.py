"""How the weights move: SAM and ASAM, the cosine schedule, and an average of the weights.

SAM: "Sharpness-Aware Minimization for Efficiently Improving Generalization",
https://arxiv.org/abs/2010.01412. ASAM: "ASAM: Adaptive Sharpness-Aware Minimization for
Scale-Invariant Learning of Deep Neural Networks", https://arxiv.org/abs/2102.11600, in the form
that SAIG (https://arxiv.org/abs/2302.01572) trains with: rho = 2, no eta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = [
    "SharpnessAware",
    "WeightAverage",
    "build_cosine_schedule",
    "cosine_factor",
    "frozen_batch_statistics",
]


class SharpnessAware:
    """SAM or ASAM around an optimizer: climb to the worst weights nearby, step with their gradient.

    One `step` runs the closure twice. The closure does forward and backward and returns the loss;
    gradients are cleared before each run. Learning-rate schedules belong to `optimizer`, and
    `state_dict` is the optimizer's own, so that a resumed run continues exactly (the published
    SAIG files hold no AdamW moments).

    Gradient clipping: `clip_norm` bounds the gradient before the climb and again before the step,
    as SAIG does on VIGOR; on CVUSA and CVACT it clips neither. The climb does not depend on the
    gradient's norm, so the first clipping changes nothing but rounding.
    Mixed precision: run the closure's forward under bfloat16 autocast, or in float32 as SAIG does.
    A float16 gradient scaler does not fit: the climb needs unscaled gradients in both passes.

    Args:
        optimizer: the optimizer that takes the step, over all trained parameters.
        rho: radius of the neighbourhood, > 0; SAIG's ASAM uses 2.0, plain SAM about 0.05.
        is_adaptive: True for ASAM, where the neighbourhood scales with each weight.
        clip_norm: largest gradient norm, > 0, or None.
        still_statistics: a module whose batch-norm running statistics shall follow the first pass
            only; None lets both passes move them, as SAIG does.

    """

    def __init__(
        self,
        optimizer: Optimizer,
        rho: float = 0.05,
        is_adaptive: bool = False,
        clip_norm: float | None = None,
        still_statistics: nn.Module | None = None,
    ) -> None:
        for name, value in (("rho", rho), ("clip_norm", clip_norm)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}: got {value}, expected a number above 0.")
        self.optimizer = optimizer
        self.rho = rho
        self.is_adaptive = is_adaptive
        self.clip_norm = clip_norm
        self.still_statistics = still_statistics
        self._origin: dict[Tensor, Tensor] = {}

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Take one step; returns the detached loss of the first pass, at the weights as given."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = closure().detach()
        self.ascend()
        self.optimizer.zero_grad(set_to_none=True)
        model = self.still_statistics
        still = nullcontext() if model is None else frozen_batch_statistics(model)
        with torch.enable_grad(), still:
            closure()
        self.descend()
        return loss

    @torch.no_grad()
    def ascend(self) -> None:
        """Move every weight with a gradient uphill, remembering where it was.

        SAM: w + rho g / |g|. ASAM: w + rho w^2 g / | |w| g |, norms over all parameters at once.
        """
        self._clip()
        trained = [p for p in self._parameters() if p.grad is not None]
        if not trained:
            return
        slopes = [_gradient(p) * p.abs() if self.is_adaptive else _gradient(p) for p in trained]
        norm = torch.stack([slope.norm() for slope in slopes]).norm()
        for parameter, slope in zip(trained, slopes, strict=True):
            self._origin[parameter] = parameter.clone()
            climb = slope * parameter.abs() if self.is_adaptive else slope
            parameter.add_(climb * (self.rho / (norm + 1e-12)))

    @torch.no_grad()
    def descend(self) -> None:
        """Return to the remembered weights and let the optimizer step with the new gradients."""
        for parameter, origin in self._origin.items():
            parameter.copy_(origin)
        self._origin.clear()
        self._clip()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's own state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the optimizer's own state."""
        self.optimizer.load_state_dict(state)

    def _clip(self) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)

    def _parameters(self) -> Iterable[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@contextmanager
def frozen_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by batch statistics inside the block, as in training, but record none of them."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def cosine_factor(step: int, total_steps: int, warmup_steps: int = 0, floor: float = 0.0) -> float:
    """Learning-rate factor of a step, in [floor, 1] after the warm-up.

    Linear from 0 over `warmup_steps` (L2LTR: 500), then half a cosine down to `floor` at
    `total_steps` (SAIG: 1e-6, without warm-up; L2LTR: 0), and `floor` from there on.
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_cosine_schedule(
    optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, floor: float = 0.0
) -> LambdaLR:
    """Schedule to step once per optimizer step; see `cosine_factor`."""
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise ValueError(
            f"warm-up steps: got {warmup_steps} of {total_steps} steps, "
            "expected 0 <= warm-up <= total and at least one step."
        )
    return LambdaLR(optimizer, lambda step: cosine_factor(step, total_steps, warmup_steps, floor))


class WeightAverage:
    """Exponential moving average of a model's parameters and floating buffers.

    Each `update` does average = d * average + (1 - d) * model with d = min(decay, (1 + n) /
    (10 + n)) at update n, so that a short run is not held at its start. Whole-number buffers are
    copied. The average lives beside the model; `applied` puts it in for a while.

    Args:
        model: the model to follow; its present weights are the first average.
        decay: in [0, 1).

    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: got {decay}, expected a number from 0 to below 1.")
        self.decay = decay
        self.updates = 0
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the model one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside the block and its own afterwards."""
        own = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The average and how many updates it has seen."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s result; the keys must be the model's."""
        if state["average"].keys() != self.average.keys():
            changed = sorted(state["average"].keys() ^ self.average.keys())
            raise ValueError(f"weight average: got other keys than the model's: {changed[:5]}.")
        self.updates = int(state["updates"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
