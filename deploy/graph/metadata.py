"""What a graph's metadata say, read with the doubt that a file from elsewhere deserves."""

import json
from collections.abc import Mapping
from pathlib import Path

import onnx

from deploy.calibration import Fit
from deploy.errors import GraphError

OURS = {"weights_sha256", "source_sha256", "stage_sha256"}  # no other tool writes these


def read_fit(metadata: Mapping[str, str], path: Path) -> Fit:
    """Return how images became the inputs of a graph; crop where its metadata do not say.

    Another tool's ``fit`` may mean anything: a word that is none of ours counts only where the
    rest of the metadata is ours.

    Raises:
        GraphError: they say what is no fit.
    """
    try:
        return Fit(metadata.get("fit", Fit.CROP.value))
    except ValueError:
        if not OURS.intersection(metadata):
            return Fit.CROP
        raise GraphError(
            f"{path} has fit {metadata['fit']!r} in its metadata: one of {', '.join(Fit)} is known"
        ) from None


def read_texts(metadata: Mapping[str, str], key: str, path: Path) -> list[str]:
    """Return the texts in a JSON list of a graph's metadata; none where there is no such key.

    Raises:
        GraphError: it is no such list.
    """
    try:
        found = json.loads(metadata.get(key, "[]"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise GraphError(f"{path} has {key} in its metadata that is no JSON list of texts")
    return found


EQUALIZING = "accurate"  # the recipe that does (deploy/quantize/recipe.py)
# Of graphs handed to toolchains that quantize by themselves:
FLOAT_FILE = "float_file_sha256"  # of the float graph's file that one was made from
CARRIER = "carrier"  # the recipe by which its weights are rounded and its biases corrected
CALIBRATION_TABLE = "calibration_table"  # ranges that a compiler's own calibration gave
SUMMARY = "quantization"  # metadata: which nodes were quantized and which not, as JSON


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the graph's metadata by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace all metadata of ``model``, in place."""
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)


def is_equalized(metadata: Mapping[str, str]) -> bool:
    """Say whether the channels of a quantized graph were brought to like ranges, by its recipe."""
    recipe = metadata.get("recipe", "")
    named = recipe.split()[:1] == [EQUALIZING]
    return (named or "equalize True" in recipe) and "equalize False" not in recipe
