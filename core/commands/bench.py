"""``bench``: how long an answer takes on this machine, and how fast the encoders are."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core.commands.devices import checked_device
from core.commands.provenance import provenance
from core.errors import PhotoError, SettingError

__all__ = ["bench_app"]

EXAMPLES = Path("assets/examples")
DEFAULT = "photo"


class _PhotoByDefault(TyperGroup):
    """``bench photo.jpg`` and ``bench`` alone mean ``bench photo``."""

    # Any: depending on its version, typer passes click's context or that of its own copy of click.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=_PhotoByDefault,
    rich_markup_mode=None,
    help="Time locate (photo, the default) or the encoders (models).",
    epilog="Example: python -m core bench assets/examples/panorama-1.jpg --repeat 5",
)


@bench_app.command(DEFAULT, epilog="Example: python -m core bench photo photo.jpg --repeat 5")
def bench(
    photo: Annotated[
        Path | None, typer.Argument(help="Photo to time; by default the first example.")
    ] = None,
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")] = Path("assets/town"),
    student: Annotated[Path, typer.Option(help="Model folder.")] = Path("assets/models/student"),
    teacher: Annotated[
        Path | None, typer.Option(help="Model folder; by default the one beside the student.")
    ] = None,
    rerank: Annotated[bool, typer.Option(help="With re-ranking by the teacher.")] = True,
    repeat: Annotated[int, typer.Option(help="Runs of each thing.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time locate as a whole process and once warm, side by side."""
    chosen = photo or _first_example()
    from core.bench.locate import bench_record, bench_table, run_bench
    from core.localization.localizer import teacher_for

    timings = run_bench(chosen, gallery, student, teacher_for(student, teacher, rerank), repeat)
    print(json_module.dumps(bench_record(timings)) if json else bench_table(timings))


@bench_app.command("against", epilog="Example: python -m core bench against ../before")
def bench_against(
    other: Annotated[Path, typer.Argument(help="Folder of another checkout of this program.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each answers all examples.")] = 3,
) -> None:
    """Time warm answers of this checkout and of another one, in alternation."""
    from core.bench.checkouts import compare_checkouts

    found = compare_checkouts(other, rounds=rounds)
    print(
        f"warm locate: here {found.here_ms:.0f} ms, {other} {found.other_ms:.0f} ms, "
        f"{found.ratio:.2f} times as long ({found.photos} photos, {found.rounds} rounds in turn)"
    )


@bench_app.command(
    "models", epilog="Example: python -m core bench models --model saig-d --batch 1 --batch 32"
)
def bench_models(
    model: Annotated[
        list[str] | None,
        typer.Option(help="saig-s, saig-d or l2ltr; may be repeated. By default the last two."),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Views at once; may be repeated. By default 1 and 32."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs of each, in alternation.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run: cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and views.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time SAIG and L2LTR against plain transcriptions; their outputs must agree to 1e-5.

    Plain means separate softmax attention and batch norms, no fused kernel. On a GPU, training is
    timed too, in pairs per second.
    """
    device = checked_device(device)
    if out is not None and not out.parent.is_dir():
        raise SettingError(
            f"Output {out}: the folder {out.parent} does not exist. Make it first or choose another "
            "for --out."
        )
    import torch

    from core.bench.models import contest_record, contest_table, run_contests, run_training

    if threads is not None:
        torch.set_num_threads(threads)
    # A GPU's convolutions round float32 to 10 bits of mantissa by default.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(seed)
    names, batches = model or ["saig-d", "l2ltr"], batch or [1, 32]
    contests = run_contests(names, batches, repeat, device)
    sizes = sorted({size for size in batches if size > 1}) if device != "cpu" else []
    training = [run_training(name, sizes[-1], device=device) for name in names if sizes]
    words = [f"--model {name}" for name in names] + [f"--batch {size}" for size in batches]
    words += [f"--repeat {repeat} --threads {torch.get_num_threads()} --device {device}"]
    report = {
        **provenance(f"bench models {' '.join(words)} --seed {seed}"),
        "torch": torch.__version__,
        "load": _load(),
        **contest_record(contests, training),
    }
    text = json_module.dumps(report, indent=1)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text if json else f"{contest_table(contests, training)}\n{_circumstances(report)}")


def _load() -> float | None:
    """Load average of the last minute, this process included; None if the system has none."""
    import os

    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _circumstances(report: dict[str, object]) -> str:
    return (
        f"{report['machine']}, torch {report['torch']}, load {report['load']}: milliseconds are this "
        "machine's now, the ratios are side by side."
    )


def _first_example() -> Path:
    examples = sorted(EXAMPLES.glob("*.jpg"))
    if not examples:
        raise PhotoError(
            f"Examples {EXAMPLES}: got no photo, expected the project's examples. Name a photo, or "
            "run this in the project's folder."
        )
    return examples[0]
