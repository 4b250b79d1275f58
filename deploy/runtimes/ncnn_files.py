"""ncnn's two files: ``.param``, one layer a line, and ``.bin``, the layers' data in that order.

Source: ncnn's wiki, "param and model file structure", and its ModelBin (src/modelbin.cpp).
"""

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = "7767517"
TAGS = {np.dtype(np.float32): 0, np.dtype(np.float16): 0x01306B47, np.dtype(np.int8): 0x000D4B38}
ALIGNMENT = 4  # bytes
ARRAY = -23300  # less an array's key is what stands for it

Value = int | float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of ncnn's: what it takes and gives by name, parameters by key, data as stored."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, Value] = field(default_factory=dict)
    data: bytes = b""


@dataclass(frozen=True, kw_only=True)
class NcnnModel:
    """A network in ncnn's form.

    Attributes:
        param: the text of ``.param``.
        bin: the content of ``.bin``.
        input, output: names of the blobs.
        integer_convolutions: names of the layers that compute in 8 bits.
    """

    param: str
    bin: bytes
    input: str
    output: str
    integer_convolutions: frozenset[str]


def weight_bytes(values: NDArray[Any]) -> bytes:
    """Return a weight of int8, float16 or float32 as stored: a tag, the values, zeros to fill up.

    Raises:
        KeyError: it is of another type.
    """
    content = struct.pack("<I", TAGS[values.dtype]) + values.tobytes()
    return content + bytes(-len(content) % ALIGNMENT)


def float_bytes(values: NDArray[Any]) -> bytes:
    """Return a bias or scales as stored: float32 without a tag."""
    return values.astype("<f4").tobytes()


def text_of(layers: Sequence[Layer]) -> str:
    """Return the text of ``.param``."""
    blobs = sum(len(layer.outputs) for layer in layers)
    return "\n".join([MAGIC, f"{len(layers)} {blobs}", *map(_line, layers)]) + "\n"


def with_splits(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers in which none but a Split gives to more than one: ncnn asks for that."""
    uses = Counter(name for layer in layers for name in layer.inputs)
    copies = {
        name: [f"{name}_split_{i}" for i in range(count)]
        for name, count in uses.items()
        if count > 1
    }
    left = {name: iter(split) for name, split in copies.items()}
    found: list[Layer] = []
    for layer in layers:
        inputs = tuple(next(left[name]) if name in left else name for name in layer.inputs)
        found.append(replace(layer, inputs=inputs))
        for name in layer.outputs:
            if name in copies:
                split = tuple(copies[name])
                found.append(
                    Layer(type="Split", name=f"{name}_split", inputs=(name,), outputs=split)
                )
    return found


def _line(layer: Layer) -> str:
    counts = f"{len(layer.inputs)} {len(layer.outputs)}"
    parts = [_parameter(key, value) for key, value in sorted(layer.parameters.items())]
    return " ".join([layer.type, layer.name, counts, *layer.inputs, *layer.outputs, *parts])


def _parameter(key: int, value: Value) -> str:
    if isinstance(value, tuple):
        return f"{ARRAY - key}={','.join([str(len(value)), *map(_number, value)])}"
    return f"{key}={_number(value)}"


def _number(value: float) -> str:
    """Return a number as ncnn reads it: a float is what has a point or an exponent."""
    return str(value) if isinstance(value, int) else f"{value:.9e}"
