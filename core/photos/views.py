"""A street view as a model's input: the crop alone, or in the middle of a full canvas.

A model with azimuth bins describes the crop as it is. A global model has one input size. It gets the
full canvas, with the crop in its middle and the rest mid-grey. Training, evaluation and answers all
use these functions, so a model always gets the kind of input that it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from core.arrays import AnyArray, UInt8Array
from core.errors import SettingError
from core.photos.canvas import UNSEEN
from core.polar import BINS, to_batch

__all__ = ["canvas_bins", "fill_canvas", "ground_batch", "view_size"]


def canvas_bins(canvas: AnyArray) -> int:
    """Azimuth bins n of a canvas (h, w, ...): a full canvas is four times as wide as high.

    Raises:
        SettingError: its width is not a whole number of bins, or more than a full circle.

    """
    height, width = int(canvas.shape[0]), int(canvas.shape[1])
    bins, rest = divmod(width * BINS, 4 * height)
    if rest or not 1 <= bins <= BINS:
        raise SettingError(
            f"Canvas: got {width} x {height} px, expected 1 to {BINS} bins of {height / 8:g} px. "
            "Make it with core.photos.opening.ground_canvas."
        )
    return bins


def view_size(canvas: AnyArray, ground_size: tuple[int, int]) -> tuple[int, int]:
    """(H, n * W / 32) in pixels of a canvas (h, w, ...) of n bins at a model's (H, W).

    Rounded down to whole columns: a global model's width need not be a multiple of 32.
    """
    return ground_size[0], canvas_bins(canvas) * ground_size[1] // BINS


def fill_canvas(views: Tensor, width: int) -> Tensor:
    """Views (B, C, H, w) in [0, 1] in the middle of full canvases (B, C, H, width), else mid-grey."""
    missing = width - views.shape[-1]
    return F.pad(views, (missing // 2, missing - missing // 2), value=UNSEEN / 255)


def ground_batch(
    canvases: UInt8Array | Sequence[UInt8Array],
    ground_size: tuple[int, int],
    device: str = "cpu",
    whole: bool = False,
) -> Tensor:
    """Canvases of n bins as a model's input (B, 3, H, n * W / 32) in [0, 1].

    Args:
        canvases: uint8 (B, h, w, 3), all of one width of whole bins.
        ground_size: the model's (H, W) of a full canvas in pixels.
        device: of the result, as torch names it.
        whole: fill up to (B, 3, H, W), for a model with a global descriptor.

    Raises:
        SettingError: the canvases' width is not a whole number of bins.

    """
    views = to_batch(canvases, view_size(canvases[0], ground_size), device)
    return fill_canvas(views, ground_size[1]) if whole else views
