"""The command line, run in this process and once as its own process: ``pytest tests/test_cli.py``."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.checkpoints import save_model
from core.cli import main
from core.commands.locate import parse_area
from core.errors import SettingError
from core.gallery.folder import Gallery
from core.localization.output import percent, prediction_record
from core.research.cli import main as research
from tests.canvases import tile_to_polar
from tests.conftest import TINY_SIDE_M, TINY_TILE_PX, paint_ground, write_raster

ROOT = Path(__file__).resolve().parent.parent
ROW = 17
TWO_BRANCH = {"pooling": "azimuth", "ground_size": [64, 256], "aerial_size": [128, 128], "dim": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_student, tiny_teacher, tiny_raster) -> Path:
    """student, teacher, gallery (built by the command itself) and photos with known places."""
    folder = tmp_path_factory.mktemp("cli")
    save_model(folder / "student", tiny_student, {"name": "convnet-s", "model": TWO_BRANCH}, "")
    teacher = {"name": "geossk", "model": {"base": {"name": "convnet-s", **TWO_BRANCH}}}
    save_model(folder / "teacher", tiny_teacher, teacher, "")
    options = ["--model", str(folder / "student"), "--tile-pixels", str(TINY_TILE_PX)]
    build = ["gallery", "build", str(tiny_raster), "--out", str(folder / "gallery"), *options]
    assert main([*build, "--viewpoints", "1"]) == 0
    (folder / "photos").mkdir()
    gallery = Gallery.open(folder / "gallery")
    for row in (ROW, 30):
        canvas = tile_to_polar(gallery.tile_image(row))
        Image.fromarray(canvas).save(folder / "photos" / f"row{row}.png")
    return folder


@pytest.fixture
def run(folder, capsys):
    """Run locate on the tiny gallery: (exit code, stdout, stderr)."""

    def locate(*arguments: object, **changed: Path) -> tuple[int, str, str]:
        places = {
            name: changed.get(name, folder / name) for name in ("gallery", "student", "teacher")
        }
        options = [part for name, path in places.items() for part in (f"--{name}", str(path))]
        code = main(["locate", *map(str, arguments), *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return locate


def one_sentence(text: str) -> bool:
    lines = text.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in text


def test_json_is_one_object(run, folder):
    code, out, err = run(folder / "photos" / f"row{ROW}.png", "--json", "--top-k", "3")
    assert code == 0
    assert err == ""
    found = json.loads(out)
    assert found["photo"] == str(folder / "photos" / f"row{ROW}.png")
    assert found["candidates"][0]["tile_id"] == "r0002c0003"
    assert found["candidates"][0]["teacher_score"] > 0.8  # the camera stood in its middle
    assert len(found["candidates"]) == 3
    assert abs((found["heading_deg"] + 180) % 360 - 180) < 2
    assert set(found) == {
        "photo", "fov_deg", "fov_source", "verdict", "confident", "confidence", "rest_probability",
        "outside_probability", "area_50_m2", "area_90_m2", "heading_deg", "candidates",
        "timings_ms",
    }  # fmt: skip
    assert found["confidence"] == found["candidates"][0]["probability"]
    assert found["confident"] == (found["verdict"] == "match")
    assert (found["verdict"] == "none") == (found["confidence"] <= 0.5)
    total = sum(candidate["probability"] for candidate in found["candidates"])
    total += found["rest_probability"] + found["outside_probability"]
    assert total == pytest.approx(1, abs=1e-6)


def test_words_for_a_person(run, folder):
    code, out, _ = run(folder / "photos" / f"row{ROW}.png", "--no-rerank")
    assert code == 0
    assert out.startswith(f"{folder / 'photos' / f'row{ROW}.png'}: ")
    headline, place = out.splitlines()[0], out.splitlines()[2]
    assert "tile r0002c0003" in place
    record = json.loads(run(folder / "photos" / f"row{ROW}.png", "--no-rerank", "--json")[1])
    said = percent(record["confidence"])
    assert f"first place {said}, elsewhere in this imagery" in headline
    assert f"not in it {percent(record['outside_probability'])};" in headline
    assert f" {said} " in place
    assert ("no confident match" in headline) == (record["verdict"] == "none")


def test_a_folder_of_photos_becomes_one_file(run, folder, tmp_path):
    code, out, _ = run(folder / "photos", "--json", "--out", tmp_path / "a.csv", "--top-k", "2")
    assert code == 0
    paths = [str(folder / "photos" / name) for name in ("row17.png", "row30.png")]
    assert [json.loads(line)["photo"] for line in out.splitlines()] == paths
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["photo"], row["rank"]) for row in rows] == [
        (paths[0], "1"), (paths[0], "2"), (paths[1], "1"), (paths[1], "2"),
    ]  # fmt: skip


def test_two_photos_of_one_name_are_told_apart_by_their_paths(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("monday", "tuesday"):
        Path(name).mkdir()
        shutil.copy(folder / "photos" / f"row{ROW}.png", Path(name) / "walk.png")
    Path("tuesday/walk.jpg").write_text("no picture")
    code, out, err = run(
        "monday", "tuesday/walk.png", "tuesday/walk.jpg", "--json", "--out", "a.csv"
    )
    assert code == 1
    located = ["monday/walk.png", "tuesday/walk.png"]
    assert [json.loads(line)["photo"] for line in out.splitlines()] == located
    with Path("a.csv").open(newline="") as file:
        assert list(dict.fromkeys(row["photo"] for row in csv.DictReader(file))) == located
    assert one_sentence(err)
    assert err.startswith("error: Photo tuesday/walk.jpg: ")


def test_one_bad_photo_does_not_stop_the_others(run, folder, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    good = folder / "photos" / f"row{ROW}.png"
    code, out, err = run(tmp_path / "text.jpg", good, "--json", "--out", tmp_path / "a.geojson")
    assert code == 1
    assert one_sentence(err)
    assert "text.jpg" in err
    assert json.loads(out)["photo"] == str(good)
    assert json.loads((tmp_path / "a.geojson").read_text())["features"]


def bad_photos(folder: Path) -> dict[str, Path]:
    """Files that are no photo, one of each kind."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 3])
    (folder / "text.jpg").write_text("hello")
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(noise[:1, :1]).save(folder / "one.png")
    huge = bytearray(content)
    start = huge.index(b"\xff\xc0") + 5  # height and width of the frame header
    huge[start : start + 4] = (30000).to_bytes(2, "big") * 2
    (folder / "huge.jpg").write_bytes(huge)
    names = ("truncated.jpg", "text.jpg", "empty.jpg", "one.png", "huge.jpg", "missing.jpg")
    return {name: folder / name for name in names}


