"""Drawers of VOC's vehicles: each fills a new :class:`Sketch`, facing right, y down."""

import numpy as np

from deploy.calibration.scenes.paint import (
    DARK,
    GLASS,
    LAMP,
    LIGHT,
    METAL,
    Rng,
    finish,
    fur,
    paint,
    shade,
)
from deploy.calibration.scenes.sketch import Color, Sketch, smooth


def _tyre(sketch: Sketch, x: float, y: float, radius: float, hub: Color) -> None:
    sketch.disc((x, y), radius, DARK)
    sketch.disc((x, y), 0.6 * radius, hub)
    sketch.disc((x, y), 0.2 * radius, shade(hub, 0.5))


def aeroplane(rng: Rng) -> Sketch:
    """Draw an airliner from the side, or seen from above with both wings spread."""
    sketch, body, wing = Sketch(), finish(rng), finish(rng)
    if rng.random() < 0.5:
        wing = shade(body, 0.75)
    if rng.random() < 0.6:
        sketch.polygon([(-0.75, -0.05), (-1.0, -0.45), (-0.85, -0.45), (-0.5, -0.08)], wing)
        far = [(0.1, -0.05), (-0.15, -0.33), (-0.27, -0.33), (-0.12, -0.03)]
        sketch.polygon(far, shade(wing, 0.7))
        hull = [(-1.0, -0.06), (-0.6, -0.12), (0.6, -0.13), (0.85, -0.08), (1.0, 0.02), (0.85, 0.1)]
        sketch.blob([*hull, (0.3, 0.13), (-0.5, 0.1)], body)
        sketch.polygon([(-0.95, 0.04), (0.9, 0.04), (0.8, 0.08), (-0.7, 0.08)], finish(rng))
        for x in np.arange(-0.6, 0.68, 0.13):
            sketch.ellipse((float(x), -0.03), (0.03, 0.03), DARK)
        sketch.polygon([(0.78, -0.09), (0.92, -0.03), (0.78, -0.02)], GLASS)
        near = [(0.22, 0.06), (-0.15, 0.5), (-0.35, 0.5), (-0.15, 0.06)]
        sketch.polygon(near, wing)
        sketch.ellipse((0.08, 0.24), (0.14, 0.065), shade(METAL, 0.8))
        sketch.polygon([(-0.7, 0.0), (-0.98, 0.16), (-1.08, 0.16), (-0.9, 0.0)], shade(wing, 0.9))
        return sketch
    for side in (-1, 1):
        sketch.polygon(
            [(0.25, 0.0), (-0.2, side * 0.9), (-0.38, side * 0.92), (-0.12, 0.0)],
            shade(wing, 0.9 + 0.1 * side),
        )
        sketch.ellipse((0.1, side * 0.35), (0.14, 0.055), shade(METAL, 0.7))
        tailplane = [(-0.72, 0.0), (-0.95, side * 0.34), (-1.05, side * 0.34), (-0.95, 0.0)]
        sketch.polygon(tailplane, wing)
    sketch.blob(
        [(-1.05, 0.0), (-0.6, -0.1), (0.6, -0.12), (1.0, 0.0), (0.6, 0.12), (-0.6, 0.1)], body
    )
    sketch.stroke([(-0.6, 0.0), (-1.05, 0.0)], 0.06, shade(wing, 0.6))
    sketch.polygon([(0.78, -0.07), (0.88, 0.0), (0.78, 0.07)], GLASS)
    return sketch


def _spoked_wheel(sketch: Sketch, rng: Rng, x: float, y: float, radius: float) -> None:
    sketch.ellipse((x, y), (radius, radius), METAL, opacity=0.12)
    start = rng.uniform(0, np.pi)
    for angle in start + np.arange(5) * np.pi / 5:
        dx, dy = 0.95 * radius * np.cos(angle), 0.95 * radius * np.sin(angle)
        sketch.stroke([(x - dx, y - dy), (x + dx, y + dy)], 0.016, METAL)
    sketch.ring((x, y), radius, 0.065, DARK)
    sketch.disc((x, y), 0.05, METAL)


