"""One scene: a place, objects of VOC's classes with pose, scale and occlusion, light and camera."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.scenes import animals, furniture, vehicles
from deploy.calibration.scenes.backgrounds import background, prop
from deploy.calibration.scenes.paint import Rng
from deploy.calibration.scenes.person import person
from deploy.calibration.scenes.sketch import Float32Array, Sketch
from deploy.calibration.scenes.textures import light, noise, surface
from deploy.calibration.voc import CLASSES, UInt8Array

DRAWERS: dict[str, Callable[[Rng], Sketch]] = {
    "aeroplane": vehicles.aeroplane,
    "bicycle": vehicles.bicycle,
    "bird": animals.bird,
    "boat": vehicles.boat,
    "bottle": furniture.bottle,
    "bus": vehicles.bus,
    "car": vehicles.car,
    "cat": animals.cat,
    "chair": furniture.chair,
    "cow": animals.cow,
    "diningtable": furniture.dining_table,
    "dog": animals.dog,
    "horse": animals.horse,
    "motorbike": vehicles.motorbike,
    "person": person,
    "pottedplant": furniture.potted_plant,
    "sheep": animals.sheep,
    "sofa": furniture.sofa,
    "train": vehicles.train,
    "tvmonitor": furniture.tv_monitor,
}
TEXTURE = {
    "aeroplane": "panelled",
    "bicycle": "plain",
    "bird": "feathered",
    "boat": "planked",
    "bottle": "glossy",
    "bus": "ribbed",
    "car": "lacquered",
    "cat": "tabby",
    "chair": "wooden",
    "cow": "plain",
    "diningtable": "checked",
    "dog": "shaggy",
    "horse": "dappled",
    "motorbike": "brushed",
    "person": "knitted",
    "pottedplant": "veined",
    "sheep": "woolly",
    "sofa": "tufted",
    "train": "riveted",
    "tvmonitor": "lined",
}
FLYING = ("aeroplane", "bird")
OBJECTS = (0.4, 0.35, 0.2, 0.05)  # how often a scene has 1, 2, 3, 4 objects
SIZE = (160.0, 320.0)  # geometric mean of an object's sides, pixels
LONGEST = 400.0  # of an object's sides, pixels
LEAST_VISIBLE = 0.8  # of an object, behind what stands before it
LEAST_CONTRAST = 0.2  # between the mean brightness of an object and of what it hides, 0…1
BORDER = 2  # pixels ignored on either side of an object's contour, as in VOC


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A rasterized object and the place of its top left corner."""

    rgba: Float32Array
    silhouette: UInt8Array
    x: int
    y: int

    def windows(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where it falls on an image of (height, width), and what part of it does."""
        h, w = self.silhouette.shape
        top, left = max(self.y, 0), max(self.x, 0)
        bottom, right = max(top, min(self.y + h, height)), max(left, min(self.x + w, width))
        on_image = (slice(top, bottom), slice(left, right))
        y, x = slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x)
        return on_image, (y, x)


def compose(rng: Rng) -> tuple[UInt8Array, UInt8Array]:
    """Draw one scene.

    Returns:
        The image, uint8 RGB (H, W, 3), with the longer side 500 and either orientation, and its
        labels, uint8 (H, W): VOC classes, 255 on the contours of objects.
    """
    shorter = int(rng.integers(333, 401))
    height, width = (shorter, 500) if rng.random() < 0.72 else (500, shorter)
    scene = background(rng, height, width)
    instances = np.zeros((height, width), dtype=np.uint8)
    for _ in range(int(rng.integers(0, 3))):
        _paste(scene, _place_prop(rng, height, width, (40, 110)))
    areas, labels = [0], [0]
    for _ in range(int(rng.choice(len(OBJECTS), p=OBJECTS)) + 1):
        label = int(rng.integers(1, len(CLASSES)))
        placed = _find_place(rng, label, instances, areas)
        if placed is None:
            continue
        _shadow(rng, scene, placed)
        _paste(scene, _stand_out(scene, placed))
        on_image, part = placed.windows(height, width)
        instances[on_image][placed.silhouette[part] > 0] = len(labels)
        areas.append(int(placed.silhouette.sum()))
        labels.append(label)
    if rng.random() < 0.3:  # something of no class stands in front
        front = _place_prop(rng, height, width, (30, 80))
        _paste(scene, front)
        on_image, part = front.windows(height, width)
        instances[on_image][front.silhouette[part] > 0] = 0
    mask = np.array(labels, dtype=np.uint8)[instances]
    mask[_contours(instances)] = IGNORE_LABEL
    return _photograph(rng, scene), mask


def encode_jpeg(rng: Rng, image: UInt8Array) -> bytes:
    """Return the image as a JPEG file of a random quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(55, 96)))
    return buffer.getvalue()


def _pose(rng: Rng, degrees: float) -> NDArray[np.float64]:
    """Return a 2x2 matrix: mirrored or not, turned, sheared and stretched a little."""
    angle = np.radians(rng.normal(0, degrees))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.normal(0, 0.09))
    shear = np.array([[stretch, rng.normal(0, 0.08)], [0, 1 / stretch]])
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    matrix: NDArray[np.float64] = rotation @ shear @ mirror
    return matrix


def _draw(
    rng: Rng, sketch: Sketch, texture: str | None, degrees: float, size: float
) -> tuple[Float32Array, UInt8Array]:
    rgba, silhouette = sketch.rasterize(_pose(rng, degrees), size, LONGEST)
    return surface(rng, rgba, texture), silhouette


