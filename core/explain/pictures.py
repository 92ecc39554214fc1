"""Every picture that one model alone explains itself with, by file name.

Where its positions believe they stand, in each branch, and what of one photo each of its attention
layers gathered (``core.explain.layers``); drawn by ``core.explain.figures``. What the teacher saw of one view in
the other is ``core.explain.pair``'s, and needs a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn

from core.errors import SettingError
from core.explain.figures import (
    attention_overlay,
    canvas_regions,
    layer_attention_figure,
    position_figure,
)
from core.explain.layers import descriptor_map, layer_attention, position_similarity, rollout
from core.models.geossk import GeoSSK
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

    Of a teacher its two branches are shown, as they are before the views meet.

    Args:
        model: a two-branch model or a teacher, on the CPU, in evaluation mode.
        photo: whose attention to show; None for the positions alone.

    Returns:
        (PNG by file name, sentences): ``positions-ground.png``, ``positions-aerial.png``,
        ``photo-view.png`` (what the model sees), ``photo-rollout.png``, ``photo-layers.png``.

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
    pictures: Pictures = {}
    missing: dict[str, None] = {}  # in order, each sentence once: two branches often share theirs
    for make in makers:
        try:
            pictures |= make()
        except SettingError as error:
            missing[str(error)] = None
    if not pictures:
        raise SettingError(" ".join(missing))
    return pictures, tuple(missing)


def _positions(view: str, encoder: nn.Module) -> Pictures:
    return {f"positions-{view}.png": _png(position_figure(position_similarity(encoder)))}


def _attention(model: TwoBranch, photo: Photo) -> Pictures:
    canvas = canvas_of(photo, bins=BINS)
    images = ground_batch([canvas.image], model.ground_size, whole=model.bins is None)
    seen = layer_attention(model, "ground", images)
    maps = np.stack([descriptor_map(layer, seen.grid) for layer in seen.weights])
    total = descriptor_map(rollout(seen.weights), seen.grid)
    pixels = np.rint(255 * images[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    view = Image.fromarray(pixels)
    shown = view.resize((ENLARGED * view.width, ENLARGED * view.height), Image.Resampling.BICUBIC)
    regions = canvas_regions(seen.grid, (shown.height, shown.width))
    overlay = attention_overlay(np.asarray(shown), regions, total.ravel())
    return {
        "photo-view.png": _png(shown),
        "photo-rollout.png": _png(overlay),
        "photo-layers.png": _png(layer_attention_figure(maps)),
    }


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
