"""The deterministic numbers that the published modules were fed with, to compare with them.

Filler, weight rules and expected values: outputs of the authors' modules in float64 (SAIG commit
feaad69, L2LTR commit 5b9e890).
"""

from __future__ import annotations

import ast
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SIZES = [
    ("saig-s", "gap", 18_201_600),
    ("saig-s", "smd", 19_256_848),
    ("saig-d", "gap", 31_228_416),
    ("saig-d", "smd", 32_283_664),
    ("l2ltr", "cls", 195_909_248),
]
"""Model, pooling, parameters of two branches."""


def fill(key: str, *shape: int) -> Tensor:
    """Doubles in [-1, 1) that depend on the key alone, row-major."""
    count = int(np.prod(shape))
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(key.encode()))) & mask
    h = (h * np.uint64(0x9E3779B1)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(0x85EBCA77)) & mask
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(0xC2B2AE3D)) & mask
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2.0**31 - 1.0).reshape(shape)


def weights(shapes: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A state dict of the given shapes, filled by the official full name (prefix + key)."""
    return {key: _weight(prefix + key, tensor) for key, tensor in shapes.items()}


def _weight(key: str, like: Tensor) -> Tensor:
    name, x = key.rsplit(".", 1)[-1], fill(key, *like.shape)
    if name == "num_batches_tracked":
        return torch.zeros((), dtype=torch.long)
    if name == "weight":
        return 1 + 0.1 * x if like.ndim == 1 else x * (3 * like.shape[0] / like.numel()) ** 0.5
    if name == "running_var":
        return 1 + 0.5 * x**2
    return x * {"running_mean": 0.1, "bias": 0.05}.get(name, 0.02)


def listed_keys(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Key -> (shape, dtype) of an authors' state dict, from tests/data/keys."""
    lines = (Path(__file__).parent / "data" / "keys" / f"{name}.txt").read_text().splitlines()
    fields = [line.split("\t") for line in lines]
    return {key: (ast.literal_eval(shape), dtype) for key, shape, dtype in fields}


def own_keys(module: nn.Module, prefix: str = "") -> dict[str, tuple[tuple[int, ...], str]]:
    """The same of a module of ours, every key with a prefix."""
    return {
        prefix + key: (tuple(value.shape), str(value.dtype))
        for key, value in module.state_dict().items()
    }
