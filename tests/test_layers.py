"""Padding that several encoders share, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from core.models.layers import pad_columns


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_padding_equals_torchs_in_value_and_gradient(columns, layout, circular):
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(columns))
    mode = "circular" if circular else "replicate"
    first = images.contiguous(memory_format=layout).requires_grad_()
    second = images.detach().clone().requires_grad_()
    padded = pad_columns(first, columns, circular)
    expected = functional.pad(second, (columns, columns, 0, 0), mode=mode)
    assert torch.equal(padded, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    (padded * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_circular_padding_keeps_channels_last():
    images = torch.randn(2, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    assert pad_columns(images, 1, True).is_contiguous(memory_format=torch.channels_last)
