"""Arrays in, pictures out: attention, contribution factors, reliability, accuracy by field of view.

Overlays are PIL images and need numpy alone. Diagrams are matplotlib figures with a transparent
background and mid-grey ink, so that they read on a light and on a dark page.

For one explanation: ``outline`` marks the chosen patch in one view, ``attention_overlay`` paints its
attention over the other view, ``contribution_overlay`` paints either view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from core.arrays import BoolArray, FloatArray, IntArray, UInt8Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_figure",
    "attention_overlay",
    "canvas_regions",
    "contribution_overlay",
    "layer_attention_figure",
    "outline",
    "position_figure",
    "progress_figure",
    "training_figure",
    "trust_figure",
]


# Dark violet to pale yellow: lightness rises all the way, so it reads without colour.
_HEAT = np.array([[43, 11, 87], [148, 28, 129], [225, 78, 84], [251, 158, 59], [252, 240, 160]])
_LESS, _MORE = np.array([66, 120, 235]), np.array([245, 130, 20])
_INK = "#808894"
_SERIES = ("#3b82f6", "#f97316", "#10b981", "#d946ef", "#eab308", "#64748b")


def canvas_regions(grid: tuple[int, int], size: tuple[int, int]) -> IntArray:
    """Patch index of every pixel of a canvas shown at (h, w) px; ``grid`` is (rows, columns)."""
    rows = np.arange(size[0]) * grid[0] // size[0]
    columns = np.arange(size[1]) * grid[1] // size[1]
    return rows[:, None] * grid[1] + columns[None, :]


def attention_overlay(
    image: UInt8Array, regions: IntArray, attention: FloatArray, opacity: float = 0.7
) -> Image.Image:
    """Paint a patch's attention over the picture of the other view.

    Args:
        image: uint8 (H, W, 3).
        regions: region index of every pixel (H, W), -1 where there is none
            (``canvas_regions`` for a canvas, ``core.polar.sector_map`` for a tile).
        attention: one value at least 0 per region; the colours span 0 to the largest.
        opacity: of the strongest colour, in [0, 1].

    """
    values = np.asarray(attention, dtype=np.float64)
    peak = values.max(initial=0.0)
    strength = values / peak if peak > 0 else values
    heat = np.stack(
        [np.interp(strength, np.linspace(0, 1, len(_HEAT)), channel) for channel in _HEAT.T], axis=1
    )
    # Parts without attention stay dark, so that the eye goes to the light ones.
    return _blend(image, regions, heat, opacity * (0.45 + 0.55 * strength))


def contribution_overlay(
    image: UInt8Array, regions: IntArray, phi: FloatArray, opacity: float = 0.75
) -> Image.Image:
    """Paint contribution factors: orange above the even share 1 / N, blue below, clear at it.

    Args:
        image: uint8 (H, W, 3).
        regions: region index of every pixel (H, W), -1 where there is none.
        phi: contribution factor of each of the N regions, summing to 1.
        opacity: of the strongest colour, in [0, 1]; reached at the largest deviation shown.

    """
    deviation = np.asarray(phi, dtype=np.float64) * len(phi) - 1.0
    # One extreme patch must not wash out all others: colours saturate at the 98th percentile.
    scale = float(np.percentile(np.abs(deviation), 98))
    strength = np.clip(deviation / scale if scale > 1e-9 else deviation * 0, -1, 1)
    colours = np.where(strength[:, None] < 0, _LESS, _MORE).astype(np.float64)
    return _blend(image, regions, colours, opacity * np.abs(strength))


def _blend(
    image: UInt8Array, regions: IntArray, colours: FloatArray, alpha: FloatArray
) -> Image.Image:
    weight = np.clip(alpha, 0, 1)[:, None].astype(np.float32)
    # Per region, not per pixel, and region -1 takes the last entry: clear.
    paint = np.concatenate([colours * weight, np.zeros((1, 3))]).astype(np.float32)
    kept = np.concatenate([1 - weight, np.ones((1, 1), np.float32)])
    mixed = image * kept[regions] + paint[regions]
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def outline(picture: Image.Image, regions: IntArray, region: int, width: int = 2) -> Image.Image:
    """Draw the border of one region: white within, black around, so it shows on anything.

    Args:
        picture: RGB, of the size of ``regions``.
        regions: region index of every pixel (H, W).
        region: which region; nothing is drawn where it has no pixel.
        width: of each of the two lines in px.

    """
    inside = regions == region
    pixels = np.array(picture)
    white = inside & ~_shrink(inside, width)
    black = _grow(inside, width) & ~inside
    pixels[black] = (0, 0, 0)
    pixels[white] = (255, 255, 255)
    return Image.fromarray(pixels)


def _grow(mask: BoolArray, steps: int) -> BoolArray:
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask


def _shrink(mask: BoolArray, steps: int) -> BoolArray:
    return ~_grow(~mask, steps)


def _draw_reliability(
    axes: Any, series: Mapping[str, Sequence[tuple[float, float, float]]]
) -> None:
    """Points (stated, found, share of all) of each series beside the diagonal."""
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 4)), label="perfect")
    for (name, points), colour in zip(series.items(), _SERIES, strict=False):
        stated, found, shares = zip(*points, strict=True)
        areas = [20 + 180 * share for share in shares]
        axes.plot(stated, found, color=colour, linewidth=1.5)
        axes.scatter(stated, found, s=areas, color=colour, zorder=3, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability", ylabel="share within 25 m")
    _legend(axes, loc="upper left")


def accuracy_figure(fovs_deg: Sequence[float], series: Mapping[str, Sequence[float]]) -> Figure:
    """Share of queries located within 25 m, by field of view.

    Args:
        fovs_deg: (F,) fields of view in degrees.
        series: by name, (F,) shares in [0, 1]; nan where not measured.

    """
    figure, axes = _located_axes(fovs_deg, series, "field of view (degrees)")
    at = sorted(set(fovs_deg))
    axes.set_xticks(at, [f"{fov:g}°" for fov in at], rotation=60)
    _legend(axes, loc="lower right")
    return figure


def progress_figure(minutes: Sequence[float], series: Mapping[str, Sequence[float]]) -> Figure:
    """Share of queries located within 25 m, by minutes of training.

    Args:
        minutes: (T,) of training in all.
        series: by name, (T,) shares in [0, 1].

    """
    figure, axes = _located_axes(minutes, series, "minutes of training")
    axes.set_xlim(left=0)
    _legend(axes, loc="lower right", columns=2)
    return figure


def _located_axes(
    at: Sequence[float], series: Mapping[str, Sequence[float]], xlabel: str
) -> tuple[Figure, Any]:
    """A picture of shares located within 25 m, one line for each series."""
    figure, axes = _axes((6.0, 4.0))
    _draw_shares(axes, at, series)
    axes.set(xlabel=xlabel, ylabel="located within 25 m (%)", ylim=(0, 100))
    return figure, axes


def _draw_shares(axes: Any, at: Sequence[float], series: Mapping[str, Sequence[float]]) -> None:
    """A line of per cent for each series of shares in [0, 1]."""
    for (name, shares), colour, marker in zip(
        series.items(),
        _SERIES * (1 + len(series) // 6),
        "osD^vPX*" * (1 + len(series) // 8),
        strict=False,
    ):
        percent = [100 * share for share in shares]
        axes.plot(at, percent, color=colour, marker=marker, linewidth=1.8, label=name)


def trust_figure(
    reliability: Mapping[str, Sequence[tuple[float, float, float]]],
    coverages: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
) -> Figure:
    """Reliability of the stated confidence, and accuracy against coverage.

    Args:
        reliability: of all widths, by name: points (stated probability, share right, share of all).
        coverages: (C,) shares of photos answered, in (0, 1].
        accuracy: of the town's own photos, by name: (C,) shares right of the surest answers up to
            each coverage.

    """
    figure, left = _axes((10.0, 4.4), columns=2)
    _draw_reliability(left, reliability)
    right = figure.add_subplot(1, 2, 2)
    _style(right)
    _draw_shares(right, [100 * share for share in coverages], accuracy)
    right.set(xlabel="surest answers given (%)", ylabel="of these within 25 m (%)", ylim=(0, 102))
    right.set_xticks([100 * share for share in coverages])
    left.set_title("all widths together", color=_INK, fontsize=10)
    right.set_title("the town's own photos, surest first", color=_INK, fontsize=10)
    _legend(right, loc="lower left")
    return figure


def _axes(inches: tuple[float, float], columns: int = 1) -> tuple[Figure, Any]:
    # Figure, not pyplot: no global state, no window, safe in threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot(1, columns, 1)
    _style(axes)
    return figure, axes


def _style(axes: Any) -> None:
    axes.patch.set_alpha(0)
    axes.grid(color=_INK, alpha=0.25, linewidth=0.8)
    axes.tick_params(colors=_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def _legend(axes: Any, loc: str, columns: int = 1) -> None:
    legend = axes.legend(loc=loc, frameon=False, ncols=columns)
    for text in legend.get_texts():
        text.set_color(_INK)


def training_figure(log: Sequence[Mapping[str, Any]], window: int = 50) -> Figure:
    """Accuracy within the batch against steps, one line for each width of view.

    Args:
        log: lines of a run's log.jsonl; those without an accuracy are left out.
        window: steps of one width that a point is the mean of.

    """
    figure, axes = _axes((6.0, 4.0))
    lines = [line for line in log if "accuracy" in line]
    widths = sorted({int(line["bins"]) for line in lines}, reverse=True)
    for width, colour in zip(widths, _SERIES * (1 + len(widths) // 6), strict=False):
        same = [line for line in lines if line["bins"] == width]
        steps = [int(line["step"]) for line in same]
        means = [
            float(np.mean([line["accuracy"] for line in same[max(0, end - window) : end]]))
            for end in range(1, len(same) + 1)
        ]
        axes.plot(steps, means, color=colour, linewidth=1.4, label=f"{width * 360 / 32:g}°")
    axes.set(xlabel="step", ylabel="true tile first in its batch", ylim=(0, 1))
    _legend(axes, loc="lower right")
    return figure


def position_figure(similarity: FloatArray) -> Figure:
    """Small maps, one per token: how similar its learned position is to every other (L2LTR, Figure 3).

    The map of a token stands where the token does; of large grids every second, third ... row or
    column of tokens is shown, and the axes say which.

    Args:
        similarity: (h, w, h, w) in [-1, 1], see ``core.explain.layers.position_similarity``.

    """
    height, width = similarity.shape[2:]
    rows, columns = _thinned(height), _thinned(width)
    # One picture with gaps instead of an axes per map, which would take matplotlib many seconds.
    maps = similarity[np.ix_(rows, columns)]
    gapped = np.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    mosaic = gapped.transpose(0, 2, 1, 3).reshape(len(rows) * (height + 1), -1)[:-1, :-1]
    figure, axes = _axes((9.0, 0.8 + min(7.6 * mosaic.shape[0] / mosaic.shape[1], 9.0)))
    image = axes.imshow(mosaic, vmin=-1, vmax=1, cmap=_heat_map(), interpolation="nearest")
    axes.grid(visible=False)
    axes.set_xticks(_middles(len(columns), width), [str(column + 1) for column in columns])
    axes.set_yticks(_middles(len(rows), height), [str(row + 1) for row in rows])
    axes.set(xlabel="column of the token", ylabel="row of the token")
    bar = figure.colorbar(image, ax=axes, label="cosine similarity", ticks=[-1, 0, 1])
    bar.ax.tick_params(colors=_INK)
    bar.ax.yaxis.label.set_color(_INK)
    return figure


def layer_attention_figure(maps: FloatArray) -> Figure:
    """One map per layer: the tokens it attends to, in colours from 0 to the map's largest share.

    Args:
        maps: (L, h, w), shares of tokens, see ``core.explain.layers.descriptor_map``. The title of a
            map says how many times an even share, 1 / (h w), its largest value is.

    """
    from matplotlib.figure import Figure

    count, height, width = maps.shape
    across = min(count, max(1, round((1.5 * count * height / width) ** 0.5)))
    down = -(-count // across)
    panel = min(9.0 / across * height / width, 3.0)
    figure = Figure(figsize=(9.0, down * (panel + 0.3)), layout="constrained")
    figure.patch.set_alpha(0)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for number, (axes, values) in enumerate(zip(panels, maps, strict=False), start=1):
        peak = float(values.max())
        axes.imshow(values, vmin=0, vmax=peak or 1.0, cmap=_heat_map(), interpolation="nearest")
        axes.set_title(f"layer {number}: {peak * height * width:.1f} x", color=_INK, fontsize=8)
    for axes in panels:
        axes.set_axis_off()
    return figure


def _heat_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", _HEAT / 255)


def _thinned(count: int) -> list[int]:
    """Which of ``count`` maps to show, each ``count`` px long, so that they fit in some 300 px."""
    return list(range(0, count, -(-count * (count + 1) // 300)))


def _middles(maps: int, length: int) -> list[float]:
    """Middles of maps in a row, each ``length`` px long, with a gap of one px between them."""
    return [number * (length + 1) + (length - 1) / 2 for number in range(maps)]
