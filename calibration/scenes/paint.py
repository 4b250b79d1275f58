"""Colours, textures and light for the scenes, all drawn from one seeded generator."""

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.scenes.sketch import Color, Float32Array

Rng = np.random.Generator

DARK = np.array([0.09, 0.09, 0.10])
LIGHT = np.array([0.92, 0.91, 0.88])
METAL = np.array([0.62, 0.64, 0.66])
GLASS = np.array([0.35, 0.45, 0.52])
LAMP = np.array([0.98, 0.93, 0.70])
_FUR = np.array(
    [
        (0.28, 0.18, 0.11),
        (0.55, 0.38, 0.22),
        (0.80, 0.65, 0.45),
        (0.14, 0.13, 0.13),
        (0.90, 0.88, 0.84),
        (0.50, 0.49, 0.48),
        (0.66, 0.38, 0.18),
    ]
)


def paint(rng: Rng) -> Color:
    """Return a colour of any hue, from pale to vivid."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.9), rng.uniform(0.2, 1)))


def fur(rng: Rng) -> Color:
    """Return a colour of fur, wood, leather or stone."""
    color: Color = np.clip(_FUR[rng.integers(len(_FUR))] + rng.normal(0, 0.05, 3), 0.04, 0.97)
    return color


def coat(rng: Rng) -> Color:
    """Return an animal's colour: mostly fur, now and then any other."""
    return fur(rng) if rng.random() < 0.85 else paint(rng)


def finish(rng: Rng) -> Color:
    """Return the colour of a made thing: any paint, or wood, leather and the like."""
    return paint(rng) if rng.random() < 0.6 else fur(rng)


def leaf(rng: Rng) -> Color:
    """Return a colour of foliage."""
    hue, value = rng.uniform(0.17, 0.42), rng.uniform(0.2, 0.75)
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.8), value))


def shade(color: Color, factor: float) -> Color:
    """Return the colour darker (factor below 1) or lighter (above 1)."""
    shaded: Color = np.clip(color * factor + max(0.0, factor - 1) * 0.1, 0, 1)
    return shaded


def noise(rng: Rng, height: int, width: int, cells: float) -> Float32Array:
    """Return smooth noise (height, width): mean 0, unit scale, about ``cells`` bumps across."""
    step = max(height, width) / cells
    rows, columns = max(2, round(height / step) + 1), max(2, round(width / step) + 1)
    grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _plain(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.06 * noise(rng, height, width, 4)


def _mottled(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.10 * noise(rng, height, width, 6) + 0.08 * noise(rng, height, width, 25)


def _grainy(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.13 * noise(rng, height, width, max(height, width) / 2.5)


def _woolly(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.16 * noise(rng, height, width, 28) + 0.07 * noise(rng, height, width, 60)


def _shaggy(rng: Rng, height: int, width: int) -> Float32Array:
    # noise that is far finer across the hair than along it
    locks = noise(rng, max(2, height // 6), width, width / 4)
    streaks = Image.fromarray(locks).resize((width, height), Image.Resampling.BICUBIC)
    return 0.16 * np.asarray(streaks, dtype=np.float32) + 0.06 * noise(rng, height, width, 8)


def _striped(rng: Rng, height: int, width: int) -> Float32Array:
    angle, waves = rng.uniform(0, np.pi), rng.uniform(6, 22)
    y, x = np.ogrid[:height, :width]
    phase = (np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi * waves / max(height, width))
    bent: Float32Array = phase.astype(np.float32) + noise(rng, height, width, 3)
    stripes: Float32Array = np.float32(rng.uniform(0.05, 0.22)) * np.sin(bent)
    return stripes


TEXTURES: dict[str, Callable[[Rng, int, int], Float32Array]] = {
    "plain": _plain,
    "mottled": _mottled,
    "grainy": _grainy,
    "shaggy": _shaggy,
    "striped": _striped,
    "woolly": _woolly,
}
_COMMON = ("plain", "plain", "mottled", "mottled", "grainy", "striped")


def texture(rng: Rng, name: str | None, height: int, width: int) -> Float32Array:
    """Return a factor (height, width) around 1: the named texture, by default a random one."""
    chosen = name or str(rng.choice(_COMMON))
    return 1 + TEXTURES[chosen](rng, height, width)


def light(rng: Rng, height: int, width: int, strength: float) -> Float32Array:
    """Return a factor (height, width) that falls off linearly across the image."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    factor: NDArray[np.float64] = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)
    return factor.astype(np.float32)
