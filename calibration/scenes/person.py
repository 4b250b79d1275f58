"""The drawer of VOC's class person."""

import numpy as np

from deploy.calibration.scenes.paint import DARK, Rng, finish, fur, paint, shade
from deploy.calibration.scenes.sketch import Color, Sketch, smooth


def _limb(
    sketch: Sketch,
    joint: tuple[float, float],
    angles: tuple[float, float],
    length: float,
    width: float,
    cloth: Color,
    end: Color,
) -> None:
    """Draw an arm or a leg of two segments; angles in degrees from straight down."""
    first, second = np.radians(angles[0]), np.radians(angles[0] + angles[1])
    middle = (joint[0] + length * float(np.sin(first)), joint[1] + length * float(np.cos(first)))
    tip = (middle[0] + length * float(np.sin(second)), middle[1] + length * float(np.cos(second)))
    sketch.stroke([joint, middle, tip], width, cloth, 0.75 * width)
    sketch.disc(tip, 0.55 * width, end)


def person(rng: Rng) -> Sketch:
    """Draw a person from the front in any pose, the whole body or from the chest up."""
    sketch, shirt, trousers = Sketch(), finish(rng), finish(rng)
    tone = rng.uniform(0.25, 1.0)
    skin = np.clip(np.array([0.93, 0.74, 0.62]) * tone + rng.normal(0, 0.02, 3), 0, 1)
    hair = fur(rng) * rng.uniform(0.3, 1)
    if rng.random() < 0.8:
        shoe = shade(fur(rng), 0.5)
        if rng.random() < 0.25:  # a skirt
            for x in (-0.08, 0.08):
                _limb(sketch, (x, 0.1), (rng.uniform(-8, 8), 0), 0.3, 0.1, skin, shoe)
            sketch.polygon([(-0.13, 0.0), (0.13, 0.0), (0.27, 0.42), (-0.27, 0.42)], trousers)
        else:
            for x in (-0.09, 0.09):
                angles = (rng.uniform(-8, 28) * np.sign(x), rng.uniform(-30, 8) * np.sign(x))
                _limb(sketch, (x, 0.05), angles, 0.34, 0.16, trousers, shoe)
        for side in (-1, 1):
            swing = rng.uniform(8, 60) if rng.random() < 0.75 else rng.uniform(100, 160)
            angles = (side * swing, -side * rng.uniform(-20, 70))
            _limb(sketch, (side * 0.2, -0.4), angles, 0.23, 0.11, shade(shirt, 0.85), skin)
        trunk = [(-0.23, -0.45), (0.23, -0.45), (0.16, -0.1), (0.18, 0.1), (-0.18, 0.1)]
        sketch.polygon([*trunk, (-0.16, -0.1)], shirt)
    else:
        bust = [(-0.13, -0.45), (0.13, -0.45), (0.4, -0.33), (0.5, 0.2), (-0.5, 0.2)]
        sketch.polygon([*bust, (-0.4, -0.33)], shirt)
        sketch.polygon([(-0.1, -0.45), (0.1, -0.45), (0.0, -0.25)], skin)
    sketch.stroke([(0, -0.4), (0, -0.55)], 0.12, shade(skin, 0.85))
    if rng.random() < 0.4:
        sketch.ellipse((0, -0.62), (0.19, 0.25), hair)
    sketch.ellipse((0, -0.68), (0.145, 0.18), skin)
    top = [(-0.16, -0.68), (-0.14, -0.86), (0.0, -0.91), (0.14, -0.86), (0.16, -0.68), (0.0, -0.79)]
    sketch.polygon(smooth(top, steps=3), hair if rng.random() < 0.8 else paint(rng))
    for x in (-0.055, 0.055):
        sketch.disc((x, -0.68), 0.018, DARK)
    sketch.stroke([(-0.05, -0.58), (0.05, -0.58)], 0.02, np.array([0.6, 0.25, 0.25]))
    return sketch
