"""``evaluate --benchmark``: hand-made pictures whose every descriptor and rank is known.

Run alone with ``pytest tests/test_benchmark_evaluation.py``. The model describes a picture by the
direction of its mean colour, so similarities can be worked out with a pencil.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from core.checkpoints import save_model
from core.cli import main
from core.data.benchmarks import BENCHMARKS, open_benchmark
from core.errors import SettingError
from core.evaluation.benchmarks import aerial_input, describe_images, lineage
from core.models import MODELS, build_model
from tests import fake_benchmarks
from tests.conftest import twin_branches
from tests.official_weights import paired, trained

SIZES = {"ground_size": [16, 64], "aerial_size": [32, 32], "polar": False}
RED, GREEN, BLUE, YELLOW = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)


class Colour(nn.Module):
    """An encoder that gives back its picture; pooled, that is its mean colour."""

    channels, stride = 3, (1, 1)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        return images


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder of a model whose descriptor is the mean colour, said to be trained on CVUSA."""
    monkeypatch.setitem(MODELS, "colour", lambda size, azimuth: Colour())
    folder = tmp_path / "colour"
    config = {"name": "colour", "model": {"pooling": "gap", **SIZES}}
    model = build_model("colour", "gap", (16, 64), (32, 32), polar=False)
    save_model(folder, model, {**config, "training": {"data_set": "cvusa"}}, "")
    return folder


def paint(path: Path, colour: tuple[int, int, int]) -> None:
    """A flat picture of the old one's size; PNG, whatever its name: readers look at the bytes."""
    with Image.open(path) as old:
        size = old.size
    Image.new("RGB", size, colour).save(path, format="PNG")


def paint_pairs(root: Path, name: str, ground: list, aerial: list) -> None:
    benchmark = open_benchmark(name, root)
    for images, colours in ((benchmark.queries, ground), (benchmark.references, aerial)):
        for file, colour in zip(images.files, colours, strict=True):
            paint(images.root / file, colour)


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_cvusa_by_hand(colour, tmp_path, capsys):
    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA")
    # Query 2 is yellow where blue is true: yellow, red and green are nearer, rank 3.
    # Query 3 is nearly red where yellow is true: red is nearer, rank 1.
    paint_pairs(root, "cvusa", [RED, GREEN, YELLOW, (150, 50, 0)], [RED, GREEN, BLUE, YELLOW])
    out = tmp_path / "deep" / "cvusa.json"
    report = evaluated(capsys, colour, "--benchmark", "cvusa", "--data", root, "--out", out)
    assert json.loads(out.read_text()) == report
    row = report["rows"][0]
    assert row == {
        "queries": 4, "gallery": 4, "recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0,
        "recall@1%": 0.5,
    }  # fmt: skip
    assert (report["trained_on"], report["evaluated_on"]) == ("cvusa", "cvusa")
    assert report["cross_dataset"] is False
    assert report["ground_size"] == [16, 64]
    assert (report["polar"], report["references_seen"]) == (False, "tiles as they are")
    assert "ties against the model" in report["protocol"]
    assert "the gallery is the aerial pictures of all test pairs" in report["protocol"]
    assert report["command"].startswith("python -m core evaluate")


def test_a_gallery_of_one_colour_finds_nothing(colour, tmp_path, capsys):
    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA")
    paint_pairs(root, "cvusa", [RED] * 4, [RED] * 4)
    report = evaluated(capsys, colour, "--benchmark", "cvusa", "--data", root)
    assert report["rows"][0]["recall@1"] == 0.0
    assert report["rows"][0]["recall@5"] == 1.0


def test_cvact_by_hand_and_across_data_sets(colour, tmp_path, capsys):
    root = fake_benchmarks.write_cvact(tmp_path / "CVACT")
    # Test panoramas 0 and 1 stand 4 m apart, 2 stands 6 m from 0: 0 and 1 answer each other.
    ground = [RED, RED, RED, GREEN, BLUE]
    paint_pairs(root, "cvact-test", ground, [RED, BLUE, GREEN, YELLOW, (0, 200, 200)])
    test = evaluated(capsys, colour, "--benchmark", "cvact-test", "--data", root)
    # 0 and 1 find tile 0; 2 finds it too, 6 m off: wrong; 3 has green before yellow; 4 has blue first.
    assert test["rows"][0]["recall@1"] == pytest.approx(2 / 5)
    assert "within 5 m" in test["protocol"]
    assert (test["trained_on"], test["evaluated_on"]) == ("cvusa", "cvact-test")
    assert test["cross_dataset"] is True

    paint_pairs(root, "cvact-val", [RED, GREEN, BLUE, RED], [RED, GREEN, BLUE, YELLOW])
    val = evaluated(capsys, colour, "--benchmark", "cvact-val", "--data", root)
    assert val["rows"][0]["recall@1"] == pytest.approx(3 / 4)
    main(["evaluate", str(colour), "--benchmark", "cvact-val", "--data", str(root)])
    text = capsys.readouterr().out
    assert "trained on cvusa, evaluated on cvact-val: another data set" in text
    assert "4 queries, 4 references" in text
    assert "75.00%" in text


