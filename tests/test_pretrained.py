from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from core.errors import CheckpointError
from core.models.google_vit import convert_google_vit
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.layers import resize_positions
from core.models.pooling import GapPooling, SmdPooling
from core.models.pretrained import load_official, split_official
from core.models.saig import Saig, SaigConfig, saig_d, saig_s
from core.models.two_branch import TwoBranch
from tests.official_weights import Archive
from tests.parity import fill, listed_keys

CVUSA, POLAR, VIGOR = ((128, 512), (256, 256)), ((128, 512), (128, 512)), ((320, 640), (320, 320))
SIZES = {"S": saig_s, "D": saig_d}


def two_branch(
    build: Callable[[tuple[int, int]], nn.Module], sizes: tuple, pooling: str = "GAP"
) -> TwoBranch:
    encoders = [build(size) for size in sizes]
    pools: list[nn.Module] = []
    for encoder, size in zip(encoders, sizes, strict=True):
        rows, columns = encoder.grid(*size)
        channels = encoder.channels
        is_smd = pooling == "SMD"
        pools.append(SmdPooling(channels, rows * columns) if is_smd else GapPooling(channels))
    return TwoBranch(
        encoders[0],
        encoders[1],
        pools[0],
        pools[1],
        ground_size=sizes[0],
        aerial_size=sizes[1],
        polar=False,
    )


def meta_branches(name: str, sizes: tuple, pooling: str) -> TwoBranch:
    with torch.device("meta"):
        return two_branch(SIZES[name], sizes, pooling)


def tensors(name: str) -> dict[str, Tensor]:
    """Tensors without memory, of the shapes of a published file."""
    dtypes = {"torch.float32": torch.float32, "torch.int64": torch.int64}
    return {
        key: torch.empty(shape, dtype=dtypes[dtype], device="meta")
        for key, (shape, dtype) in listed_keys(name).items()
    }


def wrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"module." + key: value for key, value in state.items()}


def bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A VIGOR file with GAP: the backbone alone, without its level."""
    return {k.removeprefix("backbone."): v for k, v in state.items() if "linear" not in k}


EXTRA: dict[str, Any] = {"optimizer": {"state": {}}, "epoch": 3, "best_acc": 0.5}


@pytest.mark.parametrize("name", ["S", "D"])
@pytest.mark.parametrize("pooling", ["GAP", "SMD"])
@pytest.mark.parametrize("sizes", [CVUSA, POLAR])
def test_cvusa_files_fit(name: str, pooling: str, sizes: tuple) -> None:
    model = meta_branches(name, sizes, pooling)
    found = load_official(model, {"model": tensors(f"SAIG_{name}_{pooling}_cvusa"), **EXTRA})
    assert found.form == "paired"
    assert found.dropped == ("best_acc", "epoch", "optimizer")
    load_official(model, tensors(f"SAIG_{name}_{pooling}_cvusa"))


@pytest.mark.parametrize("name", ["S", "D"])
@pytest.mark.parametrize("pooling", ["GAP", "SMD"])
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_vigor_files_fit(name: str, pooling: str, is_wrapped: bool) -> None:
    ground, aerial = (tensors(f"SAIG_{name}_SMD_vigor_{view}") for view in ("grd", "sat"))
    if pooling == "GAP":
        ground, aerial = bare(ground), bare(aerial)
    if is_wrapped:
        ground, aerial = wrapped(ground), wrapped(aerial)
    checkpoint = {"model_grd": ground, "model_sat": aerial, **EXTRA}
    found = load_official(meta_branches(name, VIGOR, pooling), checkpoint)
    assert found.form == "branches"


@pytest.mark.parametrize("name", ["S", "D"])
@pytest.mark.parametrize("pooling", ["GAP", "SMD"])
def test_imagenet_files_start_both_branches(name: str, pooling: str) -> None:
    state = tensors(f"SAIG_{name}_imagenet")
    checkpoint = {"state_dict": state, "epoch": 299, "arch": "SAIG", "version": 2, "args": object()}
    found = load_official(meta_branches(name, VIGOR, pooling), checkpoint)
    assert found.is_initialisation
    assert set(found.dropped) == {"arch", "args", "epoch", "head.bias", "head.weight", "version"}


def test_l2ltr_files_fit() -> None:
    with torch.device("meta"):
        model = two_branch(lambda size: L2ltr(L2ltrConfig(image_size=size)), POLAR)
    checkpoint = {"model_grd": tensors("L2LTR"), "model_sat": tensors("L2LTR"), "optimizer": {}}
    assert load_official(model, checkpoint).form == "branches"


# --- values arrive where they belong ------------------------------------------------------------


def small_saig(size: tuple[int, int], **changes) -> Saig:
    stem = ((4, (2, 2)), (4, (2, 2)), (8, (2, 2)), (8, (2, 2)))
    return Saig(SaigConfig(size, 2, 12, 3, stem, **changes))


def small_l2ltr(size: tuple[int, int]) -> L2ltr:
    return L2ltr(L2ltrConfig(size, depth=2, width=16, heads=2, hidden=24, units=(1, 1, 2)))


def marked(state: dict[str, Tensor], salt: str) -> dict[str, Tensor]:
    """The same shapes, filled with values that depend on the key."""
    return {
        key: torch.full_like(value, zlib.crc32((salt + key).encode()) % 1000)
        for key, value in state.items()
    }


def test_each_branch_gets_its_own_tensors() -> None:
    sizes = ((32, 64), (32, 32))
    model = two_branch(small_saig, sizes, "SMD")
    parts = [
        ("model_grd", model.ground_encoder, model.ground_pool),
        ("model_sat", model.aerial_encoder, model.aerial_pool),
    ]
    expected = [(marked(e.state_dict(), n), marked(p.state_dict(), n)) for n, e, p in parts]
    file = {}
    for (name, _, _), (encoder, pool) in zip(parts, expected, strict=True):
        file |= {f"{name}.backbone.{key}": value for key, value in encoder.items()}
        file |= {f"{name}.{key}": value for key, value in pool.items()}
    load_official(model, {"model": file})
    for (_, encoder, pool), (own, pooled) in zip(parts, expected, strict=True):
        assert all(torch.equal(encoder.state_dict()[k], v) for k, v in own.items())
        assert all(torch.equal(pool.state_dict()[k], v) for k, v in pooled.items())


def test_imagenet_positions_are_resampled_to_each_view_and_pooling_stays() -> None:
    sizes = ((128, 512), (256, 256))
    model = two_branch(small_saig, sizes, "SMD")
    before = model.ground_pool.linear1.weight.detach().clone()
    state = small_saig((224, 224)).state_dict()
    state["pos_embed"] = table = 0.02 * fill("pos_embed", 1, 196, 12).float()
    load_official(model, {"state_dict": {**state, "head.weight": torch.ones(10, 12)}})
    for encoder, grid in ((model.ground_encoder, (8, 32)), (model.aerial_encoder, (16, 16))):
        torch.testing.assert_close(encoder.pos_embed, resize_positions(table, (14, 14), grid))
        assert torch.equal(encoder.norm.weight, state["norm.weight"])
    assert torch.equal(model.ground_pool.linear1.weight, before)


def test_row_positions_are_the_mean_of_each_row() -> None:
    def rows(size: tuple[int, int]) -> Saig:
        return small_saig(size, positions="rows", is_wrapped=True)

    model, state = two_branch(rows, POLAR), small_saig((224, 224)).state_dict()
    load_official(model, {"state_dict": state})
    resized = resize_positions(state["pos_embed"], (14, 14), (8, 32))
    expected = resized.reshape(1, 8, 32, 12).mean(2)
    torch.testing.assert_close(model.ground_encoder.pos_embed.detach(), expected)


# --- Google's archive ---------------------------------------------------------------------------


def random_l2ltr(size: tuple[int, int]) -> L2ltr:
    torch.manual_seed(3)
    encoder = small_l2ltr(size)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter)
    return encoder.requires_grad_(False)


def test_google_archive_starts_both_branches() -> None:
    source, model = random_l2ltr((224, 224)), two_branch(small_l2ltr, CVUSA)
    archive = Archive(source, heads=2)
    found = load_official(model, archive)
    assert found.dropped == ("head/bias", "head/kernel")
    for encoder in (model.ground_encoder, model.aerial_encoder):
        state, origin = encoder.state_dict(), source.state_dict()
        for key, value in origin.items():
            expected = origin[key.replace("norm_2", "norm_1")] if "norm_2" in key else value
            if not key.endswith("position_embeddings"):
                assert torch.equal(state[key], expected), key


def test_google_positions_are_resampled_as_scipy_does() -> None:
    model = two_branch(small_l2ltr, CVUSA)
    table = fill("p", 1, 197, 16)
    load_official(model, Archive(random_l2ltr((224, 224)), heads=2))
    grid = table[0, 1:].reshape(14, 14, 16).numpy()
    zoomed = ndimage.zoom(grid, (8 / 14, 32 / 14, 1), order=1)
    got = model.ground_encoder.transformer.embeddings.position_embeddings[0].detach()
    torch.testing.assert_close(got[0], table[0, 0].float())
    np.testing.assert_allclose(got[1:].numpy().reshape(8, 32, 16), zoomed, atol=5e-6)


def test_unknown_array_of_an_archive_is_named() -> None:
    with pytest.raises(CheckpointError, match="block9/unitX"):
        convert_google_vit({"conv_root/kernel": np.zeros((7, 7, 3, 4)), "block9/unitX": 1})


# --- refusals -----------------------------------------------------------------------------------


def saig_file() -> tuple[TwoBranch, dict[str, Tensor]]:
    model = two_branch(small_saig, ((32, 64), (32, 32)))
    parts = {"model_grd": model.ground_encoder, "model_sat": model.aerial_encoder}
    return model, {
        f"{name}.backbone.{key}": torch.full_like(value, 7)
        for name, encoder in parts.items()
        for key, value in encoder.state_dict().items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("model_sat.backbone.norm.bias"), "aerial encoder misses norm.bias"),
        (
            lambda f: f.update({"model_grd.backbone.extra": torch.ones(1)}),
            "ground encoder has no place for extra",
        ),
        (
            lambda f: f.update({"model_grd.linear1.weight": torch.ones(4, 1)}),
            "ground pooling has no place for linear1.weight",
        ),
        (
            lambda f: f.update({"model_grd.backbone.pos_embed": torch.ones(1, 9, 12)}),
            r"pos_embed: got shape \(1, 9, 12\), expected \(1, 8, 12\)",
        ),
        (lambda f: f.update({"elsewhere": torch.ones(1)}), "no place for elsewhere"),
        (lambda f: f.update({"model_grd.backbone.norm.bias": [1.0]}), "got a list"),
    ],
)
def test_what_does_not_fit_is_listed_and_changes_nothing(change, message: str) -> None:
    model, file = saig_file()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change(file)
    with pytest.raises(CheckpointError, match=message):
        load_official(model, {"model": file})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_all_faults_are_listed_together() -> None:
    model, file = saig_file()
    del file["model_sat.backbone.norm.bias"], file["model_grd.backbone.norm.weight"]
    with pytest.raises(CheckpointError, match=r"aerial.*norm\.bias; ground.*norm\.weight"):
        load_official(model, {"model": file})


def test_unknown_files_are_refused() -> None:
    for checkpoint, message in (
        ({}, "got the entries nothing"),
        ({"weights": {}}, "got the entries weights"),
        ({"model": {"model_grd.a": torch.ones(1)}, "surprise": 1}, "entry surprise"),
        ({"model_grd": {}}, "expected model_sat"),
    ):
        with pytest.raises(CheckpointError, match=message):
            split_official(checkpoint)
