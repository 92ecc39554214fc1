"""``world build``: render a town with known answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from core.errors import SettingError

__all__ = ["parse_canvas", "world_app"]

world_app = typer.Typer(help="Rendered towns: imagery, panoramas, photos and the truth.",
                        no_args_is_help=True, rich_markup_mode=None)  # fmt: skip


@world_app.callback()
def _group() -> None:
    """Rendered towns: imagery, panoramas, photos and the truth."""


@world_app.command(
    epilog="Example: python -m core world build --seed 7 --size-m 600 --panoramas 50 --out my-world"
)
def build(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 1,
    size_m: Annotated[float, typer.Option(help="Side of the town in metres.")] = 1536.0,
    panoramas: Annotated[int, typer.Option(help="Panoramas at street positions.")] = 600,
    photos: Annotated[int, typer.Option(help="Photos of 50 to 110 degrees, with EXIF.")] = 24,
    canvas: Annotated[
        str, typer.Option(metavar="HEIGHTxWIDTH", help="Pixels of a panorama.")
    ] = "128x512",
    packed: Annotated[
        bool, typer.Option("--packed", help="All panoramas in one array, for training.")
    ] = False,
    aerial_grid: Annotated[
        int, typer.Option(min=1, max=4, help="Rays per pixel and axis of the aerial picture.")
    ] = 2,
    style: Annotated[
        str, typer.Option(help="Look of the town: town, or steppe (never used in training).")
    ] = "town",
) -> None:
    """Grow a town from a seed and render it from above and from its streets."""
    size = parse_canvas(canvas)
    from core.world.build import build_world

    built = build_world(
        seed,
        size_m,
        out,
        panoramas=panoramas,
        photos=photos,
        canvas=size,
        packed=packed,
        aerial_grid=aerial_grid,
        style=style,
    )
    print(f"{built}: {panoramas} panoramas and {photos} photos of a town of {size_m:g} m.")


@world_app.command(
    epilog="Example: python -m core world towns --part validation --out build/validation"
)
def towns(
    part: Annotated[str, typer.Option(help="train, validation or test.")],
    out: Annotated[Path, typer.Option(help="Folder of the towns; finished ones are kept.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="Only this many, from the first; else all.")
    ] = None,
    panoramas: Annotated[int, typer.Option(min=1, help="Per training town.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
) -> None:
    """Render the towns of one part of the split; no seed is in two parts."""
    from core.world.build import (
        TEST_SEEDS,
        TRAIN_SEEDS,
        VALIDATION_SEEDS,
        build_towns,
        demo_job,
        training_job,
    )

    seeds = {"train": TRAIN_SEEDS, "validation": VALIDATION_SEEDS, "test": TEST_SEEDS}.get(part)
    if seeds is None:
        raise SettingError(f"Part: got {part!r}, expected train, validation or test.")
    jobs = [
        demo_job(seed) if part == "test" else training_job(seed, panoramas)
        for seed in seeds[:count]
    ]
    built = build_towns(jobs, out, workers)
    print(f"{out}: {len(built)} towns of the {part} part.")


@world_app.command(
    epilog="Example: python -m core world pack build/test/town-3000 --out assets/town"
)
def pack(
    source: Annotated[Path, typer.Argument(help="World folder with panoramas as pictures.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    panorama_quality: Annotated[int, typer.Option(min=1, max=100, help="WebP quality.")] = 75,
    aerial_quality: Annotated[int, typer.Option(min=1, max=100, help="WebP quality.")] = 75,
) -> None:
    """Make a world small enough to ship: re-encoded, without its layout."""
    from core.world.pack import pack_world

    print(f"{pack_world(source, out, panorama_quality, aerial_quality)}: packed.")


@world_app.command(
    epilog="Example: python -m core world examples build/test/town-3000 --out assets/examples"
)
def examples(
    source: Annotated[Path, typer.Argument(help="World folder with panoramas as pictures.")],
    out: Annotated[Path, typer.Option(help="Folder of the JPEG files.")],
    panoramas: Annotated[int, typer.Option(min=0, help="How many panoramas.")] = 3,
    photos: Annotated[int, typer.Option(min=0, help="How many photos.")] = 5,
) -> None:
    """Write pictures to try, taken evenly from a world, their places in EXIF."""
    from core.world.examples import write_examples

    print(f"{out}: {write_examples(source, out, panoramas, photos)} examples.")


def parse_canvas(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` as (height, width) in pixels.

    Raises:
        SettingError: these are not two whole numbers.

    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip())
    if match is None:
        raise SettingError(
            f"Canvas: got {text[:40]!r}, expected HEIGHTxWIDTH in pixels. Type 128x512 or 64x256."
        )
    return int(match[1]), int(match[2])
