"""Positions and attention of one encoder: run alone with ``pytest tests/test_explain_layers.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import SettingError
from core.explain.figures import layer_attention_figure, position_figure
from core.explain.layers import (
    collect_attention,
    descriptor_map,
    layer_attention,
    position_similarity,
    rollout,
)
from core.models import build_model
from core.models.convnet import ConvNet, ConvNetConfig
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.pooling import AzimuthPooling, ClsPooling, GapPooling
from core.models.saig import Saig, SaigConfig
from core.models.two_branch import TwoBranch

STEM = ((4, (4, 4)), (8, (4, 4)))


def saig(size: tuple[int, int] = (32, 48), **changes) -> Saig:
    return Saig(SaigConfig(size, depth=3, width=12, heads=3, stem=STEM, **changes)).eval()


def l2ltr(size: tuple[int, int] = (32, 48)) -> L2ltr:
    encoder = L2ltr(L2ltrConfig(size, depth=3, width=12, heads=2, hidden=24, units=(1, 1, 1)))
    embeddings = encoder.transformer.embeddings
    nn.init.normal_(embeddings.position_embeddings)
    nn.init.normal_(embeddings.cls_token)
    return encoder.eval()


ENCODERS = {"saig": saig, "l2ltr": l2ltr}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def two_branch(build, pooling: nn.Module, **changes) -> TwoBranch:
    sizes = {"ground_size": (32, 48), "aerial_size": (32, 32), "polar": False, **changes}
    aerial_size = sizes["ground_size"] if sizes["polar"] else sizes["aerial_size"]
    model = TwoBranch(build(sizes["ground_size"]), build(aerial_size), pooling, pooling, **sizes)
    return model.eval()


def softmax_rows(query: Tensor, key: Tensor, heads: int) -> np.ndarray:
    """Attention (N, N) of one picture from (N, C), token by token and head by head."""
    count, width = query.shape
    size = width // heads
    mean = np.zeros((count, count))
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for row in range(count):
            scores = [
                float(query[row, own] @ key[column, own]) / size**0.5 for column in range(count)
            ]
            shares = np.exp(scores)
            mean[row] += shares / shares.sum() / heads
    return mean


@torch.no_grad()
def test_saig_attention_equals_the_slow_loop() -> None:
    encoder = saig()
    with collect_attention(encoder) as collected:
        encoder(images())
    tokens = encoder.patch_embed(images(), False).flatten(2).transpose(1, 2) + encoder.pos_embed
    for block, found in zip(encoder.blocks, collected, strict=True):
        query, key, _ = block.attn.qkv(block.norm1(tokens)).split(12, dim=2)
        for index in range(2):
            np.testing.assert_allclose(
                found[index], softmax_rows(query[index], key[index], 3), atol=1e-6
            )
        tokens = block(tokens)


@torch.no_grad()
def test_l2ltr_keys_are_those_of_the_layer_before() -> None:
    encoder = l2ltr()
    with collect_attention(encoder) as collected:
        encoder(images())
    tokens = previous = encoder.transformer.embeddings(images())
    for layer, found in zip(encoder.transformer.encoder.layer, collected, strict=True):
        query = layer.attn.query(layer.attention_norm_1(tokens))
        key = layer.attn.key(layer.attention_norm_2(previous))
        for index in range(2):
            np.testing.assert_allclose(
                found[index], softmax_rows(query[index], key[index], 2), atol=1e-6
            )
        tokens, previous = layer(tokens, previous), tokens


@pytest.mark.parametrize("name", ENCODERS)
def test_collecting_changes_nothing_and_leaves_nothing(name: str) -> None:
    encoder = ENCODERS[name]()
    with torch.inference_mode():
        before = encoder(images())
        with collect_attention(encoder) as collected:
            assert torch.equal(encoder(images()), before)
        encoder(images())
    assert len(collected) == 3
    with pytest.raises(ZeroDivisionError), collect_attention(encoder):
        _ = 1 / 0
    assert not any(part._forward_hooks for part in encoder.modules())


def test_collecting_leaves_gradients_alone() -> None:
    plain, watched = saig(), saig()
    watched.load_state_dict(plain.state_dict())
    plain(images()).square().sum().backward()
    with collect_attention(watched) as collected:
        watched(images()).square().sum().backward()
    assert not any(weights.requires_grad for weights in collected)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(
    ("name", "pooling", "tokens"),
    [("saig", GapPooling(12), 6), ("l2ltr", ClsPooling(12), 7), ("l2ltr", GapPooling(12), 7)],
)
def test_each_branch_is_read_for_itself(name: str, pooling: nn.Module, tokens: int) -> None:
    model = two_branch(ENCODERS[name], pooling)
    ground = layer_attention(model, "ground", images(1))
    assert ground.weights.shape == (3, tokens, tokens)
    assert ground.grid == (2, 3)
    assert ground.weights.dtype == np.float32
    np.testing.assert_allclose(ground.weights.sum(axis=2), 1, atol=1e-6)
    aerial = layer_attention(model, "aerial", images(1)[..., :32])
    assert aerial.grid == (2, 2)
    with pytest.raises(SettingError, match="Pictures: got 2, expected 1"):
        layer_attention(model, "ground", images())


def test_a_crop_and_a_polar_view_have_grids_of_their_own() -> None:
    def build(size: tuple[int, int]) -> Saig:
        stem = ((4, (4, 2)), (8, (4, 2)))
        config = SaigConfig(size, 2, 12, 3, stem, positions="rows", is_wrapped=True)
        return Saig(config).eval()

    sizes = {"ground_size": (64, 128), "aerial_size": (64, 64), "polar": True}
    model = two_branch(build, AzimuthPooling(12, 4, 4), **sizes)
    pictures = torch.rand(1, 3, 64, 64)
    crop = layer_attention(model, "ground", pictures)
    assert crop.grid == (4, 16)
    assert crop.weights.shape == (2, 64, 64)
    assert layer_attention(model, "aerial", pictures).grid == (4, 32)


def test_encoders_without_attention_or_positions_are_refused() -> None:
    encoder = ConvNet(ConvNetConfig())
    with pytest.raises(SettingError, match="Positions of ConvNet: got no table"):
        position_similarity(encoder)
    with pytest.raises(SettingError, match="Attention of ConvNet: got no layer"):
        collect_attention(encoder).__enter__()
    model = build_model("convnet-s", pooling="azimuth").eval()
    with pytest.raises(SettingError, match="Attention of ConvNet"):
        layer_attention(model, "ground", torch.rand(1, 3, 128, 512))


@pytest.mark.parametrize("name", ENCODERS)
def test_position_similarity_equals_the_loop(name: str) -> None:
    encoder = ENCODERS[name]()
    similarity = position_similarity(encoder)
    assert similarity.shape == (2, 3, 2, 3)
    if name == "saig":
        table = encoder.pos_embed[0]
    else:
        table = encoder.transformer.embeddings.position_embeddings[0, 1:]
    for one in range(6):
        for other in range(6):
            expected = torch.cosine_similarity(table[one], table[other], dim=0).item()
            found = similarity[one // 3, one % 3, other // 3, other % 3]
            assert found == pytest.approx(expected, abs=1e-6)


def test_position_similarity_by_hand() -> None:
    """Rows of tokens similar, columns opposite: 1 along a column, -1 across."""
    encoder = saig((32, 32))
    with torch.no_grad():
        encoder.pos_embed[:] = torch.tensor([1.0, -2.0, 3.0, -4.0])[None, :, None]
    similarity = position_similarity(encoder)
    np.testing.assert_allclose(similarity[0, 0], [[1, -1], [1, -1]], atol=1e-6)
    np.testing.assert_allclose(similarity[1, 1], [[-1, 1], [-1, 1]], atol=1e-6)


def test_rows_of_positions_make_one_column() -> None:
    encoder = saig(positions="rows", is_wrapped=True)
    assert position_similarity(encoder).shape == (2, 1, 2, 1)


def test_positions_that_never_learned_are_refused() -> None:
    encoder = L2ltr(L2ltrConfig((32, 32), 1, 8, 2, 8, (1, 1, 1)))
    with pytest.raises(SettingError, match="Positions of L2ltr: got one of length 0"):
        position_similarity(encoder)


def random_attention(layers: int, tokens: int) -> np.ndarray:
    values = np.random.default_rng(0).uniform(size=(layers, tokens, tokens)) ** 4
    return (values / values.sum(axis=2, keepdims=True)).astype(np.float32)


def test_rollout_equals_the_slow_loop() -> None:
    """Carry each input token through the layers alone, token by token."""
    weights = random_attention(4, 5)
    shifted = rollout(weights)
    for source in range(5):
        held = [float(token == source) for token in range(5)]
        for layer in weights.tolist():
            held = [
                0.5 * held[token]
                + 0.5
                * sum(share * amount for share, amount in zip(layer[token], held, strict=True))
                for token in range(5)
            ]
        np.testing.assert_allclose(shifted[:, source], held, atol=1e-6)
    np.testing.assert_allclose(shifted.sum(axis=1), 1, atol=1e-6)


def test_identity_attention_shifts_out_to_identity() -> None:
    weights = np.repeat(np.eye(4, dtype=np.float32)[None], 3, axis=0)
    np.testing.assert_array_equal(rollout(weights), np.eye(4))


def test_rollout_by_hand() -> None:
    """The first layer swaps two tokens, the second lets both look at the first."""
    swap, first = [[0, 1], [1, 0]], [[1, 0], [1, 0]]
    shifted = rollout(np.array([swap, first], np.float32))
    np.testing.assert_allclose(shifted, [[0.5, 0.5], [0.5, 0.5]])
    swapped = rollout(np.array([first, swap], np.float32))
    np.testing.assert_allclose(swapped, [[0.75, 0.25], [0.75, 0.25]])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones((3, 3)), r"got shape \(3, 3\), expected \(L, N, N\)"),
        (np.ones((0, 3, 3)), "at least one layer"),
        (np.ones((2, 3, 4)), r"got shape \(2, 3, 4\)"),
        (np.ones((2, 3, 3)), "got a row with the sum 3, expected 1"),
        (np.full((1, 2, 2), np.nan), "got a row with the sum nan"),
    ],
)
def test_what_is_no_attention_is_refused(weights: np.ndarray, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        rollout(weights)


def test_descriptor_map_is_a_mean_or_the_row_of_the_class_token() -> None:
    weights = random_attention(1, 6)[0]
    np.testing.assert_allclose(
        descriptor_map(weights, (2, 3)), weights.mean(axis=0).reshape(2, 3), atol=1e-7
    )
    with_class = random_attention(1, 7)[0]
    shares = descriptor_map(with_class, (2, 3))
    np.testing.assert_array_equal(shares, with_class[0, 1:].reshape(2, 3))
    assert shares.sum() == pytest.approx(1 - with_class[0, 0], abs=1e-6)
    with pytest.raises(SettingError, match="expected 8 or 9 tokens a side for a grid of 2 x 4"):
        descriptor_map(weights, (2, 4))


@pytest.mark.parametrize("name", ENCODERS)
def test_figures_are_drawn_from_a_tiny_model(name: str) -> None:
    model = two_branch(ENCODERS[name], GapPooling(12))
    seen = layer_attention(model, "ground", images(1))
    maps = np.stack([descriptor_map(layer, seen.grid) for layer in seen.weights])
    assert len([axes for axes in layer_attention_figure(maps).axes if axes.images]) == 3
    assert position_figure(position_similarity(model.ground_encoder)).axes[0].images
    total = descriptor_map(rollout(seen.weights), seen.grid).sum()
    assert 0.5 < total <= 1 + 1e-6
