from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from core.errors import CheckpointError, SettingError
from core.models.timm_encoder import TimmEncoder

SIZE = (64, 256)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "largest", "channels", "stride"),
    [
        ("timm/convnext_atto", 32, 320, 32),
        ("convnext_atto", 16, 160, 16),
        ("resnet18", 16, 256, 16),
        ("vit_tiny_patch16_224", 32, 192, 16),
        ("swin_tiny_patch4_window7_224", 16, 384, 16),
    ],
)
@torch.no_grad()
def test_any_network_gives_a_feature_map(name, largest, channels, stride) -> None:
    encoder = TimmEncoder(name, SIZE, largest_stride=largest).eval()
    assert (encoder.channels, encoder.stride) == (channels, (stride, stride))
    features = encoder.feature_map(images(2, 3, *SIZE))
    assert features.shape == (2, channels, 64 // stride, 256 // stride)
    torch.testing.assert_close(
        encoder(images(2, 3, *SIZE))[:, 1], features[:, :, 0, 1], msg="tokens are row-major"
    )


@torch.no_grad()
def test_wrapped_columns_let_a_panorama_close_on_itself() -> None:
    errors = []
    for is_wrapped in (True, False):
        torch.manual_seed(0)
        encoder = TimmEncoder("resnet18", SIZE, largest_stride=16, is_wrapped=is_wrapped).eval()
        batch = images(1, 3, *SIZE)
        shifted = encoder.feature_map(batch.roll(32, dims=3), circular=True).roll(-2, dims=3)
        expected = encoder.feature_map(batch, circular=True)
        assert expected.shape == (1, 256, 4, 16)
        errors.append(float((shifted - expected).abs().mean()))
    assert errors[0] < 0.25 * errors[1]


@torch.no_grad()
def test_crops_keep_their_columns() -> None:
    encoder = TimmEncoder("resnet18", SIZE, largest_stride=16, is_wrapped=True).eval()
    assert encoder.feature_map(images(1, 3, 64, 80)).shape[-1] == 5
    assert encoder.feature_map(images(1, 3, 64, 72)).shape[-1] == 5
    assert encoder.feature_map(images(1, 3, 64, 16)).shape[-1] == 1


def test_normalisation_is_the_networks_own() -> None:
    assert TimmEncoder("resnet18", SIZE).mean == (0.485, 0.456, 0.406)
    assert TimmEncoder("vit_tiny_patch16_224", SIZE).std == (0.5, 0.5, 0.5)


def test_learns() -> None:
    encoder = TimmEncoder("convnext_atto", SIZE)
    encoder.feature_map(images(2, 3, *SIZE)).square().mean().backward()
    still = {k for k, p in encoder.named_parameters() if p.grad is None}
    assert still == set()


def test_unknown_network_is_answered_with_names_like_it() -> None:
    with pytest.raises(SettingError, match=r"'convnext_ato'.*convnext_atto"):
        TimmEncoder("timm/convnext_ato", SIZE)
    with pytest.raises(SettingError, match="expected one of at most 2"):
        TimmEncoder("convnext_atto", SIZE, largest_stride=2)


def test_missing_download_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    TimmEncoder("resnet18", SIZE)
    timm = sys.modules["timm"]
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, **settings: object) -> object:
        if pretrained:
            raise OSError("no route to the hub")
        return create(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match="no route to the hub"):
        TimmEncoder("resnet18", SIZE, pretrained=True)


def test_importing_the_module_does_not_import_timm() -> None:
    program = "import sys, core.models.timm_encoder; sys.exit('timm' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)