@pytest.mark.parametrize(
    "name", ["truncated.jpg", "text.jpg", "empty.jpg", "one.png", "huge.jpg", "missing.jpg"]
)
def test_what_is_no_photo_is_one_sentence(run, tmp_path, name):
    code, out, err = run(bad_photos(tmp_path)[name], "--json")
    assert code == 1
    assert out == ""
    assert one_sentence(err)
    assert name in err


def odd_photos(folder: Path) -> dict[str, Path]:
    """Unusual files that are photos all the same."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    grey = np.random.default_rng(1).integers(0, 4000, (200, 300)).astype(np.uint16)
    Image.fromarray(grey).save(folder / "grey16.png")
    picture.save(folder / "animated.gif", save_all=True, append_images=[picture.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["cmyk.jpg", "grey16.png", "animated.gif", "turned.jpg"])
def test_unusual_photos_are_located(run, tmp_path, name):
    code, out, err = run(odd_photos(tmp_path)[name], "--json")
    assert code == 0
    assert err == ""
    assert json.loads(out)["candidates"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fov", "0"], "Field of view"),
        (["--fov", "400"], "Field of view"),
        (["--fov", "nan"], "Field of view"),
        (["--fov", "wide"], "Field of view: got 'wide'"),
        (["--heading", "north"], "Heading: got 'north'"),
        (["--heading", "inf"], "Heading: got 'inf'"),
        (["--near", "here"], "Search area: got 'here'"),
        (["--near", "95,0,100"], "latitude"),
        (["--near", "0,0,-5"], "radius above 0"),
        (["--near", "60.1,24.9,100"], "no place"),
        (["--top-k", "0"], "Number of places: got 0"),
        (["--out", "places.shp"], "expected one of .geojson, .csv, .gpkg"),
        (["--out", "missing/places.csv"], "does not exist"),
        (["--device", "abacus"], "Device: got 'abacus'"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(run, folder, arguments, said):
    code, out, err = run(folder / "photos" / "row17.png", "--json", *arguments)
    assert code == 1
    assert out == ""
    assert one_sentence(err)
    assert said in err


def test_an_empty_folder_is_one_sentence(run, tmp_path):
    code, _, err = run(tmp_path)
    assert code == 1
    assert one_sentence(err)
    assert "got no photo" in err


def damaged_galleries(folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of the gallery, each broken in one way."""
    kinds = {name: tmp_path / name for name in ("no manifest", "flipped byte", "other model")}
    for path in kinds.values():
        shutil.copytree(folder / "gallery", path)
    (kinds["no manifest"] / "manifest.json").unlink()
    content = bytearray((kinds["flipped byte"] / "index.faiss").read_bytes())
    content[len(content) // 2] ^= 1
    (kinds["flipped byte"] / "index.faiss").write_bytes(content)
    manifest = json.loads((kinds["other model"] / "manifest.json").read_text())
    manifest["model_hash"] = "f" * 64
    (kinds["other model"] / "manifest.json").write_text(json.dumps(manifest))
    return kinds


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no manifest", "got no manifest.json"),
        ("flipped byte", "index.faiss"),
        ("other model", "python -m core gallery build"),
    ],
)
def test_a_gallery_that_cannot_be_trusted_is_one_sentence(run, folder, tmp_path, kind, said):
    gallery = damaged_galleries(folder, tmp_path)[kind]
    code, out, err = run(folder / "photos" / "row17.png", "--json", gallery=gallery)
    assert code == 1
    assert out == ""
    assert one_sentence(err)
    assert said in err


