"""How fast our SAIG and L2LTR are beside a plain transcription of the published modules.

Both have the same weights and describe the same views in alternation, so that a busy machine slows
both. Before anything is timed their descriptors must agree. Milliseconds depend on machine and load,
the ratio of medians much less. The ratio of processor time depends least: it leaves waiting out.

An upper limit of the ratio is estimated too: from the time that the multiply-adds of the published
equations take at the speed of one large matrix product or one convolution, whichever is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from core.devices import computes_in_bfloat16
from core.errors import ParityError, SettingError
from core.models.l2ltr import L2ltr
from core.models.saig import Saig, saig_d, saig_s
from core.models.transcription import PlainL2ltr, PlainSaig
from core.results.reports import ContestRow
from core.training.losses import exhaustive_triplet

__all__ = [
    "PAIRS",
    "TOLERANCE",
    "Contest",
    "Pair",
    "contest_record",
    "contest_table",
    "run_contests",
    "run_training",
]

TOLERANCE = 1e-5
"""Largest difference allowed between two entries of unit descriptors in float32."""
PRODUCT = (1024, 1024)
PRODUCT_RUNS = 10
VIEW = (128, 512)
TOKENS = (VIEW[0] // 16) * (VIEW[1] // 16)


@dataclass(frozen=True)
class Pair:
    """Our encoder and its transcription.

    ``describe``: encoder and normalised images (B, 3, H, W) to unit descriptors (B, D).
    """

    ours: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    describe: Callable[[Any, Tensor], Tensor]
    view: tuple[int, int] = VIEW


def _mean(encoder: Saig, images: Tensor) -> Tensor:
    return F.normalize(encoder.feature_map(images).flatten(2).mean(dim=2), dim=1)


def _class_token(encoder: L2ltr, images: Tensor) -> Tensor:
    return encoder.describe(images)


PAIRS: dict[str, Pair] = {
    "saig-s": Pair(lambda: saig_s(VIEW), lambda: PlainSaig(TOKENS, 11), _mean),
    "saig-d": Pair(lambda: saig_d(VIEW), lambda: PlainSaig(TOKENS, 22), _mean),
    "l2ltr": Pair(L2ltr, lambda: PlainL2ltr(TOKENS), _class_token),
}
"""What can be measured, by model name; views have the papers' 128 x 512 px."""


@dataclass(frozen=True, kw_only=True)
class Contest(ContestRow):
    """One model at one batch size in one precision, against the transcription in float32.

    Attributes:
        model: key of ``PAIRS``.
        batch: views at once.
        precision: of ours, "float32" or "bfloat16" (autocast).
        runs: of each.
        plain_ms, ours_ms: median milliseconds of a batch.
        ratio: plain_ms / ours_ms.
        work_ratio: the same of processor time over all threads; None on an accelerator.
        ceiling: the ratio if ours did nothing but its multiply-adds, as fast as the machine does
            a large product or a convolution, whichever is faster (in bfloat16 with the conversion
            of its operands). Only fewer multiply-adds, as in Winograd's convolution, or a still
            faster product could exceed it.
        largest_difference: between entries of the two unit descriptors.
        cosine_error: largest 1 - cosine of the two descriptors of one view.

    """

    runs: int


def run_contests(
    models: Sequence[str],
    batches: Sequence[int] = (1, 32),
    repeat: int = 5,
    device: str = "cpu",
    pairs: Mapping[str, Pair] = PAIRS,
) -> list[Contest]:
    """Compare, then time in alternation, each model at each batch size.

    Weights are drawn with torch's global generator. Bfloat16 is measured where the device has
    instructions for it.

    Args:
        models: keys of ``pairs``.
        batches: views at once, each at least 1.
        repeat: timed runs of each, at least 1.
        device: as torch names it.
        pairs: what can be measured.

    Raises:
        SettingError: an unknown model, a batch or number of runs below 1.
        ParityError: descriptors of ours and of the transcription differ by more than 1e-5.

    """
    _check(models, batches, repeat, pairs)
    found: list[Contest] = []
    for name in models:
        pair = pairs[name]
        ours, plain = _with_equal_weights(pair, device)
        for batch in tqdm(batches, desc=name, unit="batch size", disable=None):
            images = torch.randn(batch, 3, *pair.view).to(device)
            found += _contests(name, pair, ours, plain, images, repeat)
    return found


