"""Drawers of VOC's indoor things: each fills a new :class:`Sketch`, y down."""

import numpy as np

from deploy.calibration.scenes.paint import (
    DARK,
    GLASS,
    LIGHT,
    METAL,
    Rng,
    finish,
    fur,
    leaf,
    paint,
    shade,
)
from deploy.calibration.scenes.sketch import Color, Sketch, smooth, turn


def bottle(rng: Rng) -> Sketch:
    """Draw a bottle: narrow neck with a cap, shoulders, a label."""
    sketch, glass = Sketch(), finish(rng)
    r, neck = rng.uniform(0.17, 0.24), rng.uniform(0.05, 0.075)
    shoulder = rng.uniform(-0.3, -0.05)
    side = [(neck, -0.82), (neck, shoulder - 0.22), (r, shoulder), (r, 0.75), (0.9 * r, 0.8)]
    outline = [*side, *[(-x, y) for x, y in reversed(side)]]
    sketch.polygon(outline, glass)
    if rng.random() < 0.5:  # what is in it
        level = rng.uniform(0.0, 0.4)
        sketch.box(-0.92 * r, level, 0.92 * r, 0.74, shade(glass, 0.6))
    label = paint(rng) if rng.random() < 0.6 else shade(LIGHT, rng.uniform(0.8, 1))
    top, bottom = rng.uniform(0.05, 0.2), rng.uniform(0.42, 0.6)
    sketch.box(-r, top, r, bottom, label)
    for i in range(3):
        y = top + (0.25 + 0.25 * i) * (bottom - top)
        sketch.stroke([(-0.6 * r, y), (rng.uniform(0, 0.7) * r, y)], 0.03, shade(label, 0.4))
    sketch.stroke([(-0.6 * r, shoulder + 0.08), (-0.6 * r, 0.7)], 0.035, shade(glass, 1.6))
    sketch.box(-1.2 * neck, -0.92, 1.2 * neck, -0.76, finish(rng))
    return sketch


def chair(rng: Rng) -> Sketch:
    """Draw a chair seen at an angle: four legs, a seat, a tall back of slats or in one piece."""
    sketch, wood = Sketch(), finish(rng)
    seat = wood if rng.random() < 0.4 else finish(rng)
    slant = rng.uniform(0.1, 0.22)
    depth, leg = rng.uniform(0.16, 0.26), rng.uniform(0.055, 0.085)
    back_left, back_right = (-0.32 + slant, 0.0), (0.3 + slant, 0.0)
    front_left, front_right = (-0.38, depth), (0.32, depth)
    for x, y in (back_left, back_right):
        sketch.stroke([(x, y), (x, 0.62)], leg, shade(wood, 0.65))
    height = rng.uniform(0.62, 0.82)
    panel = [(back_left[0], -height), (back_right[0], -height), back_right, back_left]
    style = rng.integers(3)
    if style == 0:
        sketch.polygon(panel, shade(seat, 0.8))
    else:
        sketch.polygon(panel, shade(wood, 0.9), opacity=0.06)
        bars = 4 if style == 1 else 3
        for i in range(1, bars + 1):
            t = i / (bars + 1)
            if style == 1:
                x = back_left[0] + t * (back_right[0] - back_left[0])
                sketch.stroke([(x, -height), (x, 0)], 0.06, shade(wood, 0.9))
            else:
                y = -height * t
                sketch.stroke([(back_left[0], y), (back_right[0], y)], 0.09, shade(wood, 0.9))
    sketch.stroke([(back_left[0], -height), (back_right[0], -height)], 0.11, wood)
    for x, _ in (back_left, back_right):
        sketch.stroke([(x, -height), (x, 0.05)], 1.2 * leg, wood)
    for x, y in (front_left, front_right):
        sketch.stroke([(x, y), (x, 0.78)], 1.15 * leg, wood)
    sketch.polygon([back_left, back_right, front_right, front_left], seat)
    sketch.stroke([front_left, front_right], 0.08, shade(seat, 0.7))
    return sketch


def _dishes(sketch: Sketch, rng: Rng, y: float) -> None:
    for x in np.linspace(-0.6, 0.6, int(rng.integers(2, 5))):
        at, kind = float(x) + rng.uniform(-0.05, 0.05), rng.integers(3)
        if kind == 0:
            sketch.ellipse((at, y), (0.16, 0.05), LIGHT)
            sketch.ellipse((at, y), (0.1, 0.028), shade(LIGHT, 0.8))
        elif kind == 1:
            sketch.box(at - 0.04, y - 0.2, at + 0.04, y, shade(GLASS, 1.5))
        else:
            sketch.blob([(at - 0.13, y - 0.1), (at + 0.13, y - 0.1), (at, y + 0.03)], paint(rng))


