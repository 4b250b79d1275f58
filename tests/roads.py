"""A drawn data set of four classes with a file of its own: PNG images, masks with a palette."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ground", "road", "car", "sky")
COLORS = ((90, 70, 50), (128, 128, 128), (220, 20, 60), (120, 180, 255))
IGNORE = 9
HEAD = """\
name = "roads"
classes = ["ground", "road", "car", "sky"]
"""
PLACES = """\
ignore = 9
colors = [[90, 70, 50], [128, 128, 128], [220, 20, 60], [120, 180, 255]]
images = "images"
masks = "labels"
splits = "lists"
"""


def write_roads(root: Path, head: str = HEAD) -> Path:
    """Draw a data set of four classes: PNG images, masks with a palette, 9 is ignored."""
    for folder in ("images", "labels", "lists"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(COLORS)] = COLORS
    for split, count in (("train", 6), ("val", 3)):
        names = [f"{split}_{i}" for i in range(count)]
        for name in names:
            labels = np.zeros((48, 64), dtype=np.uint8)
            labels[:20] = 3
            labels[20] = IGNORE
            left = int(generator.integers(4, 30))
            labels[21:, left : left + 24] = 1
            labels[30:40, left + 6 : left + 16] = 2
            noise = generator.integers(-20, 21, (*labels.shape, 3))
            image = (colors[labels] + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / f"{name}.png")
            mask = Image.fromarray(labels)
            mask.putpalette(colors.tobytes())
            mask.save(root / "labels" / f"{name}.png")
        (root / "lists" / f"{split}.txt").write_text("\n".join(names) + "\n")
    (root / "dataset.toml").write_text(head + PLACES)
    return root
