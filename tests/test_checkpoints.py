"""Model folders: what is saved comes back, and what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

import core.models
from core.checkpoints import (
    CONFIG,
    WEIGHTS,
    load_model,
    load_state,
    load_student,
    model_hash,
    save_model,
)
from core.errors import CheckpointError, SettingError


class Toy(torch.nn.Module):
    """Weights, a buffer of whole numbers, and two names for one tensor."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.tied = self.first


CONFIG_VALUES: dict[str, Any] = {"name": "toy", "model": {"width": 4}, "metrics": {"within": 0.5}}


def build_toy(name: str, **options: Any) -> torch.nn.Module:
    if name != "toy":
        raise SettingError(f"Model: got {name!r}, expected one of toy.")
    return Toy(**options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(core.models, "build_model", build_toy)
    torch.manual_seed(3)
    save_model(tmp_path / "toy", Toy(), CONFIG_VALUES, "# Toy\n")
    return tmp_path / "toy"


class Strided(torch.nn.Module):
    """A new encoder with all that ``core.models.two_branch.Encoder`` names, and nothing else."""

    mean, std, stride, channels = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (16, 8), 6

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, self.channels, self.stride, stride=self.stride)

    def feature_map(self, images: torch.Tensor, circular: bool = False) -> torch.Tensor:
        return self.patches(images)


class ClassToken(Strided):
    def describe(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.patches(images).mean(dim=(2, 3)), dim=1)


@pytest.mark.parametrize(
    ("encoder", "pooling"),
    [(Strided, "gap"), (Strided, "smd"), (Strided, "azimuth"), (ClassToken, "cls")],
)
def test_a_new_encoder_needs_one_line_in_the_registry(
    encoder: type[Strided], pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(core.models.MODELS, "new", lambda size, azimuth: encoder())
    options = {"pooling": pooling, "ground_size": [64, 256], "aerial_size": [64, 64]}
    model = core.models.build_model("new", **options)
    save_model(tmp_path / "new", model, {"name": "new", "model": options}, "")
    loaded, _ = load_student(tmp_path / "new")
    with torch.inference_mode():
        ground = loaded.describe_ground(torch.rand(2, 3, 64, 256))
        aerial = loaded.describe_aerial(torch.rand(3, 3, 64, 64))
    torch.testing.assert_close(ground.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(aerial.norm(dim=1), torch.ones(3))
    assert ground.shape[1] == aerial.shape[1] == loaded.dim
    other = "gap" if pooling == "cls" else "cls"
    with pytest.raises(SettingError, match=f"Pooling: got '{other}' for new"):
        core.models.build_model("new", **{**options, "pooling": other})


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights, vouched for."""
    import hashlib

    content = safetensors.torch.save(tensors)
    (folder / WEIGHTS).write_bytes(content)
    change_config(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **values}))


def test_what_is_saved_comes_back(folder: Path) -> None:
    torch.manual_seed(3)
    original = Toy().state_dict()
    model, config = load_model(folder)
    assert not model.training
    assert config["model"] == {"width": 4}
    assert config["metrics"] == {"within": 0.5}
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == original[name].dtype
        torch.testing.assert_close(tensor, original[name].half().to(tensor.dtype))
    assert (folder / "card.md").read_text() == "# Toy\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_weights_are_stored_in_16_bits_and_read_as_32(folder: Path) -> None:
    stored = safetensors.torch.load_file(folder / WEIGHTS)
    assert stored["first.weight"].dtype == torch.float16
    assert stored["norm.num_batches_tracked"].dtype == torch.int64
    assert load_state(folder)[1]["first.weight"].dtype == torch.float32


def test_same_model_same_bytes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_model(tmp_path / "again", Toy(), CONFIG_VALUES, "# Toy\n")
    for name in (WEIGHTS, CONFIG):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert model_hash(folder) == model_hash(tmp_path / "again")


def test_hash_follows_what_decides_descriptors_only(folder: Path) -> None:
    before = model_hash(folder)
    change_config(folder, metrics={"within": 0.9}, calibration={"a": 1}, training={"minutes": 3})
    assert model_hash(folder) == before
    change_config(folder, model={"width": 5})
    assert model_hash(folder) != before
    change_config(folder, model={"width": 4})
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert model_hash(folder) != before


def test_missing_unknown_and_misshapen_tensors_are_named(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    rewrite(folder, {name: t for name, t in tensors.items() if name != "norm.weight"})
    with pytest.raises(CheckpointError, match=r"1 missing \(norm\.weight\)"):
        load_model(folder)
    rewrite(folder, {**tensors, "head.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"1 unknown \(head\.bias\)"):
        load_model(folder)
    rewrite(folder, {**tensors, "norm.bias": torch.zeros(9)})
    with pytest.raises(CheckpointError, match=r"'norm\.bias' of shape \(9,\), expected \(4,\)"):
        load_model(folder)
    rewrite(folder, tensors)
    change_config(folder, model={"width": 6})
    with pytest.raises(CheckpointError, match="another size of the model"):
        load_model(folder)


def test_truncated_and_foreign_weights(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="cut off or changed"):
        load_model(folder)
    import hashlib

    for damaged in (content[:-10], b"\xff" * 50, b"", content[:4]):
        (folder / WEIGHTS).write_bytes(damaged)
        change_config(folder, weights_sha256=hashlib.sha256(damaged).hexdigest())
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_state(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "no JSON"),
        ("[1, 2]", "another format"),
        ('{"format": 7, "name": "toy", "model": {}}', "expected format 1"),
        ('{"format": 1, "name": "toy"}', "without 'name' or 'model'"),
        ('{"format": 1, "name": 5, "model": {}}', "without 'name' or 'model'"),
    ],
)
def test_bad_configs(folder: Path, text: str, message: str) -> None:
    (folder / CONFIG).write_text(text)
    for read in (load_model, load_state, model_hash):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_configs_that_build_nothing(folder: Path) -> None:
    change_config(folder, name="unheard-of")
    with pytest.raises(CheckpointError, match="builds no model"):
        load_model(folder)
    change_config(folder, name="toy", model={"depth": 3})
    with pytest.raises(CheckpointError, match="builds no model"):
        load_model(folder)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no readable config\.json"):
        load_model(tmp_path / "nowhere")
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"no readable model\.safetensors"):
        load_model(folder)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without 'name' or 'model'"):
        save_model(tmp_path, Toy(), {"name": "toy"}, "")
    with pytest.raises(CheckpointError, match="no JSON"):
        save_model(tmp_path, Toy(), {**CONFIG_VALUES, "loss": float("nan")}, "")
    model = Toy()
    with torch.no_grad():
        model.first.bias.fill_(1e6)
    with pytest.raises(CheckpointError, match=r"'first\.bias' with values beyond float16"):
        save_model(tmp_path, model, CONFIG_VALUES, "")
    assert list(tmp_path.iterdir()) == []


def test_an_older_model_is_replaced(folder: Path) -> None:
    before = model_hash(folder)
    torch.manual_seed(4)
    save_model(folder, Toy(), CONFIG_VALUES, "# Newer\n")
    assert model_hash(folder) != before
    load_model(folder)
