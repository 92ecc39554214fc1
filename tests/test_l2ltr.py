from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.l2ltr import L2ltr, L2ltrConfig, ResidualUnit, StdConv2d
from tests.parity import fill, listed_keys, own_keys, weights

GROUND = [0.0551338649, 0.0105682426, -0.0459198484, 0.0282682019, 0.0035278827]


@pytest.fixture(scope="module")
def official_shape() -> L2ltr:
    with torch.device("meta"):
        return L2ltr()


def test_keys_are_the_authors_one_to_one(official_shape: L2ltr) -> None:
    assert own_keys(official_shape) == listed_keys("L2LTR")


def test_keys_are_the_same_for_a_square_tile() -> None:
    with torch.device("meta"):
        assert own_keys(L2ltr(L2ltrConfig(image_size=(256, 256)))) == listed_keys("L2LTR")


def test_parameter_counts(official_shape: L2ltr) -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert 2 * count(official_shape) == 195_909_248
    assert count(official_shape.transformer.embeddings.hybrid_model) == 11_894_848
    assert count(official_shape.transformer.encoder) == 85_074_432
    assert list(official_shape.buffers()) == []


@pytest.fixture(scope="module")
def official(official_shape: L2ltr) -> L2ltr:
    """The encoder with the parity weights, float64; tests that change it change it back."""
    filled = weights(official_shape.state_dict(), "")
    with torch.device("meta"):
        encoder = L2ltr().eval()
    encoder.load_state_dict(filled, assign=True)
    return encoder


@pytest.fixture(scope="module")
def described(official: L2ltr) -> Tensor:
    with torch.no_grad():
        return official.describe(fill("ground", 1, 3, 128, 512))[0]


def check_parity(descriptor: Tensor, tolerance: float) -> None:
    assert descriptor[:5].tolist() == pytest.approx(GROUND, abs=tolerance)
    assert descriptor[-1].item() == pytest.approx(0.0105802728, abs=tolerance)
    probe = descriptor @ fill("probe", 768)
    assert probe.item() == pytest.approx(-0.4013018209, abs=tolerance)


def test_descriptor_equals_the_published_module(described: Tensor) -> None:
    check_parity(described, 1e-9)


@torch.no_grad()
def test_two_easy_mistakes_would_be_seen(official: L2ltr, described: Tensor) -> None:
    """How far the published descriptor moves if keys come from the wrong layer, or by another eps."""
    images = fill("ground", 1, 3, 128, 512)
    norms = [part for name, part in official.named_modules() if name.endswith("gn_proj")]
    for norm in norms:
        norm.eps = 1e-6
    moved = (official.describe(images)[0] - described).abs().max().item()
    for norm in norms:
        norm.eps = 1e-5
    assert moved == pytest.approx(5e-8, rel=0.2)
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[0]))
        for layer in official.transformer.encoder.layer
    ]
    moved = (official.describe(images)[0] - described).abs().max().item()
    for hook in hooks:
        hook.remove()
    assert moved == pytest.approx(1.3e-3, rel=0.05)


@torch.no_grad()
def test_single_precision_is_within_its_tolerance(official: L2ltr) -> None:
    with torch.device("meta"):
        single = L2ltr().eval()
    single.load_state_dict({k: v.float() for k, v in official.state_dict().items()}, assign=True)
    descriptor = single.describe(fill("ground", 1, 3, 128, 512).float())[0]
    check_parity(descriptor.double(), 1e-4)


def small(**changes) -> L2ltr:
    torch.manual_seed(0)
    settings = {"image_size": (32, 48), "depth": 3, "width": 16, "heads": 2, "hidden": 24}
    config = L2ltrConfig(**{**settings, "units": (1, 1, 1), **changes})
    encoder = L2ltr(config).double().eval()
    nn.init.normal_(encoder.transformer.embeddings.position_embeddings)
    nn.init.normal_(encoder.transformer.embeddings.cls_token)
    return encoder


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def slow_layer(layer: nn.Module, tokens: Tensor, previous: Tensor, heads: int) -> Tensor:
    """One cross-layer layer of one image (N, C), query by query."""
    first, second = layer.attention_norm_1(tokens), layer.attention_norm_2(previous)
    query, value = layer.attn.query(first), layer.attn.value(first)
    key = layer.attn.key(second)
    size = tokens.shape[1] // heads
    gathered = torch.zeros_like(tokens)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for n in range(len(tokens)):
            share = ((key[:, own] @ query[n, own]) / size**0.5).softmax(0)
            gathered[n, own] = share @ value[:, own]
    tokens = tokens + layer.attn.out(gathered)
    hidden = F.gelu(layer.ffn.fc1(layer.ffn_norm(tokens)))
    return tokens + layer.ffn.fc2(hidden)


