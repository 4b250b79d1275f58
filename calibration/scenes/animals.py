"""Drawers of VOC's animals: each fills a new :class:`Sketch`, facing right, y down."""

import numpy as np

from deploy.calibration.scenes.paint import DARK, LIGHT, Rng, coat, paint, shade
from deploy.calibration.scenes.sketch import Color, Points, Sketch, smooth, turn


def _legs(
    sketch: Sketch, rng: Rng, xs: Points, top: float, length: float, width: float, color: Color
) -> None:
    """Draw legs with hooves or paws: ``xs`` holds (x, 0 for near and 1 for far side) for each."""
    for x, far in sorted(xs, key=lambda leg: -leg[1]):
        swing = rng.uniform(-0.35, 0.35) * length
        knee = (x + 0.6 * swing, top + 0.55 * length)
        foot = (x + swing, top + length * (0.94 if far else 1))
        tint = shade(color, 0.7 if far else 0.95)
        sketch.stroke([(x, top), knee, foot], 1.5 * width, tint, 0.9 * width)
        sketch.ellipse(
            (foot[0] + 0.3 * width, foot[1]), (0.8 * width, 0.5 * width), shade(tint, 0.5)
        )


def _eye(sketch: Sketch, x: float, y: float, radius: float) -> None:
    sketch.disc((x, y), radius, LIGHT)
    sketch.disc((x + 0.2 * radius, y), 0.65 * radius, DARK)


def horse(rng: Rng) -> Sketch:
    """Draw a horse from the side: long legs, arched neck with mane, flowing tail."""
    sketch, body = Sketch(), coat(rng)
    mane = shade(body, 0.45) if rng.random() < 0.7 else shade(LIGHT, 0.9)
    sway = rng.uniform(-0.1, 0.15)
    tail = [(-0.5, -0.1), (-0.66, 0.0), (-0.72 - sway, 0.25), (-0.68 - 1.5 * sway, 0.55)]
    legs = [(-0.42, 0.0), (-0.33, 1.0), (0.36, 0.0), (0.27, 1.0)]
    _legs(sketch, rng, legs, 0.05, rng.uniform(0.72, 0.85), 0.075, body)
    sketch.curve(tail, 0.1, mane, 0.05)
    trunk = [(-0.52, -0.02), (-0.4, -0.21), (-0.1, -0.17), (0.2, -0.2), (0.42, -0.2), (0.47, 0.02)]
    sketch.blob([*trunk, (0.3, 0.17), (0.0, 0.2), (-0.3, 0.16), (-0.5, 0.12)], body)
    angle = rng.choice([rng.uniform(-12, 18), rng.uniform(65, 85)], p=[0.8, 0.2])
    neck = [(0.14, -0.19), (0.36, -0.45), (0.58, -0.7), (0.74, -0.62), (0.62, -0.36), (0.46, 0.02)]
    head = [(0.57, -0.7), (0.7, -0.72), (0.84, -0.55), (1.0, -0.36), (0.96, -0.27), (0.86, -0.28)]
    pivot = (0.36, -0.1)
    sketch.blob(turn(neck, angle, pivot), body)
    sketch.blob(turn([*head, (0.72, -0.44), (0.6, -0.52)], angle, pivot), shade(body, 0.93))
    sketch.polygon(
        turn([(0.58, -0.7), (0.6, -0.87), (0.69, -0.71)], angle, pivot), shade(body, 0.8)
    )
    ridge = turn([(0.64, -0.76), (0.5, -0.68), (0.36, -0.5), (0.2, -0.26)], angle, pivot)
    sketch.curve(ridge, 0.09, mane, 0.13)
    eye = turn([(0.75, -0.58)], angle, pivot)[0]
    sketch.disc((eye[0], eye[1]), 0.022, DARK)
    if rng.random() < 0.25:  # a saddle
        sketch.blob([(-0.1, -0.2), (0.14, -0.22), (0.13, 0.05), (-0.06, 0.05)], paint(rng))
    return sketch


