"""Paddings of windows in LiteRT: SAME, VALID, or an operator before that pads.

SAME pads so that there are ceil(size / stride) results, the odd pixel at the end; ONNX pads by
numbers.
"""

from typing import Any

import onnx

from deploy.graph.graph import attributes

SAME, VALID = 0, 1  # of the schema: Padding
Pads = tuple[tuple[int, int], tuple[int, int]]  # (before, behind) of rows and of columns


def find_window(
    node: onnx.NodeProto, kernel: tuple[int, ...], size: Any, result: Any
) -> tuple[int, Pads | None]:
    """Return LiteRT's padding of a Conv or MaxPool, and what must be padded before it, if anything.

    Args:
        node: with explicit pads.
        kernel: (height, width).
        size: of the image, (height, width).
        result: likewise; what ONNX rounds up is padded behind.
    """
    given = attributes(node)
    before = given.get("pads", [0] * 4)[:2]
    steps = zip(
        *(kernel, size, result, before),
        *(given.get(name, [1, 1]) for name in ("strides", "dilations")),
        strict=True,
    )
    needed, same = [], []
    for extent, length, count, first, stride, dilation in steps:
        reach = (count - 1) * stride + (extent - 1) * dilation + 1 - length
        needed.append((first, max(reach - first, 0)))
        total = max(reach, 0)
        is_same = count == -(-length // stride)
        same.append((total // 2, total - total // 2) if is_same else None)
    pads = needed[0], needed[1]
    if not any(map(any, pads)):
        return VALID, None
    if list(pads) == same:
        return SAME, None
    return VALID, pads
