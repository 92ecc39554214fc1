"""The models, built by name.

``MODELS`` is the whole registry. A new encoder is one file, with a class that offers
``core.models.two_branch.Encoder``, and one line here: poolings, model folders, training and
evaluation then take it by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from core.errors import SettingError
from core.models.convnet import ConvNet, ConvNetConfig
from core.models.geossk import GeoSSK, GeoSSKConfig
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.pooling import AzimuthPooling, ClsPooling, GapPooling, SmdPooling
from core.models.saig import saig_d, saig_s, saig_xs
from core.models.two_branch import TwoBranch

__all__ = ["MODELS", "POOLINGS", "TEACHER", "build_from_config", "build_model", "build_teacher"]

Size = tuple[int, int]
TEACHER = "geossk"
POOLINGS = ("gap", "smd", "azimuth", "cls")

# Encoders by name, built from the (height, width) in pixels of a view and whether azimuth is kept.
MODELS: dict[str, Callable[[Size, bool], nn.Module]] = {
    "convnet-s": lambda size, azimuth: ConvNet(ConvNetConfig()),
    "convnet-m": lambda size, azimuth: ConvNet(ConvNetConfig((24, 48, 96, 176), (0, 2, 2, 2))),
    "convnet-xs": lambda size, azimuth: ConvNet(ConvNetConfig(widths=(8, 16, 32, 64))),
    "saig-s": lambda size, azimuth: saig_s(size, azimuth=azimuth),
    "saig-d": lambda size, azimuth: saig_d(size, azimuth=azimuth),
    "saig-xs": lambda size, azimuth: saig_xs(size, azimuth=azimuth),
    "l2ltr": lambda size, azimuth: L2ltr(L2ltrConfig(image_size=size)),
}


def _encoder(name: str, size: Size, azimuth: bool) -> nn.Module:
    if name in MODELS:
        return MODELS[name](size, azimuth)
    if name.startswith("timm/"):
        from core.models.timm_encoder import TimmEncoder

        stride = 16 if azimuth else 32
        return TimmEncoder(name[5:], size, largest_stride=stride, is_wrapped=azimuth)
    raise SettingError(
        f"Model: got {name!r}, expected one of {', '.join(sorted(MODELS))} or timm/<name>."
    )


def _check_class_token(name: str, pooling: str, encoder: nn.Module) -> None:
    """An encoder that describes by a class token (``Encoder``) takes ``cls``, all others do not."""
    if hasattr(encoder, "describe") and pooling != "cls":
        raise SettingError(
            f"Pooling: got {pooling!r} for {name}, which describes by its class token, expected cls."
        )
    if pooling == "cls" and not hasattr(encoder, "describe"):
        others = ", ".join(known for known in POOLINGS if known != "cls")
        raise SettingError(
            f"Pooling: got 'cls' for {name}, which has no class token, expected one of {others}."
        )


def _pooling(name: str, encoder: Any, size: Size, dim: int) -> nn.Module:
    channels, stride = encoder.channels, encoder.stride
    rows, columns = -(-size[0] // stride[0]), -(-size[1] // stride[1])  # encoders round up
    if name == "gap":
        return GapPooling(channels)
    if name == "cls":
        return ClsPooling(channels)
    if name == "smd":
        return SmdPooling(channels, rows * columns)
    return AzimuthPooling(channels, rows, dim)


def build_model(
    name: str,
    pooling: str = "gap",
    ground_size: Size = (128, 512),
    aerial_size: Size = (256, 256),
    *,
    dim: int = 24,
    polar: bool | None = None,
) -> TwoBranch:
    """A two-branch model with fresh weights.

    Args:
        name: a key of ``MODELS``, or ``timm/<name>``.
        pooling: ``gap``, ``smd`` or ``azimuth``; ``cls`` for encoders with a class token, as
            ``l2ltr``, and for no other.
        ground_size: (height, width) of a full canvas in pixels.
        aerial_size: (height, width) of a tile in pixels.
        dim: values per azimuth bin; used by ``azimuth`` only.
        polar: whether the aerial branch takes the polar view; by default azimuth models do.

    Raises:
        SettingError: an unknown name or pooling, a pooling that the encoder does not have, or sizes
            that do not fit.

    """
    if pooling not in POOLINGS:
        raise SettingError(f"Pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}.")
    azimuth = pooling == "azimuth"
    polar = azimuth if polar is None else polar
    if azimuth and not polar:
        raise SettingError("Azimuth pooling needs the polar view: leave polar out or say True.")
    ground_size, aerial_size = (ground_size[0], ground_size[1]), (aerial_size[0], aerial_size[1])
    view_size = ground_size if polar else aerial_size
    ground = _encoder(name, ground_size, azimuth)
    _check_class_token(name, pooling, ground)
    aerial = _encoder(name, view_size, azimuth)
    return TwoBranch(
        ground,
        aerial,
        _pooling(pooling, ground, ground_size, dim),
        _pooling(pooling, aerial, view_size, dim),
        ground_size=ground_size,
        aerial_size=aerial_size,
        polar=polar,
    )


def build_teacher(base: dict[str, Any], **config: Any) -> GeoSSK:
    """A GeoSSK teacher with fresh weights over a two-branch model of its own.

    Args:
        base: arguments of ``build_model``, ``name`` included.
        config: fields of ``GeoSSKConfig``.
    """
    return GeoSSK(build_model(**base), GeoSSKConfig(**config))


def build_from_config(name: str, model: dict[str, Any]) -> nn.Module:
    """What a model folder's config describes: a teacher (``geossk``) or a two-branch model."""
    return build_teacher(**model) if name == TEACHER else build_model(name, **model)
