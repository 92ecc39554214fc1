"""Files of every published form become model folders; hostile and broken ones become one sentence."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from core.checkpoints import load_model, model_hash, save_model
from core.cli import main
from core.convert.conversion import Given, convert_file, found_in, geometry_of
from core.convert.official_files import Omitted, read_official
from core.errors import CheckpointError, SettingError
from core.models import build_model
from core.models.pretrained import load_official, split_official
from core.models.two_branch import TwoBranch
from tests.canvases import tile_to_polar
from tests.official_weights import (
    DEPTHS,
    EXTRA,
    Archive,
    branches,
    paired,
    thin_l2ltr,
    thin_saig,
    trained,
)
from tests.parity import fill, listed_keys, weights

CVUSA = {"ground_size": (128, 512), "aerial_size": (256, 256)}
VIGOR = {"ground_size": (320, 640), "aerial_size": (320, 320)}
ARGS = argparse.Namespace(lr=1e-4, sizes=(128, 512), data=["a"], best=np.float64(0.5))


def separate(model: TwoBranch, wrapper: str = "", backbone: str = "backbone.") -> dict[str, Any]:
    ground, aerial = (
        {wrapper + key: value for key, value in branch.items()}
        for branch in branches(model, backbone)
    )
    return {"model_grd": ground, "model_sat": aerial, **EXTRA}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["convert", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_sentence(text: str) -> bool:
    lines = text.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in text


# --- every published form -----------------------------------------------------------------------

FORMS: dict[str, tuple[str, str, dict[str, Any], Callable[[TwoBranch], dict[str, Any]], str]] = {
    # name -> model, pooling, geometry, how the file is made, key list of the published file
    "cvusa-s-gap": ("saig-s", "gap", {**CVUSA, "polar": False}, paired, "SAIG_S_GAP_cvusa"),
    "cvusa-s-smd": ("saig-s", "smd", {**CVUSA, "polar": True}, paired, "SAIG_S_SMD_cvusa"),
    "cvusa-d-gap": ("saig-d", "gap", {**CVUSA, "polar": True}, paired, "SAIG_D_GAP_cvusa"),
    "cvusa-d-smd": ("saig-d", "smd", {**CVUSA, "polar": False}, paired, "SAIG_D_SMD_cvusa"),
    "vigor-s-smd-module": (
        "saig-s", "smd", {**VIGOR, "polar": False},
        lambda model: separate(model, "module."), "SAIG_S_SMD_vigor_grd",
    ),
    "vigor-d-smd": (
        "saig-d", "smd", {**VIGOR, "polar": False}, separate, "SAIG_D_SMD_vigor_grd",
    ),
    "vigor-s-gap-module": (
        "saig-s", "gap", {**VIGOR, "polar": False},
        lambda model: separate(model, "module.", ""), "SAIG_S_SMD_vigor_grd",
    ),
    "vigor-d-gap": (
        "saig-d", "gap", {**VIGOR, "polar": False},
        lambda model: separate(model, "", ""), "SAIG_D_SMD_vigor_grd",
    ),
    "l2ltr": (
        "l2ltr", "cls", {**CVUSA, "polar": True},
        lambda model: separate(model, "", ""), "L2LTR",
    ),
}  # fmt: skip


def bare_names(state: dict[str, Any]) -> set[str]:
    return {key.removeprefix("module.").removeprefix("backbone.") for key in state}


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_each_form_becomes_a_folder_that_describes(form, tmp_path, capsys) -> None:
    name, pooling, geometry, make, listed = FORMS[form]
    source = trained(name, pooling, **geometry)
    checkpoint = make(source)
    published = bare_names(listed_keys(listed))
    if name == "l2ltr":
        published = {key for key in published if not re.search(r"unit[2-9]", key)}
    if pooling == "gap":
        published = {key for key in published if not key.startswith("linear")}
    made = checkpoint.get("model") or checkpoint["model_grd"]
    assert bare_names(made) == published, "the file is of the published form"
    file, out = tmp_path / "model_checkpoint.pth", tmp_path / "out"
    torch.save(checkpoint, file)

    given = ["--polar"] if geometry["polar"] and name != "l2ltr" else []
    code, printed, err = run(capsys, file, "--out", out, *given, "--json")

    assert (code, err) == (0, "")
    written = json.loads(printed)
    assert (written["name"], written["model"]["pooling"]) == (name, pooling)
    sizes = {key: tuple(written["model"][key]) for key in ("ground_size", "aerial_size")}
    assert {**sizes, "polar": written["model"]["polar"]} == geometry
    assert written["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert written["source"]["file"] == "model_checkpoint.pth"
    assert written["source"]["dropped"] == ["best_acc", "epoch", "optimizer"]
    known = "vigor-same" if form.startswith("vigor") else "cvusa"
    assert written["protocol"]["data_set"] == known
    assert written["normalisation"]["mean"] == list(source.ground_encoder.mean)

    model, config = load_model(out)
    assert {"folder": str(out), **config} == written
    state = model.state_dict()
    for key, value in source.state_dict().items():
        assert torch.equal(state[key], value), f"{key} is exactly as in the file"
    canvas, tile = torch.rand(1, 3, *geometry["ground_size"]), torch.rand(1, 3, 320, 320)
    tile = tile[..., : geometry["aerial_size"][0], : geometry["aerial_size"][1]]
    with torch.inference_mode():
        for describe, own, view in (
            (model.describe_ground, source.describe_ground, canvas),
            (model.describe_aerial, source.describe_aerial, tile),
        ):
            descriptor = describe(view)
            assert torch.equal(descriptor, own(view))
            torch.testing.assert_close(descriptor.norm(dim=1), torch.ones(1))
            assert descriptor.shape == (1, model.dim)
    assert sorted(path.name for path in out.iterdir()) == [
        "card.md", "config.json", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("name", DEPTHS)
def test_an_imagenet_file_becomes_a_start(name, tmp_path, capsys) -> None:
    state = thin_saig((224, 224), DEPTHS[name]).state_dict()
    head = {"head.weight": torch.ones(9, 12), "head.bias": torch.ones(9)}
    checkpoint = {
        "state_dict": {**state, **head}, "arch": "SAIG", "epoch": 299, "args": ARGS, "version": 2,
        "optimizer": {}, "amp_scaler": {"scale": 65536.0}, "state_dict_ema": state,
        "metric": np.float64(80.3),
    }  # fmt: skip
    listed = listed_keys(f"SAIG_{name[-1].upper()}_imagenet")
    assert checkpoint["state_dict"].keys() == listed.keys()
    file = tmp_path / "SAIG.pth.tar"
    torch.save(checkpoint, file)
    code, printed, _ = run(capsys, file, "--out", tmp_path / "out", "--pooling", "smd", "--json")
    assert code == 0
    source = json.loads(printed)["source"]
    assert source["is_initialisation"]
    assert {"args", "metric", "head.bias", "state_dict_ema"} <= set(source["dropped"])
    assert source["assumed"] == ["ground_size", "aerial_size", "polar"]
    model, config = load_model(tmp_path / "out")
    assert config["protocol"]["data_set"] is None
    assert torch.equal(model.aerial_encoder.norm.weight, state["norm.weight"])
    assert model.ground_encoder.pos_embed.shape == (1, 256, 12)
    assert model.describe_ground(torch.rand(1, 3, 128, 512)).shape == (1, 96)
    assert "backbone to train from" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.usefixtures("thin")
def test_googles_archive_becomes_a_start(tmp_path, capsys) -> None:
    encoder = thin_l2ltr((224, 224)).requires_grad_(False)
    np.savez(tmp_path / "R50+ViT-B_16.npz", **Archive(encoder, heads=2))
    file, out = tmp_path / "R50+ViT-B_16.npz", tmp_path / "out"
    code, printed, err = run(capsys, file, "--out", out, "--no-polar", "--json")
    assert (code, err) == (0, "")
    written = json.loads(printed)
    assert (written["name"], written["source"]["form"]) == ("l2ltr", "google")
    assert written["source"]["dropped"] == ["head/bias", "head/kernel"]
    model, _ = load_model(out)
    origin = encoder.state_dict()["transformer.encoder.layer.11.ffn.fc1.weight"]
    for branch in (model.ground_encoder, model.aerial_encoder):
        assert torch.equal(
            branch.state_dict()["transformer.encoder.layer.11.ffn.fc1.weight"], origin
        )
    assert model.describe_aerial(torch.rand(1, 3, 256, 256)).shape == (1, 24)


def test_a_full_sized_file_gives_the_published_numbers(tmp_path) -> None:
    """SAIG-S with SMD against the authors' own module: first five, last and probe."""
    shapes = {
        key: torch.empty(shape, device="meta")
        for key, (shape, _) in listed_keys("SAIG_S_SMD_cvusa").items()
    }
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights(shapes, "").items()
    }
    torch.save({"model": state, **EXTRA}, tmp_path / "model_checkpoint.pth")
    convert_file(tmp_path / "model_checkpoint.pth", tmp_path / "out")
    model, _ = load_model(tmp_path / "out")
    assert sum(parameter.numel() for parameter in model.parameters()) == 19_256_848
    with torch.inference_mode():
        # Parity was taken on tensors that were already normalised, to [-1, 1].
        found = model.describe_ground((fill("ground", 1, 3, 128, 512).float() + 1) / 2)[0].double()
    expected = [-0.0048328608, -0.0087608954, -0.0054469291, -0.0011156147, -0.0119578882]
    np.testing.assert_allclose(found[:5].numpy(), expected, atol=1e-6)
    assert float(found[-1]) == pytest.approx(0.0207432010, abs=1e-6)
    assert float(found @ fill("probe", 3072)) == pytest.approx(0.2873964954, abs=1e-5)