def bicycle(rng: Rng) -> Sketch:
    """Draw a bicycle from the side: two big see-through wheels and a frame of tubes."""
    sketch, frame = Sketch(), finish(rng)
    radius = rng.uniform(0.34, 0.4)
    back, front, crank = (-0.55, 0.3), (0.55, 0.3), (-0.08, 0.32)
    for x, y in (back, front):
        _spoked_wheel(sketch, rng, x, y, radius)
    saddle, head = (-0.22, -0.25), (0.36, -0.25)
    if rng.random() < 0.3:  # a step-through frame
        head_low = (0.4, -0.08)
        tubes = [(back, crank), (crank, saddle), (crank, head_low), (back, (-0.16, 0.05))]
    else:
        tubes = [(back, crank), (crank, saddle), (crank, (0.39, -0.12)), (back, saddle)]
        tubes.append(((-0.2, -0.18), (0.37, -0.2)))
    for a, b in tubes:
        sketch.stroke([a, b], 0.06, frame)
    sketch.stroke([front, head, (0.34, -0.4)], 0.06, shade(frame, 0.85))
    bar = [(0.34, -0.4), (0.46, -0.47), (0.53, -0.38)]
    if rng.random() < 0.5:
        bar = [(0.34, -0.4), (0.28, -0.5), (0.12, -0.46)]
    sketch.stroke(bar, 0.055, DARK)
    sketch.stroke([saddle, (-0.24, -0.36)], 0.05, METAL)
    sketch.blob([(-0.4, -0.42), (-0.2, -0.42), (-0.06, -0.37), (-0.25, -0.34)], DARK)
    sketch.ring(crank, 0.085, 0.04, METAL)
    sketch.stroke(
        [(crank[0] - 0.08, crank[1] - 0.12), (crank[0] + 0.08, crank[1] + 0.13)], 0.04, DARK
    )
    return sketch


def motorbike(rng: Rng) -> Sketch:
    """Draw a motorbike from the side: two fat wheels, tank, seat, engine, exhaust, headlight."""
    sketch, body = Sketch(), finish(rng)
    back, front, radius = (-0.6, 0.32), (0.62, 0.32), rng.uniform(0.27, 0.32)
    for x, y in (back, front):
        _tyre(sketch, x, y, radius, METAL)
    sketch.stroke([(-0.05, 0.32), (-0.65, 0.34)], 0.13, METAL)
    sketch.stroke([(-0.45, 0.38), (-0.95, 0.3)], 0.1, shade(METAL, 1.2))
    sketch.polygon([(-0.25, 0.0), (0.28, 0.0), (0.25, 0.42), (-0.2, 0.42)], shade(METAL, 0.55))
    for i in range(4):
        y = 0.08 + 0.08 * i
        sketch.stroke([(-0.18, y), (0.22, y)], 0.03, METAL)
    sketch.disc((0.0, 0.3), 0.11, shade(METAL, 0.9))
    sketch.stroke([front, (0.42, -0.25)], 0.09, METAL)
    fender = [(0.34, 0.1), (0.5, -0.03), (0.72, -0.02), (0.92, 0.14), (0.7, 0.06), (0.5, 0.08)]
    sketch.polygon(smooth(fender, steps=3), body)
    tail = [(-1.0, -0.12), (-0.85, -0.22), (-0.3, -0.02), (-0.3, 0.14), (-0.75, 0.08)]
    sketch.blob(tail, shade(body, 0.85))
    sketch.blob([(-0.85, -0.2), (-0.5, -0.18), (-0.1, -0.12), (-0.1, 0.0), (-0.5, -0.02)], DARK)
    sketch.blob([(-0.15, -0.05), (0.0, -0.25), (0.3, -0.26), (0.42, -0.1), (0.25, 0.05)], body)
    if rng.random() < 0.45:  # a fairing with a windscreen
        sketch.blob([(0.3, -0.2), (0.5, -0.35), (0.7, -0.1), (0.55, 0.08), (0.3, 0.12)], body)
        sketch.polygon([(0.4, -0.3), (0.45, -0.58), (0.6, -0.28)], GLASS, 0.8)
    sketch.stroke([(0.42, -0.25), (0.36, -0.42), (0.2, -0.46)], 0.06, DARK)
    sketch.disc((0.56, -0.22), 0.11, METAL)
    sketch.disc((0.59, -0.22), 0.08, LAMP)
    return sketch


