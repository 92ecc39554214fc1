"""``locate``: photos in, places out."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.commands.devices import checked_device
from core.errors import PhotoError, SettingError

if TYPE_CHECKING:
    from core.localization.localizer import Localizer
    from core.records import Prediction, SearchArea

__all__ = ["locate", "parse_area"]

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".mpo")


def locate(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Street photos, or folders of them.")
    ],
    gallery: Annotated[Path, typer.Option(help="Gallery folder.")] = Path("assets/town"),
    student: Annotated[Path, typer.Option(help="Model folder.")] = Path("assets/models/student"),
    teacher: Annotated[
        Path | None,
        typer.Option(help="Model folder of the teacher; by default the one beside the student."),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Let the teacher re-rank the first places.")] = True,
    fov: Annotated[
        str | None, typer.Option(help="Horizontal field of view in degrees, for all photos.")
    ] = None,
    heading: Annotated[
        str | None, typer.Option(help="Direction of the photo's centre, degrees from north.")
    ] = None,
    near: Annotated[
        str | None, typer.Option(metavar="LAT,LON,RADIUS_M", help="Search in this circle only.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Places per photo.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per photo.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write a .geojson, .csv or .gpkg file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the models run: cpu or cuda.")] = "cpu",
) -> None:
    """Find where street photos may have been taken."""
    from core.localization.output import check_output, prediction_record, write_predictions

    area = None if near is None else parse_area(near)
    fov_deg = None if fov is None else parse_degrees("Field of view", fov)
    heading_deg = None if heading is None else parse_degrees("Heading", heading)
    if out is not None:
        check_output(out)
    files = photo_files(photos)
    device = checked_device(device)

    from core.localization.localizer import Localizer, teacher_for

    looking = teacher_for(student, teacher, rerank)
    localizer = Localizer.open(gallery, student, looking, device)
    located: list[Prediction] = []
    for prediction in _located(localizer, files, fov_deg, heading_deg, area, top_k):
        print(
            json_module.dumps(prediction_record(prediction), ensure_ascii=False)
            if json
            else describe(prediction),
            flush=True,
        )
        located.append(prediction)
    if out is not None and located:
        write_predictions(out, located)
    if len(located) < len(files):
        raise typer.Exit(1)


def _located(
    localizer: Localizer,
    files: Sequence[Path],
    fov_deg: float | None,
    heading_deg: float | None,
    area: SearchArea | None,
    top_k: int,
) -> Iterable[Prediction]:
    """Predictions of all usable photos; the other photos are named on stderr.

    Photos are named by their paths as typed, since two folders may hold files of the same name.
    """
    from tqdm import tqdm

    # A progress bar only for several photos, and only on a terminal.
    for file in tqdm(files, unit="photo", disable=True if len(files) == 1 else None):
        try:
            found = localizer.locate(file, fov_deg, heading_deg, area, top_k)
        except PhotoError as error:
            sentence = str(error).replace(f"Photo {file.name}:", f"Photo {file}:", 1)
            print(f"error: {sentence}", file=sys.stderr)
        else:
            yield replace(found, photo=str(file))


def photo_files(paths: Sequence[Path]) -> list[Path]:
    """The named photos, and the photos in the named folders (by ending, sorted, without subfolders).

    Raises:
        PhotoError: a folder holds no photo.

    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_ENDINGS)
        if not inside:
            raise PhotoError(
                f"Folder {path}: got no photo, expected files ending in "
                f"{', '.join(PHOTO_ENDINGS)}. Name the folder that holds them."
            )
        files += inside
    return files


def parse_degrees(what: str, text: str) -> float:
    """A number of degrees, as typed.

    Raises:
        SettingError: it is not a number.

    """
    try:
        return float(text)
    except ValueError as error:
        raise SettingError(
            f"{what}: got {text[:40]!r}, expected a number of degrees. Type 65, for example."
        ) from error


def parse_area(text: str) -> SearchArea:
    """``LAT,LON,RADIUS_M`` as a circle.

    Raises:
        SettingError: these are not three numbers, not a place on Earth, or the radius is not above 0.

    """
    from core.records import Place, SearchArea

    try:
        lat_deg, lon_deg, radius_m = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(
            f"Search area: got {text[:60]!r}, expected LAT,LON,RADIUS_M. Type --near 0.0012,0.0034,200"
        ) from error
    if not (-90 <= lat_deg <= 90 and -180 <= lon_deg <= 180 and 0 < radius_m < float("inf")):
        raise SettingError(
            f"Search area: got {text[:60]!r}, expected latitude -90 to 90, longitude -180 to 180 and a "
            "radius above 0 m. Latitude comes first."
        )
    return SearchArea(Place(lat_deg, lon_deg), radius_m)


def describe(prediction: Prediction) -> str:
    """A prediction as text for the terminal: a headline, notes, a line per place."""
    from core.localization.output import percent

    answer = {"match": "", "likely": "likely, ", "none": "no confident match, "}[prediction.verdict]
    lines = [
        f"{prediction.photo}: {answer}first place {percent(prediction.confidence)}, elsewhere in this "
        f"imagery {percent(1 - prediction.confidence - prediction.outside_probability)}, not in it "
        f"{percent(prediction.outside_probability)}; field of view {prediction.fov_deg:.0f}° "
        f"({prediction.fov_source})"
    ]
    lines += [f"  {note}" for note in prediction.notes]
    for candidate in prediction.candidates:
        place, heading = candidate.camera, candidate.heading_deg
        is_sure = prediction.confident and candidate.rank == 1 and candidate.radius_m is not None
        radius = f" ± {candidate.radius_m:.0f} m" if is_sure else ""
        facing = "" if heading is None else f"  facing {heading:5.1f}°"
        lines.append(
            f"  {candidate.rank:3d}  {place.lat_deg:10.6f}, {place.lon_deg:11.6f}{radius}"
            f"  {percent(candidate.probability):>7}{facing}  tile {candidate.tile.tile_id}"
        )
    return "\n".join(lines)
