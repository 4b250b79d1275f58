"""A closer look at one INT8 graph of a variant: its layers, beside those of the float graph."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy.calibration import Fit, Sample
from deploy.calibration.preprocess import Size, preprocess
from deploy.calibration.voc import pick, read_image
from deploy.graph.metadata import is_equalized, read_metadata
from deploy.graph.reading import read_graph
from deploy.validate.layer_fidelity import layer_sqnr

LAYER_IMAGES = 4  # on which the layers are compared


def find_int8(names: Iterable[str]) -> str | None:
    """Return which INT8 graph is looked into: the default target's, else the first, or None."""
    return next((name for name in names if name.startswith("int8")), None)


def measure_layers(
    fp32: Path, int8: Path, samples: list[Sample], fit: Fit, size: Size
) -> dict[str, Any]:
    """Return the SQNR of an INT8 graph's layers on a few of the images, as plain values.

    Raises:
        GraphError, DataError: a graph or an image cannot be read.
    """
    model = read_graph(int8)
    equalized = is_equalized(read_metadata(model))
    chosen = pick(samples, LAYER_IMAGES)
    images = [preprocess(read_image(sample.image), fit, size) for sample in chosen]
    layers = layer_sqnr(read_graph(fp32), model, images, equalized=equalized)
    return {
        "images": len(images),
        "equalized": equalized,
        "layers": [
            {
                "node": found.layer.node,
                "op_type": found.layer.op_type,
                "tensor": found.layer.tensor,
                "sqnr_db": found.sqnr_db if math.isfinite(found.sqnr_db) else None,
            }
            for found in layers
        ],
    }