def dining_table(rng: Rng) -> Sketch:
    """Draw a laid table seen a little from above, round or square, on legs or one foot."""
    sketch, wood = Sketch(), fur(rng) if rng.random() < 0.6 else finish(rng)
    tall = rng.uniform(0.55, 0.75)
    if rng.random() < 0.5:
        flat = rng.uniform(0.18, 0.26)
        sketch.ellipse((0, tall), (0.38, 0.09), shade(wood, 0.6))
        sketch.stroke([(0, 0), (0, tall)], 0.16, shade(wood, 0.7))
        if rng.random() < 0.35:
            cloth = paint(rng)
            hem = [(x, 0.3 + 0.05 * (-1) ** i) for i, x in enumerate(np.linspace(0.97, -0.97, 12))]
            sketch.polygon([(-1, 0.0), (1, 0.0), *hem], shade(cloth, 0.75))
            wood = cloth
        sketch.ellipse((0, 0.05), (1, flat), shade(wood, 0.65))
        sketch.ellipse((0, 0), (1, flat), wood)
    else:
        skew, depth = rng.uniform(0.08, 0.3), rng.uniform(0.2, 0.3)
        for x, y in (
            (skew - 0.9, 0.1 - depth),
            (0.9 - skew, 0.1 - depth),
            (-0.92, depth),
            (0.92, depth),
        ):
            bottom = y + tall
            sketch.stroke([(x, y), (x, bottom)], 0.11, shade(wood, 0.6 if y < 0 else 0.85))
        top = [(-1 + skew, -depth), (1 - skew, -depth), (1, depth), (-1, depth)]
        sketch.polygon(top, wood)
        sketch.box(-1, depth, 1, depth + 0.09, shade(wood, 0.65))
    _dishes(sketch, rng, rng.uniform(-0.06, 0.04))
    return sketch


def sofa(rng: Rng) -> Sketch:
    """Draw a sofa from the front: a low wide back, seat cushions, two thick arms."""
    sketch, cloth = Sketch(), finish(rng)
    for x in (-0.85, 0.77):
        sketch.box(x, 0.4, x + 0.08, 0.52, DARK)
    sketch.box(-0.88, rng.uniform(-0.5, -0.38), 0.88, 0.2, shade(cloth, 0.85), corner=0.1)
    seats = int(rng.integers(2, 4))
    width = 1.5 / seats
    for i in range(seats):
        left = -0.75 + i * width
        sketch.box(left + 0.01, -0.3, left + width - 0.01, 0.08, cloth, corner=0.05)
        sketch.box(left + 0.01, 0.02, left + width - 0.01, 0.22, shade(cloth, 1.18), corner=0.05)
    sketch.box(-0.8, 0.2, 0.8, 0.42, shade(cloth, 0.7))
    for side in (-1, 1):
        x = side * 0.86
        sketch.box(x - 0.13, -0.12, x + 0.13, 0.44, shade(cloth, 0.95), corner=0.05)
        sketch.disc((x, -0.1), 0.15, shade(cloth, 1.1))
        sketch.disc((x, -0.1), 0.07, shade(cloth, 0.75))
    for _ in range(int(rng.integers(0, 3))):
        x, pillow = rng.uniform(-0.55, 0.55), paint(rng)
        corners = [
            (x - 0.15, -0.2),
            (x, -0.17),
            (x + 0.15, -0.2),
            (x + 0.13, 0.06),
            (x - 0.13, 0.06),
        ]
        sketch.polygon(smooth(corners, steps=3), pillow)
    return sketch


def _picture(sketch: Sketch, rng: Rng, w: float, h: float) -> None:
    """Draw what the screen (-w…w, -h…h) shows: dark, a view, or text."""
    kind = rng.integers(3)
    back: Color = shade(DARK, rng.uniform(0.8, 2.5)) if kind == 0 else paint(rng)
    sketch.box(-w, -h, w, h, back)
    if kind == 0:
        shine = [(-0.7 * w, -h), (-0.35 * w, -h), (-0.75 * w, h), (-w, h)]
        sketch.polygon(shine, shade(back, 2.0))
    elif kind == 1:
        hills = [
            (-w, 0.2 * h),
            (-0.4 * w, -0.3 * h),
            (0.1 * w, 0.3 * h),
            (0.6 * w, 0),
            (w, 0.3 * h),
        ]
        sketch.polygon([*hills, (w, h), (-w, h)], leaf(rng))
        sketch.disc((0.5 * w, -0.5 * h), 0.15 * h, LIGHT)
    else:
        for i in range(6):
            y, end = (-0.75 + 0.28 * i) * h, rng.uniform(-0.2, 0.85) * w
            sketch.stroke([(-0.85 * w, y), (end, y)], 0.08 * h, shade(back, 0.4))