def cow(rng: Rng) -> Sketch:
    """Draw a cow from the side: a box of a body, low head with horns, udder, patches."""
    sketch, body = Sketch(), coat(rng)
    legs = [(-0.5, 0.0), (-0.38, 1.0), (0.4, 0.0), (0.3, 1.0)]
    _legs(sketch, rng, legs, 0.15, rng.uniform(0.42, 0.52), 0.1, body)
    sketch.stroke([(-0.6, -0.25), (-0.68, 0.0), (-0.68, 0.25)], 0.04, shade(body, 0.8))
    sketch.ellipse((-0.68, 0.32), (0.05, 0.1), shade(body, 0.4))
    trunk = [(-0.6, -0.28), (-0.3, -0.33), (0.1, -0.3), (0.5, -0.34), (0.58, -0.1), (0.52, 0.18)]
    sketch.polygon(smooth([*trunk, (0.2, 0.27), (-0.3, 0.27), (-0.58, 0.2)], steps=4), body)
    if rng.random() < 0.9:
        patch = LIGHT if body.mean() < 0.5 else shade(body, 0.25)
        for _ in range(rng.integers(2, 5)):
            at = (rng.uniform(-0.42, 0.4), rng.uniform(-0.14, 0.1))
            radii = (rng.uniform(0.06, 0.15), rng.uniform(0.06, 0.15))
            sketch.ellipse(at, radii, patch, rng.uniform(0, 180))
    sketch.ellipse((-0.28, 0.29), (0.13, 0.09), np.array([0.85, 0.6, 0.58]))
    low = rng.choice([rng.uniform(-0.05, 0.1), rng.uniform(0.3, 0.45)], p=[0.75, 0.25])
    sketch.polygon([(0.4, -0.3), (0.72, low - 0.25), (0.76, low + 0.05), (0.46, 0.12)], body)
    for side in (-1, 1):
        horn = [(0.72 + side * 0.1, low - 0.28), (0.72 + side * 0.22, low - 0.38)]
        sketch.curve([*horn, (0.72 + side * 0.2, low - 0.54)], 0.065, shade(LIGHT, 0.85), 0.03)
        ear = (0.72 + side * 0.22, low - 0.2)
        sketch.ellipse(ear, (0.11, 0.055), shade(body, 0.8), side * -20)
    face = [
        (0.58, low - 0.3),
        (0.86, low - 0.3),
        (0.86, low),
        (0.82, low + 0.15),
        (0.62, low + 0.15),
    ]
    sketch.blob(face, shade(body, 1.05))
    sketch.ellipse((0.72, low + 0.14), (0.15, 0.1), np.array([0.8, 0.62, 0.57]))
    for side in (-1, 1):
        _eye(sketch, 0.72 + side * 0.09, low - 0.13, 0.03)
        sketch.disc((0.72 + side * 0.06, low + 0.14), 0.022, DARK)
    return sketch


def sheep(rng: Rng) -> Sketch:
    """Draw a sheep: a cloud of wool on thin short legs, a small bare face."""
    sketch, wool = Sketch(), coat(rng)
    if rng.random() < 0.5:
        wool = shade(LIGHT, rng.uniform(0.75, 1.0))
    skin = shade(wool, 0.35) if rng.random() < 0.7 else shade(wool, 0.85)
    legs = [(-0.32, 0.0), (-0.22, 1.0), (0.3, 0.0), (0.2, 1.0)]
    _legs(sketch, rng, legs, 0.25, rng.uniform(0.3, 0.42), 0.06, skin)
    count = int(rng.integers(11, 15))
    for i in range(count):
        angle = 2 * np.pi * i / count
        at = (0.44 * np.cos(angle), 0.25 * np.sin(angle))
        tone = shade(wool, 1.05 - 0.2 * (at[1] > 0))
        sketch.disc((float(at[0]), float(at[1])), rng.uniform(0.13, 0.18), tone)
    sketch.ellipse((0, 0), (0.46, 0.28), wool)
    x, y = rng.uniform(0.5, 0.6), rng.choice([rng.uniform(-0.25, -0.1), 0.3], p=[0.75, 0.25])
    sketch.ellipse((x - 0.12, y + 0.02), (0.1, 0.06), shade(skin, 0.8), -25)
    sketch.ellipse((x + 0.08, y), (0.13, 0.19), skin, -25)
    sketch.ellipse((x - 0.02, y - 0.02), (0.05, 0.12), shade(skin, 0.75), 50)
    for dx, dy in ((-0.05, -0.17), (0.05, -0.19), (0.0, -0.22)):
        sketch.disc((x + dx, y + dy), 0.08, wool)
    _eye(sketch, x + 0.1, y - 0.04, 0.025)
    return sketch


