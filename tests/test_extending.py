"""docs/extending.md: each example, written into a copy of the program, does what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PROMISED = {
    "A new encoder": 2,
    "A new source of imagery": 2,
    "A new index engine": 2,
    "A new tab": 3,
    "A new benchmark": 2,
}


@dataclass(frozen=True)
class Example:
    """One task: whole files by path, and for changed files lines before -> after."""

    promised: int
    new: dict[str, str]
    changed: dict[str, list[tuple[str, str]]]


def read_examples() -> dict[str, Example]:
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        title, count = re.match(r"(.+): (\d) files\n", section).groups()
        example = Example(int(count), {}, {})
        parts = re.split(r"^`([\w./]+)`, (new|changed):\n", section, flags=re.MULTILINE)[1:]
        for path, kind, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            blocks = re.findall(r"^```(?:python|diff)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
            if kind == "new":
                (example.new[path],) = blocks
            else:
                example.changed[path] = [before_and_after(block) for block in blocks]
        found[title] = example
    return found


def before_and_after(diff: str) -> tuple[str, str]:
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +-\n" for line in lines)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    return before, "".join(line[1:] or "\n" for line in lines if line[0] in " +")


EXAMPLES = read_examples()


def extended(title: str, folder: Path) -> Path:
    """A copy of the program with one example written into it."""
    for part in ("core", "app", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    example = EXAMPLES[title]
    for path, text in example.new.items():
        assert not (folder / path).exists()
        (folder / path).write_text(text, encoding="utf-8")
    for path, changes in example.changed.items():
        text = (folder / path).read_text(encoding="utf-8")
        for before, after in changes:
            assert text.count(before) == 1, f"{path} has no such line: {before}"
            text = text.replace(before, after)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, code: str, *arguments: Path) -> str:
    """What a program prints in the copy; its last line says where the package came from."""
    code += "\nimport core, pathlib\nprint(pathlib.Path(core.__file__).parents[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "uploads"), "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *printed, origin = done.stdout.splitlines()
    assert Path(origin) == folder.resolve()
    return "\n".join(printed)


def test_every_task_takes_the_files_it_says() -> None:
    assert {title: example.promised for title, example in EXAMPLES.items()} == PROMISED
    for example in EXAMPLES.values():
        assert len(example.new) + len(example.changed) == example.promised
        assert len(example.new) == 1


def test_examples_are_formatted_and_free_of_faults(tmp_path: Path) -> None:
    files = []
    for example in EXAMPLES.values():
        for path, text in example.new.items():
            files.append(tmp_path / Path(path).name)
            files[-1].write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    own = ["--config", 'lint.isort.known-first-party=["core", "app"]']
    for command in (["check", *own], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, *options, *files], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_encoder_builds_and_describes(tmp_path: Path) -> None:
    code = """
import torch
from core.models import build_model
model = build_model("patchnet", "azimuth", (64, 256), (128, 128), dim=8).eval()
ground, aerial = torch.rand(2, 3, 64, 256), torch.rand(2, 3, 128, 128)
for descriptors in (model.describe_ground(ground), model.describe_aerial(aerial)):
    print(*descriptors.shape, float(descriptors.norm(dim=1).mean().round(decimals=4)))
"""
    assert run(extended("A new encoder", tmp_path), code) == "2 256 1.0\n2 256 1.0"


GALLERY = """
import sys, numpy as np
from pathlib import Path
from core.gallery.folder import Gallery, GallerySettings, build_gallery
def describe(tiles):
    values = tiles.reshape(len(tiles), 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(len(tiles), -1) - 110.0
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
def build(source, kind):
    settings = GallerySettings(tile_pixels=64, viewpoints=1, index_kind=kind)
    build_gallery(source, "gallery", describe, "toy", "f00d", settings)
    gallery = Gallery.open("gallery", verify="full")
    pictures = np.stack([gallery.tile_image(row) for row in range(len(gallery))])
    found = gallery.index.search(describe(pictures), 2)[1]
    assert (found[:, 0] == np.arange(len(gallery))).all()
    files = sorted(file.name for file in Path("gallery").iterdir())
    print(len(gallery), gallery.manifest.imagery, *files)
    return gallery
"""


def test_a_new_source_is_opened_and_becomes_a_gallery(tmp_path: Path) -> None:
    code = (
        GALLERY
        + """
image = np.random.default_rng(0).integers(5, 250, (20, 20, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
np.savez("town.npz", image=image, lat_deg=51.84, lon_deg=4.99, gsd_m=1.2)
gallery = build("town.npz", "flat-8bit")
assert gallery.overview(100)[0].shape[2] == 4
np.testing.assert_array_equal(gallery.tile_image(0), image[:64, :64])
"""
    )
    printed = run(extended("A new source of imagery", tmp_path), code)
    assert printed == "49 imagery.npz imagery.npz index.faiss manifest.json tiles.parquet"


def test_a_new_engine_builds_opens_and_searches(tmp_path: Path, tiny_raster: Path) -> None:
    code = (
        GALLERY
        + """
gallery = build(sys.argv[1], "numpy")
assert type(gallery.index).__name__ == "NumpyIndex" and gallery.manifest.index_kind == "numpy"
assert set(gallery.index.search(gallery.index.reconstruct([3]), 9, rows=[3, 8])[1][0]) == {3, 8}
"""
    )
    printed = run(extended("A new index engine", tmp_path), code, tiny_raster)
    assert printed == "49 aerial.tif aerial.tif descriptors.npy manifest.json tiles.parquet"


def test_a_new_tab_appears(tmp_path: Path, tiny_raster: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from app.handlers import Page
from app.map_view import BaseMap
from app.ui import build_ui, serve_files
from core.localization.localizer import Localizer
from tests.conftest import build_tiny, twin_branches
student = twin_branches()
gallery = build_tiny(Path(sys.argv[1]), Path("gallery"), student, "0")
serve_files(Path("."))
page = Page(Localizer(gallery, student), BaseMap.write(gallery, Path(".")), ())
async def built():
    return build_ui(page)
parts = asyncio.run(built()).config["components"]
print([part["props"]["label"] for part in parts if part["type"] == "tabitem"])
print([part["props"]["value"] for part in parts if part["props"].get("elem_id") == "about"])
"""
    printed = run(extended("A new tab", tmp_path), code, tiny_raster)
    assert printed == "['Locate', 'About']\n['49 places of aerial.tif.']"


def test_a_new_benchmark_is_loaded_and_offered(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from tests.fake_benchmarks import write_picture
from core.cli import main
from core.data.benchmarks import open_benchmark
rows = []
for number in range(3):
    names = [f"{view}/{number}.jpg" for view in ("ground", "aerial")]
    for name in names:
        write_picture(Path("data") / name, 32, 16)
    rows.append(", ".join(names))
Path("data/pairs.csv").write_text("\\n".join(rows))
benchmark = open_benchmark("listed", "data")
answers = [int(rows[0]) for rows in benchmark.positives]
print(len(benchmark.queries), benchmark.references.open(2).shape, answers)
main(["evaluate", "--help"])
"""
    printed = run(extended("A new benchmark", tmp_path), code)
    first, _, offered = printed.partition("\n")
    assert first == "3 (16, 32, 3) [0, 1, 2]"
    assert "listed" in offered


@pytest.mark.parametrize("path", sorted({p for e in EXAMPLES.values() for p in e.changed}))
def test_changed_files_are_named_in_the_table(path: str) -> None:
    assert f"`{path}`" in PAGE.split("\n## ")[0]
