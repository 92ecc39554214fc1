from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.layers import SelfAttention, attend, resize_positions
from core.models.pooling import GapPooling, SmdPooling
from core.models.saig import Saig, SaigConfig, saig_d, saig_s, saig_xs
from tests.parity import fill, listed_keys, own_keys, weights

SIZES = {"S": saig_s, "D": saig_d}
GROUND_GAP = [0.0277204760, -0.0386642118, -0.0270067384, 0.0113265196, -0.0523270277]
AERIAL_GAP = [0.1345208007, 0.0362159409, 0.0170693660, -0.0882701864, -0.0665692033]
GROUND_SMD = [-0.0048328608, -0.0087608954, -0.0054469291, -0.0011156147, -0.0119578882]


def branch(name: str, size: tuple[int, int], pooling: str, backbone: str) -> nn.Module:
    """One branch without memory, for counting and naming; `backbone` is the authors' level name."""
    with torch.device("meta"):
        encoder = SIZES[name](size)
        rows, columns = encoder.grid(*size)
        parts = SmdPooling(384, rows * columns) if pooling == "SMD" else GapPooling(384)
    parts.add_module(backbone, encoder)
    return parts


def parity_branch(view: str, size: tuple[int, int]) -> tuple[Saig, Tensor]:
    encoder = saig_s(size).double()
    filled = weights(encoder.state_dict(), f"model_{view}.backbone.")
    encoder.load_state_dict(filled)
    name = {"grd": "ground", "sat": "satellite"}[view]
    return encoder.eval(), fill(name, 1, 3, *size)


def check_parity(
    descriptor: Tensor, first: list[float], last: float, probe: float, tolerance: float
) -> None:
    values = descriptor.double()[0]
    assert values[:5].tolist() == pytest.approx(first, abs=tolerance)
    assert values[-1].item() == pytest.approx(last, abs=tolerance)
    assert (values * fill("probe", len(values))).sum().item() == pytest.approx(probe, abs=tolerance)


@torch.no_grad()
def test_ground_descriptors_equal_the_published_modules() -> None:
    encoder, images = parity_branch("grd", (128, 512))
    features = encoder.feature_map(images)
    check_parity(GapPooling(384)(features), GROUND_GAP, -0.0396726561, -0.1849297217, 1e-9)
    smd = SmdPooling(384, 256).double()
    smd.load_state_dict(weights(smd.state_dict(), "model_grd."))
    check_parity(smd(features), GROUND_SMD, 0.0207432010, 0.2873964954, 1e-9)
    single = encoder.float().feature_map(images.float())
    check_parity(GapPooling(384)(single), GROUND_GAP, -0.0396726561, -0.1849297217, 1e-6)
    check_parity(smd.float()(single), GROUND_SMD, 0.0207432010, 0.2873964954, 1e-6)


@torch.no_grad()
def test_aerial_descriptor_equals_the_published_module() -> None:
    encoder, images = parity_branch("sat", (256, 256))
    features = encoder.feature_map(images)
    check_parity(GapPooling(384)(features), AERIAL_GAP, -0.0660383981, -0.7591076167, 1e-9)
    single = encoder.float().feature_map(images.float())
    check_parity(GapPooling(384)(single), AERIAL_GAP, -0.0660383981, -0.7591076167, 1e-6)


@pytest.mark.parametrize(
    ("name", "pooling", "ground", "aerial", "total"),
    [
        ("S", "GAP", (128, 512), (256, 256), 18_201_600),
        ("S", "SMD", (128, 512), (256, 256), 19_256_848),
        ("S", "GAP", (320, 640), (320, 320), 18_465_792),
        ("S", "SMD", (320, 640), (320, 320), 24_881_408),
        ("D", "GAP", (128, 512), (128, 512), 31_228_416),
        ("D", "SMD", (128, 512), (128, 512), 32_283_664),
        ("D", "GAP", (320, 640), (320, 320), 31_492_608),
        ("D", "SMD", (320, 640), (320, 320), 37_908_224),
    ],
)
def test_parameter_counts(name, pooling, ground, aerial, total) -> None:
    branches = [branch(name, size, pooling, "backbone") for size in (ground, aerial)]
    assert sum(p.numel() for part in branches for p in part.parameters()) == total


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "at_256_tokens", "at_224_px"),
    [("S", 9_100_800, 9_077_760), ("D", 15_614_208, 15_591_168)],
)
def test_parameter_counts_of_one_backbone(name, at_256_tokens, at_224_px) -> None:
    with torch.device("meta"):
        backbone, pretrained = SIZES[name]((128, 512)), SIZES[name]((224, 224))
        classifier = nn.Linear(384, 1000)
    assert count(backbone) == at_256_tokens
    assert count(pretrained) == at_224_px
    assert count(pretrained) + count(classifier) == {"S": 9_462_760, "D": 15_976_168}[name]
    assert 2 * sum(buffer.numel() for buffer in backbone.buffers()) == 5_388


