"""The command line: ``python -m core <command>``.

Exit code 0: done; 1: an understandable failure, said on one line of stderr; 2: wrong usage.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import typer
from typer.main import get_command

from core.commands.bench import bench_app
from core.commands.calibrate import calibrate
from core.commands.convert import convert
from core.commands.evaluate import evaluate
from core.commands.explain import explain
from core.commands.gallery import gallery_app
from core.commands.locate import locate
from core.commands.pointing import pointing
from core.commands.results import ablate, results
from core.commands.shortcuts import shortcuts
from core.commands.training import distill, train
from core.commands.trust import trust
from core.commands.world import world_app
from core.errors import CoreError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Crossview: find the place of a street photo in aerial imagery, and see why.",
    epilog="Each command explains itself: python -m core locate --help",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: python -m core locate photo.jpg --fov 65 --top-k 3")(locate)
app.add_typer(gallery_app, name="gallery")
app.add_typer(world_app, name="world")
app.command(
    epilog="Example: python -m core train --worlds build/worlds --run build/run --out my-student; "
    "python -m core train --recipe recipes/saig-d-smd-asam-cvusa.toml --data CVUSA --start my-imagenet "
    "--run build/run --out my-saig"
)(train)
app.command(
    epilog="Example: python -m core distill --worlds build/worlds --start my-student --teacher "
    "my-teacher --run build/distill --out my-distilled"
)(distill)
app.command(
    epilog="Example: python -m core calibrate my-student --teacher my-teacher --validation "
    "build/validation"
)(calibrate)
app.command(
    epilog="Example: python -m core evaluate assets/models/student --data assets/town --json; "
    "python -m core evaluate my-saig --benchmark cvact-val --data CVACT --out cvact-val.json"
)(evaluate)
app.command(
    epilog="Example: python -m core pointing assets/models/teacher --data assets/town --queries 200 "
    "--out docs/results/explanations.json"
)(pointing)
app.command(
    epilog="Example: python -m core trust assets/models/student --teacher assets/models/teacher --data "
    "assets/town --other-town build/worlds/test/town-3001 --out docs/results/trust.json"
)(trust)
app.command(
    epilog="Example: python -m core shortcuts assets/models/student --data assets/town "
    "--out docs/results/shortcuts.json"
)(shortcuts)
app.command(
    epilog="Example: python -m core ablate --worlds build/train --start assets/models/student "
    "--data assets/town --run build/ablation --out docs/results/ablation.json"
)(ablate)
app.command(
    epilog="Example: python -m core convert model_checkpoint.pth --out my-saig --data-set cvact-val"
)(convert)
app.command(epilog="Example: python -m core results")(results)
app.add_typer(bench_app, name="bench")
app.command(epilog="Example: python -m core explain my-saig --photo photo.jpg --out pictures")(
    explain
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (``sys.argv`` by default) and return its exit code: 0, 1 or 2."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # what libraries mutter is not for the person at the terminal
                warnings.simplefilter("ignore")
            get_command(app)(args=arguments, prog_name="python -m core")
    except CoreError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has gone; what is left in the buffer must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
