"""What stands behind and between the objects of a scene, all of it labelled background."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deploy.calibration.scenes.paint import (
    DARK,
    GLASS,
    LAMP,
    METAL,
    Rng,
    finish,
    fur,
    leaf,
    paint,
    shade,
)
from deploy.calibration.scenes.sketch import Color, Float32Array, Sketch
from deploy.calibration.scenes.textures import noise, texture

Fill = tuple[int, int, int]


def background(rng: Rng, height: int, width: int) -> Float32Array:
    """Return a place: outdoors, a room, a studio backdrop or a jumble, float32 (H, W, 3) in 0…1."""
    place = rng.choice(4, p=[0.46, 0.34, 0.14, 0.06])
    return (_outdoors, _room, _backdrop, _jumble)[place](rng, height, width)


def _fill(color: Color) -> Fill:
    r, g, b = (int(v) for v in np.clip(color, 0, 1) * 255)
    return r, g, b


def _gradient(top: Color, bottom: Color, height: int, width: int) -> Float32Array:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    rows: NDArray[np.float64] = (1 - t) * top + t * bottom
    return np.repeat(rows[:, None].astype(np.float32), width, axis=1)


def _as_image(array: Float32Array) -> Image.Image:
    return Image.fromarray((array.clip(0, 1) * 255).astype(np.uint8))


def _as_array(image: Image.Image) -> Float32Array:
    array: Float32Array = np.divide(np.asarray(image), 255, dtype=np.float32)
    return array


def _textured(rng: Rng, color: Color, height: int, width: int) -> Float32Array:
    """Return one colour with a strong texture of its own, seen flat on."""
    factor = texture(rng, None, height, width) + 0.12 * noise(rng, height, width, 5)
    factor = factor + rng.uniform(0, 0.12) * noise(rng, height, width, width / 3)
    textured: Float32Array = color.astype(np.float32) * factor[:, :, None]
    return textured


def _outdoors(rng: Rng, height: int, width: int) -> Float32Array:
    horizon = int(height * rng.uniform(0.3, 0.65))
    blue = np.array([0.45, 0.65, 0.9]) * rng.uniform(0.6, 1.1)
    sky = blue if rng.random() < 0.6 else paint(rng)
    scene = _gradient(sky, 0.5 * sky + 0.5 * shade(paint(rng), 1.3), height, width)
    clouds = noise(rng, horizon, width, 5) + 0.5 * noise(rng, horizon, width, 14)
    scene[:horizon] += rng.uniform(0, 0.3) * clouds.clip(0, 1)[:, :, None]
    image = _as_image(scene)
    draw = ImageDraw.Draw(image)
    (_hills, _houses, _trees)[rng.integers(3)](rng, draw, horizon, width)
    scene = _as_array(image)
    ground = leaf(rng) if rng.random() < 0.45 else fur(rng) if rng.random() < 0.6 else paint(rng)
    depth = height - horizon
    # what lies farther is finer: rows are squeezed towards the horizon
    flat = _textured(rng, ground, 2 * depth, width)
    rows = (2 * depth - 1) * np.sqrt(np.linspace(0, 1, depth))
    scene[horizon:] = flat[rows.astype(int)]
    return scene


def _hills(rng: Rng, draw: ImageDraw.ImageDraw, horizon: int, width: int) -> None:
    for _ in range(int(rng.integers(1, 4))):
        xs = np.linspace(-20, width + 20, int(rng.integers(4, 9)))
        ys = horizon - rng.uniform(5, 0.5 * horizon, len(xs))
        ridge = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        color = leaf(rng) if rng.random() < 0.5 else fur(rng)
        draw.polygon([(-20, horizon + 2), *ridge, (width + 20, horizon + 2)], fill=_fill(color))


def _houses(rng: Rng, draw: ImageDraw.ImageDraw, horizon: int, width: int) -> None:
    x = -20.0
    while x < width:
        wide, tall = rng.uniform(40, 130), rng.uniform(0.2, 0.85) * horizon
        wall = finish(rng)
        top = horizon - tall
        draw.rectangle([x, top, x + wide, horizon + 2], fill=_fill(wall))
        if rng.random() < 0.5:
            roof = [(x - 4, top), (x + wide / 2, top - 0.3 * wide), (x + wide + 4, top)]
            draw.polygon(roof, fill=_fill(shade(wall, 0.5)))
        pane = _fill(GLASS if rng.random() < 0.6 else shade(wall, 0.6))
        for wy in np.arange(top + 8, horizon - 14, 22):
            for wx in np.arange(x + 6, x + wide - 12, 18):
                draw.rectangle([wx, wy, wx + 9, wy + 13], fill=pane)
        x += wide + rng.uniform(-5, 40)


def _trees(rng: Rng, draw: ImageDraw.ImageDraw, horizon: int, width: int) -> None:
    for _ in range(int(rng.integers(6, 16))):
        x, r = rng.uniform(0, width), rng.uniform(15, 50)
        y, green = horizon - r * rng.uniform(0.8, 1.8), leaf(rng)
        draw.rectangle([x - 4, y, x + 4, horizon + 3], fill=_fill(fur(rng) * 0.7))
        for _ in range(7):
            dx, dy = rng.uniform(-0.7, 0.7, 2) * r
            box = [x + dx - r / 2, y + dy - r / 2, x + dx + r / 2, y + dy + r / 2]
            draw.ellipse(box, fill=_fill(shade(green, rng.uniform(0.7, 1.2))))


def _room(rng: Rng, height: int, width: int) -> Float32Array:
    floor_at = int(height * rng.uniform(0.55, 0.85))
    scene = np.concatenate(
        [
            _textured(rng, finish(rng), floor_at, width),
            _textured(rng, fur(rng), height - floor_at, width),
        ]
    )
    image = _as_image(scene)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:  # planks or tiles
        line = _fill(fur(rng) * 0.5)
        vanish = rng.uniform(0, width)
        for x in np.linspace(-2 * width, 3 * width, int(rng.integers(20, 50))):
            draw.line([vanish + 0.4 * (x - vanish), floor_at, x, height], fill=line, width=1)
    draw.rectangle([0, floor_at - 7, width, floor_at], fill=_fill(finish(rng)))
    for _ in range(int(rng.integers(0, 5))):  # windows, pictures, cupboards, shelves
        x, y = rng.uniform(-40, width - 40), rng.uniform(-20, 0.6 * floor_at)
        w, h = rng.uniform(40, 160), rng.uniform(30, 150)
        bottom = min(y + h, floor_at - 8) if rng.random() < 0.7 else floor_at
        if bottom - y < 20:
            continue
        frame = finish(rng)
        draw.rectangle([x, y, x + w, bottom], fill=_fill(frame))
        draw.rectangle([x + 6, y + 6, x + w - 6, bottom - 6], fill=_fill(paint(rng)))
        if rng.random() < 0.6:
            draw.line([x + w / 2, y, x + w / 2, bottom], fill=_fill(frame), width=5)
        if rng.random() < 0.6:
            draw.line([x, (y + bottom) / 2, x + w, (y + bottom) / 2], fill=_fill(frame), width=5)
    return _as_array(image)


def _backdrop(rng: Rng, height: int, width: int) -> Float32Array:
    a, b = finish(rng), finish(rng)
    mix = (0.5 + 0.35 * noise(rng, height, width, rng.uniform(2, 8))).clip(0, 1)[:, :, None]
    backdrop: Float32Array = (a * mix + b * (1 - mix)).astype(np.float32)
    backdrop *= texture(rng, None, height, width)[:, :, None]
    return backdrop


def _jumble(rng: Rng, height: int, width: int) -> Float32Array:
    image = _as_image(_textured(rng, finish(rng), height, width))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(8, 25))):
        x, y = rng.uniform(-30, width), rng.uniform(-30, height)
        w, h = rng.uniform(15, 130, 2)
        fill, kind = _fill(finish(rng)), rng.integers(4)
        if kind == 0:
            draw.ellipse([x, y, x + w, y + h], fill=fill)
        elif kind == 1:
            draw.rectangle([x, y, x + w, y + h], fill=fill)
        elif kind == 2:
            corners = rng.uniform(-0.6, 0.6, (int(rng.integers(3, 7)), 2)) * (w, h) + (x, y)
            draw.polygon(corners.ravel().tolist(), fill=fill)
        else:
            dx, dy = rng.uniform(-150, 150, 2)
            draw.line([x, y, x + dx, y + dy], fill=fill, width=int(rng.integers(2, 16)))
    return _as_array(image)


def prop(rng: Rng) -> Sketch:
    """Return a thing of no class: ball, crate, post, tree, rock, street lamp or fence."""
    sketch, color = Sketch(), finish(rng)
    kind = rng.integers(7)
    if kind == 0:
        sketch.disc((0, 0), 0.5, color)
        sketch.ellipse((0, 0), (0.2, 0.5), paint(rng), rng.uniform(0, 180))
    elif kind == 1:
        sketch.box(-0.5, -0.4, 0.5, 0.4, color)
        sketch.polygon([(-0.5, -0.4), (-0.3, -0.6), (0.7, -0.6), (0.5, -0.4)], shade(color, 1.25))
        sketch.polygon([(0.5, -0.4), (0.7, -0.6), (0.7, 0.2), (0.5, 0.4)], shade(color, 0.65))
        sketch.stroke([(-0.45, -0.35), (0.45, 0.35)], 0.07, shade(color, 0.8))
    elif kind == 2:
        sketch.box(-0.08, -1, 0.08, 1, color)
    elif kind == 3:
        sketch.stroke([(0, -0.2), (0, 1)], 0.2, fur(rng))
        for at in rng.uniform(-0.45, 0.45, (14, 2)):
            sketch.disc((at[0], at[1] - 0.4), 0.25, shade(leaf(rng), 0.9))
    elif kind == 4:
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        reach = rng.uniform(0.35, 0.6, 9)
        sketch.polygon(
            np.stack([np.cos(angle) * reach, 0.6 * np.sin(angle) * reach], axis=1), color
        )
    elif kind == 5:
        sketch.stroke(
            [(0, 1), (0, -0.8), (0.25, -0.9)], 0.07, METAL if rng.random() < 0.5 else DARK
        )
        sketch.ellipse((0.3, -0.88), (0.14, 0.07), LAMP)
    else:
        for x in np.linspace(-1, 1, int(rng.integers(5, 10))):
            sketch.box(x - 0.05, -0.4, x + 0.05, 0.4, color)
        sketch.box(-1.05, -0.2, 1.05, -0.08, shade(color, 0.8))
        sketch.box(-1.05, 0.12, 1.05, 0.24, shade(color, 0.8))
    return sketch