@pytest.mark.parametrize(("tokens", "added"), [(256, 527_624), (800, 5_130_408), (400, 1_285_208)])
def test_parameter_counts_of_smd(tokens: int, added: int) -> None:
    with torch.device("meta"):
        assert count(SmdPooling(384, tokens)) == added


@torch.no_grad()
def test_aerial_smd_equals_its_formula() -> None:
    """No vector of it was published; the formula, entry d * 384 + c, word for word."""
    encoder, batch = parity_branch("sat", (256, 256))
    smd = SmdPooling(384, 256).double()
    smd.load_state_dict(weights(smd.state_dict(), "model_sat."))
    features = encoder.feature_map(batch)
    hidden = (
        torch.einsum("hn,cn->ch", smd.linear1.weight, features[0].flatten(1)) + smd.linear1.bias
    )
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    mixed = hidden @ smd.linear2.weight.T + smd.linear2.bias
    mixed = mixed @ smd.linear3.weight.T + smd.linear3.bias
    expected = [mixed[c, d] for d in range(8) for c in range(384)]
    descriptor = torch.stack(expected)
    torch.testing.assert_close(smd(features)[0], descriptor / descriptor.norm())


@pytest.mark.parametrize("name", ["S", "D"])
@pytest.mark.parametrize("pooling", ["GAP", "SMD"])
def test_keys_are_the_authors_one_to_one(name: str, pooling: str) -> None:
    own = {
        key: value
        for prefix, size in (("model_grd.", (128, 512)), ("model_sat.", (256, 256)))
        for key, value in own_keys(branch(name, size, pooling, "backbone"), prefix).items()
    }
    assert own == listed_keys(f"SAIG_{name}_{pooling}_cvusa")


@pytest.mark.parametrize("name", ["S", "D"])
@pytest.mark.parametrize(("view", "size"), [("grd", (320, 640)), ("sat", (320, 320))])
def test_vigor_keys_are_the_authors_one_to_one(name, view, size) -> None:
    assert own_keys(branch(name, size, "SMD", "backbone")) == listed_keys(
        f"SAIG_{name}_SMD_vigor_{view}"
    )


@pytest.mark.parametrize("name", ["S", "D"])
def test_imagenet_keys_differ_by_the_classifier_only(name: str) -> None:
    with torch.device("meta"):
        own = own_keys(SIZES[name]((224, 224)))
    listed = listed_keys(f"SAIG_{name}_imagenet")
    assert listed.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(listed[key] == own[key] for key in own)


def test_positions_resize_as_published() -> None:
    table = 0.02 * fill("pos_embed", 1, 196, 384)
    resized = resize_positions(table, (14, 14), (8, 32))
    assert resized.shape == (1, 256, 384)
    picked = [resized[0, token, 0].item() for token in (0, 1, -1)]
    assert picked == pytest.approx([0.0169817383, 0.0103459160, 0.0021943077], abs=1e-9)
    assert resized.square().sum().item() == pytest.approx(9.25647706, abs=1e-8)
    assert resize_positions(table, (14, 14), (14, 14)) is table


def small(**changes) -> Saig:
    torch.manual_seed(0)
    stem = ((4, (2, 2)), (8, (2, 2)), (8, (1, 1)), (8, (2, 2)), (8, (2, 1)))
    settings = {"image_size": (32, 64), "depth": 3, "width": 12, "heads": 3, "stem": stem}
    encoder = Saig(SaigConfig(**{**settings, **changes})).double().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return encoder


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def slow_block(tokens: Tensor, block: nn.Module, heads: int) -> Tensor:
    """Pre-norm attention of one image (N, C), head by head and token by token."""
    width = tokens.shape[1]
    size = width // heads
    normed = F.layer_norm(tokens, (width,), block.norm1.weight, block.norm1.bias, eps=1e-6)
    fused = normed @ block.attn.qkv.weight.T + block.attn.qkv.bias
    gathered = torch.zeros_like(tokens)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        query, key, value = (fused[:, part * width :][:, own] for part in range(3))
        for n in range(len(tokens)):
            share = ((query[n] * key).sum(1) / size**0.5).softmax(0)
            gathered[n, own] = (share[:, None] * value).sum(0)
    return tokens + gathered @ block.attn.proj.weight.T + block.attn.proj.bias