@torch.no_grad()
def test_layers_take_keys_from_the_input_of_the_layer_before() -> None:
    encoder, batch = small(), images(2, 3, 32, 48)
    embedded = encoder.transformer.embeddings(batch)
    for index in range(2):
        inputs = [embedded[index]]
        for number, layer in enumerate(encoder.transformer.encoder.layer):
            inputs.append(slow_layer(layer, inputs[-1], inputs[max(0, number - 1)], heads=2))
        expected = encoder.transformer.encoder.encoder_norm(inputs[-1])
        torch.testing.assert_close(encoder(batch)[index], expected)
        torch.testing.assert_close(encoder.feature_map(batch)[index, :, 1, 2], expected[1 + 5])
        unit = expected[0] / expected[0].norm()
        torch.testing.assert_close(encoder.describe(batch)[index], unit)


@torch.no_grad()
def test_embedding_puts_the_class_token_first_and_adds_positions() -> None:
    encoder, batch = small(), images(1, 3, 32, 48)
    part = encoder.transformer.embeddings
    features = part.patch_embeddings(part.hybrid_model(batch))
    expected = [part.cls_token[0, 0] + part.position_embeddings[0, 0]]
    for row in range(2):
        for column in range(3):
            position = part.position_embeddings[0, 1 + row * 3 + column]
            expected.append(features[0, :, row, column] + position)
    torch.testing.assert_close(part(batch)[0], torch.stack(expected))


@torch.no_grad()
def test_filters_are_standardised_at_every_use() -> None:
    conv = StdConv2d(4, 6, 3).double()
    weight = conv.weight
    standard = torch.stack([(w - w.mean()) / (w.var(unbiased=False) + 1e-5).sqrt() for w in weight])
    expected = F.conv2d(images(1, 4, 5, 5), standard, padding=1)
    torch.testing.assert_close(conv(images(1, 4, 5, 5)), expected)
    conv.weight.mul_(7.0).add_(3.0)
    torch.testing.assert_close(conv(images(1, 4, 5, 5)), expected, atol=1e-3, rtol=1e-3)
    conv.weight.copy_(conv.weight.flip(1))  # what is remembered without gradients is not stale
    assert not torch.allclose(conv(images(1, 4, 5, 5)), expected, atol=1e-1)


def test_shortcut_is_projected_only_where_the_shape_changes() -> None:
    names = {name.split(".")[0] for name, _ in ResidualUnit(64, 256, 1).named_parameters()}
    assert {"downsample", "gn_proj"} <= names
    kept = {name.split(".")[0] for name, _ in ResidualUnit(256, 256, 1).named_parameters()}
    assert "downsample" not in kept
    assert ResidualUnit(64, 256, 1).gn_proj.num_groups == 256


def test_dropout_acts_in_training_only() -> None:
    encoder, batch = small(dropout=0.5), images(1, 3, 32, 48)
    torch.testing.assert_close(encoder(batch), encoder(batch))
    encoder.train()
    assert not torch.allclose(encoder(batch), encoder(batch))


def test_every_parameter_learns() -> None:
    encoder = small().train()
    (encoder(images(2, 3, 32, 48)) * images(2, 7, 16)).sum().backward()
    still = {k for k, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    assert {k for k in still if not k.endswith("key.bias")} == set()


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(SettingError, match="multiples of 16"):
        L2ltr(L2ltrConfig(image_size=(100, 512)))
    with pytest.raises(SettingError, match="got 32 x 64 px, expected 32 x 48"):
        small()(images(1, 3, 32, 64))
