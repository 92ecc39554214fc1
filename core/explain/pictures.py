"""All pictures that explain one model alone, by file name.

They show the similarity of learned positions in each branch, and of one photo the attention of each
layer (``core.explain.layers``) and the contribution factor of each patch
(``core.models.geossk.contribution_factor``). ``core.explain.figures`` draws them.

A teacher's attention between photo and tile needs a pair: see ``core.explain.pair``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from core.errors import SettingError
from core.explain.figures import (
    attention_overlay,
    canvas_regions,
    contribution_overlay,
    layer_attention_figure,
    position_figure,
)
from core.explain.layers import descriptor_map, layer_attention, position_similarity, rollout
from core.models.geossk import GeoSSK, contribution_factor, token_parts
from core.models.pooling import AzimuthPooling, GapPooling
from core.models.two_branch import TwoBranch
from core.photos.opening import Photo, canvas_of
from core.photos.views import ground_batch
from core.polar import BINS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["model_pictures", "write_pictures"]

Pictures = dict[str, bytes]
ENLARGED = 3
"""Screen pixels per pixel of a view, which is small."""


def model_pictures(model: nn.Module, photo: Photo | None) -> tuple[Pictures, tuple[str, ...]]:
    """All pictures of a model, and for each that cannot be made a sentence that says why.

    Of a teacher the two branches are shown, before interaction.

    Args:
        model: a two-branch model or a teacher, on the CPU, in evaluation mode.
        photo: to explain; None for the positions alone.

    Returns:
        (PNG by file name, sentences). SAIG and L2LTR: ``positions-ground.png``,
        ``positions-aerial.png``, ``photo-rollout.png``, ``photo-layers.png``. Gap and azimuth
        pooling: ``photo-contribution.png``. With any of a photo: ``photo-view.png``, the photo as
        the model is given it.

    Raises:
        SettingError: not one picture can be made, or the model is of another kind.

    """
    branches = model.base if isinstance(model, GeoSSK) else model
    if not isinstance(branches, TwoBranch):
        raise SettingError(
            f"Model: got {type(model).__name__}, expected a two-branch model or a teacher. Name "
            "another folder."
        )
    makers: list[Callable[[], Pictures]] = [
        lambda: _positions("ground", branches.ground_encoder),
        lambda: _positions("aerial", branches.aerial_encoder),
    ]
    if photo is not None:
        makers.append(lambda: _attention(branches, photo))
        if isinstance(branches.ground_pool, AzimuthPooling | GapPooling):
            makers.append(lambda: _contributions(branches, photo))
    pictures: Pictures = {}
    missing: dict[str, None] = {}  # in order, each sentence once: two branches often share theirs
    for make in makers:
        try:
            pictures |= make()
        except SettingError as error:
            missing[str(error)] = None
    if not pictures:
        hint = "Or add --photo to draw the contribution of each part of a photo."
        raise SettingError(" ".join([*missing, hint] if photo is None else missing))
    return pictures, tuple(missing)


def _positions(view: str, encoder: nn.Module) -> Pictures:
    return {f"positions-{view}.png": _png(position_figure(position_similarity(encoder)))}


def _attention(model: TwoBranch, photo: Photo) -> Pictures:
    images, shown = _view(model, photo)
    found = layer_attention(model, "ground", images)
    maps = np.stack([descriptor_map(layer, found.grid) for layer in found.weights])
    total = descriptor_map(rollout(found.weights), found.grid)
    regions = canvas_regions(found.grid, (shown.height, shown.width))
    overlay = attention_overlay(np.asarray(shown), regions, total.ravel())
    return {
        "photo-view.png": _png(shown),
        "photo-rollout.png": _png(overlay),
        "photo-layers.png": _png(layer_attention_figure(maps)),
    }


@torch.inference_mode()
def _contributions(model: TwoBranch, photo: Photo) -> Pictures:
    images, shown = _view(model, photo)
    features = model.ground_map(images)
    parts = token_parts(features.flatten(2).transpose(1, 2), model.ground_pool)
    phi = contribution_factor(parts, equal_bins=False)[0]
    regions = canvas_regions((features.shape[2], features.shape[3]), (shown.height, shown.width))
    overlay = contribution_overlay(np.asarray(shown), regions, phi.double().numpy())
    return {"photo-view.png": _png(shown), "photo-contribution.png": _png(overlay)}


def _view(model: TwoBranch, photo: Photo) -> tuple[Tensor, Image.Image]:
    """The photo as the ground branch takes it, (1, 3, H, W), and enlarged for display."""
    canvas = canvas_of(photo, bins=BINS)
    images = ground_batch([canvas.image], model.ground_size, whole=model.bins is None)
    view = Image.fromarray(np.rint(255 * images[0].permute(1, 2, 0).numpy()).astype(np.uint8))
    size = (ENLARGED * view.width, ENLARGED * view.height)
    return images, view.resize(size, Image.Resampling.BICUBIC)


def _png(picture: Figure | Image.Image) -> bytes:
    content = BytesIO()
    options: dict[str, Any] = {} if isinstance(picture, Image.Image) else {"dpi": 150}
    save = picture.save if isinstance(picture, Image.Image) else picture.savefig
    save(content, format="png", **options)
    return content.getvalue()


def write_pictures(pictures: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write pictures by their names into a folder, made if missing; older ones are replaced.

    Raises:
        SettingError: the folder or a file in it cannot be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise SettingError(
            f"Output {folder}: cannot be written ({error.strerror or error}). Choose another place "
            "for --out."
        ) from error
    return [folder / name for name in pictures]