def _check(
    models: Sequence[str], batches: Sequence[int], repeat: int, pairs: Mapping[str, Pair]
) -> None:
    unknown = [name for name in models if name not in pairs]
    if unknown:
        raise SettingError(
            f"Model: got {unknown[0]!r}, expected one of {', '.join(pairs)}. Only these have a "
            "transcription to be measured against."
        )
    if repeat < 1 or min(batches, default=1) < 1:
        raise SettingError(
            f"Runs and batches: got {repeat} runs and batches of {list(batches)}, expected numbers "
            "of at least 1."
        )


def _with_equal_weights(pair: Pair, device: str) -> tuple[nn.Module, nn.Module]:
    """Both in evaluation mode, with the same weights, none of them at the value it starts with."""
    ours, plain = pair.ours(), pair.plain()
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim in {1, 3}:  # norms, biases, positions
                tensor.add_(0.1 * torch.rand_like(tensor))
    plain.load_state_dict(ours.state_dict())
    return ours.eval().to(device), plain.eval().to(device)


@torch.inference_mode()
def _contests(
    name: str, pair: Pair, ours: nn.Module, plain: nn.Module, images: Tensor, repeat: int
) -> list[Contest]:
    device = images.device.type
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {"float32": nullcontext}
    if computes_in_bfloat16(device):
        contexts["bfloat16"] = lambda: torch.autocast(device, torch.bfloat16)

    def describe(precision: str) -> Tensor:
        with contexts[precision]():
            return pair.describe(ours, images)

    with FlopCounterMode(display=False) as counted:
        expected = plain(images)
    errors = {precision: _errors(describe(precision), expected) for precision in contexts}
    if not errors["float32"][0] <= TOLERANCE:
        raise ParityError(
            f"Model {name}: got descriptors that differ from the transcription's by "
            f"{errors['float32'][0]:.1e}, expected at most {TOLERANCE:g}. Run the tests of "
            "core/models; times of something else would say nothing."
        )
    runs = {"plain": lambda: plain(images)}
    runs |= {precision: _bound(describe, precision) for precision in contexts}
    seconds_at_best = {
        precision: counted.get_total_flops() / _fastest_product(device, context)
        for precision, context in contexts.items()
    }
    clocks = _interleaved(runs, repeat, device)
    wall = {what: median(seconds for seconds, _ in clocks[what]) for what in clocks}
    work = {what: median(seconds for _, seconds in clocks[what]) for what in clocks}
    return [
        Contest(
            model=name,
            batch=len(images),
            precision=precision,
            runs=repeat,
            plain_ms=1000 * wall["plain"],
            ours_ms=1000 * wall[precision],
            ratio=wall["plain"] / wall[precision],
            work_ratio=work["plain"] / max(work[precision], 1e-9) if device == "cpu" else None,
            ceiling=wall["plain"] / seconds_at_best[precision],
            largest_difference=errors[precision][0],
            cosine_error=errors[precision][1],
        )
        for precision in contexts
    ]


def _fastest_product(device: str, context: Callable[[], AbstractContextManager[Any]]) -> float:
    """Floating-point operations per second of the faster of a large matrix product and a convolution.

    Both are shapes that the libraries do best; the best of several runs counts.
    """
    left, right = torch.randn(2, *PRODUCT, device=device)
    views = torch.randn(8, 128, 32, 128, device=device).to(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, device=device).to(memory_format=torch.channels_last)
    products: list[Callable[[], Tensor]] = [
        lambda: left @ right,
        lambda: F.conv2d(views, kernel, padding=1),
    ]
    fastest = 0.0
    for product in products:
        with context(), FlopCounterMode(display=False) as counted:
            product()
        with context():
            seconds = [_seconds_of(product, device) for _ in range(PRODUCT_RUNS)]
        fastest = max(fastest, counted.get_total_flops() / min(seconds))
    return fastest