def full_size(form: str) -> dict[str, Any]:
    """Tensors without memory, of a published file's shapes."""
    size, pooling, data_set = form.split("-")

    def of(name: str, wrapper: str = "") -> dict[str, Tensor]:
        return {
            wrapper + key: torch.empty(shape, device="meta")
            for key, (shape, _) in listed_keys(name).items()
        }

    if form.startswith("L2LTR"):
        return {"model_grd": of("L2LTR"), "model_sat": of("L2LTR")}
    if data_set == "cvusa":
        return {"model": of(f"SAIG_{size}_{pooling}_cvusa")}
    views = [of(f"SAIG_{size}_SMD_vigor_{view}", "module.") for view in ("grd", "sat")]
    if pooling == "GAP":
        views = [{k: v for k, v in view.items() if "linear" not in k} for view in views]
    return {"model_grd": views[0], "model_sat": views[1]}


@pytest.mark.parametrize(
    "form",
    [
        *(f"{s}-{p}-{d}" for s in "SD" for p in ("GAP", "SMD") for d in ("cvusa", "vigor")),
        "L2LTR-CLS-cvusa",
    ],
)
def test_full_sized_shapes_say_model_pooling_and_sizes(form) -> None:
    size, pooling, data_set = form.split("-")
    checkpoint = full_size(form)
    geometry = geometry_of(found_in(split_official(checkpoint)), Given())
    assert geometry.name == ("l2ltr" if size == "L2LTR" else f"saig-{size.lower()}")
    assert geometry.pooling == pooling.lower()
    assert geometry.polar == (size == "L2LTR")
    expected = VIGOR if data_set == "vigor" else CVUSA
    assert geometry.ground_size == expected["ground_size"]
    assert geometry.aerial_size == expected["aerial_size"]
    assert geometry.data_set == ("vigor-same" if data_set == "vigor" else "cvusa")
    if size == "L2LTR":
        assert geometry.assumed == ("aerial_size", "polar", "data_set")
    elif data_set == "vigor":
        assert geometry.assumed == ("data_set",), "two sizes of views can be no polar model"
    else:
        assert geometry.assumed == ("polar", "data_set")
    with torch.device("meta"):
        load_official(build_model(geometry.name, **geometry.model_config()), checkpoint)


