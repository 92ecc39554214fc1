"""Azimuth shifts against a slow loop, and the heading's sign through a whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.errors import SettingError
from core.localization.search import shift_queries
from core.models import build_model
from core.models.azimuth import shift_similarity
from core.polar import BINS, heading_from_shift


def unit_bins(rows: int, size: int, seed: int) -> torch.Tensor:
    bins = torch.randn(rows, BINS, size, generator=torch.Generator().manual_seed(seed))
    return (F.normalize(bins, dim=2) / BINS**0.5).flatten(1)


@pytest.mark.parametrize(("queries", "tiles"), [(3, 7), (7, 3)])
@pytest.mark.parametrize("count", [1, 5, 32])
def test_shift_similarity_equals_the_slow_loop(queries: int, tiles: int, count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(queries, count * 4, generator=generator)
    views = F.normalize(views, dim=1)
    places = unit_bins(tiles, 4, 2)
    fast = shift_similarity(views, places)
    for q in range(queries):
        for r in range(tiles):
            for azimuth_shift in (0, 1, 17, 31):
                slow = sum(
                    float(views[q, 4 * i : 4 * i + 4] @ places[r, 4 * b : 4 * b + 4])
                    for i, b in ((i, (azimuth_shift + i) % BINS) for i in range(count))
                )
                assert abs(slow * (BINS / count) ** 0.5 - float(fast[q, r, azimuth_shift])) < 1e-5


def test_torch_and_numpy_sides_agree() -> None:
    views = F.normalize(torch.randn(1, 6 * 4), dim=1)
    places = unit_bins(5, 4, 3)
    laid = shift_queries(views[0].numpy(), 6)
    assert np.allclose(laid @ places.numpy().T, shift_similarity(views, places)[0].T, atol=1e-5)


def test_a_perfect_partial_match_has_similarity_one_at_its_shift() -> None:
    places = unit_bins(4, 8, 4)
    view = places[2].view(BINS, 8)[torch.arange(30, 36) % BINS].flatten()
    curve = shift_similarity(F.normalize(view, dim=0)[None], places)[0]
    assert curve.max() == pytest.approx(1.0, abs=1e-5)
    assert divmod(int(curve.argmax()), BINS) == (2, 30)
    assert heading_from_shift(30, 6) == pytest.approx((-180 + 33 * 11.25) % 360)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SettingError, match="bins of 4"):
        shift_similarity(torch.zeros(1, 7), torch.zeros(2, BINS * 4))


def azimuth_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("convnet-s", "azimuth", (64, 256), (64, 64), dim=8).eval()


def test_describing_a_shifted_canvas_shifts_its_bins() -> None:
    """On a full canvas the network is equivariant to whole bins: azimuth shifts mean headings."""
    model = azimuth_model()
    canvas = torch.rand(1, 3, 64, 256)
    with torch.inference_mode():
        plain = model.describe_ground(canvas).view(BINS, 8)
        shifted = model.describe_ground(canvas.roll(8 * 3, dims=3)).view(BINS, 8)
    assert torch.allclose(plain.roll(3, dims=0), shifted, atol=1e-5)


def test_descriptors_are_unit_and_tile_bins_are_equal() -> None:
    model = azimuth_model()
    with torch.inference_mode():
        ground = model.describe_ground(torch.rand(2, 3, 64, 5 * 8))
        aerial = model.describe_aerial(torch.rand(2, 3, 64, 64))
    assert ground.shape == (2, 40)
    assert torch.allclose(ground.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(aerial.view(2, BINS, 8).norm(dim=2) ** 2, torch.tensor(1 / BINS))


def test_a_crop_is_described_from_what_it_shows_alone() -> None:
    """Pixels outside the crop cannot matter: there is no blank canvas around it."""
    model = azimuth_model()
    canvas = torch.rand(1, 3, 64, 256)
    other = torch.rand(1, 3, 64, 256)
    other[..., 80:144] = canvas[..., 80:144]
    with torch.inference_mode():
        crops = [model.describe_ground(image[..., 80:144]) for image in (canvas, other)]
    assert torch.equal(*crops)


def test_wrong_sizes_are_refused_with_what_was_expected() -> None:
    model = azimuth_model()
    with pytest.raises(SettingError, match="whole bins of 8 px"):
        model.describe_ground(torch.rand(1, 3, 64, 41))
    with pytest.raises(SettingError, match="Pooling: got 'mean'"):
        build_model("convnet-s", "mean")
    with pytest.raises(SettingError, match="Model: got 'resnet'"):
        build_model("resnet")


def test_timm_encoders_carry_azimuth_bins_too() -> None:
    model = build_model("timm/resnet10t", "azimuth", (64, 256), (64, 64), dim=4).eval()
    with torch.inference_mode():
        assert model.describe_ground(torch.rand(2, 3, 64, 8 * 8)).shape == (2, 8 * 4)
        assert model.describe_aerial(torch.rand(2, 3, 64, 64)).shape == (2, BINS * 4)


def test_l2ltr_describes_by_its_class_token_and_nothing_else() -> None:
    with torch.device("meta"):
        model = build_model("l2ltr", "cls", (128, 512), (256, 256))
        assert model.dim == 768
        assert model.describe_ground(torch.rand(1, 3, 128, 512)).shape == (1, 768)
        assert model.describe_aerial(torch.rand(1, 3, 256, 256)).shape == (1, 768)
    with pytest.raises(SettingError, match="'gap' for l2ltr, which describes by its class token"):
        build_model("l2ltr", "gap")
    with pytest.raises(SettingError, match="'cls' for saig-s, which has no class token"):
        build_model("saig-s", "cls")