@pytest.mark.parametrize("area", ["same", "cross"])
def test_vigor_by_hand(area, colour, tmp_path, capsys):
    root = fake_benchmarks.write_vigor(tmp_path / "VIGOR")
    name = f"vigor-{area}"
    benchmark = open_benchmark(name, root)
    tiles, places = len(benchmark.references), benchmark.places
    turn = np.linspace(0, np.pi / 2, tiles)
    aerial = [(round(250 * np.cos(a)), round(250 * np.sin(a)), 40) for a in turn]
    assert len(set(aerial)) == tiles
    paint_pairs(root, name, [aerial[own[0]] for own in benchmark.positives], aerial)
    row = evaluated(capsys, colour, "--benchmark", name, "--data", root)["rows"][0]
    assert (row["recall@1"], row["hit_rate"]) == (1.0, 1.0)
    # Its own tile is first, so the error is how far the label says the camera is from its middle.
    offsets = np.hypot(*places.camera_offset_m[:, 0].T)
    assert row["mean_error_m"] == pytest.approx(offsets.mean(), abs=0.4)
    assert row["within_50_m"] == 1.0

    # Each panorama shows a semi-positive: no recall, and a hit where that one is set aside.
    paint_pairs(root, name, [aerial[row[1]] for row in places.tiles], aerial)
    row = evaluated(capsys, colour, "--benchmark", name, "--data", root)["rows"][0]
    assert row["recall@1"] == 0.0
    hits = 0
    colours = np.asarray(aerial, dtype=float) / np.linalg.norm(aerial, axis=1, keepdims=True)
    for own in places.tiles:
        similarity = colours @ colours[own[1]]
        similarity[own[1:]] = -1
        hits += int(similarity.argmax() == own[0])
    assert row["hit_rate"] == pytest.approx(hits / len(places.tiles))


def test_university_counts_every_picture_of_the_building(colour, tmp_path, capsys):
    root = fake_benchmarks.write_university(tmp_path / "University")
    shades = {"0001": RED, "0002": GREEN, "0003": BLUE, "1000": YELLOW, "1001": (200, 0, 200)}
    for direction in ("university-satellite", "university-drone"):
        benchmark = open_benchmark(direction, root)
        for images in (benchmark.queries, benchmark.references):
            for file in images.files:
                paint(images.root / file, shades[file.split("/")[0]])
    # One of four drone pictures of building 1 looks like building 2's.
    paint(root / "test/gallery_drone/0001/image-01.jpeg", GREEN)
    report = evaluated(capsys, colour, "--benchmark", "university-satellite", "--data", root)
    row = report["rows"][0]
    # Query 2 (green) ties with the odd one, which counts against it.
    assert row["recall@1"] == pytest.approx(2 / 3)
    assert row["queries"] == 3
    # Query 3: all four first, AP 1. Query 2: four after one wrong; query 1: three first, the
    # fourth after 4 yellow, 4 purple (both at 0.71) and 12 others at 0: with it 16 wrong before.
    second = np.mean([(k / (k + 1) * (k > 0) + (k + 1) / (k + 2)) / 2 for k in range(4)])
    first = (3 + (3 / 19 + 4 / 20) / 2) / 4
    assert row["ap"] == pytest.approx((1 + second + first) / 3)
    row = evaluated(capsys, colour, "--benchmark", "university-drone", "--data", root)["rows"][0]
    assert (row["recall@1"], row["ap"]) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["cub", "cars", "products"])
def test_class_folders_by_hand(name, colour, tmp_path, capsys):
    root = getattr(fake_benchmarks, f"write_{name}")(tmp_path / name)
    benchmark = open_benchmark(name, root)
    count = len(benchmark.queries)
    groups = [min([own, *others]) for own, others in enumerate(benchmark.positives)]
    shades = dict(zip(sorted(set(groups)), [RED, GREEN, BLUE], strict=False))
    for file, group in zip(benchmark.queries.files, groups, strict=True):
        paint(benchmark.queries.root / file, shades[group])
    report = evaluated(capsys, colour, "--benchmark", name, "--data", root)
    row = report["rows"][0]
    assert row == {
        "queries": count, "gallery": count, "recall@1": 1.0, "recall@2": 1.0, "recall@4": 1.0,
        "recall@8": 1.0,
    }  # fmt: skip
    assert (report["aerial_size"], report["polar"]) == (None, None)
    wrong = ["evaluate", str(colour), "--benchmark", name, "--data", str(root), "--polar-root", "p"]
    assert main(wrong) == 1
    assert "has one view" in capsys.readouterr().err
    paint(benchmark.queries.root / benchmark.queries.files[0], (99, 99, 99))
    row = evaluated(capsys, colour, "--benchmark", name, "--data", root)["rows"][0]
    # The grey one has every picture equally near: its class's stand behind all others. Those of its
    # class still find it or one another before the other classes, which are at right angles.
    others = count - 1 - len(benchmark.positives[0])
    lost = 1 / count
    assert row["recall@1"] == pytest.approx(1 - lost)
    assert row["recall@8"] == pytest.approx(1.0 if others < 8 else 1 - lost)


