"""Whatever float graph is given: a right result or one line, and clean by the tool's own linter."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from graphs import run
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import deploy
from deploy.calibration import CalibrationError, Fit
from deploy.calibration.preprocess import preprocess
from deploy.calibration.scenes import write_scenes
from deploy.calibration.voc import read_image, read_split
from deploy.errors import DeployError
from deploy.graph.half import emulate_half
from deploy.targets import PROFILES, lint

SIDE = 24
CHANNELS = 8
NAMES = (
    "x",
    "x_scale",
    "x_quantized",
    "a b",
    "größe",
    "n/0:1",
    "x_float16",
    "x//max",
    "conv.weight",
)
UNARY = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Identity", "HardSwish")
OPERATORS = (
    *("conv", "depthwise", "pointwise", "strided", "bias-sum", "clip", "unary", "add", "twice"),
    *("add-constant", "mul", "max-pool", "average-pool", "concat", "resize", "transpose", "pad"),
    *("slice", "hard-swish", "norm", "global"),
)


class Builder:
    """Draws a graph node by node; every tensor is (1, C, H, W)."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.names = list(draw(st.permutations(NAMES)))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"image": (1, 3, SIDE, SIDE)}

    def name(self) -> str:
        """Return a name that no tensor has, an odd one as long as there are some."""
        used = {*self.shapes, *self.constants}
        odd = [name for name in self.names if name not in used]
        return odd[0] if odd and self.draw(st.booleans()) else f"t{len(used)}"

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = self.name()
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **given: object) -> str:
        result = self.name()
        self.shapes[result] = shape
        label = self.draw(st.sampled_from(["", op_type, result, f"{op_type}_{len(self.nodes)}"]))
        self.nodes.append(helper.make_node(op_type, inputs, [result], name=label, **given))
        return result

    def conv(self, x: str, *, out: int, kernel: int, group: int = 1, stride: int = 1) -> str:
        _, channels, height, width = self.shapes[x]
        shape = (out, channels // group, kernel, kernel)
        weight = self.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        inputs = [x, self.constant(weight)]
        if self.draw(st.booleans()):
            inputs.append(self.constant(0.1 * self.random.standard_normal(out)))
        given: dict[str, object] = {"strides": [stride] * 2, "group": group}
        if self.draw(st.booleans()):
            given["pads"] = [kernel // 2] * 4
        else:
            given["auto_pad"] = self.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
        assume(kernel % 2 == 1)
        size = tuple(-(-side // stride) for side in (height, width))
        return self.add("Conv", inputs, (1, out, *size), **given)

    def step(self, x: str) -> str:
        """Append an operator that takes ``x``; return its result."""
        kind = self.draw(st.sampled_from(OPERATORS))
        shape = self.shapes[x]
        channels, height, width = shape[1:]
        same = [name for name, other in self.shapes.items() if other == shape]
        other = self.draw(st.sampled_from(same))
        if kind == "conv":
            return self.conv(x, out=CHANNELS, kernel=self.draw(st.sampled_from([3, 5])))
        if kind == "depthwise":
            return self.conv(x, out=channels, kernel=3, group=channels)
        if kind == "pointwise":
            return self.conv(x, out=CHANNELS, kernel=1)
        if kind == "strided":
            return self.conv(x, out=CHANNELS, kernel=3, stride=2) if height >= 8 else x
        if kind == "bias-sum":
            raw = self.conv(x, out=CHANNELS, kernel=3)
            bias = self.constant(self.random.standard_normal((1, CHANNELS, 1, 1)))
            return self.add("Add", [raw, bias], self.shapes[raw])
        if kind == "clip":
            low, high = sorted(self.draw(st.tuples(*[st.sampled_from([-2, -1, 0, 1, 3, 6])] * 2)))
            low_name = self.constant(low) if self.draw(st.booleans()) else ""
            assume(low < high)
            return self.add("Clip", [x, low_name, self.constant(high)], shape)
        if kind == "unary":
            return self.add(self.draw(st.sampled_from(UNARY)), [x], shape)
        if kind in ("add", "mul"):
            return self.add(kind.capitalize(), [x, other], shape)
        if kind == "twice":
            return self.add("Add", [x, x], shape)
        if kind == "add-constant":
            return self.add("Add", [x, self.constant(self.random.standard_normal())], shape)
        if kind in ("max-pool", "average-pool"):
            op_type = "MaxPool" if kind == "max-pool" else "AveragePool"
            k = self.draw(st.sampled_from([3, 5]))
            return self.add(op_type, [x], shape, kernel_shape=[k, k], pads=[k // 2] * 4)
        if kind == "concat":
            return self.add("Concat", [x, other], (1, 2 * channels, height, width), axis=1)
        if kind == "resize":
            mode = self.draw(st.sampled_from(["nearest", "linear", "cubic"]))
            scales = self.constant([1, 1, 2, 2])
            if height > SIDE:
                return x
            return self.add(
                "Resize", [x, "", scales], (1, channels, 2 * height, 2 * width), mode=mode
            )
        if kind == "transpose":
            return self.add("Transpose", [x], (1, channels, width, height), perm=[0, 1, 3, 2])
        if kind == "pad":
            pads = self.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            return self.add("Pad", [x, pads], (1, channels, height + 2, width + 2))
        if kind == "slice":
            if height < 8:
                return x
            bounds = [self.constant([v], np.int64) for v in (1, height - 1, 2)]
            return self.add("Slice", [x, *bounds], (1, channels, height - 2, width))
        if kind == "hard-swish":
            shifted = self.add("Add", [x, self.constant(3)], shape)
            clipped = self.add("Clip", [shifted, self.constant(0), self.constant(6)], shape)
            product = self.add("Mul", [x, clipped], shape)
            return self.add("Mul", [product, self.constant(1 / 6)], shape)
        if kind == "global":
            pooled = self.add("GlobalAveragePool", [x], (1, channels, 1, 1))
            return self.add("Mul", [x, pooled], shape)
        mean, variance = np.zeros(channels), np.ones(channels)
        factors = [self.constant(v) for v in (variance, mean, mean, variance)]
        return self.add("BatchNormalization", [x, *factors], shape)


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Return a checked float graph with at least one convolution."""
    builder = Builder(draw)
    x = builder.conv("image", out=CHANNELS, kernel=3)
    for _ in range(draw(st.integers(1, 6))):
        x = builder.step(x)
    x = builder.conv(x, out=4, kernel=1)
    opset, ir_version = draw(st.sampled_from([14, 16, 17, 18, 20, 21])), draw(st.integers(7, 10))
    if opset == 14 or opset == 16:
        ir_version = max(ir_version, 8)
    constants = builder.constants
    if draw(st.booleans()):
        made = [
            helper.make_node("Constant", [], [k], value=numpy_helper.from_array(v))
            for k, v in constants.items()
        ]
        nodes, tensors = [*made, *builder.nodes], []
    else:
        tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
        nodes = builder.nodes
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, list(builder.shapes[x]))]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        assume(False)
    return model


SCENES = Path(tempfile.mkdtemp())
ROOT = write_scenes(SCENES, train=2, val=1, seed=4)
IMAGES = [
    preprocess(read_image(sample.image), Fit.CROP, (SIDE, SIDE))
    for sample in read_split(ROOT, "train")
]


def noise_db(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    error = sum(np.square(a - b).sum() for a, b in zip(expected, found, strict=True))
    return float(10 * np.log10(sum(np.square(a).sum() for a in expected) / max(error, 1e-30)))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(graphs(), st.sampled_from(sorted(PROFILES)))
def test_any_graph_gives_a_right_result_or_one_line(model: onnx.ModelProto, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.onnx")
        onnx.save(model, path)
        try:
            expected = [run(model, image) for image in IMAGES]
        except Exception:
            assume(False)
        try:
            half, int8 = deploy.quantize(
                path, target=target, recipe="plain", images=2, voc_root=ROOT, out=Path(folder, "o")
            )
        except (DeployError, CalibrationError) as error:
            is_one_line = "\n" not in str(error) and "any.onnx" in str(error)
            if is_one_line:
                return
            raise
        written = onnx.load(int8.path)
        assert lint(written, target) == []
        assert noise_db(expected, [run(written, image) for image in IMAGES]) > 6
        emulated = emulate_half(onnx.load(half.path))
        assert all(np.isfinite(run(emulated, image)).all() for image in IMAGES)
        assert half.sqnr_db is not None
        assert half.sqnr_db > 45 or half.shortfall
