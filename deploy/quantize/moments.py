"""What the accuracy levers know of a convolution's input: mean and second moment of its patches."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.calibration.preprocess import Float32Array
from deploy.errors import GraphError
from deploy.graph.graph import Graph, attributes, giving
from deploy.runtimes.sessions import open_session
from deploy.store.environment import default_threads
from deploy.store.memory import give_back

POSITIONS = 512  # of a convolution's output and an image, drawn at random
CHUNK_BYTES = 2**30  # of inputs and second moments held in one pass over the images

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of the patches x, K values each, that a convolution with G groups multiplies.

    K is the group's input channels times the kernel's area, in the order of the weight's axes.
    """

    mean: Float64  # (G, K), E[x]
    second: Float64 | None  # (G, K, K), E[x xᵀ]; None where K is larger than was asked for

    @property
    def covariance(self) -> Float64 | None:
        """E[(x - E x)(x - E x)ᵀ], (G, K, K)."""
        if self.second is None:
            return None
        covariance: Float64 = self.second - self.mean[:, :, None] * self.mean[:, None, :]
        return covariance


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """The attributes of a 2-D convolution that say which values it multiplies."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    groups: int

    @classmethod
    def of(cls, node: onnx.NodeProto, weight: NDArray[np.generic]) -> "ConvGeometry":
        """Read a Conv node; raises GraphError where its padding is not explicit."""
        given = attributes(node)
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise GraphError(f"{node.name}: auto_pad is not supported: run 'deploy simplify' on it")
        return cls(
            kernel=(weight.shape[2], weight.shape[3]),
            strides=tuple(given.get("strides", (1, 1))),
            dilations=tuple(given.get("dilations", (1, 1))),
            pads=tuple(given.get("pads", (0, 0, 0, 0))),
            groups=given.get("group", 1),
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the output of an input."""
        top, left, bottom, right = self.pads
        rows, columns = (
            (size - self.dilations[i] * (self.kernel[i] - 1) - 1) // self.strides[i] + 1
            for i, size in enumerate((height + top + bottom, width + left + right))
        )
        return rows, columns

    def draw(self, shape: Sequence[int], rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return ``count`` positions of the output of an input (C, H, W), at random."""
        positions = math.prod(self.output_size(*shape[1:]))
        return rng.choice(positions, min(count, positions), replace=False)

    def patches(self, image: Float32Array, chosen: NDArray[np.int64]) -> Float32Array:
        """Return the patches of an input (C, H, W) at some positions of the output: (G, K, n)."""
        _, columns = self.output_size(*image.shape[1:])
        top, left, bottom, right = self.pads
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right))) if any(self.pads) else image
        channels = len(padded)
        y = chosen // columns * self.strides[0]
        x = chosen % columns * self.strides[1]
        taps = [
            padded[:, y + i * self.dilations[0], x + j * self.dilations[1]]
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]
        shape = (self.groups, channels // self.groups * len(taps), len(chosen))
        return np.stack(taps, axis=1).reshape(shape)


def patch_size(graph: Graph, node: onnx.NodeProto) -> int:
    """Return K: how many values one output of a convolution is made of."""
    shape = graph.constants[node.input[1]].shape
    return int(np.prod(shape[1:]))


def collect_moments(
    graph: Graph,
    nodes: Sequence[onnx.NodeProto],
    images: Sequence[Float32Array],
    largest: int,
    only: Collection[str] | None = None,
    threads: int | None = None,
) -> Iterator[Mapping[str, Moments]]:
    """Yield the moments of the inputs of convolutions by node name, a chunk of nodes at a time.

    Each chunk takes a pass over ``images`` through the part of the graph that it needs, and is as
    large as CHUNK_BYTES allows, so that the memory does not grow with the depth of the network.

    Args:
        graph: the float graph.
        nodes: Conv nodes whose weight is an initializer.
        images: inputs (1, 3, H, W).
        largest: K up to which second moments are collected.
        only: names of those that are wanted. Patches are drawn for all, so that a node's moments
            do not depend on which others are wanted.
        threads: in which the network runs; by default one for each processor.
    """
    for chunk in _chunks(graph, nodes, largest):
        wanted = {node.name for node in chunk if only is None or node.name in only}
        if wanted:
            yield _collect(graph, chunk, images, largest, wanted, threads)


def _chunks(
    graph: Graph, nodes: Iterable[onnx.NodeProto], largest: int
) -> Iterator[list[onnx.NodeProto]]:
    """Yield groups of nodes whose inputs and moments fit CHUNK_BYTES; at least one node each."""
    chunk: list[onnx.NodeProto] = []
    room = CHUNK_BYTES
    held: set[str] = set()
    for node in nodes:
        size = patch_size(graph, node)
        groups = ConvGeometry.of(node, graph.constants[node.input[1]]).groups
        moments = 8 * groups * size**2 if size <= largest else 0
        need = moments + (0 if node.input[0] in held else _bytes(graph, node.input[0]))
        if chunk and need > room:
            yield chunk
            chunk, room, held = [], CHUNK_BYTES, set()
            need = moments + _bytes(graph, node.input[0])
        chunk.append(node)
        held.add(node.input[0])
        room -= need
    if chunk:
        yield chunk


def _bytes(graph: Graph, name: str) -> int:
    return 4 * int(np.prod(graph.shapes[name]))


def _collect(
    graph: Graph,
    nodes: list[onnx.NodeProto],
    images: Iterable[Float32Array],
    largest: int,
    only: Collection[str],
    threads: int | None,
) -> dict[str, Moments]:
    geometry = {node.name: ConvGeometry.of(node, graph.constants[node.input[1]]) for node in nodes}
    wanted = [node.input[0] for node in nodes if node.input[0] != graph.input.name]
    # onnxruntime leaves out what these do not need
    with giving(graph.model, wanted or sorted(graph.outputs)) as model:
        session = open_session(model, threads or default_threads(), arena=False)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    first: dict[str, Any] = dict.fromkeys(only, 0.0)
    second: dict[str, Any] = dict.fromkeys(only, 0.0)
    count = dict.fromkeys(only, 0)
    for image in images:
        values = dict(zip(names, session.run(None, {graph.input.name: image}), strict=True))
        values[graph.input.name] = image
        for node in nodes:
            given = values[node.input[0]][0]
            chosen = geometry[node.name].draw(given.shape, rng, POSITIONS)
            if node.name not in only:
                continue
            x = geometry[node.name].patches(given, chosen)
            first[node.name] = first[node.name] + x.sum(axis=2, dtype=np.float64)
            if x.shape[1] <= largest:
                second[node.name] += (x @ x.transpose(0, 2, 1)).astype(np.float64)
            count[node.name] += x.shape[2]
        del values
    del session
    give_back()
    return {
        name: Moments(
            mean=first[name] / count[name],
            second=None if np.isscalar(second[name]) else second[name] / count[name],
        )
        for name in sorted(only)
    }
