"""``gallery build|info|verify``: build a gallery from aerial imagery, show it, check it."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.commands.devices import checked_device

if TYPE_CHECKING:
    from core.gallery.folder import BuildReport

__all__ = ["gallery_app"]

gallery_app = typer.Typer(help="Galleries: places of aerial imagery, ready to be searched.",
                          no_args_is_help=True, rich_markup_mode=None)  # fmt: skip
Folder = Annotated[Path, typer.Argument(metavar="GALLERY", help="Gallery folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@gallery_app.command(
    epilog="Example: python -m core gallery build town.tif --out my-town --model "
    "assets/models/student"
)
def build(
    source: Annotated[
        Path, typer.Argument(help="Aerial imagery: a georeferenced raster, or a world folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; an unfinished build is continued.")],
    model: Annotated[Path, typer.Option(help="Model folder of the student.")] = Path(
        "assets/models/student"
    ),
    step_m: Annotated[float, typer.Option(help="Distance between places in metres.")] = 19.2,
    tile_side_m: Annotated[float, typer.Option(help="Side of a tile in metres.")] = 76.8,
    tile_pixels: Annotated[int, typer.Option(help="Side of a tile in pixels.")] = 256,
    min_coverage: Annotated[
        float, typer.Option(help="Smallest share of a tile with imagery, above 0 to 1.")
    ] = 0.7,
    index_kind: Annotated[
        str, typer.Option(help="flat-8bit, or a string for faiss.index_factory.")
    ] = "flat-8bit",
    viewpoints: Annotated[
        int,
        typer.Option(
            # The second name is the earlier one; scripts still use it.
            "--viewpoints",
            "--standpoints",
            help="Number of points of its grid cell from which a place is described: 1, 4 or 9; the "
            "index grows by this factor.",
        ),
    ] = 4,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu or cuda.")] = "cpu",
    json: Json = False,
) -> None:
    """Describe the places of aerial imagery with a student, and index them."""
    from tqdm import tqdm

    from core.checkpoints import load_student, model_hash
    from core.gallery.describing import tile_describer
    from core.gallery.folder import GallerySettings, build_gallery

    settings = GallerySettings(
        tile_side_m, tile_pixels, step_m, min_coverage, index_kind, viewpoints
    )
    device = checked_device(device)
    student, _ = load_student(model)
    describe = tile_describer(student.to(device), device)
    # An absolute path would tie the gallery to this machine.
    name = model.name if model.is_absolute() else model.as_posix()
    with tqdm(unit="place", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = build_gallery(source, out, describe, name, model_hash(model), settings, show)
    print(json_module.dumps(_report_record(report)) if json else _report_text(report))


@gallery_app.command(epilog="Example: python -m core gallery info assets/town --json")
def info(gallery: Folder, json: Json = False) -> None:
    """Show what a gallery holds and how it was made."""
    from core.gallery.folder import Gallery

    facts = asdict(Gallery.open(gallery).manifest)
    if json:
        print(json_module.dumps(facts))
        return
    del facts["checksums"]
    width = max(len(name) for name in facts)
    print("\n".join(f"{name:{width}}  {value}" for name, value in facts.items()))


@gallery_app.command(epilog="Example: python -m core gallery verify assets/town")
def verify(
    gallery: Folder,
    model: Annotated[
        Path | None, typer.Option(help="Also check that this student described it.")
    ] = None,
    json: Json = False,
) -> None:
    """Check every file and descriptor of a gallery against its manifest."""
    from core.checkpoints import model_hash
    from core.gallery.folder import Gallery

    opened = Gallery.open(gallery, verify="full")
    if model is not None:
        opened.require_model(model.name, model_hash(model), model)
    if json:
        print(json_module.dumps({"gallery": str(gallery), "tiles": len(opened), "whole": True}))
    else:
        print(f"{gallery}: whole, {len(opened)} places.")


def _report_record(report: BuildReport) -> dict[str, Any]:
    return {
        "gallery": str(report.path),
        "tiles": report.tiles,
        "skipped": [asdict(tile) for tile in report.skipped],
        "chunks": report.chunks,
        "resumed": report.resumed,
        "notes": list(report.notes),
    }


def _report_text(report: BuildReport) -> str:
    lines = [f"{report.path}: {report.tiles} places."]
    if report.resumed:
        lines.append(f"  {report.resumed} of {report.chunks} chunks were there already.")
    if report.skipped:
        lines.append(f"  {len(report.skipped)} grid points have too little imagery, the first:")
        lines += [
            f"    {tile.tile_id}  {tile.lat_deg:.6f}, {tile.lon_deg:.6f}  {tile.coverage:.0%} seen"
            for tile in report.skipped[:5]
        ]
    return "\n".join(lines + [f"  {note}" for note in report.notes])
