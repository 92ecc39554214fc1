"""The command line: ``python -m core <command>``.

Exit code 0: done; 1: an understandable failure, said on one line of stderr; 2: wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from core.commands.bench import bench_app
from core.commands.calibrate import calibrate
from core.commands.convert import convert
from core.commands.evaluate import evaluate
from core.commands.exit_codes import run_app
from core.commands.explain import explain
from core.commands.gallery import gallery_app
from core.commands.locate import locate
from core.commands.pointing import pointing
from core.commands.results import results
from core.commands.training import distill, train
from core.commands.trust import trust
from core.commands.world import world_app

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
    epilog="Example: python -m core train --recipe recipes/town-student.toml --data build/worlds/train "
    "--run build/run --out my-student"
)(train)
app.command(
    epilog="Example: python -m core distill --recipe recipes/town-distilled.toml --data "
    "build/worlds/train --start my-student --teacher my-teacher --run build/run --out my-distilled"
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
    epilog="Example: python -m core convert model_checkpoint.pth --out my-saig --data-set cvact-val"
)(convert)
app.command(epilog="Example: python -m core results")(results)
app.add_typer(bench_app, name="bench")
app.command(epilog="Example: python -m core explain my-saig --photo photo.jpg --out pictures")(
    explain
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (``sys.argv`` by default) and return its exit code: 0, 1 or 2."""
    return run_app(app, "python -m core", arguments)
