"""``explain``: pictures that explain one model alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.commands.locate import parse_degrees

__all__ = ["explain"]


def explain(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model folder of a student or a teacher.")
    ],
    photo: Annotated[
        Path | None, typer.Option(help="Street photo; without one, the positions alone.")
    ] = None,
    fov: Annotated[
        str | None, typer.Option(help="Horizontal field of view of the photo in degrees.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write PNG files to.")] = Path("explanation"),
) -> None:
    """Draw the similarity of a model's learned positions, its attention over a photo, and the
    contribution of each part of the photo.

    SAIG and L2LTR: positions of each branch (L2LTR, Figure 3), attention layer by layer and attention
    rollout. Models with gap or azimuth pooling, as the shipped ones: contribution factors of the
    photo's patches. The page shows a teacher's attention between a photo and a tile.
    """
    fov_deg = None if fov is None else parse_degrees("Field of view", fov)
    from core.checkpoints import load_model
    from core.explain.pictures import model_pictures, write_pictures
    from core.photos.opening import open_photo, with_fov

    opened = None if photo is None else open_photo(photo)
    if opened is not None and fov_deg is not None:
        opened = with_fov(opened, fov_deg)
    pictures, missing = model_pictures(load_model(model)[0], opened)
    for path in write_pictures(pictures, out):
        print(path)
    for sentence in missing:
        print(f"note: {sentence}", file=sys.stderr)
