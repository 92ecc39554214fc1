"""Light and air: sun, sky, clouds, haze, and the conversion of light to picture values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import Float32Array, UInt8Array
from core.world.materials import f32, noise
from core.world.style import TOWN, Style

__all__ = ["Light", "develop", "draw_light", "hazed", "sky_colour"]


@dataclass(frozen=True)
class Light:
    """The light of one capture. Directions are east, north, up; colours linear."""

    sun: Float32Array
    sun_rgb: Float32Array
    ambient: Float32Array
    bounce: Float32Array
    zenith: Float32Array
    horizon: Float32Array
    cover: float
    grey: float
    drift: tuple[float, float]
    cloud_m: float
    haze_m: float
    key: float
    balance: Float32Array
    contrast: float
    colourful: float
    noise: float


def draw_light(rng: np.random.Generator, from_above: bool, style: Style = TOWN) -> Light:
    """A random sun, sky and camera. Aerial captures fly in sunny or bright hazy weather."""
    weather = rng.choice(3, p=[0.75, 0.2, 0.05] if from_above else [0.4, 0.38, 0.22])
    low, high = style.aerial_sun_deg if from_above else style.street_sun_deg
    height, way = np.radians(rng.uniform(low, high)), rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(height) * np.cos(way), np.cos(height) * np.sin(way), np.sin(height)])
    warm = float(np.clip((40 - np.degrees(height)) / 30, 0, 1))
    strength = (1.0, 0.85, rng.uniform(0.02, 0.14))[weather] * rng.uniform(0.85, 1.1)
    sun_rgb = np.array([2.75, 2.5 - 0.25 * warm, 2.2 - 0.75 * warm]) * strength
    clear = np.array([0.42, 0.52, 0.68]) * rng.uniform(0.75, 1.1)
    cloudy = np.array([0.92, 0.95, 1.0]) * rng.uniform(0.8, 1.1)
    ambient = (clear, clear * 0.6 + cloudy * 0.4, cloudy)[weather]
    zenith = np.array([0.16, 0.34, 0.78]) * rng.uniform(0.75, 1.25, 3) * (1, 1, 1)
    horizon = np.array([0.78, 0.88, 1.0]) * rng.uniform(0.85, 1.1) * style.air_tint
    cover = (rng.uniform(0.7, 1.5), rng.uniform(-0.35, 0.55), -2.0)[weather]
    return Light(
        sun.astype(np.float32), sun_rgb.astype(np.float32), ambient.astype(np.float32),
        (ambient * 0.30 + sun_rgb * sun[2] * 0.13).astype(np.float32),
        zenith.astype(np.float32), horizon.astype(np.float32), float(cover),
        float(rng.uniform(0.55, 1.0)), (float(rng.uniform(0, 500)), float(rng.uniform(0, 500))),
        float(rng.uniform(0.006, 0.014)), float(rng.uniform(*style.haze_m)),
        float(rng.uniform(0.30, 0.46)), rng.normal(1, 0.045, 3).astype(np.float32),
        float(rng.uniform(0.9, 1.15)), float(rng.uniform(0.66, 0.95)),
        float(rng.uniform(0.002, 0.009)),
    )  # fmt: skip


def sky_colour(way: Float32Array, light: Light) -> Float32Array:
    """Linear colours (n, 3) of the sky along unit directions (n, 3), with a far tree line."""
    up = np.maximum(way[:, 2], 0)
    fade = np.exp(-3.2 * up)[:, None]
    colour = light.zenith * (1 - fade) + light.horizon * fade
    facing = way @ light.sun
    warm = np.flatnonzero(facing > 0.7)
    near = facing[warm]
    glow = 0.35 * near**12 + 1.6 * near**180 + 14.0 * (near > 0.99985)
    strength = np.float32(min(1.0, float(light.sun_rgb[0]) / 2))
    colour[warm] += (glow * strength)[:, None] * f32(1, 0.93, 0.8)
    reach = 1 / (up + 0.10)
    x = np.asarray(way[:, 0] * reach + light.drift[0], np.float32)
    y = np.asarray(way[:, 1] * reach + light.drift[1], np.float32)
    billow = noise(2, x, y, light.cloud_m) + 0.42 * noise(1, x, y, light.cloud_m * 0.45)
    dense = np.clip((billow - light.cover) / 0.9, 0, 1)
    dense = (dense * dense * (3 - 2 * dense) * np.clip(up / 0.05, 0, 1))[:, None]
    body = light.grey * (1.25 - 0.42 * np.clip(billow - light.cover - 0.5, 0, 2)[:, None] / 1.6)
    if light.cover < -1:
        body = light.grey * (1.05 + 0.10 * billow[:, None])
        dense = np.full_like(dense, 0.94)
    colour = colour * (1 - dense) + body * f32(1.0, 1.0, 1.03) * dense
    low = np.flatnonzero(way[:, 2] < 0.06)
    turn = np.arctan2(way[low, 1], way[low, 0]).astype(np.float32)
    ridge = 0.014 + 0.006 * noise(0, turn, 0 * turn + 3, 0.012)
    ridge += 0.008 * noise(1, turn, 0 * turn + 9, 0.02)
    hills = low[way[low, 2] < ridge]
    colour[hills] = light.horizon * 0.42 + f32(0.03, 0.06, 0.05)
    return np.asarray(colour, np.float32)


def hazed(colour: Float32Array, distance: Float32Array, light: Light) -> Float32Array:
    """Colours (n, 3) seen through ``distance`` (n,) metres of air."""
    clear = np.exp(-distance / light.haze_m)[:, None]
    return np.asarray(colour * clear + light.horizon * 0.8 * (1 - clear), np.float32)


def develop(
    linear: Float32Array, light: Light, rng: np.random.Generator, exposure: float = 0.0
) -> UInt8Array:
    """A picture (h, w, 3) uint8 from linear light, exposed for its middle (or by ``exposure``)."""
    luma = linear @ f32(0.3, 0.59, 0.11)
    gain = exposure or light.key / float(np.exp(np.mean(np.log(luma + 0.03))))
    x = linear * light.balance * np.float32(gain)
    x = x * (2.51 * x + 0.05) / (x * (2.0 * x + 1.1) + 0.30)
    x += (x @ f32(0.3, 0.59, 0.11))[..., None] * np.float32(1 / light.colourful - 1)
    x = np.clip(x * np.float32(light.colourful), 0, 1) ** np.float32(light.contrast / 2.2)
    x = np.clip((x - 0.5) * 1.04 + 0.5, 0, 1)
    x += rng.standard_normal(x.shape[:2], np.float32)[..., None] * np.float32(light.noise)
    return np.asarray(np.clip(x * 255 + 0.5, 0, 255), np.uint8)
