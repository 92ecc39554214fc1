"""The three published parameter counts and the filler, checked on the models as they are built.

The other rows of the parity sheet stand with their modules: descriptors and position tables in
``test_saig.py`` and ``test_l2ltr.py``, losses in ``test_losses.py``, the ASAM step in
``test_optimizers.py``, the polar transform in ``test_safa_polar.py``, key lists in those and in
``test_pretrained.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.models import build_model
from core.models.pretrained import split_official
from tests.parity import SIZES, fill, listed_keys

KEYS = sorted(path.stem for path in (Path(__file__).parent / "data" / "keys").glob("*.txt"))
COUNTS = {
    "L2LTR": 378,
    "SAIG_D_GAP_cvusa": 358,
    "SAIG_D_SMD_cvusa": 370,
    "SAIG_D_SMD_vigor_grd": 185,
    "SAIG_D_SMD_vigor_sat": 185,
    "SAIG_D_imagenet": 181,
    "SAIG_S_GAP_cvusa": 226,
    "SAIG_S_SMD_cvusa": 238,
    "SAIG_S_SMD_vigor_grd": 119,
    "SAIG_S_SMD_vigor_sat": 119,
    "SAIG_S_imagenet": 115,
}


@pytest.mark.parametrize(("name", "pooling", "total"), SIZES)
@pytest.mark.parametrize("polar", [False, True])
def test_models_by_name_have_the_published_size(name, pooling, total, polar) -> None:
    """Parameters alone: built without memory, so that L2LTR costs nothing."""
    with torch.device("meta"):
        model = build_model(name, pooling, (128, 512), (256, 256), polar=polar)
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_every_list_of_keys_is_whole() -> None:
    assert {name: len(listed_keys(name)) for name in KEYS} == COUNTS


@pytest.mark.parametrize("name", [name for name in KEYS if "cvusa" in name])
def test_no_key_of_a_published_file_is_left_over(name: str) -> None:
    dtypes = {"torch.float32": torch.float32, "torch.int64": torch.int64}
    listed = {
        key: torch.empty(shape, dtype=dtypes[dtype], device="meta")
        for key, (shape, dtype) in listed_keys(name).items()
    }
    assert split_official({"model": listed}).dropped == ()


def test_the_filler_depends_on_the_key_alone() -> None:
    published = [0.8580105845, -0.1332753394, -0.7219695505, -0.1235811999]
    assert fill("w", 4).tolist() == pytest.approx(published, abs=1e-10)
    assert torch.equal(fill("w", 2, 3).flatten(), fill("w", 6))
    assert -1 <= fill("x", 1000).min() < -0.9 < 0.9 < fill("x", 1000).max() < 1