def test_every_benchmark_has_its_figures(colour, tmp_path, capsys):
    """The names of open_benchmark, all of them, and at least one recall for each."""
    roots = {
        kind: getattr(fake_benchmarks, f"write_{kind}")(tmp_path / kind)
        for kind in ("cvusa", "cvact", "university", "cub", "cars", "products", "vigor")
    }
    fake_benchmarks.write_vigor(tmp_path / "corrected", corrected=True)
    for name in BENCHMARKS:
        root = roots[name.split("-")[0]]
        root = tmp_path / "corrected" if name.endswith("corrected") else root
        report = evaluated(capsys, colour, "--benchmark", name, "--data", root)
        assert 0 <= report["rows"][0]["recall@1"] <= 1, name


def test_a_polar_model_sees_what_it_was_trained_on(tmp_path):
    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA")
    images = open_benchmark("cvusa", root).references
    polar = twin_branches("gap", polar=True)
    converted = {"protocol": {"data_set": "cvusa"}, "source": {"assumed": []}}
    for config in (converted, {"training": {"data_set": "cvact"}}, {}):
        shown = aerial_input(images, polar, config)
        assert shown.images.computes_polar
        assert shown.size == polar.ground_size
    own = aerial_input(images, polar, {"training": {"towns": ["town-1"]}})
    assert (own.images, own.size) == (images, polar.aerial_size)
    for file in images.files:
        fake_benchmarks.write_picture(root / "polarmap" / (file[:-4] + ".png"), 88, 16)
    stored = aerial_input(images, polar, converted, root / "polarmap")
    assert stored.images.root == root / "polarmap"
    descriptors = describe_images(polar.describe_aerial, stored.images, stored.size, batch=3)
    assert descriptors.shape == (4, polar.dim)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-5)
    with pytest.raises(SettingError, match="looks at tiles as they are"):
        aerial_input(images, twin_branches("gap", polar=False), converted, root / "polarmap")


def test_a_polar_view_made_beforehand_is_not_transformed_again():
    model = twin_branches("gap", polar=True)
    tiles = torch.rand(2, 3, 128, 128)
    views = model.aerial_views(tiles)
    assert views.shape == (2, 3, 64, 256)
    assert torch.equal(model.aerial_views(views), views)
    assert torch.equal(model.describe_aerial(views), model.describe_aerial(tiles))
    with pytest.raises(SettingError, match="Polar view"):
        model.describe_aerial(torch.rand(1, 3, 64, 128))


def test_an_azimuth_model_is_met_at_the_data_sets_heading(tmp_path, capsys):
    """Twin branches, and panoramas that are the polar views of their tiles: all are found."""
    from tests.canvases import tile_to_polar

    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA")
    benchmark = open_benchmark("cvusa", root)
    random = np.random.default_rng(0)
    for ground, aerial in zip(benchmark.queries.files, benchmark.references.files, strict=True):
        tile = random.integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(tile).save(benchmark.references.root / aerial, format="PNG")
        seen = Image.fromarray(tile_to_polar(tile, 64, 256))
        seen.save(benchmark.queries.root / ground, format="PNG")
    config = {
        "name": "convnet-s",
        "model": {
            "pooling": "azimuth",
            "ground_size": [64, 256],
            "aerial_size": [128, 128],
            "dim": 8,
        },
        "training": {"towns": ["town-1"]},
    }
    save_model(tmp_path / "azimuth", twin_branches(), config, "")
    arguments = (tmp_path / "azimuth", "--benchmark", "cvusa", "--data", root)
    report = evaluated(capsys, *arguments)
    assert report["rows"][0]["recall@1"] == 1.0
    assert report["trained_on"] == "rendered towns"
    assert report["cross_dataset"] is True
    assert report["references_seen"] == "the model's own polar view of tiles"


