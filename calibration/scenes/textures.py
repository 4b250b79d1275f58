"""What surfaces look like from near: a factor around 1 for each pixel of a rasterized drawing.

A pattern that repeats has a size that follows the drawing's: it is that of the thing, whatever its
distance. Hair, grain and wood are as fine as the picture shows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.calibration.scenes.paint import Rng
from deploy.calibration.scenes.sketch import Float32Array


def noise(rng: Rng, height: int, width: int, cells: float) -> Float32Array:
    """Return smooth noise (height, width): mean 0, unit scale, about ``cells`` bumps across."""
    step = max(height, width) / cells
    return _stretched(rng, height, width, step, step)


def _stretched(rng: Rng, height: int, width: int, down: float, across: float) -> Float32Array:
    """Return smooth noise whose bumps are ``down`` x ``across`` pixels."""
    rows, columns = max(2, round(height / down) + 1), max(2, round(width / across) + 1)
    grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _phases(
    rng: Rng, height: int, width: int, waves: float, degrees: float = 0
) -> tuple[Float32Array, Float32Array]:
    """Return two coordinates at right angles, in periods, ``waves`` of them along the longer side.

    They start anywhere and are bent a little.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(waves / max(height, width))
    c, s = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    bend = 0.15 * noise(rng, height, width, 2)
    start = rng.random(2).astype(np.float32)
    return c * x + s * y + bend + start[0], c * y - s * x + bend + start[1]


def _lines(phase: Float32Array, share: float) -> Float32Array:
    """Return 1 on lines that take ``share`` of each period, else 0, with soft edges."""
    distance = np.abs(phase - np.round(phase))
    lines: Float32Array = ((share / 2 - distance) * 8 / share + 0.5).clip(0, 1)
    return lines