def _find_place(rng: Rng, label: int, instances: UInt8Array, areas: list[int]) -> _Placed | None:
    """Draw an object and place it where all before it stay visible; None where there is no room."""
    height, width = instances.shape
    name = CLASSES[label]
    size = float(np.exp(rng.uniform(*np.log(SIZE))))
    tilt = 20 if name in FLYING else 6
    if name == "bottle" and rng.random() < 0.15:
        tilt = 90
    rgba, silhouette = _draw(rng, DRAWERS[name](rng), TEXTURE[name], tilt, size)
    h, w = silhouette.shape
    for _ in range(12):
        highest = 0.3 if name in FLYING else 0.6
        base = rng.uniform(highest * height, 1.06 * height)
        x = rng.uniform(-0.15 * w, width - 0.85 * w)
        y = max(base - h, -0.1 * h)
        placed = _Placed(rgba=rgba, silhouette=silhouette, x=round(x), y=round(y))
        on_image, part = placed.windows(height, width)
        covered = np.where(silhouette[part] > 0, 0, instances[on_image])
        left = np.bincount(instances.ravel(), minlength=len(areas))
        left -= np.bincount(instances[on_image].ravel(), minlength=len(areas))
        left += np.bincount(covered.ravel(), minlength=len(areas))
        if all(left[i] >= LEAST_VISIBLE * areas[i] for i in range(1, len(areas))):
            return placed
    return None


def _place_prop(rng: Rng, height: int, width: int, size: tuple[float, float]) -> _Placed:
    rgba, silhouette = _draw(rng, prop(rng), None, 8, rng.uniform(*size))
    x = rng.uniform(-0.3, 0.95) * width
    y = rng.uniform(0.4, 1.1) * height - silhouette.shape[0]
    return _Placed(rgba=rgba, silhouette=silhouette, x=round(x), y=round(y))


def _paste(scene: Float32Array, placed: _Placed) -> None:
    on_image, part = placed.windows(*scene.shape[:2])
    over = placed.rgba[part]
    # premultiplied alpha: over + (1 - alpha) * under
    scene[on_image] = over[:, :, :3] + (1 - over[:, :, 3:]) * scene[on_image]


def _stand_out(scene: Float32Array, placed: _Placed) -> _Placed:
    """Return the object, lighter or darker where its brightness is that of what it hides."""
    on_image, part = placed.windows(*scene.shape[:2])
    inside = placed.silhouette[part] > 0
    if not inside.any():
        return placed
    behind = float(scene[on_image][inside].mean())
    own = float(placed.rgba[part][inside][:, :3].mean())
    if abs(own - behind) > LEAST_CONTRAST:
        return placed
    target = behind + LEAST_CONTRAST if behind < 0.5 else behind - LEAST_CONTRAST
    rgba = placed.rgba.copy()
    rgba[:, :, :3] *= np.float32(target / max(own, 0.02))
    return replace(placed, rgba=rgba)


def _shadow(rng: Rng, scene: Float32Array, placed: _Placed) -> None:
    """Darken the ground in a soft ellipse about the object's foot."""
    if rng.random() < 0.3:
        return
    h, w = placed.silhouette.shape
    y0, x0 = placed.y + 0.97 * h, placed.x + w * rng.uniform(0.4, 0.6)
    reach = 0.25 * w
    rows = slice(max(0, int(y0 - reach)), max(0, int(y0 + reach)))
    columns = slice(max(0, int(x0 - w)), max(0, int(x0 + w)))
    y, x = np.ogrid[rows, columns]
    strength = np.exp(-(((x - x0) / (0.45 * w)) ** 2) - ((y - y0) / (0.09 * w)) ** 2)
    patch = scene[rows, columns]
    factor = (1 - 0.55 * strength[: patch.shape[0], : patch.shape[1], None]).astype(np.float32)
    patch *= factor


def _contours(instances: UInt8Array) -> NDArray[np.bool_]:
    """Return which pixels have another instance within BORDER pixels, along either axis or both."""
    height, width = instances.shape
    span = range(2 * BORDER + 1)
    padded = np.pad(instances, BORDER, mode="edge")
    rows = [padded[i : i + height] for i in span]
    low, high = np.minimum.reduce(rows), np.maximum.reduce(rows)
    low = np.minimum.reduce([low[:, i : i + width] for i in span])
    high = np.maximum.reduce([high[:, i : i + width] for i in span])
    differ: NDArray[np.bool_] = low != high
    return differ


def _photograph(rng: Rng, scene: Float32Array) -> UInt8Array:
    """Return the scene as a camera sees it: exposure, tint, fall-off, haze, blur, sensor noise."""
    height, width = scene.shape[:2]
    scene = scene * (rng.uniform(0.8, 1.3) * np.exp(rng.normal(0, 0.04, 3))).astype(np.float32)
    scene *= (light(rng, height, width, rng.uniform(0, 0.35)))[:, :, None]
    if rng.random() < 0.3:  # dappled light
        scene *= 1 + 0.18 * noise(rng, height, width, rng.uniform(3, 10))[:, :, None]
    haze = np.float32(rng.uniform(0, 0.15) if rng.random() < 0.4 else 0)
    scene = scene.clip(0, 1) * (1 - haze) + haze * np.float32(0.8)
    image = Image.fromarray((scene * 255).astype(np.uint8))
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    grain = rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(0, 9)
    noisy: Float32Array = np.asarray(image) + grain
    return noisy.clip(0, 255).astype(np.uint8)