@pytest.mark.usefixtures("thin")
def test_a_converted_model_is_measured_as_its_authors_did(tmp_path, capsys):
    """Pillow's resize, then scaling and normalisation: the published loader, step by step."""
    source = trained("saig-s", "gap", ground_size=(128, 512), aerial_size=(256, 256), polar=False)
    torch.save(paired(source), tmp_path / "model_checkpoint.pth")
    folder, root = tmp_path / "converted", fake_benchmarks.write_cvact(tmp_path / "CVACT")
    assert main(["convert", str(tmp_path / "model_checkpoint.pth"), "--out", str(folder)]) == 0
    capsys.readouterr()
    report = evaluated(capsys, folder, "--benchmark", "cvact-val", "--data", root)
    assert (report["trained_on"], report["trained_on_is_assumed"]) == ("cvusa", True)
    assert report["cross_dataset"] is True
    assert (report["ground_size"], report["aerial_size"]) == ([128, 512], [256, 256])

    benchmark = open_benchmark("cvact-val", root)
    got = describe_images(source.describe_ground, benchmark.queries, (128, 512), batch=3)
    for file, descriptor in zip(benchmark.queries.files, got, strict=True):
        with Image.open(benchmark.queries.root / file) as panorama:
            middle = panorama.crop((0, 14, 112, 42)).resize((512, 128), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(middle)).permute(2, 0, 1).float() / 255
        features = source.ground_encoder(((pixels - 0.5) / 0.5)[None]).mean(dim=1)
        wanted = F.normalize(features, dim=1)[0].detach().numpy()
        np.testing.assert_allclose(descriptor, wanted, atol=1e-6)


def test_the_help_names_every_benchmark(capsys):
    assert main(["evaluate", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert all(f"{name.removesuffix('-corrected')}" in words for name in BENCHMARKS)


def test_lineage_is_read_from_any_config():
    assert lineage({}) == []
    assert lineage({"protocol": {"data_set": None}}) == []
    assert lineage({"protocol": {"data_set": "vigor-cross"}}) == ["vigor-cross"]
    told = {"training": {"data_set": "cvact"}, "protocol": {"data_set": "cvusa"}}
    assert lineage(told) == ["cvact"]
    stages = {"data_set": "cvusa", "before": {"data_set": "cvact", "before": {"towns": ["town-1"]}}}
    assert lineage({"training": stages}) == ["rendered towns", "cvact", "cvusa"]
    assert lineage({"training": {"towns": ["town-2"], "before": stages}})[-1] == "rendered towns"
    told = {"data_set": "cvusa", "earlier": ["vigor-same", "cvusa"]}
    assert lineage({"training": told}) == ["vigor-same", "cvusa"]


def test_what_was_seen_before_is_no_other_data_set(colour, tmp_path, capsys):
    config = json.loads((colour / "config.json").read_text())
    config["training"] = {"data_set": "vigor-same", "earlier": ["cvact"]}
    (colour / "config.json").write_text(json.dumps(config))
    root = fake_benchmarks.write_cvact(tmp_path / "CVACT")
    arguments = ["--benchmark", "cvact-val", "--data", root]
    report = evaluated(capsys, colour, *arguments)
    assert (report["trained_on"], report["trained_before_on"]) == ("vigor-same", ["cvact"])
    assert report["cross_dataset"] is False
    assert main(["evaluate", *map(str, [colour, *arguments])]) == 0
    assert "trained on vigor-same (before that on cvact), evaluated" in capsys.readouterr().out


def test_a_training_part_that_holds_the_test_part_is_named(colour, tmp_path, capsys):
    config = json.loads((colour / "config.json").read_text())
    config["training"]["data_set"] = "vigor-same"
    (colour / "config.json").write_text(json.dumps(config))
    root = fake_benchmarks.write_vigor(tmp_path / "VIGOR")
    report = evaluated(capsys, colour, "--benchmark", "vigor-cross", "--data", root)
    assert "caution" in report["protocol"]
    assert (
        "caution"
        not in evaluated(capsys, colour, "--benchmark", "vigor-same", "--data", root)["protocol"]
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--benchmark", "cvsua"], "got 'cvsua'"),
        (["--benchmark", "vigor-same"], "expected this tree"),
        (["--benchmark", "cvusa", "--polar-root", "polarmap"], "looks at tiles as they are"),
        (["--benchmark", "cvusa", "--device", "tpu"], "Device: got 'tpu'"),
        (["--benchmark", "cvusa", "--queries", "5"], "--queries: got it beside --benchmark"),
        (["--polar-root", "polarmap"], "--polar-root: got it beside a town"),
        (["--benchmark", "cvusa", "--out", "OUT"], "got a folder, expected a file"),
        (
            ["--benchmark", "cvusa", "--out", "OUT/colour/config.json/a.json"],
            "got no folder for it",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(more, said, colour, tmp_path, capsys):
    root = fake_benchmarks.write_cvusa(tmp_path / "CVUSA")
    more = [part.replace("OUT", str(tmp_path)) for part in more]
    assert main(["evaluate", str(colour), "--data", str(root), *more]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
