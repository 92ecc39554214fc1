"""``python -m core explain``: run alone with ``pytest tests/test_explain_pictures.py``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from core.checkpoints import save_model
from core.cli import main
from core.errors import SettingError
from core.explain.pictures import model_pictures, write_pictures
from core.models import build_model, build_teacher
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.pooling import ClsPooling
from core.models.two_branch import TwoBranch
from core.photos.opening import canvas_of, open_photo
from core.photos.views import ground_batch

SIZES = {"ground_size": (64, 256), "aerial_size": (64, 64)}
POSITIONS = {"positions-ground.png", "positions-aerial.png"}
CONTRIBUTION = {"photo-view.png", "photo-contribution.png"}
ATTENTION = POSITIONS | {"photo-view.png", "photo-rollout.png", "photo-layers.png"}
ALL = ATTENTION | CONTRIBUTION


def saig(pooling: str = "azimuth"):
    torch.manual_seed(0)
    return build_model("saig-xs", pooling, **SIZES).eval()


def l2ltr() -> TwoBranch:
    torch.manual_seed(0)
    branches = []
    for size in SIZES.values():
        config = L2ltrConfig(size, depth=2, width=12, heads=2, hidden=24, units=(1, 1, 1))
        branches.append(L2ltr(config))
        nn.init.normal_(branches[-1].transformer.embeddings.position_embeddings)
    return TwoBranch(*branches, ClsPooling(12), ClsPooling(12), **SIZES, polar=False).eval()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (90, 120, 3)).astype(np.uint8).repeat(3, 0).repeat(3, 1)


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(
    ("build", "expected"), [(saig, ALL), (lambda: saig("gap"), ALL), (l2ltr, ATTENTION)]
)
def test_all_pictures_of_a_photo(build, expected, photo):
    pictures, missing = model_pictures(build(), open_photo(photo))
    assert set(pictures) == expected
    assert missing == ()
    view, overlay = opened(pictures["photo-view.png"]), opened(pictures["photo-rollout.png"])
    assert view.shape == overlay.shape
    assert not np.array_equal(view, overlay)
    for content in pictures.values():
        assert opened(content).std() > 0


def test_an_azimuth_model_sees_the_crop_and_a_global_one_the_whole_canvas(photo):
    crop, _ = model_pictures(saig(), open_photo(photo))
    whole, _ = model_pictures(saig("gap"), open_photo(photo))
    assert opened(crop["photo-view.png"]).shape == (3 * 64, 3 * 6 * 8, 3)  # 65 degrees: 6 bins
    assert opened(whole["photo-view.png"]).shape == (3 * 64, 3 * 256, 3)


def test_without_a_photo_positions_alone():
    assert set(model_pictures(saig(), None)[0]) == POSITIONS


def test_a_teacher_shows_its_branches(photo):
    teacher = build_teacher({"name": "saig-xs", "pooling": "azimuth", **SIZES}).eval()
    assert set(model_pictures(teacher, open_photo(photo))[0]) == ALL


def test_what_cannot_be_drawn_is_said_and_the_rest_is_drawn(photo):
    untrained = l2ltr()
    nn.init.zeros_(untrained.aerial_encoder.transformer.embeddings.position_embeddings)
    pictures, missing = model_pictures(untrained, open_photo(photo))
    assert set(pictures) == ATTENTION - {"positions-aerial.png"}
    assert len(missing) == 1
    assert "Train the model" in missing[0]


def test_without_attention_layers_the_contribution_of_each_patch_is_drawn(
    photo, tiny_student, tiny_global_student, tiny_teacher
):
    for model in (tiny_student, tiny_global_student, tiny_teacher):
        pictures, missing = model_pictures(model, open_photo(photo))
        assert set(pictures) == CONTRIBUTION
        assert [sentence[:22] for sentence in missing] == [
            "Positions of ConvNet: ",
            "Attention of ConvNet: ",
        ]
        view, overlay = (opened(pictures[name]) for name in sorted(CONTRIBUTION, reverse=True))
        assert view.shape == overlay.shape
        assert not np.array_equal(view, overlay)


def test_contributions_drawn_are_those_of_the_teacher(photo, tiny_teacher, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "core.explain.pictures.contribution_overlay",
        lambda image, regions, phi: drawn.append(phi) or Image.fromarray(image),
    )
    model_pictures(tiny_teacher, open_photo(photo))
    images = ground_batch([canvas_of(open_photo(photo), bins=32).image], tiny_teacher.ground_size)
    with torch.inference_mode():
        tokens = tiny_teacher.ground_tokens(images)
        phi, _ = tiny_teacher.factors(tokens, torch.randn(1, 4 * 32, tokens.shape[2]))
    np.testing.assert_allclose(drawn[0], phi[0], atol=1e-6)


def test_a_model_that_can_show_nothing_is_refused(photo, tiny_student):
    with pytest.raises(SettingError, match=r"Positions of ConvNet.* add --photo"):
        model_pictures(tiny_student, None)
    mixed = build_model("convnet-xs", "smd", **SIZES).eval()
    with pytest.raises(SettingError, match=r"Positions of ConvNet.*Attention of ConvNet"):
        model_pictures(mixed, open_photo(photo))
    with pytest.raises(SettingError, match="got Linear, expected a two-branch model"):
        model_pictures(nn.Linear(1, 1), None)


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        write_pictures({"a.png": b""}, tmp_path / "file")


def test_the_command_writes_them_and_says_where(photo, tmp_path, capsys):
    config = {"name": "saig-xs", "model": {"pooling": "azimuth", **SIZES}}
    save_model(tmp_path / "model", saig(), config, "")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    out = tmp_path / "deep" / "pictures"
    command = ["explain", str(tmp_path / "model"), "--photo", str(tmp_path / "photo.png")]
    assert main([*command, "--fov", "90", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == ALL
    assert set(capsys.readouterr().out.split()) == {str(path) for path in out.iterdir()}
    assert opened((out / "photo-view.png").read_bytes()).shape[1] == 3 * 8 * 8  # 90 degrees: 8 bins
    assert main([*command[:2], "--out", str(tmp_path / "positions")]) == 0
    assert {path.name for path in (tmp_path / "positions").iterdir()} == POSITIONS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "Model missing"),
        (["missing", "--photo", "no.jpg"], "no.jpg"),
        (["missing", "--fov", "wide"], "Field of view: got 'wide'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said, tmp_path, capsys):
    assert main(["explain", *arguments, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys):
    assert main(["explain", "--help"]) == 0
    assert "Example: python -m core explain " in " ".join(capsys.readouterr().out.split())
