"""Parts that several encoders share: padding against torch's own, what inference remembers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.models.convnet import ConvNet, ConvNetConfig
from core.models.layers import PIXELS_AT_ONCE, WeightCache, encode_in_parts, pad_columns


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_padding_equals_torchs_in_value_and_gradient(columns, layout, circular):
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(columns))
    mode = "circular" if circular else "replicate"
    first = images.contiguous(memory_format=layout).requires_grad_()
    second = images.detach().clone().requires_grad_()
    padded = pad_columns(first, columns, circular)
    expected = F.pad(second, (columns, columns, 0, 0), mode=mode)
    assert torch.equal(padded, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    (padded * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_circular_padding_keeps_channels_last():
    images = torch.randn(2, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    assert pad_columns(images, 1, True).is_contiguous(memory_format=torch.channels_last)


class Doubled(nn.Linear):
    """Remembers twice its weight and counts how often it had to compute that."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.doubled, self.computed = WeightCache(), 0

    def ask(self) -> torch.Tensor:
        return self.doubled((self.weight, self.bias), self._compute)[0]

    def _compute(self) -> tuple[torch.Tensor, ...]:
        self.computed += 1
        return (2 * self.weight,)


def exchange(part: Doubled) -> None:
    part.load_state_dict({k: v + 1 for k, v in part.state_dict().items()}, assign=True)


def load(part: Doubled) -> None:
    part.load_state_dict({k: v + 1 for k, v in part.state_dict().items()})


def step(part: Doubled) -> None:
    part(torch.ones(1, 2)).sum().backward()
    torch.optim.AdamW(part.parameters(), lr=0.1).step()


@pytest.mark.parametrize(
    "change", [exchange, load, step, lambda part: part.double(), lambda part: part.half().float()]
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_is_remembered_is_never_stale(change, mode):
    part = Doubled()
    for _ in range(2):
        for _ in range(3):
            with mode():
                assert torch.equal(part.ask(), 2 * part.weight)
        change(part)
    assert part.computed == 2
    assert part.ask().dtype == part.weight.dtype
    assert torch.equal(part.ask(), 2 * part.weight)


def test_a_copy_of_a_model_remembers_for_itself():
    part = Doubled()
    part.ask()
    twin = deepcopy(part)
    with torch.no_grad():
        twin.weight.add_(1)
    assert torch.equal(twin.ask(), 2 * twin.weight)
    assert torch.equal(part.ask(), 2 * part.weight)


def test_a_model_made_for_inference_alone_is_remembered_too():
    with torch.inference_mode():
        part = Doubled()
        assert torch.equal(part.ask(), 2 * part.weight)
        assert torch.equal(part.ask(), 2 * part.weight)
    assert part.computed == 1


def test_a_batch_is_encoded_in_parts_only_without_gradients():
    side = int((PIXELS_AT_ONCE / 2) ** 0.5)
    batch = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, side, side)
    seen: list[int] = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images[:, 0, 0, :1] + 1

    expected = encode(batch)
    with torch.no_grad():
        assert torch.equal(encode_in_parts(encode, batch), expected)
        assert torch.equal(encode_in_parts(encode, batch[:0]), expected[:0])
    assert torch.equal(encode_in_parts(encode, batch), expected)
    assert seen == [5, 2, 2, 1, 0, 5]


def test_the_convnet_infers_what_it_computes_with_gradients_and_notices_new_statistics():
    torch.manual_seed(0)
    net = ConvNet(ConvNetConfig((4, 4, 8, 8), (0, 1, 0, 1)))
    images = torch.randn(2, 3, 32, 64)
    for circular in (True, False):
        net.train()
        net.feature_map(3 * images + 1, circular)  # statistics other than those of a fresh norm
        net.eval()
        slow = net.feature_map(images, circular).detach()
        with torch.inference_mode():
            fast = net.feature_map(images, circular)
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
