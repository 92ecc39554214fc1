"""Files as the papers' authors publish them, of thin models with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.models import MODELS, build_model
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.saig import Saig, SaigConfig
from core.models.two_branch import TwoBranch
from tests.parity import fill

THIN = ((4, (2, 2)), (4, (2, 2)), (4, (1, 1)), (8, (2, 2)), (8, (1, 1)), (8, (2, 2)))
DEPTHS = {"saig-s": 11, "saig-d": 22}
EXTRA = {"optimizer": {"state": {0: {"old_p": torch.ones(2)}}}, "epoch": 3, "best_acc": 0.5}


def thin_saig(size: tuple[int, int], depth: int) -> Saig:
    return Saig(SaigConfig(size, depth, 12, 3, THIN))


def thin_l2ltr(size: tuple[int, int]) -> L2ltr:
    """Published depth, but one residual unit for each of the stem's blocks: its width is fixed."""
    return L2ltr(L2ltrConfig(size, width=24, heads=2, hidden=8, units=(1, 1, 1)))


def make_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published names and depths at a hundredth of the width: nearly every published key."""
    for name, depth in DEPTHS.items():
        build = lambda size, azimuth, depth=depth: thin_saig(size, depth)  # noqa: E731
        monkeypatch.setitem(MODELS, name, build)
    monkeypatch.setitem(MODELS, "l2ltr", lambda size, azimuth: thin_l2ltr(size))


def trained(name: str, pooling: str, **geometry: Any) -> TwoBranch:
    """A model whose every weight is random, batch statistics too."""
    model = build_model(name, pooling, **geometry).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.01, 0.2)
    return model


def branches(model: TwoBranch, backbone: str = "backbone.") -> tuple[dict[str, Tensor], ...]:
    """The two branches under the authors' names."""
    pairs = (
        (model.ground_encoder, model.ground_pool),
        (model.aerial_encoder, model.aerial_pool),
    )
    return tuple(
        {
            **{backbone + key: value for key, value in encoder.state_dict().items()},
            **pool.state_dict(),
        }
        for encoder, pool in pairs
    )


def paired(model: TwoBranch) -> dict[str, Any]:
    ground, aerial = branches(model)
    state = {f"model_grd.{key}": value for key, value in ground.items()}
    return {"model": state | {f"model_sat.{key}": value for key, value in aerial.items()}, **EXTRA}


class Archive(dict[str, np.ndarray]):
    """An encoder's weights under the names and axes of the Flax archive."""

    def __init__(self, encoder: L2ltr, heads: int) -> None:
        super().__init__()
        self.state = {
            k.removeprefix("transformer."): v.numpy() for k, v in encoder.state_dict().items()
        }
        self.shape = (encoder.channels, heads, encoder.channels // heads)
        self["cls"] = self.state["embeddings.cls_token"]
        table = fill("p", 1, 197, encoder.channels).numpy()
        self["Transformer/posembed_input/pos_embedding"] = table
        self["head/kernel"], self["head/bias"] = np.zeros((16, 5)), np.zeros(5)
        self.add_stem("embeddings.hybrid_model.")
        for number in range(encoder.config.depth):
            self.add_layer(f"Transformer/encoderblock_{number}/", f"encoder.layer.{number}.")
        self.add_norm("Transformer/encoder_norm", "encoder.encoder_norm")

    def add_stem(self, stem: str) -> None:
        self.add_filter("conv_root", stem + "root.conv")
        self.add_norm("gn_root", stem + "root.gn")
        self.add_filter("embedding", "embeddings.patch_embeddings")
        self["embedding/bias"] = self.state["embeddings.patch_embeddings.bias"]
        for key in self.state:
            if key.startswith(stem + "body.") and key.endswith(".weight"):
                own = key.removesuffix(".weight")
                name = own.removeprefix(stem + "body.").replace(".", "/")
                add = self.add_norm if "gn" in name else self.add_filter
                add(name.replace("downsample", "conv_proj"), own)

    def add_layer(self, name: str, own: str) -> None:
        self.add_norm(name + "LayerNorm_0", own + "attention_norm_1")
        self.add_norm(name + "LayerNorm_2", own + "ffn_norm")
        for number in (1, 2):
            self.add_linear(f"{name}MlpBlock_3/Dense_{number - 1}", f"{own}ffn.fc{number}")
        width, heads, size = self.shape
        for part in ("query", "key", "value", "out"):
            full = f"{name}MultiHeadDotProductAttention_1/{part}"
            self.add_linear(full, f"{own}attn.{part}")
            axes = (heads, size, width) if part == "out" else (width, heads, size)
            self[full + "/kernel"] = self[full + "/kernel"].reshape(axes)
            if part != "out":
                self[full + "/bias"] = self[full + "/bias"].reshape(heads, size)

    def add_filter(self, name: str, own: str) -> None:
        self[name + "/kernel"] = self.state[own + ".weight"].transpose(2, 3, 1, 0)

    def add_linear(self, name: str, own: str) -> None:
        self[name + "/kernel"] = self.state[own + ".weight"].T
        self[name + "/bias"] = self.state[own + ".bias"]

    def add_norm(self, name: str, own: str) -> None:
        self[name + "/scale"] = self.state[own + ".weight"]
        self[name + "/bias"] = self.state[own + ".bias"]
