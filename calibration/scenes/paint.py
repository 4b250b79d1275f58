"""Colours for the scenes, drawn from a seeded generator."""

import colorsys

import numpy as np

from deploy.calibration.scenes.sketch import Color

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