def _dog_head(sketch: Sketch, rng: Rng, x: float, y: float, fur_color: Color) -> None:
    """Draw a head with a long muzzle and a hanging ear."""
    dark, ear = shade(fur_color, 0.55), rng.uniform(-12, 18)
    sketch.disc((x, y), 0.2, fur_color)
    muzzle = [(x + 0.08, y - 0.1), (x + 0.38, y - 0.02), (x + 0.4, y + 0.1), (x + 0.06, y + 0.17)]
    sketch.blob(muzzle, shade(fur_color, 1.1))
    sketch.ellipse((x + 0.4, y + 0.0), (0.07, 0.06), DARK)
    sketch.stroke([(x + 0.36, y + 0.1), (x + 0.16, y + 0.1)], 0.02, dark)
    if rng.random() < 0.7:
        sketch.ellipse((x + 0.27, y + 0.18), (0.055, 0.1), np.array([0.85, 0.4, 0.42]))
    flap = [(x - 0.08, y - 0.17), (x + 0.02, y - 0.14), (x + 0.02, y + 0.14), (x - 0.09, y + 0.26)]
    sketch.blob(turn([*flap, (x - 0.17, y + 0.12)], ear, (x, y - 0.15)), dark)
    _eye(sketch, x + 0.12, y - 0.06, 0.04)


def dog(rng: Rng) -> Sketch:
    """Draw a shaggy dog from the side, standing or sitting: muzzle, hanging ears, tail up."""
    sketch, body = Sketch(), coat(rng)
    wag = rng.uniform(-0.12, 0.12)
    if rng.random() < 0.65:
        legs = [(-0.42, 0.0), (-0.32, 1.0), (0.32, 0.0), (0.22, 1.0)]
        _legs(sketch, rng, legs, 0.02, rng.uniform(0.42, 0.6), 0.085, body)
        tail = [(-0.45, -0.1), (-0.65, -0.25), (-0.68 + wag, -0.5), (-0.58 + wag, -0.62)]
        sketch.curve(tail, 0.1, shade(body, 0.9), 0.05)
        trunk = [(-0.5, -0.08), (-0.3, -0.19), (0.2, -0.2), (0.42, -0.1), (0.38, 0.15), (0.1, 0.14)]
        sketch.blob([*trunk, (-0.2, 0.05), (-0.45, 0.1)], body)
        sketch.polygon([(0.15, -0.18), (0.36, -0.5), (0.6, -0.35), (0.42, 0.02)], body)
        head = (0.5, -0.45)
    else:
        sketch.curve([(-0.25, 0.5), (-0.5, 0.45), (-0.65, 0.25 + wag)], 0.1, shade(body, 0.9), 0.05)
        sketch.blob([(-0.3, 0.55), (-0.3, 0.2), (0.05, -0.3), (0.3, -0.25), (0.3, 0.1)], body)
        sketch.stroke([(0.22, 0.0), (0.25, 0.55)], 0.15, shade(body, 0.92), 0.1)
        sketch.ellipse((-0.1, 0.42), (0.25, 0.18), shade(body, 0.88))
        sketch.ellipse((0.3, 0.57), (0.1, 0.05), shade(body, 0.75))
        sketch.ellipse((0.08, 0.57), (0.14, 0.05), shade(body, 0.75))
        head = (0.22, -0.42)
    if rng.random() < 0.8:
        collar = [(head[0] - 0.22, head[1] + 0.1), (head[0] + 0.06, head[1] + 0.25)]
        sketch.stroke(collar, 0.07, paint(rng))
    _dog_head(sketch, rng, *head, body)
    return sketch