# --- what is given -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "given", "message"),
    [
        ("S-GAP-cvusa", Given(pooling="smd"), "got smd, but the file's tensors are those of gap"),
        ("S-SMD-vigor", Given(polar=True), "800 positions for the ground and 400"),
        ("S-GAP-cvusa", Given(ground_size=(320, 640)), "Ground size: got 320 x 640 px.* 256 posit"),
        ("D-SMD-cvusa", Given(aerial_size=(320, 320)), "Aerial size: got 320 x 320 px.* 256 posit"),
        ("S-GAP-cvusa", Given(aerial_size=(128, 512)), "expected a square tile.*--polar"),
        ("S-GAP-cvusa", Given(data_set="vigor-same"), "got 'vigor-same', expected cvusa or cvact-"),
        ("S-GAP-vigor", Given(data_set="cvusa"), "expected vigor-same or vigor-cross"),
        ("L2LTR-CLS-cvusa", Given(pooling="gap"), "those of cls"),
        ("S-GAP-cvusa", Given(data_set="kitti"), "got 'kitti'"),
    ],
)
def test_what_contradicts_the_tensors_is_refused(form, given, message) -> None:
    found = found_in(split_official(full_size(form)))
    with pytest.raises(SettingError, match=message):
        geometry_of(found, given)


