"""SAM and ASAM: optimizer steps that prefer flat minima.

SAM: "Sharpness-Aware Minimization for Efficiently Improving Generalization",
https://arxiv.org/abs/2010.01412. ASAM: "ASAM: Adaptive Sharpness-Aware Minimization for
Scale-Invariant Learning of Deep Neural Networks", https://arxiv.org/abs/2102.11600, in the form
that SAIG (https://arxiv.org/abs/2302.01572) trains with: rho = 2, no eta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["SharpnessAware"]


class SharpnessAware:
    """SAM or ASAM around an optimizer: climb to the worst weights nearby, step with their gradient.

    One ``step`` runs the closure twice. The closure does forward and backward and returns the loss;
    gradients are cleared before each run. Schedules and checkpoints are those of ``optimizer``: between
    steps there is no other state.

    Gradient clipping: ``clip_norm`` bounds the gradient before the climb and again before the step,
    as SAIG does on VIGOR; on CVUSA and CVACT it clips neither. The climb does not depend on the
    gradient's norm, so the first clipping changes nothing but rounding.
    Mixed precision: run the closure's forward under bfloat16 autocast, or in float32 as SAIG does.
    A float16 gradient scaler does not fit: the climb needs unscaled gradients in both passes.

    Args:
        optimizer: the optimizer that takes the step, over all trained parameters.
        rho: radius of the neighbourhood, > 0; SAIG's ASAM uses 2.0, plain SAM about 0.05.
        is_adaptive: True for ASAM, where the neighbourhood scales with each weight.
        clip_norm: largest gradient norm, > 0, or None.

    """

    def __init__(
        self,
        optimizer: Optimizer,
        rho: float = 0.05,
        is_adaptive: bool = False,
        clip_norm: float | None = None,
    ) -> None:
        for name, value in (("rho", rho), ("clip_norm", clip_norm)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}: got {value}, expected a number above 0.")
        self.optimizer = optimizer
        self.rho = rho
        self.is_adaptive = is_adaptive
        self.clip_norm = clip_norm
        self._origin: dict[Tensor, Tensor] = {}

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Take one step; returns the detached loss of the first pass, at the weights as given."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = closure().detach()
        self.ascend()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
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

    def _clip(self) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)

    def _parameters(self) -> Iterable[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