def boat(rng: Rng) -> Sketch:
    """Draw a boat from the side: with sails, or with a cabin and a funnel."""
    sketch, hull = Sketch(), finish(rng)
    sail_boat = rng.random() < 0.6
    if sail_boat:
        sail = shade(LIGHT, rng.uniform(0.8, 1.05)) if rng.random() < 0.6 else paint(rng)
        height = rng.uniform(0.95, 1.3)
        sketch.stroke([(0, 0.3), (0, -height)], 0.04, fur(rng))
        sketch.polygon([(-0.04, -height), (-0.04, 0.14), (-0.68, 0.14), (-0.4, -0.3)], sail)
        jib = shade(sail, 0.8) if rng.random() < 0.6 else paint(rng)
        sketch.polygon([(0.05, 0.12), (0.05, -0.9 * height), (0.68, 0.12)], jib)
    else:
        cabin = finish(rng)
        sketch.box(-0.55, -0.12, 0.4, 0.24, cabin)
        sketch.box(-0.35, -0.38, 0.22, -0.1, shade(cabin, 1.15))
        for x in np.arange(-0.46, 0.34, 0.18):
            sketch.box(float(x), -0.04, float(x) + 0.1, 0.08, GLASS)
        sketch.box(-0.28, -0.32, 0.16, -0.18, GLASS)
        sketch.polygon([(-0.3, -0.38), (-0.27, -0.72), (-0.07, -0.72), (-0.04, -0.38)], paint(rng))
        sketch.stroke([(0.14, -0.38), (0.14, -0.8)], 0.035, DARK)
    deck = rng.uniform(0.18, 0.26)
    bottom = 0.55
    hull_line = [
        (-0.85, deck),
        (0.0, deck + 0.05),
        (0.98, deck - 0.1),
        (0.7, bottom),
        (-0.68, bottom),
    ]
    sketch.polygon(hull_line, hull)
    sketch.polygon([(-0.76, 0.42), (0.8, 0.42), (0.7, bottom), (-0.68, bottom)], finish(rng))
    sketch.stroke([(-0.85, deck), (0.0, deck + 0.05), (0.98, deck - 0.1)], 0.04, shade(hull, 0.6))
    return sketch


def bus(rng: Rng) -> Sketch:
    """Draw a bus from the side: one tall box with a row of big windows, a door and two wheels."""
    sketch, body = Sketch(), finish(rng)
    double = rng.random() < 0.35
    top = -0.85 if double else -0.4
    sketch.box(-1.0, top, 1.0, 0.4, body, corner=0.09)
    sketch.box(-1.0, 0.18, 1.0, 0.28, finish(rng))
    panes = int(rng.integers(4, 7))
    width = 1.5 / panes
    for level in (-0.3, -0.75) if double else (-0.3,):
        for i in range(panes + (1 if level < -0.5 else 0)):
            left = -0.92 + i * width
            sketch.box(left, level, left + 0.85 * width, level + 0.32, GLASS)
    sketch.box(0.6, -0.3, 0.84, 0.36, shade(GLASS, 0.8))
    sketch.stroke([(0.72, -0.28), (0.72, 0.36)], 0.025, shade(body, 0.6))
    sketch.polygon([(0.88, -0.32), (1.0, -0.3), (1.0, 0.08), (0.88, 0.08)], shade(GLASS, 1.3))
    sketch.box(0.93, 0.18, 1.01, 0.28, LAMP)
    for x in (-0.6, 0.45):
        _tyre(sketch, x, 0.4, 0.17, METAL)
    return sketch


def car(rng: Rng) -> Sketch:
    """Draw a car, from the side or from the front."""
    sketch, body = Sketch(), finish(rng)
    if rng.random() < 0.2:
        return _car_front(sketch, body)
    back = rng.uniform(-0.95, -0.55)  # where the roof begins to fall: hatchback or saloon
    roof = [(back - 0.05, -0.05), (min(back + 0.25, -0.4), -0.4), (0.15, -0.42), (0.5, -0.05)]
    sketch.polygon(roof, shade(body, 0.95))
    rear = min(back + 0.3, -0.35)
    sketch.polygon([(back + 0.1, -0.06), (rear, -0.33), (-0.15, -0.34), (-0.15, -0.06)], GLASS)
    sketch.polygon([(-0.08, -0.06), (-0.08, -0.34), (0.12, -0.34), (0.38, -0.06)], GLASS)
    lower = [(-0.98, 0.02), (-0.9, -0.08), (0.5, -0.08), (0.85, -0.02), (1.0, 0.1), (0.98, 0.28)]
    sketch.polygon([*lower, (-0.96, 0.28)], body)
    sketch.stroke([(-0.96, 0.22), (0.96, 0.22)], 0.04, shade(body, 0.6))
    sketch.stroke([(-0.12, -0.04), (-0.12, 0.2)], 0.018, shade(body, 0.5))
    sketch.stroke([(-0.3, 0.02), (-0.2, 0.02)], 0.03, shade(body, 0.5))
    sketch.ellipse((0.93, 0.07), (0.06, 0.05), LAMP)
    sketch.box(-0.98, 0.02, -0.9, 0.1, np.array([0.7, 0.1, 0.1]))
    for x in (-0.58, 0.6):
        sketch.disc((x, 0.27), 0.22, shade(body, 0.45))
        _tyre(sketch, x, 0.29, 0.19, METAL)
    return sketch