def test_what_is_given_is_not_called_assumed() -> None:
    found = found_in(split_official(full_size("D-GAP-cvusa")))
    given = Given(ground_size=(256, 256), polar=True, data_set="cvact-val", aerial_size=(512, 512))
    geometry = geometry_of(found, given)
    assert geometry.assumed == ()
    assert (geometry.ground_size, geometry.aerial_size) == ((256, 256), (512, 512))
    assert geometry.data_set == "cvact-val"


@pytest.mark.usefixtures("thin")
def test_an_unpublished_size_is_asked_for(tmp_path, capsys) -> None:
    sizes = {"ground_size": (64, 256), "aerial_size": (128, 128)}
    torch.save(paired(trained("saig-s", "smd", **sizes)), tmp_path / "a.pth")
    code, _, err = run(capsys, tmp_path / "a.pth", "--out", tmp_path / "out")
    assert code == 1
    assert one_sentence(err)
    assert "64 positions, which no published size has. Say --ground-size HEIGHTxWIDTH" in err
    options = ["--ground-size", "64x256", "--aerial-size", "128x128"]
    code, out, _ = run(capsys, tmp_path / "a.pth", "--out", tmp_path / "out", *options)
    assert code == 0
    assert "saig-s (smd); of no known data set; ground 64 x 256, tile 128 x 128" in out
    assert "assumed: polar" in out