def tv_monitor(rng: Rng) -> Sketch:
    """Draw a television or monitor: a screen in a frame, on a foot or as a tube set with knobs."""
    sketch, case = Sketch(), shade(DARK, 1.5) if rng.random() < 0.4 else finish(rng)
    h = rng.uniform(0.5, 0.62)
    if rng.random() < 0.65:
        sketch.stroke([(0, h), (0, h + 0.25)], 0.2, shade(case, 0.75))
        sketch.ellipse((0, h + 0.27), (rng.uniform(0.35, 0.5), 0.07), shade(case, 0.9))
        sketch.box(-0.92, -h - 0.08, 0.92, h + 0.1, case, corner=0.04)
        _picture(sketch, rng, 0.84, h)
        sketch.disc((0.75, h + 0.05), 0.025, np.array([0.3, 0.9, 0.4]))
        return sketch
    for side in (-1, 1):
        sketch.stroke([(0.02 * side, -h), (0.4 * side, -h - 0.5)], 0.04, METAL)
        sketch.stroke([(0.5 * side, h), (0.6 * side, h + 0.35)], 0.08, shade(case, 0.6))
    sketch.box(-0.9, -h - 0.12, 0.9, h + 0.14, case, corner=0.1)
    _picture(sketch, rng, 0.62, h - 0.02)
    for y in (-0.3, 0.0):
        sketch.disc((0.76, y), 0.08, shade(case, 0.5))
    for y in (0.2, 0.28, 0.36):
        sketch.stroke([(0.69, y), (0.83, y)], 0.03, shade(case, 0.5))
    return sketch


def potted_plant(rng: Rng) -> Sketch:
    """Draw a plant in a pot: blades, a bush, or stalks with flowers."""
    sketch, pot, green = Sketch(), finish(rng), leaf(rng)
    kind = rng.integers(3)
    for _ in range(int(rng.integers(12, 18)) if kind == 0 else 0):
        reach, height = rng.uniform(-0.6, 0.6), rng.uniform(0.4, 0.85)
        tip = (reach, -height * (1 - 0.6 * abs(reach)))
        blade = [(0.15 * reach, 0.1), (0.55 * reach, 0.75 * tip[1]), tip]
        sketch.curve(blade, rng.uniform(0.07, 0.13), shade(green, rng.uniform(0.6, 1.3)), 0.02)
    for _ in range(int(rng.integers(30, 45)) if kind == 1 else 0):
        angle, radius = rng.uniform(0, 2 * np.pi), 0.45 * np.sqrt(rng.random())
        at = (radius * np.cos(angle), -0.4 + radius * np.sin(angle))
        tint = shade(green, rng.uniform(0.55, 1.35))
        sketch.ellipse(at, (0.15, 0.07), tint, rng.uniform(0, 180))
    petals = paint(rng)
    for _ in range(int(rng.integers(4, 8)) if kind == 2 else 0):
        x, y = rng.uniform(-0.45, 0.45), rng.uniform(-0.8, -0.35)
        sketch.curve([(0.1 * x, 0.15), (0.6 * x, 0.4 * y), (x, y)], 0.045, shade(green, 0.8))
        for t in (0.3, 0.6):
            at = (0.7 * t * x + 0.1 * x, t * y)
            sketch.ellipse(at, (0.14, 0.05), shade(green, 1.1), rng.uniform(-60, 60))
        for petal in range(6):
            spoke = turn([(0.08, 0.0)], 60 * petal)[0]
            sketch.disc((x + float(spoke[0]), y + float(spoke[1])), 0.055, petals)
        sketch.disc((x, y), 0.05, np.array([0.9, 0.75, 0.2]))
    taper, depth = rng.uniform(0.6, 0.85), rng.uniform(0.4, 0.55)
    foot = 0.3 * taper
    sketch.polygon([(-0.3, 0.12), (0.3, 0.12), (foot, 0.12 + depth), (-foot, 0.12 + depth)], pot)
    sketch.box(-0.35, 0.05, 0.35, 0.17, shade(pot, 0.85))
    return sketch
