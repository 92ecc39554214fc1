"""Google's R50+ViT-B/16 archive (ImageNet-21k), renamed to L2LTR's tensors.

"An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929; the mapping is the one of L2LTR
(https://arxiv.org/abs/2107.00842). The norm in front of attention goes to both of L2LTR's norms. The
network then starts as a plain vision transformer, except that its keys come from the layer before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from core.errors import CheckpointError

__all__ = ["convert_google_vit", "is_google_vit"]

LAYER = r"Transformer/encoderblock_(\d+)/"
ATTENTION = LAYER + "MultiHeadDotProductAttention_1/"
UNIT = r"block(\d+)/unit(\d+)/"
EMBEDDINGS, ENCODER = "transformer.embeddings.", "transformer.encoder."
STEM = EMBEDDINGS + "hybrid_model."
DROPPED = frozenset({"head/bias", "head/kernel", "pre_logits/bias", "pre_logits/kernel"})


def _kernel(value: Tensor) -> Tensor:
    """Convolution HWIO -> OIHW."""
    return value.permute(3, 2, 0, 1)


def _linear(value: Tensor) -> Tensor:
    return value.T


def _heads_out(value: Tensor) -> Tensor:
    """Query, key or value (C, heads, d) -> (C, C), output first."""
    return value.flatten(1).T


def _heads_in(value: Tensor) -> Tensor:
    """Output map (heads, d, C) -> (C, C), output first."""
    return value.flatten(0, 1).T


def _same(value: Tensor) -> Tensor:
    return value


Rule = tuple[str, tuple[str, ...], Callable[[Tensor], Tensor]]

RULES: tuple[Rule, ...] = (
    (r"cls", (EMBEDDINGS + "cls_token",), _same),
    (
        r"Transformer/posembed_input/pos_embedding",
        (EMBEDDINGS + "position_embeddings",),
        _same,
    ),
    (r"embedding/kernel", (EMBEDDINGS + "patch_embeddings.weight",), _kernel),
    (r"embedding/bias", (EMBEDDINGS + "patch_embeddings.bias",), torch.flatten),
    (r"conv_root/kernel", (STEM + "root.conv.weight",), _kernel),
    (r"gn_root/scale", (STEM + "root.gn.weight",), torch.flatten),
    (r"gn_root/bias", (STEM + "root.gn.bias",), torch.flatten),
    (UNIT + r"conv_proj/kernel", (STEM + r"body.block\1.unit\2.downsample.weight",), _kernel),
    (UNIT + r"(conv\d)/kernel", (STEM + r"body.block\1.unit\2.\3.weight",), _kernel),
    (UNIT + r"(gn_proj|gn\d)/scale", (STEM + r"body.block\1.unit\2.\3.weight",), torch.flatten),
    (UNIT + r"(gn_proj|gn\d)/bias", (STEM + r"body.block\1.unit\2.\3.bias",), torch.flatten),
    (ATTENTION + "(query|key|value)/kernel", (ENCODER + r"layer.\1.attn.\2.weight",), _heads_out),
    (ATTENTION + "out/kernel", (ENCODER + r"layer.\1.attn.out.weight",), _heads_in),
    (
        ATTENTION + "(query|key|value|out)/bias",
        (ENCODER + r"layer.\1.attn.\2.bias",),
        torch.flatten,
    ),
    (LAYER + "MlpBlock_3/Dense_0/kernel", (ENCODER + r"layer.\1.ffn.fc1.weight",), _linear),
    (LAYER + "MlpBlock_3/Dense_1/kernel", (ENCODER + r"layer.\1.ffn.fc2.weight",), _linear),
    (LAYER + "MlpBlock_3/Dense_0/bias", (ENCODER + r"layer.\1.ffn.fc1.bias",), torch.flatten),
    (LAYER + "MlpBlock_3/Dense_1/bias", (ENCODER + r"layer.\1.ffn.fc2.bias",), torch.flatten),
)
NORM_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        LAYER + "LayerNorm_0",
        (ENCODER + r"layer.\1.attention_norm_1", ENCODER + r"layer.\1.attention_norm_2"),
    ),
    (LAYER + "LayerNorm_2", (ENCODER + r"layer.\1.ffn_norm",)),
    ("Transformer/encoder_norm", (ENCODER + "encoder_norm",)),
)


def is_google_vit(archive: Mapping[str, Any]) -> bool:
    """Whether the names are those of a Flax vision transformer with a convolutional stem."""
    return "conv_root/kernel" in archive


def convert_google_vit(archive: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename and transpose the archive's arrays to the state dict of one ``L2ltr`` encoder.

    Args:
        archive: name -> array, as ``numpy.load`` gives.

    Returns:
        The tensors, positions still on the archive's own grid, and the names dropped (classifier).

    Raises:
        CheckpointError: a name that the mapping does not know.

    """
    tensors: dict[str, Tensor] = {}
    unknown = []
    for name in sorted(archive.keys() - DROPPED):
        found = _targets(name)
        if found is None:
            unknown.append(name)
            continue
        targets, reshape = found
        value = reshape(torch.as_tensor(archive[name])).contiguous()
        tensors.update(dict.fromkeys(targets, value))
    if unknown:
        raise CheckpointError(
            f"R50+ViT-B_16 archive: got unknown arrays {', '.join(unknown[:20])}. "
            "Use Google's file as it is."
        )
    return tensors, tuple(sorted(DROPPED & archive.keys()))


def _targets(name: str) -> tuple[list[str], Callable[[Tensor], Tensor]] | None:
    """Our names for one array and how to reshape it; None for an unknown name."""
    for pattern, targets, reshape in RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return [match.expand(target) for target in targets], reshape
    for pattern, targets in NORM_RULES:
        match = re.fullmatch(pattern + "/(scale|bias)", name)
        if match:
            suffix = ".weight" if name.endswith("scale") else ".bias"
            return [match.expand(target) + suffix for target in targets], torch.flatten
    return None