def test_a_model_with_a_missing_tensor_is_one_sentence(run, folder, tmp_path, tiny_student):
    class Lacking(type(tiny_student)):
        def state_dict(self, *arguments, **options):
            state = super().state_dict(*arguments, **options)
            state.pop(next(iter(state)))
            return state

    lacking = Lacking.__new__(Lacking)
    lacking.__dict__ = tiny_student.__dict__
    save_model(tmp_path / "student", lacking, {"name": "convnet-s", "model": TWO_BRANCH}, "")
    code, _, err = run(folder / "photos" / "row17.png", student=tmp_path / "student")
    assert code == 1
    assert one_sentence(err)
    assert "1 missing" in err


def test_teacher_and_student_exchanged_is_one_sentence(run, folder):
    photo = folder / "photos" / "row17.png"
    for changed in ({"student": folder / "teacher"}, {"teacher": folder / "student"}):
        code, _, err = run(photo, **changed)
        assert code == 1
        assert one_sentence(err)
        assert "another kind of model" in err


def test_a_raster_without_crs_is_one_sentence(folder, tmp_path, capsys):
    Image.fromarray(paint_ground(64)).save(tmp_path / "plain.tif")
    build = ["gallery", "build", str(tmp_path / "plain.tif"), "--out", str(tmp_path / "out")]
    assert main([*build, "--model", str(folder / "student")]) == 1
    err = capsys.readouterr().err
    assert one_sentence(err)
    assert "coordinate system" in err


def test_a_teacher_cannot_describe_a_gallery(folder, tmp_path, tiny_raster, capsys):
    build = ["gallery", "build", str(tiny_raster), "--out", str(tmp_path / "out")]
    assert main([*build, "--model", str(folder / "teacher")]) == 1
    assert "expected a two-branch student" in capsys.readouterr().err