def _seconds_of(run: Callable[[], Tensor], device: str) -> float:
    started = _now(device)
    run()
    return _now(device) - started


def _bound(describe: Callable[[str], Tensor], precision: str) -> Callable[[], Tensor]:
    return lambda: describe(precision)


def _errors(descriptors: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest difference of an entry, largest 1 - cosine of a row."""
    got, wanted = descriptors.double(), expected.double()
    cosine = F.cosine_similarity(got, wanted, dim=1)
    return float((got - wanted).abs().max()), float((1 - cosine).max().clamp(min=0))


def _interleaved(
    runs: Mapping[str, Callable[[], Tensor]], repeat: int, device: str
) -> dict[str, list[tuple[float, float]]]:
    """Seconds on the wall and of the processor of each run: A, B, C, A, B, C ..."""
    clocks: dict[str, list[tuple[float, float]]] = {what: [] for what in runs}
    for _ in range(repeat):
        for what, run in runs.items():
            wall, work = _now(device), process_time()
            run()
            clocks[what].append((_now(device) - wall, process_time() - work))
    return clocks


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()  # kernels run on after Python has gone on
    return perf_counter()


def run_training(
    model: str,
    batch: int,
    steps: int = 10,
    device: str = "cuda",
    pairs: Mapping[str, Pair] = PAIRS,
) -> dict[str, Any]:
    """Pairs per second of whole training steps: both branches, triplet loss, AdamW.

    In bfloat16 where the device has it. The median step of ``steps`` counts, after two that warm up.

    Raises:
        SettingError: an unknown model, a batch below 2, or a number of steps below 1.

    """
    _check([model], [batch - 1], steps, pairs)
    pair = pairs[model]
    branches = nn.ModuleList([pair.ours(), pair.ours()]).to(device).train()
    optimizer = torch.optim.AdamW(branches.parameters(), lr=1e-4, weight_decay=0.03)
    kind = torch.device(device).type
    halved = computes_in_bfloat16(device)
    ground, aerial = torch.randn(2, batch, 3, *pair.view).to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=halved):
            queries, references = (
                pair.describe(branch, views)
                for branch, views in zip(branches, (ground, aerial), strict=True)
            )
        exhaustive_triplet(queries.float() @ references.float().T).backward()
        optimizer.step()

    seconds: list[float] = []
    for _ in range(2 + steps):
        started = _now(kind)
        step()
        seconds.append(_now(kind) - started)
    return {
        "model": model,
        "batch": batch,
        "precision": "bfloat16" if halved else "float32",
        "device": device,
        "pairs_per_s": batch / median(seconds[2:]),
    }


def contest_record(contests: Sequence[Contest], training: Sequence[Any]) -> dict[str, Any]:
    """All of it as one JSON object; ``training`` is empty where there is no GPU."""
    return {
        "rows": [asdict(contest) for contest in contests],
        "tolerance": TOLERANCE,
        "training": list(training),
    }


def contest_table(contests: Sequence[Contest], training: Sequence[Mapping[str, Any]]) -> str:
    """All of it for a person at a terminal."""
    lines = [
        f"{'model':8}{'batch':>6}  {'precision':10}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}"
        f"{'of work':>9}{'at most':>9}{'difference':>12}{'1 - cosine':>12}"
    ]
    for contest in contests:
        work = "-" if contest.work_ratio is None else f"{contest.work_ratio:.2f}"
        lines.append(
            f"{contest.model:8}{contest.batch:6d}  {contest.precision:10}{contest.plain_ms:10.1f}"
            f"{contest.ours_ms:10.1f}{contest.ratio:8.2f}{work:>9}{contest.ceiling:9.2f}"
            f"{contest.largest_difference:12.1e}{contest.cosine_error:12.1e}"
        )
    lines += [
        f"{row['model']}: trains on {row['pairs_per_s']:.0f} pairs/s at batch {row['batch']} "
        f"({row['precision']}, {row['device']})"
        for row in training
    ]
    return "\n".join(lines)