def test_help_says_the_defaults(capsys) -> None:
    assert main(["convert", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "L2LTR's does",
        "vigor-same",
        "256x256 for a backbone",
        "Example: python -m core",
    ):
        assert words in text


# --- what the folder is good for ----------------------------------------------------------------


@pytest.mark.usefixtures("thin")
def test_a_converted_model_builds_a_gallery_and_locates(tiny_raster, tmp_path, capsys) -> None:
    source = trained("saig-s", "gap", **CVUSA, polar=True)
    source.aerial_encoder.load_state_dict(source.ground_encoder.state_dict())
    torch.save(paired(source), tmp_path / "a.pth")
    model, gallery = tmp_path / "saig", tmp_path / "gallery"
    assert run(capsys, tmp_path / "a.pth", "--out", model, "--polar")[0] == 0
    build = ["gallery", "build", str(tiny_raster), "--out", str(gallery), "--model", str(model)]
    assert main([*build, "--tile-pixels", "128"]) == 0
    tile = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(tile_to_polar(tile)).save(tmp_path / "panorama.png")
    capsys.readouterr()
    locate = ["locate", str(tmp_path / "panorama.png"), "--gallery", str(gallery), "--json"]
    assert main([*locate, "--student", str(model), "--no-rerank"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"]


@pytest.mark.usefixtures("thin")
def test_writing_a_folder_again_rounds_nothing_and_keeps_its_galleries(tmp_path) -> None:
    """As `calibrate` does."""
    torch.save(paired(trained("saig-s", "gap", **CVUSA)), tmp_path / "a.pth")
    convert_file(tmp_path / "a.pth", tmp_path / "out")
    before = model_hash(tmp_path / "out"), (tmp_path / "out/model.safetensors").read_bytes()
    model, config = load_model(tmp_path / "out")
    save_model(tmp_path / "out", model, {**config, "calibration": {"views": []}}, "")
    after = model_hash(tmp_path / "out"), (tmp_path / "out/model.safetensors").read_bytes()
    assert before == after
    (tmp_path / "a.pth").rename(tmp_path / "b.pth")
    convert_file(tmp_path / "b.pth", tmp_path / "again", Given(data_set="cvact-val"))
    assert model_hash(tmp_path / "again") != before[0], "canvases of another height"
    convert_file(tmp_path / "b.pth", tmp_path / "third")
    assert model_hash(tmp_path / "third") == before[0], "the file's name decides no descriptor"


# --- hostile files ------------------------------------------------------------------------------


class Hostile:
    """Unpickled the plain way, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Evaluated(Hostile):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('pathlib').Path({str(self.marker)!r}).touch()",)


def hostile_files(folder: Path, marker: Path) -> list[Path]:
    files = []
    for number, thing in enumerate((Hostile(marker), Evaluated(marker))):
        for place in ("model", "args", "optimizer"):
            content = {"model": {"model_grd.norm.weight": torch.ones(1)}, place: thing}
            for is_archive in (True, False):
                files.append(folder / f"{number}-{place}-{is_archive}.pth")
                torch.save(content, files[-1], _use_new_zipfile_serialization=is_archive)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            files.append(folder / f"{number}-protocol-{protocol}.pth")
            files[-1].write_bytes(pickle.dumps(thing, protocol))
    return files


def test_hostile_pickles_are_refused_and_not_run(tmp_path, capsys) -> None:
    marker = tmp_path / "marker"
    files = hostile_files(tmp_path, marker)
    assert len(files) == 24
    for file in files:
        code, out, err = run(capsys, file, "--out", tmp_path / "out")
        assert (code, out) == (1, ""), file.name
        assert one_sentence(err), file.name
        assert not marker.exists(), file.name
    assert not (tmp_path / "out").exists()
    pickle.loads(files[-1].read_bytes())
    assert marker.exists(), "read the plain way, the file does what it should not"


def test_the_sentence_names_what_was_refused(tmp_path, capsys) -> None:
    torch.save({"args": Hostile(tmp_path / "marker")}, tmp_path / "a.pth")
    _, _, err = run(capsys, tmp_path / "a.pth", "--out", tmp_path / "out")
    assert f"got a pickle that names {os.system.__module__}.system, expected tensors" in err
    assert "nothing in it was run" in err
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    _, _, err = run(capsys, tmp_path / "module.pth", "--out", tmp_path / "out")
    assert "names torch.nn.modules.linear.Linear" in err
    assert "save the state_dict alone" in err


def test_a_hostile_array_is_refused_and_not_run(tmp_path, capsys) -> None:
    marker, file = tmp_path / "marker", tmp_path / "a.npz"
    hostile = np.array([Hostile(marker)], dtype=object)
    np.savez(file, **{"conv_root/kernel": hostile})
    code, _, err = run(capsys, file, "--out", tmp_path / "out")
    assert code == 1
    assert one_sentence(err)
    assert not marker.exists()


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("numpy_1", [True, False])
def test_arguments_and_numpy_numbers_are_left_out(is_archive, numpy_1, tmp_path) -> None:
    numbers = [np.float64(0.5), np.float32(1), np.int64(2), np.bool_(True)]
    content = {"args": ARGS, "metric": numbers, "model": {"a": torch.arange(3.0)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_archive)
    if numpy_1:
        rename_in(tmp_path / "a.pth", b"numpy._core.multiarray", b"numpy.core.multiarray")
    allowed = torch.serialization.get_safe_globals()
    read = read_official(tmp_path / "a.pth")
    assert isinstance(read["args"], Omitted)
    assert vars(read["args"]) == {}
    assert all(isinstance(number, Omitted) for number in read["metric"])
    assert torch.equal(read["model"]["a"], torch.arange(3.0))
    now = torch.serialization.get_safe_globals()
    assert set(now) == set(allowed), "allowed for this one reading alone"


def rename_in(file: Path, old: bytes, new: bytes) -> None:
    """Rename a pickled global, in the pickle or in the archive that holds it."""
    if not zipfile.is_zipfile(file):
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(old in content for content in members.values())
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new))


@pytest.mark.parametrize(
    "thing", [Path("x"), defaultdict(list), np.ones(2), argparse.ArgumentParser, range(3)]
)
def test_nothing_else_is_allowed_however_harmless(thing, tmp_path) -> None:
    torch.save({"args": thing, "model": {}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="got a pickle that names"):
        read_official(tmp_path / "a.pth")


def test_what_other_packages_allow_is_refused_too(tmp_path) -> None:
    torch.save({"args": Path("x"), "model": {}}, tmp_path / "a.pth")
    with torch.serialization.safe_globals([type(Path("x"))]):
        torch.load(tmp_path / "a.pth", weights_only=True)
        with pytest.raises(CheckpointError, match="got a pickle that names"):
            read_official(tmp_path / "a.pth")
        torch.load(tmp_path / "a.pth", weights_only=True)


# --- broken files -------------------------------------------------------------------------------


def write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def saved(content: object, **options: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(content, file, **options)


def cut(make: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    def shorten(file: Path) -> None:
        make(file)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])

    return shorten


def arrays(file: Path) -> None:
    with file.open("wb") as opened:
        np.savez(opened, a=np.ones(999))


def zipped(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("L2LTR/CVUSA/model_checkpoint.pth", b"x")


SOME = {"model": {"model_grd.a": torch.arange(1000.0), "model_sat.a": torch.arange(9.0)}}
OLD = {"_use_new_zipfile_serialization": False}
SPARSE = {"model": {"model_grd.pos_embed": torch.eye(3).to_sparse()}}
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda file: write(file, b""), "cut off or no checkpoint"),
    "text": (lambda file: write(file, b"hello, this is text\n" * 20), "cut off or no checkpoint"),
    "picture": (lambda file: write(file, b"\x89PNG\r\n\x1a\n" + bytes(90)), "no checkpoint"),
    "half": (cut(saved(SOME), 0.5), "cut off or no checkpoint"),
    "nearly": (cut(saved(SOME), 0.99), "cut off or no checkpoint"),
    "half, old": (cut(saved(SOME, **OLD), 0.5), "cut off or no checkpoint"),
    "half, npz": (cut(arrays, 0.5), "cut off or no checkpoint"),
    "archive": (zipped, "archive of L2LTR/CVUSA/model_checkpoint.pth.*Unpack it"),
    "list": (saved([torch.ones(2)]), "got a list, expected a dictionary"),
    "numbers": (saved({1: torch.ones(2)}), "entry '1' that is no named, dense tensor"),
    "numbers inside": (saved({"model": {1: torch.ones(2)}}), "entry '1' that is no named"),
    "sparse": (saved(SPARSE), "entry 'model_grd.pos_embed' that is no named, dense"),
    "another's": (saved({"weights": torch.ones(2)}), "got the entries weights, expected an auth"),
    "no positions": (saved(SOME), "ground branch without positions, expected pos_embed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_sentence_and_write_nothing(name, tmp_path, capsys) -> None:
    make, message = BROKEN[name]
    file = tmp_path / "model_checkpoint.pth"
    make(file)
    code, out, err = run(capsys, file, "--out", tmp_path / "out", "--json")
    assert (code, out) == (1, "")
    assert one_sentence(err)
    assert str(file) in err
    with pytest.raises(CheckpointError, match=message):
        convert_file(file, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path, capsys) -> None:
    for path in (tmp_path / "nowhere.pth", tmp_path):
        code, _, err = run(capsys, path, "--out", tmp_path / "out")
        assert code == 1
        assert one_sentence(err)
        assert "no readable file" in err


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model_sat.backbone.norm.bias"), "aerial encoder misses norm.bias"),
        (lambda s: s.pop("model_grd.linear2.weight"), "ground pooling misses linear2.weight"),
        (lambda s: s.pop("model_grd.backbone.pos_embed"), "ground branch without positions"),
        (lambda s: s.update({"model_sat.surprise": torch.ones(1)}), "no place for surprise"),
        (lambda s: s.update({"model_grd.backbone.norm.bias": torch.ones(5)}), r"got shape \(5,\)"),
        (lambda s: s.update({"model_grd.backbone.pos_embed": torch.ones(5)}), r"shape \(5,\)"),
        (
            lambda s: s.update({"model_grd.backbone.norm.bias": torch.full((12,), torch.nan)}),
            "values in ground_encoder.norm.bias that are not finite",
        ),
        (
            lambda s: [s.pop(key) for key in list(s) if "grd.backbone.blocks.10." in key],
            "got 10 blocks in the ground branch, expected 11",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    change, message, tmp_path, capsys
) -> None:
    checkpoint = paired(trained("saig-s", "smd", **CVUSA))
    change(checkpoint["model"])
    torch.save(checkpoint, tmp_path / "a.pth")
    code, _, err = run(capsys, tmp_path / "a.pth", "--out", tmp_path / "deep" / "out")
    assert code == 1
    assert one_sentence(err)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_file(tmp_path / "a.pth", tmp_path / "deep" / "out")
    assert str(tmp_path / "a.pth") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.usefixtures("thin")
def test_different_branches_are_no_model(tmp_path) -> None:
    small, large = (trained(name, "gap", **CVUSA) for name in DEPTHS)
    mixed = {"model_grd": branches(small)[0], "model_sat": branches(large)[1]}
    with pytest.raises(CheckpointError, match="saig-s for the ground and saig-d for the aerial"):
        found_in(split_official(mixed))


@pytest.mark.usefixtures("thin")
def test_a_folder_that_is_taken_stays_as_it_is(tmp_path, capsys) -> None:
    torch.save(paired(trained("saig-s", "gap", **CVUSA)), tmp_path / "a.pth")
    taken = tmp_path / "taken"
    taken.mkdir()
    assert run(capsys, tmp_path / "a.pth", "--out", taken)[0] == 0, "an empty folder will do"
    before = {path.name: path.read_bytes() for path in taken.iterdir()}
    for out in (taken, tmp_path / "a.pth"):
        code, _, err = run(capsys, tmp_path / "a.pth", "--out", out)
        assert code == 1
        assert "path that is taken" in err
    assert {path.name: path.read_bytes() for path in taken.iterdir()} == before


@pytest.mark.usefixtures("thin")
def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path, capsys, monkeypatch) -> None:
    torch.save(paired(trained("saig-s", "gap", **CVUSA)), tmp_path / "a.pth")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.checkpoints.os.replace", full)
    code, _, err = run(capsys, tmp_path / "a.pth", "--out", tmp_path / "out")
    assert code == 1
    assert one_sentence(err)
    assert "No space left on device" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
