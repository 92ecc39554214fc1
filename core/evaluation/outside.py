"""Photos that were not taken in the searched imagery, of several kinds.

The calibration and the test of trust need them: photos of other rendered towns (of the same style and
of another one), pictures that show no street, and rooms. The pictures come with ordinary Python
packages; textures and rooms are drawn here. No photo of a real street is among them.

Q views of n azimuth bins, uint8 (Q, 128, 16 n, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from core.arrays import Float64Array, UInt8Array
from core.photos.canvas import ELEVATION_DEG, ground_canvas
from core.polar import BIN_DEG, BINS

__all__ = ["DRAWN_KINDS", "drawn_kinds", "drawn_views", "package_pictures"]

HEIGHT = 128
"""Rows of a canvas."""
Random = np.random.Generator
SAMPLE_PICTURE = "sample picture"

PACKAGE_PICTURES: Mapping[str, tuple[str, ...]] = {
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "gradio": tuple(
        f"media_assets/images/{name}"
        for name in ("groot.jpeg", "tower.jpg", "cheetah.jpg", "cheetah1.jpg", "lion.jpg")
    ),
    "skimage": tuple(
        f"data/{name}"
        for name in (
            *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png"),
            *("clock_motion.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg"),
            *("ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg"),
        )
    ),
}
"""Sample pictures by the package that contains them: people, animals, things, skies, textures, maps of
cells, printed pages, a tower; no street."""


def package_pictures() -> list[Path]:
    """The sample pictures of the installed packages."""
    found = []
    for package, names in PACKAGE_PICTURES.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found += [Path(folder) / name for name in names]
    return [path for path in found if path.is_file()]


def _picture(bins: int, random: Random) -> UInt8Array:
    """A part of a sample picture, as a photo or a panorama of ``bins`` bins."""
    path = random.choice([str(path) for path in package_pictures()])
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    share = random.uniform(0.6, 1.0)
    width, height = (round(side * share) for side in picture.size)
    left = int(random.integers(0, picture.width - width + 1))
    top = int(random.integers(0, picture.height - height + 1))
    part = np.asarray(picture.crop((left, top, left + width, top + height)))
    if random.random() < 0.5:
        part = part[:, ::-1]
    fov_deg = bins * BIN_DEG
    is_wide = fov_deg > 120
    if is_wide:  # a full circle: the picture and its mirror image
        part = np.concatenate([part, part[:, ::-1]], axis=1)
    return ground_canvas(np.ascontiguousarray(part), fov_deg, is_wide, bins=BINS).image


def _texture(bins: int, random: Random) -> UInt8Array:
    """Coloured noise of several scales, or a checkerboard; every one is different."""
    columns = bins * HEIGHT * 4 // BINS
    image = np.zeros((HEIGHT, columns, 3)) + random.uniform(40, 215, 3)
    for block in (32, 16, 8, 4, 2):
        shape = (-(-HEIGHT // block), -(-columns // block), 3)
        blocks = random.normal(0, random.uniform(0, 35), shape)
        image += blocks.repeat(block, 0).repeat(block, 1)[:HEIGHT, :columns]
    if random.random() < 0.3:
        side = int(random.integers(4, 24))
        board = np.add.outer(np.arange(HEIGHT) // side, np.arange(columns) // side) % 2
        image = np.where(board[..., None], image, 255 - image)
    return np.clip(image, 0, 255).astype(np.uint8)


def _room(bins: int, random: Random) -> UInt8Array:
    """A room seen from inside: floor, ceiling, four walls with a door, windows and pictures."""
    columns = bins * HEIGHT * 4 // BINS
    span = np.radians(bins * BIN_DEG)
    azimuth = ((np.arange(columns) + 0.5) / columns - 0.5) * span + random.uniform(0, 2 * np.pi)
    elevation = np.radians((0.5 - (np.arange(HEIGHT) + 0.5) / HEIGHT) * 2 * ELEVATION_DEG)
    up = np.sin(elevation)[:, None].repeat(columns, 1)
    east = np.cos(elevation)[:, None] * np.sin(azimuth)
    north = np.cos(elevation)[:, None] * np.cos(azimuth)
    direction = np.stack([east, north, up], axis=-1)
    size = random.uniform((3.0, 3.0, 2.3), (8.0, 10.0, 3.2))
    eye = size * np.array([random.uniform(0.2, 0.8), random.uniform(0.2, 0.8), 0.5])
    with np.errstate(divide="ignore"):
        reach = np.where(direction > 0, (size - eye) / direction, -eye / direction)
    axis = reach.argmin(axis=-1)
    hit = eye + direction * reach.min(axis=-1)[..., None]
    side = axis * 2 + (np.take_along_axis(direction, axis[..., None], -1)[..., 0] > 0)
    colours = random.uniform(60, 235, (6, 3))
    image = colours[side] * (0.75 + 0.1 * axis[..., None])
    for _ in range(int(random.integers(3, 9))):
        _hang(image, hit, side, size, random)
    noise = random.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _hang(
    image: Float64Array, hit: Float64Array, side: UInt8Array, size: Float64Array, random: Random
) -> None:
    """Paint a rectangle on one of the four walls: a window, a door, a picture or a shelf."""
    wall = int(random.integers(0, 4))
    along = hit[..., 1 - wall // 2]
    centre = random.uniform(0.1, 0.9) * size[1 - wall // 2]
    half, low = random.uniform(0.3, 1.2), random.uniform(0.0, 1.2)
    high = low + random.uniform(0.4, 1.8)
    inside = (side == wall) & (np.abs(along - centre) < half)
    inside &= (hit[..., 2] > low) & (hit[..., 2] < high)
    image[inside] = random.uniform(20, 250, 3)


DRAWN_KINDS: Mapping[str, Callable[[int, Random], UInt8Array]] = {
    SAMPLE_PICTURE: _picture,
    "texture": _texture,
    "room": _room,
}
"""Kinds of pictures that show no street."""


def drawn_kinds() -> list[str]:
    """Kinds that are available, sorted; sample pictures need an installed package with some."""
    return sorted(kind for kind in DRAWN_KINDS if kind != SAMPLE_PICTURE or package_pictures())


def drawn_views(kind: str, bins: int, count: int, seed: int) -> UInt8Array:
    """``count`` views of one kind and width; the same seed gives the same views.

    Sample pictures come from the installed packages, see ``drawn_kinds``.
    """
    random = np.random.default_rng((seed, bins, sorted(DRAWN_KINDS).index(kind)))
    return np.stack([DRAWN_KINDS[kind](bins, random) for _ in range(count)])
