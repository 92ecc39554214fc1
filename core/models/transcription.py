"""SAIG and L2LTR written plainly, layer by layer as published; our encoders must equal them.

SAIG: https://arxiv.org/abs/2302.01572. L2LTR: https://arxiv.org/abs/2107.00842. Nothing is fused,
folded or cached here: scores, softmax and weighted sum are three steps, batch norms are layers
of their own, filters are standardised at every use. Nothing of ours is imported either, and the
state-dict names are the authors', so that the very weights of an encoder load strictly.

``python -m core bench models`` measures our encoders against these; nothing else runs them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PlainL2ltr", "PlainSaig"]


class _ConvStem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, stride in ((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, 1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.conv_stem = nn.Sequential(*layers, nn.Conv2d(512, 384, 1))

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.conv_stem(images)
        return tokens.flatten(2).transpose(1, 2)


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(384, 1152)
        self.proj = nn.Linear(384, 384)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, 12, 32).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        scores = (query @ key.transpose(-2, -1)) * 32**-0.5
        gathered = scores.softmax(dim=-1) @ value
        projected: Tensor = self.proj(gathered.transpose(1, 2).reshape(batch, count, 384))
        return projected


class _AttentionBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(384, eps=1e-6)
        self.attn = _SelfAttention()

    def forward(self, x: Tensor) -> Tensor:
        gathered: Tensor = self.attn(self.norm1(x))
        return x + gathered


class PlainSaig(nn.Module):
    """SAIG with mean pooling; ``depth`` 11 is SAIG-S, 22 is SAIG-D.

    Args:
        tokens: N, a sixteenth of the height times a sixteenth of the width of a view.
        depth: attention blocks.

    """

    def __init__(self, tokens: int, depth: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, 384))
        self.patch_embed = _ConvStem()
        self.blocks = nn.Sequential(*(_AttentionBlock() for _ in range(depth)))
        self.norm = nn.LayerNorm(384, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Describe normalised images (B, 3, H, W): unit vectors (B, 384)."""
        tokens = self.norm(self.blocks(self.patch_embed(images) + self.pos_embed))
        return F.normalize(tokens.mean(dim=1), dim=1)


class _StdConv(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, correction=0)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1, self.gn1 = _StdConv(inputs, middle, 1), nn.GroupNorm(32, middle, 1e-6)
        self.conv2, self.gn2 = _StdConv(middle, middle, 3, stride), nn.GroupNorm(32, middle, 1e-6)
        self.conv3, self.gn3 = _StdConv(middle, outputs, 1), nn.GroupNorm(32, outputs, 1e-6)
        if stride != 1 or inputs != outputs:
            self.downsample = _StdConv(inputs, outputs, 1, stride)
            self.gn_proj = nn.GroupNorm(outputs, outputs, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.gn_proj(self.downsample(x)) if hasattr(self, "downsample") else x
        y = torch.relu(self.gn1(self.conv1(x)))
        y = torch.relu(self.gn2(self.conv2(y)))
        return torch.relu(shortcut + self.gn3(self.conv3(y)))


def _stem() -> nn.ModuleDict:
    """ResNetV2-50 without its last stage, under the authors' names."""
    root = nn.ModuleDict({"conv": _StdConv(3, 64, 7, 2), "gn": nn.GroupNorm(32, 64, 1e-6)})
    body = nn.ModuleDict()
    inputs = 64
    for number, (units, outputs) in enumerate(((3, 256), (4, 512), (9, 1024)), start=1):
        block = nn.ModuleDict()
        for unit in range(1, units + 1):
            stride = 2 if number > 1 and unit == 1 else 1
            block[f"unit{unit}"] = _Unit(inputs, outputs, stride)
            inputs = outputs
        body[f"block{number}"] = block
    return nn.ModuleDict({"root": root, "body": body})


def _layer() -> nn.ModuleDict:
    """One transformer layer, under the authors' names."""
    norms = ("attention_norm_1", "attention_norm_2", "ffn_norm")
    parts = {name: nn.LayerNorm(768, eps=1e-6) for name in norms}
    maps = {name: nn.Linear(768, 768) for name in ("query", "key", "value", "out")}
    mlp = {"fc1": nn.Linear(768, 3072), "fc2": nn.Linear(3072, 768)}
    return nn.ModuleDict({**parts, "attn": nn.ModuleDict(maps), "ffn": nn.ModuleDict(mlp)})


class PlainL2ltr(nn.Module):
    """L2LTR's R50+ViT-B/16 in evaluation: without its dropout, which is for training.

    Args:
        tokens: N, a sixteenth of the height times a sixteenth of the width of a view.

    """

    transformer: Any

    def __init__(self, tokens: int) -> None:
        super().__init__()
        embeddings: Any = nn.Module()
        embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + tokens, 768))
        embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, 768))
        embeddings.hybrid_model = _stem()
        embeddings.patch_embeddings = nn.Conv2d(1024, 768, 1)
        encoder = nn.ModuleDict(
            {
                "layer": nn.ModuleList(_layer() for _ in range(12)),
                "encoder_norm": nn.LayerNorm(768, eps=1e-6),
            }
        )
        self.transformer = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})

    def forward(self, images: Tensor) -> Tensor:
        """Describe normalised images (B, 3, H, W): unit vectors (B, 768)."""
        hidden = previous = self._embed(images)
        encoder = self.transformer["encoder"]
        for layer in encoder["layer"]:
            hidden, previous = self._layer(layer, hidden, previous), hidden
        normed = encoder["encoder_norm"](hidden)
        return F.normalize(normed[:, 0], dim=1)

    def _embed(self, images: Tensor) -> Tensor:
        part = self.transformer["embeddings"]
        root, body = part.hybrid_model["root"], part.hybrid_model["body"]
        x = torch.relu(root["gn"](root["conv"](images)))
        x = F.max_pool2d(x, 3, 2, 1)
        for block in body.values():
            for unit in block.values():
                x = unit(x)
        tokens = part.patch_embeddings(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([part.cls_token.expand(len(images), -1, -1), tokens], dim=1)
        return tokens + part.position_embeddings

    def _layer(self, layer: Any, hidden: Tensor, previous: Tensor) -> Tensor:
        """Queries and values of this layer's input, keys of the input of the layer before."""
        first = layer["attention_norm_1"](hidden)
        query, value = (self._heads(layer["attn"][name](first)) for name in ("query", "value"))
        key = self._heads(layer["attn"]["key"](layer["attention_norm_2"](previous)))
        scores = (query @ key.transpose(-1, -2)) / 8.0
        gathered = (scores.softmax(dim=-1) @ value).permute(0, 2, 1, 3).contiguous().flatten(2)
        hidden = hidden + layer["attn"]["out"](gathered)
        inner = F.gelu(layer["ffn"]["fc1"](layer["ffn_norm"](hidden)))
        output: Tensor = hidden + layer["ffn"]["fc2"](inner)
        return output

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (12, 64)).permute(0, 2, 1, 3)
