"""``convert``: an authors' checkpoint in, a model folder out."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from core.commands.world import parse_canvas

__all__ = ["convert"]


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="SAIG's or L2LTR's .pth, SAIG's .pth.tar, Google's R50+ViT-B_16.npz.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write; a new one.")],
    polar: Annotated[
        bool | None,
        typer.Option(help="Whether the aerial branch takes polar views; by default L2LTR's does."),
    ] = None,
    data_set: Annotated[
        str | None,
        typer.Option(
            help="cvusa, cvact-val, vigor-same or vigor-cross; by default cvusa, or with VIGOR's sizes "
            "vigor-same."
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="gap or smd, for an ImageNet file; by default gap. Other files show it."),
    ] = None,
    ground_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Pixels of a full canvas; by default the published size with the file's number of "
            "positions, 128x512 for a backbone.",
        ),
    ] = None,
    aerial_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Pixels of a tile; by default the published size with the file's number of "
            "positions, 256x256 for a backbone or before a polar view.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn an authors' checkpoint into a model folder; the file is read, never run.

    Model, pooling and sizes follow from the tensors. Everything else has an option; the model's card
    marks a default as assumed.
    """
    ground = None if ground_size is None else parse_canvas(ground_size)
    aerial = None if aerial_size is None else parse_canvas(aerial_size)
    from core.convert.conversion import Given, convert_file

    config = convert_file(file, out, Given(pooling, ground, aerial, polar, data_set))
    print(json_module.dumps({"folder": str(out), **config}) if json else _summary(out, config))


def _summary(out: Path, config: Mapping[str, Any]) -> str:
    model, source = config["model"], config["source"]
    sizes = ["{} x {}".format(*model[size]) for size in ("ground_size", "aerial_size")]
    parts = [
        f"{out}: {config['name']} ({model['pooling']})",
        config["protocol"]["data_set"] or "of no known data set",
        f"ground {sizes[0]}, tile {sizes[1]}{', polar' if model['polar'] else ''}",
    ]
    if source["is_initialisation"]:
        parts.append("a backbone to train from")
    if source["assumed"]:
        parts.append(f"assumed: {', '.join(source['assumed'])}")
    return "; ".join(parts)