def _cat_head(sketch: Sketch, x: float, y: float, r: float, fur_color: Color, iris: Color) -> None:
    """Draw a round face from the front with upright pointed ears and whiskers."""
    for side in (-1, 1):
        ear = [(x + side * 0.95 * r, y - 0.3 * r), (x + side * 0.85 * r, y - 1.6 * r)]
        sketch.polygon([*ear, (x + side * 0.1 * r, y - 0.85 * r)], shade(fur_color, 0.85))
        inner = [(x + side * 0.8 * r, y - 0.6 * r), (x + side * 0.76 * r, y - 1.3 * r)]
        sketch.polygon([*inner, (x + side * 0.35 * r, y - 0.8 * r)], np.array([0.75, 0.5, 0.48]))
    sketch.ellipse((x, y), (1.1 * r, 0.95 * r), fur_color)
    sketch.ellipse((x, y + 0.45 * r), (0.5 * r, 0.35 * r), shade(fur_color, 1.25))
    for side in (-1, 1):
        sketch.ellipse((x + side * 0.45 * r, y - 0.1 * r), (0.24 * r, 0.2 * r), iris)
        sketch.ellipse((x + side * 0.45 * r, y - 0.1 * r), (0.08 * r, 0.2 * r), DARK)
        for dy in (0.3, 0.5):
            whisker = [(x + side * 0.4 * r, y + dy * r), (x + side * 1.05 * r, y + (dy - 0.05) * r)]
            sketch.stroke(whisker, 0.05 * r, LIGHT)
    nose = [(x - 0.13 * r, y + 0.2 * r), (x + 0.13 * r, y + 0.2 * r), (x, y + 0.36 * r)]
    sketch.polygon(nose, np.array([0.7, 0.35, 0.36]))


def cat(rng: Rng) -> Sketch:
    """Draw a cat, sitting seen from the front or walking: pointed ears, long curled tail."""
    sketch, body = Sketch(), coat(rng)
    iris, curl = np.array([0.6, 0.7, 0.2]) * rng.uniform(0.7, 1.2), rng.uniform(-0.1, 0.15)
    stripe = shade(body, 0.55)
    striped = rng.random() < 0.85
    if rng.random() < 0.55:
        tail = [(0.2, 0.6), (0.52, 0.6), (0.64, 0.35), (0.5 + curl, 0.12), (0.6 + curl, 0.0)]
        sketch.curve(tail, 0.13, shade(body, 0.85), 0.08)
        side = [(0.17, -0.25), (0.28, 0.1), (0.36, 0.5), (0.2, 0.66)]
        sketch.blob([*side, *[(-x, y) for x, y in reversed(side)]], body)
        for i in range(4 if striped else 0):
            for s in (-1, 1):
                y = 0.0 + 0.13 * i
                sketch.stroke([(s * 0.25, y), (s * 0.14, y + 0.04)], 0.045, stripe)
        for s in (-1, 1):
            sketch.stroke([(s * 0.09, 0.1), (s * 0.1, 0.62)], 0.12, shade(body, 1.1))
            sketch.ellipse((s * 0.12, 0.65), (0.1, 0.05), shade(body, 1.2))
        _cat_head(sketch, rng.uniform(-0.06, 0.06), -0.36, rng.uniform(0.25, 0.3), body, iris)
        return sketch
    tail = [(-0.5, -0.05), (-0.75, -0.15), (-0.8, -0.45), (-0.68 + curl, -0.62), (-0.74, -0.75)]
    _legs(
        sketch, rng, [(-0.4, 0.0), (-0.3, 1.0), (0.38, 0.0), (0.28, 1.0)], 0.05, 0.36, 0.085, body
    )
    sketch.curve(tail, 0.11, shade(body, 0.85), 0.07)
    trunk = [(-0.54, -0.03), (-0.3, -0.17), (0.15, -0.13), (0.46, -0.18), (0.5, 0.08), (0.1, 0.14)]
    sketch.blob([*trunk, (-0.35, 0.14)], body)
    for i in range(5 if striped else 0):
        x = -0.38 + 0.16 * i
        sketch.stroke([(x, -0.13), (x - 0.03, 0.05)], 0.045, stripe)
    _cat_head(sketch, 0.58, -0.25, rng.uniform(0.21, 0.26), body, iris)
    return sketch