@torch.no_grad()
def test_encoder_equals_its_slow_transcription() -> None:
    encoder, batch = small(), images(2, 3, 32, 64)
    stem = encoder.patch_embed.conv_stem(batch)
    for index in range(2):
        tokens = torch.stack([stem[index, :, r, c] for r in range(2) for c in range(8)])
        tokens = tokens + encoder.pos_embed[0]
        for block in encoder.blocks:
            tokens = slow_block(tokens, block, heads=3)
        expected = encoder.norm(tokens)
        torch.testing.assert_close(encoder(batch)[index], expected)
        torch.testing.assert_close(encoder.feature_map(batch)[index, :, 1, 3], expected[1 * 8 + 3])


def test_plain_and_fused_attention_agree_and_so_do_their_modes() -> None:
    query, key, value = (images(2, 3, n, 8) for n in (5, 7, 7))
    plain = attend(query, key, value)
    with torch.no_grad():
        fused = attend(query, key, value)
    torch.testing.assert_close(plain, fused)
    encoder, batch = small(), images(1, 3, 32, 64)
    with torch.no_grad():
        expected = encoder(batch)
    torch.testing.assert_close(encoder(batch), expected)


@pytest.mark.parametrize("wrapped", [{}, {"positions": "rows", "is_wrapped": True}])
def test_folded_norms_follow_the_weights(wrapped) -> None:
    """Inference folds each batch norm into its convolution; training then changes both."""
    encoder, batch = small(**wrapped), images(2, 3, 32, 64)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    for _ in range(2):
        layer_by_layer = encoder(batch, circular=True).detach()
        with torch.no_grad():
            torch.testing.assert_close(encoder(batch, circular=True), layer_by_layer)
            torch.testing.assert_close(
                encoder.feature_map(batch, circular=True).flatten(2).mT, layer_by_layer
            )
        encoder.train()(batch, circular=True).square().sum().backward()
        optimizer.step()
        encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("build", [saig_xs, saig_s])
def test_turning_a_panorama_turns_its_tokens_and_nothing_else(build) -> None:
    size = (64, 256)
    encoder = build(size, azimuth=True).double().eval()
    batch, step = images(1, 3, *size), encoder.stride[1]
    shifted = encoder.feature_map(batch.roll(3 * step, dims=3), circular=True)
    expected = encoder.feature_map(batch, circular=True).roll(3, dims=3)
    torch.testing.assert_close(shifted, expected)


@torch.no_grad()
def test_official_padding_is_not_circular() -> None:
    encoder, batch = small(), images(1, 3, 32, 64)
    assert torch.equal(encoder(batch, circular=True), encoder(batch, circular=False))


@torch.no_grad()
def test_a_crop_sees_no_border_that_the_world_does_not_have() -> None:
    encoder = small(positions="rows", is_wrapped=True)
    stripes = images(2, 3, 32, 1).expand(-1, -1, -1, 64)
    whole = encoder.feature_map(stripes, circular=True)
    crop = encoder.feature_map(stripes[..., :24])
    assert crop.shape == (2, 12, 2, 3)
    torch.testing.assert_close(crop, whole[..., :3])


@torch.no_grad()
def test_grid_positions_stretch_to_another_size() -> None:
    encoder = small()
    encoder.pos_embed.copy_(fill("p", 1, 16, 12))
    torch.testing.assert_close(
        encoder._positions((4, 8)), resize_positions(encoder.pos_embed, (2, 8), (4, 8))
    )
    assert encoder.feature_map(images(1, 3, 64, 64)).shape == (1, 12, 4, 8)


@torch.no_grad()
def test_row_positions_are_equal_along_a_row() -> None:
    encoder = small(positions="rows", is_wrapped=True)
    positions = encoder._positions((2, 5)).reshape(2, 5, 12)
    assert encoder.pos_embed.shape == (1, 2, 12)
    torch.testing.assert_close(positions, encoder.pos_embed[0, :, None].expand(2, 5, 12))


def test_every_parameter_learns() -> None:
    encoder = small(positions="rows", is_wrapped=True).train()
    (encoder(images(2, 3, 32, 64), circular=True) * images(2, 16, 12)).sum().backward()
    still = [k for k, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_small_size_is_small_and_has_a_column_for_each_bin() -> None:
    encoder = saig_xs((64, 256), azimuth=True)
    assert 0.9e6 < sum(p.numel() for p in encoder.parameters()) < 2e6
    assert encoder.grid(64, 256) == (4, 32)
    assert saig_xs((128, 512), azimuth=True).grid(128, 512) == (8, 32)
    assert saig_xs((256, 256)).grid(256, 256) == (16, 16)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(SettingError, match="112 x 616"):
        saig_s((112, 616))
    with pytest.raises(SettingError, match="multiples of 16 x 8"):
        small()(images(1, 3, 30, 64))
    with pytest.raises(ValueError, match="heads"):
        SelfAttention(10, 3)
