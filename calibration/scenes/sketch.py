"""A small vector drawing: shapes in free units, placed and rasterized at any size and pose."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deploy.calibration.voc import UInt8Array

Points = Sequence[tuple[float, float]] | NDArray[np.float64]
Color = NDArray[np.float64]  # RGB, 0…1
Float32Array = NDArray[np.float32]

SUPERSAMPLE = 2  # pixels drawn per pixel kept, along each axis


def smooth(points: Points, closed: bool = True, steps: int = 5) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through ``points``, ``steps`` samples for each segment."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = (np.arange(steps) / steps)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = b + 0.5 * t * (
        c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))
    )  # (steps, segments, 2)
    samples: NDArray[np.float64] = curve.transpose(1, 0, 2).reshape(-1, 2)
    return samples if closed else np.concatenate([samples, p[-1:]])


def turn(
    points: Points, degrees: float, pivot: tuple[float, float] = (0, 0)
) -> NDArray[np.float64]:
    """Return ``points`` turned about ``pivot``; positive angles are clockwise on the screen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: NDArray[np.float64] = (np.asarray(points, dtype=np.float64) - pivot) @ np.array(
        [[c, s], [-s, c]]
    ) + pivot
    return turned


class Sketch:
    """A display list of filled polygons; x points right, y down, the unit is the drawer's own."""

    def __init__(self) -> None:
        self._shapes: list[tuple[NDArray[np.float64], Color, float]] = []

    def polygon(self, points: Points, color: Color, opacity: float = 1.0) -> None:
        """Fill a polygon; with an opacity below 1 what lies behind the object shines through."""
        self._shapes.append((np.asarray(points, dtype=np.float64), color, opacity))

    def blob(self, points: Points, color: Color) -> None:
        """Fill the smooth closed curve through ``points``."""
        self.polygon(smooth(points), color)

    def ellipse(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        color: Color,
        degrees: float = 0,
        opacity: float = 1.0,
    ) -> None:
        """Fill an ellipse, turned by ``degrees``."""
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        ring = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], axis=1)
        self.polygon(turn(ring, degrees) + center, color, opacity)

    def disc(self, center: tuple[float, float], radius: float, color: Color) -> None:
        """Fill a circle."""
        self.ellipse(center, (radius, radius), color)

    def box(
        self, left: float, top: float, right: float, bottom: float, color: Color, corner: float = 0
    ) -> None:
        """Fill a rectangle, its corners cut by ``corner``."""
        c, k = corner, 0.3 * corner
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        if corner > 0:
            corners = [(left + c, top), (right - c, top), (right - k, top + k), (right, top + c)]
            corners += [(right, bottom - c), (right - k, bottom - k), (right - c, bottom)]
            corners += [(left + c, bottom), (left + k, bottom - k), (left, bottom - c)]
            corners += [(left, top + c), (left + k, top + k)]
        self.polygon(corners, color)

    def stroke(
        self, points: Points, width: float, color: Color, end_width: float | None = None
    ) -> None:
        """Draw a line with round ends whose width goes from ``width`` to ``end_width``."""
        p = np.asarray(points, dtype=np.float64)
        radii = np.linspace(width, width if end_width is None else end_width, len(p)) / 2
        for i, radius in enumerate(radii):
            if radius > 0:
                self.disc((float(p[i, 0]), float(p[i, 1])), float(radius), color)
        for a, b, ra, rb in zip(p[:-1], p[1:], radii[:-1], radii[1:], strict=True):
            along = b - a
            normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9)
            quad = np.stack([a + normal * ra, b + normal * rb, b - normal * rb, a - normal * ra])
            self.polygon(quad, color)

    def curve(
        self, points: Points, width: float, color: Color, end_width: float | None = None
    ) -> None:
        """Draw a smooth line through ``points``."""
        self.stroke(smooth(points, closed=False), width, color, end_width)

    def ring(self, center: tuple[float, float], radius: float, width: float, color: Color) -> None:
        """Draw a circle's line."""
        angle = np.linspace(0, 2 * np.pi, 33)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius + center
        inner = (circle - center) * ((radius - width / 2) / radius) + center
        outer = (circle - center) * ((radius + width / 2) / radius) + center
        for i in range(32):
            self.polygon(np.stack([outer[i], outer[i + 1], inner[i + 1], inner[i]]), color)

    def rasterize(
        self, matrix: NDArray[np.float64], size: float, limit: float
    ) -> tuple[Float32Array, UInt8Array]:
        """Draw everything, transformed by a 2x2 ``matrix`` and scaled.

        Args:
            matrix: What (x, y) is multiplied by: pose, mirroring, perspective.
            size: The geometric mean of the sides that the drawing gets, in pixels.
            limit: The longest side it may get, in pixels; ``size`` gives way.

        Returns:
            Premultiplied colour and opacity, float32 (H, W, 4) in 0…1, and the silhouette, uint8
            (H, W): 1 inside the object, seen through or not.
        """
        shapes = [(points @ matrix.T, color, opacity) for points, color, opacity in self._shapes]
        everything = np.concatenate([points for points, _, _ in shapes])
        low, high = everything.min(axis=0), everything.max(axis=0)
        sides = high - low
        scale = min(size / float(np.sqrt(sides.prod())), limit / float(sides.max()))
        width, height = (int(v) for v in np.ceil(sides * scale) + 1)
        canvas = (width * SUPERSAMPLE, height * SUPERSAMPLE)
        paint, opaque = Image.new("RGB", canvas), Image.new("L", canvas)
        paint_draw, opaque_draw = ImageDraw.Draw(paint), ImageDraw.Draw(opaque)
        for points, color, opacity in shapes:
            xy = ((points - low) * (scale * SUPERSAMPLE)).ravel().tolist()
            r, g, b = (int(v) for v in np.clip(color, 0, 1) * (255 * opacity))
            paint_draw.polygon(xy, fill=(r, g, b))
            opaque_draw.polygon(xy, fill=round(255 * opacity))
        rgba = np.dstack([np.asarray(im.reduce(SUPERSAMPLE)) for im in (paint, opaque)])
        covered = np.asarray(opaque) > 0
        covered = covered.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE)
        silhouette = 2 * covered.sum(axis=(1, 3)) >= SUPERSAMPLE**2
        return np.divide(rgba, 255, dtype=np.float32), silhouette.astype(np.uint8)