def test_gallery_info_and_verify(folder, capsys):
    assert main(["gallery", "info", str(folder / "gallery"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tiles"] == 49
    assert facts["model_id"] == "student"
    assert main(["gallery", "info", str(folder / "gallery")]) == 0
    assert "tile_side_m" in capsys.readouterr().out
    check = ["gallery", "verify", str(folder / "gallery"), "--model", str(folder / "student")]
    assert main(check) == 0
    assert "whole, 49 places" in capsys.readouterr().out
    assert main([*check[:-1], str(folder / "teacher")]) == 1
    assert one_sentence(capsys.readouterr().err)


def test_gallery_build_reports_what_it_skipped(folder, tmp_path, capsys):
    image = paint_ground(round(TINY_SIDE_M / 76.8 * TINY_TILE_PX))
    image[:, : image.shape[1] // 2] = 0
    write_raster(tmp_path / "half.tif", image, TINY_SIDE_M)
    options = ["--model", str(folder / "student"), "--tile-pixels", str(TINY_TILE_PX)]
    out = tmp_path / "out"
    assert main(["gallery", "build", str(tmp_path / "half.tif"), "--out", str(out), *options]) == 0
    assert "grid points have too little imagery" in capsys.readouterr().out
    again = ["gallery", "build", str(tmp_path / "half.tif"), "--out", str(out), *options, "--json"]
    assert main(again) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tiles"] + len(report["skipped"]) == 49


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["locate"], ["locate", "a.jpg", "--top-k", "many"], ["gallery", "build"]],
)
def test_wrong_usage_is_exit_code_two(arguments, capsys):
    assert main(arguments) == 2
    assert "Usage: python -m core" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "command",
    [["locate"], ["gallery", "build"], ["gallery", "info"], ["gallery", "verify"],
     ["world", "build"], ["bench"], ["train"], ["distill"], ["calibrate"], ["evaluate"],
     ["pointing"], ["trust"]],
)  # fmt: skip
def test_every_command_explains_itself_with_an_example(command, capsys):
    assert main([*command, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"Example: python -m core {' '.join(command)} " in words


@pytest.mark.parametrize("command", ["ablate", "blend", "shortcuts"])
def test_experiments_have_a_door_of_their_own(command, capsys):
    assert research([command, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"Example: python -m core.research {command} " in words
    assert main([command]) == 2
    assert research([command]) == 2
    assert "Usage: python -m core.research" in "".join(capsys.readouterr())


def test_world_canvas_must_be_two_numbers(tmp_path, capsys):
    assert main(["world", "build", "--out", str(tmp_path / "w"), "--canvas", "big"]) == 1
    assert "Canvas: got 'big'" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_area_is_read_with_latitude_first():
    area = parse_area(" 60.5, -24.25 ,150")
    assert (area.centre.lat_deg, area.centre.lon_deg, area.radius_m) == (60.5, -24.25, 150)
    with pytest.raises(SettingError, match="LAT,LON,RADIUS_M"):
        parse_area("60.5,24.2")


def test_as_a_process_it_gives_the_answer_of_the_api(folder, tmp_path):
    from core.localization.localizer import Localizer

    photo = folder / "photos" / "row17.png"
    places = [part for n in ("gallery", "student", "teacher") for part in (f"--{n}", folder / n)]
    command = [sys.executable, "-X", "importtime", "-m", "core", "locate", photo, "--json", *places]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=True, env=environment
    )
    said = json.loads(done.stdout)
    localizer = Localizer.open(folder / "gallery", folder / "student", folder / "teacher")
    expected = prediction_record(localizer.locate(photo))
    assert said["candidates"] == expected["candidates"]
    # What one answer does not need must not be paid for: each of these costs up to a second.
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    heavies = ("geopandas", "pandas", "scipy", "matplotlib", "gradio", "timm", "embreex")
    for heavy in (*heavies, "core.training.loop"):
        assert heavy not in imported, heavy


def test_bench_times_the_very_command_and_a_warm_answer(folder, capsys, monkeypatch):
    commands = []

    def remember(command):
        commands.append(command)
        return 2000.0

    monkeypatch.setattr("core.bench.locate._process", remember)
    photo = str(folder / "photos" / "row17.png")
    places = [
        part for n in ("gallery", "student", "teacher") for part in (f"--{n}", str(folder / n))
    ]
    assert main(["bench", photo, *places, "--repeat", "2", "--json"]) == 0
    timings = {t["what"]: t for t in json.loads(capsys.readouterr().out)["timings"]}
    assert timings["locate, whole process"]["median_ms"] == 2000.0
    assert timings["warm locate"]["median_ms"] > timings["  describe"]["median_ms"] > 0
    assert timings["warm locate"]["runs"] == 2
    assert commands[-1][1:4] == ["-m", "core", "locate"]
    assert main(commands[-1][3:]) == 0
    assert json.loads(capsys.readouterr().out)["photo"] == photo
    assert main(["bench", photo, *places]) == 0
    assert "x warm" in capsys.readouterr().out


def test_bench_says_when_a_process_fails():
    from core.bench.locate import _process

    with pytest.raises(SettingError, match=r"exit code 3 \(no luck\)"):
        _process(
            [sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"]
        )


@pytest.mark.parametrize("arguments", [["--repeat", "0"], ["missing.jpg", "--no-rerank"]])
def test_bench_of_nonsense_is_one_sentence(folder, capsys, arguments):
    photo = [] if arguments[0].endswith("jpg") else [str(folder / "photos" / "row17.png")]
    places = [
        part for n in ("gallery", "student", "teacher") for part in (f"--{n}", str(folder / n))
    ]
    assert main(["bench", *photo, *arguments, *places]) == 1
    assert one_sentence(capsys.readouterr().err)
