"""Any image network of timm as an encoder, for instance ConvNeXt as Sample4Geo uses it.

timm: https://github.com/huggingface/pytorch-image-models. It is imported here alone, and only when
such an encoder is built. Weights are fresh unless asked for by ``pretrained=True``, which downloads.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import CheckpointError, SettingError
from core.models.layers import pad_columns

__all__ = ["TimmEncoder"]

Size = tuple[int, int]
MARGIN = 2
"""Columns of tokens by which a wrapped view is widened on each side."""

_torchvision_schemas: list[torch.library.Library] = []


class TimmEncoder(nn.Module):
    """Encoder of one view around a timm network: its deepest feature map of a wanted stride.

    A network with a position table (ViT) is built for ``image_size``. Its table is resampled to other
    sizes, so that a narrow crop gets the positions of a whole circle: prefer convolutional networks
    for azimuth descriptors. With ``is_wrapped`` their views are widened on both sides, by columns of
    the other side of a circular view, or by copies of a crop's edge.

    Attributes:
        channels: C of the feature map.
        stride: (vertical, horizontal) pixels per token.
        mean, std: normalisation of RGB in [0, 1] that the images must have had, the network's own.

    """

    def __init__(
        self,
        name: str,
        image_size: Size,
        *,
        largest_stride: int = 32,
        is_wrapped: bool = False,
        pretrained: bool = False,
    ) -> None:
        """Build the network.

        Args:
            name: a timm model, with or without ``timm/`` in front.
            image_size: (height, width) in pixels.
            largest_stride: the deepest feature map of at most this stride is used.
            is_wrapped: see the class; ignored by networks with a position table.
            pretrained: download the published weights.

        Raises:
            SettingError: an unknown network, or one without a feature map of such a stride.
            CheckpointError: the published weights cannot be had.

        """
        super().__init__()
        timm = _import_timm()
        self.name = name = name.removeprefix("timm/")
        _check_name(timm, name)
        index = _deepest(timm, name, image_size, largest_stride)
        self.body, self.is_sized = _create(timm, name, image_size, pretrained, index)
        self.channels = int(self.body.feature_info.channels()[0])
        stride = int(self.body.feature_info.reduction()[0])
        self.stride = (stride, stride)
        self.is_wrapped = is_wrapped and not self.is_sized
        published = timm.get_pretrained_cfg(name)
        self.mean = _three(getattr(published, "mean", None), (0.485, 0.456, 0.406))
        self.std = _three(getattr(published, "std", None), (0.229, 0.224, 0.225))

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        """Encode normalised images (B, 3, H, W) into (B, C, H / stride, W / stride), rounded up.

        ``circular``: the view is a full circle; used by a wrapped encoder only.
        """
        if not self.is_wrapped:
            return self._features(images)
        stride = self.stride[1]
        columns = -(-images.shape[-1] // stride)
        margin = min(MARGIN, images.shape[-1] // stride)
        wide = pad_columns(images, margin * stride, circular)
        return self._features(wide)[..., margin : margin + columns]

    def forward(self, images: Tensor, circular: bool = False) -> Tensor:
        """Encode normalised images (B, 3, H, W) into tokens (B, N, C), row-major."""
        return self.feature_map(images, circular).flatten(2).transpose(1, 2)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images)[0]
        is_channels_last = features.shape[1] != self.channels
        return features.permute(0, 3, 1, 2) if is_channels_last else features


def _import_timm() -> ModuleType:
    """Import timm, also beside a torch without CUDA whose torchvision is a CUDA build.

    Such a torchvision cannot load its operators and stops at the first of them that it describes.
    Declaring the two that it needs lets it go on; the rest of it is not used here.
    """
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _torchvision_schemas:
            raise
    for module in [m for m in sys.modules if m.partition(".")[0] in {"timm", "torchvision"}]:
        del sys.modules[module]
    schemas = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        schemas.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _torchvision_schemas.append(schemas)
    return importlib.import_module("timm")


def _check_name(timm: ModuleType, name: str) -> None:
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        close = difflib.get_close_matches(name, known, n=3) or ["convnext_atto", "resnet18"]
        raise SettingError(
            f"timm network: got {name!r}, expected a name that timm lists, "
            f"such as {', '.join(close)}."
        )


def _deepest(timm: ModuleType, name: str, image_size: Size, largest_stride: int) -> int:
    """Index of the deepest feature map whose stride is small enough."""
    with torch.device("meta"):
        body, _ = _create(timm, name, image_size, False, None)
    strides = [int(stride) for stride in body.feature_info.reduction()]
    fitting = [index for index, stride in enumerate(strides) if stride <= largest_stride]
    if not fitting:
        raise SettingError(
            f"timm network {name}: got feature maps of stride {strides}, expected one of at most "
            f"{largest_stride}. Choose a network of finer stride."
        )
    return int(body.feature_info.out_indices[fitting[-1]])


def _create(
    timm: ModuleType, name: str, image_size: Size, pretrained: bool, index: int | None
) -> tuple[Any, bool]:
    """Create the feature network, and whether it holds a table for one image size."""
    chosen = {} if index is None else {"out_indices": (index,)}
    sized: tuple[dict[str, Any], ...] = (
        {"img_size": image_size, "dynamic_img_size": True},
        {"img_size": image_size},
        {},
    )
    for size in sized:
        try:
            body = timm.create_model(
                name, pretrained=pretrained, features_only=True, **chosen, **size
            )
        except TypeError as error:
            if not size or "img_size" not in str(error):
                raise SettingError(
                    f"timm network {name}: got no feature maps ({error}). Choose another network."
                ) from error
        except OSError as error:
            raise CheckpointError(
                f"Weights of timm network {name}: got {error}, expected a download. "
                "Go online, or build the network with fresh weights."
            ) from error
        else:
            return body, bool(size)
    raise AssertionError("the last attempt has no size to refuse")


def _three(values: Any, otherwise: tuple[float, float, float]) -> tuple[float, float, float]:
    if values is None or len(values) != 3:
        return otherwise
    return (float(values[0]), float(values[1]), float(values[2]))