def _plain(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.06 * noise(rng, height, width, 4)


def _mottled(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.10 * noise(rng, height, width, 6) + 0.08 * noise(rng, height, width, 25)


def _dappled(rng: Rng, height: int, width: int) -> Float32Array:
    spots: Float32Array = (noise(rng, height, width, 20) - 0.5).clip(0, 0.8)
    return 0.4 * spots


def _grainy(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.13 * noise(rng, height, width, max(height, width) / 2.5)


def _woolly(rng: Rng, height: int, width: int) -> Float32Array:
    return 0.16 * noise(rng, height, width, 28) + 0.07 * noise(rng, height, width, 60)


def _shaggy(rng: Rng, height: int, width: int) -> Float32Array:
    # far finer across the hair than along it
    return 0.16 * _stretched(rng, height, width, 24, 4) + 0.06 * noise(rng, height, width, 8)


def _wooden(rng: Rng, height: int, width: int) -> Float32Array:
    veins = _stretched(rng, height, width, 4, 60)
    return 0.14 * veins + 0.06 * noise(rng, height, width, 6)


def _striped(rng: Rng, height: int, width: int) -> Float32Array:
    across, _ = _phases(rng, height, width, rng.uniform(6, 22), rng.uniform(0, 180))
    stripes: Float32Array = np.float32(rng.uniform(0.05, 0.22)) * np.sin(2 * np.pi * across)
    return stripes


def _tabby(rng: Rng, height: int, width: int) -> Float32Array:
    across, _ = _phases(rng, height, width, 13, rng.uniform(-15, 15))
    return -0.35 * _lines(across + 0.25 * noise(rng, height, width, 9), 0.45)


def _feathered(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 15)
    x += np.where(np.floor(y) % 2 == 0, 0.5, 0).astype(np.float32)  # every other row is shifted
    reach = np.hypot(x - np.round(x), 0.9 * (y - np.floor(y)))
    scales: Float32Array = 0.3 * (0.5 - reach)
    return scales


def _panelled(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 12)
    seams: Float32Array = np.maximum(_lines(x, 0.14), _lines(y, 0.14))
    return -0.3 * seams


def _riveted(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 20)
    apart: Float32Array = np.hypot(x - np.round(x), y - np.round(y))
    dots: Float32Array = ((0.3 - apart) * 8).clip(0, 1)
    return 0.45 * dots


def _planked(rng: Rng, height: int, width: int) -> Float32Array:
    _, y = _phases(rng, height, width, 17)
    boards = 0.1 * np.sin(37 * np.floor(y))  # each of another tone
    planks: Float32Array = (boards - 0.35 * _lines(y, 0.25)).astype(np.float32)
    return planks


def _ribbed(rng: Rng, height: int, width: int) -> Float32Array:
    x, _ = _phases(rng, height, width, 24)
    ribs: Float32Array = 0.2 * np.sin(2 * np.pi * x)
    return ribs


def _brushed(rng: Rng, height: int, width: int) -> Float32Array:
    x, _ = _phases(rng, height, width, 24, 45)
    return 0.4 * (_lines(x, 0.35) - 0.35)


def _tufted(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 12, 45)
    quilt = np.abs(np.sin(np.pi * x) * np.sin(np.pi * y))
    tufts: Float32Array = 0.5 * (np.sqrt(quilt) - 0.6)
    return tufts


def _checked(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 14, rng.uniform(-10, 10))
    checks: Float32Array = 0.18 * (_lines(x, 0.5) + _lines(y, 0.5) - 1)
    return checks


def _knitted(rng: Rng, height: int, width: int) -> Float32Array:
    x, y = _phases(rng, height, width, 16)
    slope: Float32Array = np.abs(x - np.round(x))
    return 0.28 * (_lines(y + slope, 0.5) - 0.5)


def _sheen(rng: Rng, length: int, strength: float, bands: float) -> Float32Array:
    """Return a highlight every other band along a side of ``length`` pixels, about 0."""
    along = np.linspace(0, 1, length, dtype=np.float32) + np.float32(rng.uniform(-0.1, 0.1))
    sheen: Float32Array = np.float32(strength) * np.cos(np.float32(bands * np.pi) * along)
    return sheen


def _glossy(rng: Rng, height: int, width: int) -> Float32Array:
    return np.tile(_sheen(rng, width, 0.35, 4), (height, 1))


def _lacquered(rng: Rng, height: int, width: int) -> Float32Array:
    return np.tile(_sheen(rng, height, 0.3, 3)[:, None], (1, width))


def _lined(rng: Rng, height: int, width: int) -> Float32Array:
    _, y = _phases(rng, height, width, 26)
    return -0.4 * _lines(y, 0.4)


def _veined(rng: Rng, height: int, width: int) -> Float32Array:
    across, _ = _phases(rng, height, width, 22, rng.choice([55, -55]))
    return 0.2 * _lines(across + 0.2 * noise(rng, height, width, 10), 0.4)


TEXTURES: dict[str, Callable[[Rng, int, int], Float32Array]] = {
    "brushed": _brushed,
    "checked": _checked,
    "dappled": _dappled,
    "feathered": _feathered,
    "glossy": _glossy,
    "grainy": _grainy,
    "knitted": _knitted,
    "lacquered": _lacquered,
    "lined": _lined,
    "mottled": _mottled,
    "panelled": _panelled,
    "plain": _plain,
    "planked": _planked,
    "ribbed": _ribbed,
    "riveted": _riveted,
    "shaggy": _shaggy,
    "striped": _striped,
    "tabby": _tabby,
    "tufted": _tufted,
    "veined": _veined,
    "wooden": _wooden,
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


def surface(rng: Rng, rgba: Float32Array, name: str | None) -> Float32Array:
    """Return a rasterized drawing (H, W, 4) with a texture and the light's fall-off across it."""
    height, width = rgba.shape[:2]
    textured = rgba.copy()
    factor = texture(rng, name, height, width) * light(rng, height, width, 0.18)
    textured[:, :, :3] *= factor[:, :, None]
    return textured