def _car_front(sketch: Sketch, body: Color) -> Sketch:
    for x in (-0.62, 0.4):
        sketch.box(x, 0.3, x + 0.22, 0.62, DARK, corner=0.04)
    sketch.polygon([(-0.6, -0.1), (-0.42, -0.52), (0.42, -0.52), (0.6, -0.1)], shade(body, 0.9))
    sketch.polygon([(-0.5, -0.1), (-0.36, -0.45), (0.36, -0.45), (0.5, -0.1)], GLASS)
    sketch.box(-0.72, -0.12, 0.72, 0.45, body, corner=0.14)
    for side in (-1, 1):
        sketch.ellipse((side * 0.52, 0.1), (0.13, 0.09), LAMP)
        sketch.ellipse((side * 0.74, -0.14), (0.1, 0.06), shade(body, 0.7))
    sketch.box(-0.32, 0.04, 0.32, 0.18, DARK, corner=0.03)
    sketch.box(-0.72, 0.28, 0.72, 0.36, shade(body, 0.5))
    sketch.box(-0.16, 0.26, 0.16, 0.36, LIGHT)
    return sketch


def train(rng: Rng) -> Sketch:
    """Draw a train from the side: a long streamlined unit, or a steam engine with its tender."""
    sketch, body = Sketch(), finish(rng)
    if rng.random() < 0.4:
        return _steam_engine(sketch, rng, body)
    nose = rng.uniform(0.3, 0.45)
    sketch.stroke([(-1.5, 0.3), (1.3, 0.3)], 0.07, shade(DARK, 1.5))
    outline = [
        (-1.5, -0.28),
        (1.4 - nose, -0.28),
        (1.4 - 0.4 * nose, -0.16),
        (1.5, 0.12),
        (1.46, 0.26),
    ]
    sketch.polygon([*outline, (-1.5, 0.26)], body)
    sketch.polygon([(-1.5, 0.08), (1.47, 0.08), (1.48, 0.18), (-1.5, 0.18)], finish(rng))
    front = 1.4 - nose
    sketch.polygon(
        [(front + 0.03, -0.22), (1.4 - 0.42 * nose, -0.13), (front + 0.06, -0.02)], GLASS
    )
    sketch.box(-1.42, -0.18, front - 0.28, -0.02, shade(GLASS, 0.7), corner=0.03)
    for x in np.arange(-1.25, front - 0.3, 0.24):
        sketch.stroke([(float(x), -0.18), (float(x), -0.02)], 0.05, body)
    sketch.stroke([(-0.18, -0.28), (-0.18, 0.28)], 0.07, DARK)  # the gap between two cars
    for x in (-1.3, -1.08, -0.52, -0.3, -0.02, 0.2, 0.86, 1.08):
        sketch.disc((x, 0.32), 0.085, DARK)
        sketch.disc((x, 0.32), 0.035, METAL)
    sketch.stroke([(-0.85, -0.28), (-0.68, -0.42), (-0.88, -0.52)], 0.03, DARK)
    sketch.stroke([(-1.0, -0.52), (-0.74, -0.52)], 0.035, DARK)
    return sketch


def _steam_engine(sketch: Sketch, rng: Rng, body: Color) -> Sketch:
    accent = finish(rng)
    sketch.box(-1.5, -0.25, -0.78, 0.25, shade(body, 0.8))
    sketch.blob([(-1.45, -0.24), (-1.2, -0.38), (-0.9, -0.36), (-0.82, -0.24)], DARK)
    sketch.box(-0.72, -0.6, -0.2, 0.25, body)
    sketch.box(-0.8, -0.68, -0.12, -0.58, accent)
    sketch.box(-0.62, -0.5, -0.32, -0.22, GLASS)
    sketch.box(-0.22, -0.34, 0.95, 0.14, shade(body, 1.1), corner=0.06)
    for x in (0.05, 0.35, 0.65):
        sketch.stroke([(x, -0.34), (x, 0.14)], 0.035, accent)
    sketch.polygon([(0.62, -0.34), (0.58, -0.78), (0.92, -0.78), (0.86, -0.34)], shade(body, 0.5))
    sketch.ellipse((0.2, -0.36), (0.12, 0.12), accent)
    sketch.stroke([(-1.5, 0.24), (1.0, 0.24)], 0.1, shade(DARK, 1.6))
    sketch.polygon([(0.95, 0.15), (1.25, 0.48), (0.85, 0.48)], accent)
    sketch.disc((0.97, -0.12), 0.09, LAMP)
    for x, radius in ((-1.3, 0.13), (-0.98, 0.13), (-0.45, 0.22), (0.02, 0.22), (0.49, 0.22)):
        sketch.disc((x, 0.48 - radius), radius, DARK)
        sketch.ring((x, 0.48 - radius), 0.75 * radius, 0.035, accent)
    sketch.disc((0.8, 0.37), 0.11, DARK)
    sketch.stroke([(-0.45, 0.3), (0.6, 0.3)], 0.05, METAL)
    return sketch