def bird(rng: Rng) -> Sketch:
    """Draw a bird, perched seen from the side or in flight with spread, barred wings."""
    sketch, body, wing = Sketch(), coat(rng), coat(rng)
    beak = np.array([0.95, 0.62, 0.12]) * rng.uniform(0.7, 1.05)
    bar = shade(wing, 0.45) if wing.mean() > 0.4 else shade(wing, 2.2)
    if rng.random() < 0.6:
        for x in (-0.02, 0.1):
            sketch.stroke([(x, 0.2), (x + 0.02, 0.45)], 0.045, shade(beak, 0.8))
            sketch.stroke([(x - 0.05, 0.46), (x + 0.12, 0.46)], 0.045, shade(beak, 0.8))
        sketch.polygon([(-0.3, 0.02), (-0.85, 0.2), (-0.8, 0.36), (-0.25, 0.22)], shade(wing, 0.7))
        trunk = [(-0.4, 0.1), (-0.15, -0.18), (0.15, -0.3), (0.36, -0.15), (0.34, 0.1), (0.05, 0.3)]
        sketch.blob([*trunk, (-0.25, 0.26)], body)
        sketch.blob([(0.1, -0.1), (0.12, 0.12), (-0.2, 0.2), (-0.62, 0.2), (-0.25, -0.02)], wing)
        for x in (-0.4, -0.25, -0.1, 0.03):
            sketch.stroke([(x, 0.05 - 0.2 * (x + 0.25)), (x - 0.08, 0.16)], 0.04, bar)
        sketch.polygon([(0.4, -0.47), (0.76, -0.31), (0.4, -0.22)], beak)
        sketch.disc((0.28, -0.34), 0.19, shade(body, 0.85))
        _eye(sketch, 0.34, -0.39, 0.05)
        return sketch
    lift = rng.uniform(0.35, 0.65)
    sketch.polygon([(-0.25, 0.0), (-0.66, -0.14), (-0.7, 0.02), (-0.64, 0.16)], shade(wing, 0.8))
    for side, tint in ((-1, 0.8), (1, 1.0)):
        tip = (-0.25 + 0.1 * side, -lift - 0.3) if side < 0 else (-0.35, lift + 0.25)
        lead = [(0.22, 0.0), (0.25, 0.55 * tip[1]), tip]
        feathers = [(-0.36, 0.8 * tip[1]), (-0.22, 0.62 * tip[1]), (-0.34, 0.45 * tip[1])]
        sketch.polygon([*lead, *feathers, (-0.2, 0.0)], shade(wing, tint))
        for t in (0.25, 0.42, 0.59):
            sketch.stroke([(0.14, t * tip[1]), (-0.2, (t + 0.05) * tip[1])], 0.045, bar)
    sketch.ellipse((0.05, 0.0), (0.38, 0.15), body)
    sketch.polygon([(0.5, -0.09), (0.78, 0.0), (0.5, 0.08)], beak)
    sketch.disc((0.42, -0.02), 0.14, shade(body, 0.85))
    _eye(sketch, 0.47, -0.05, 0.04)
    return sketch
