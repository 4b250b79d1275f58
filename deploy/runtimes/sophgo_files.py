"""What tpu-mlir reads and writes beside graphs: calibration tables, modules, the profile of one."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from deploy.errors import GraphError
from deploy.graph.carried import Carried
from deploy.graph.graph import Graph
from deploy.runtimes.runner import Execution, by_operator

# Of a module's text: the operator, what it gives, where it stands; and what the place is called.
OPERATION = re.compile(r'"tpu\.(\w+)"\(.*-> (tensor<.*>) loc\((#loc\d*)\)')
PLACE = re.compile(r'^(#loc\d*) = loc\("(.*)"\)', re.MULTILINE)
EIGHT_BITS = re.compile(r"quant\.uniform<[iu]8:")
CONVOLUTIONS, CONVERSIONS = ("Conv2D", "Conv3D", "Deconv"), ("Cast",)
SIZES = re.compile(r"S2L:(\d+).*?L2S:(\d+)")
RUNTIME = re.compile(r"runtime: ([\d.]+)ms")


def calibration_table(carried: Carried) -> str:
    """Return a table that tpu-mlir's ``--calibration_table`` reads.

    A line for each tensor: name, threshold, low, high; the name is the tensor's with its
    operator's, the image's its own. It gives what lies above zero 255 steps of the threshold, all
    else 127 to each side.

    Raises:
        GraphError: a tensor has no range, which the compiler would end by.
    """
    graph = Graph(carried.model)
    lines = ["# name threshold min max"]
    names = {graph.input.name: graph.input.name}
    for node in carried.model.graph.node:
        names |= {tensor: f"{tensor}_{node.op_type}" for tensor in node.output if tensor}
    for tensor, name in names.items():
        if tensor not in carried.ranges:
            raise GraphError(
                f"{tensor} has no range: quantize the graph with --target sophgo, which gives all "
                "tensors one"
            )
        low, high = carried.ranges[tensor]
        lines.append(f"{name} {max(-low, high):.7f} {low:.7f} {high:.7f}")
    return "\n".join(lines) + "\n"


def describe(module: str, footprint: Mapping[str, int], device: Mapping[str, float]) -> Execution:
    """Return what of a quantized module, its text, computes in 8 bits."""
    places = dict(PLACE.findall(module))
    integers, floats, others = 0, list[str](), list[tuple[str, str]]()
    counts: Counter[str] = Counter()
    for operator, is_integer, place in operations(module):
        counts[operator] += 1
        name = places.get(place, place)
        if operator in CONVOLUTIONS:
            integers += is_integer
            floats += [] if is_integer else [name]
        elif not is_integer and operator not in CONVERSIONS:
            others.append((operator, name))
    return Execution(
        integer_convolutions=integers,
        float_convolutions=tuple(floats),
        float_nodes=by_operator(others),
        conversions=sum(counts[operator] for operator in CONVERSIONS),
        footprint=footprint,
        device=device,
    )


def operations(module: str) -> Iterator[tuple[str, bool, str]]:
    """Yield (operator, whether its result is of 8 bits, place) of a module's text."""
    for line in module.splitlines():
        found = OPERATION.search(line)
        if found is not None:
            yield found[1], EIGHT_BITS.search(found[2]) is not None, found[3]


def read_profile(text: str) -> tuple[dict[str, int], dict[str, float]]:
    """Return what the compiler planned (compiler_profile_0.txt): bytes an image, and its time."""
    sizes, runtime = SIZES.search(text), RUNTIME.search(text)
    footprint = {}
    if sizes is not None:
        footprint = {"ddr_read_bytes": int(sizes[1]), "ddr_write_bytes": int(sizes[2])}
    return footprint, {} if runtime is None else {"estimated_ms": float(runtime[1])}
