import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import quantized, refine_model, run
from onnx import numpy_helper

from deploy.graph.graph import Graph, count_ops
from deploy.quantize.int8 import BIAS_MAX, activation_scale, quantize_int8, quantize_weight
from deploy.quantize.placement import place
from deploy.targets import PROFILES
from deploy.validate.metrics import Fidelity

ORT = PROFILES["ort"]


@pytest.fixture
def images() -> list[np.ndarray]:
    r = np.random.default_rng(1)
    return [r.standard_normal((1, 3, 16, 16), dtype=np.float32) for _ in range(8)]


def test_activation_scale_ramp_of_all_256_values_round_trips() -> None:
    ramp = np.arange(256, dtype=np.float32) * np.float32(0.5) - 32
    scale = activation_scale(float(ramp.min()), float(ramp.max()), ORT)
    q = np.rint(ramp / scale.scale) + scale.zero_point
    assert scale.zero_point == 64
    np.testing.assert_array_equal(q, np.arange(256))
    np.testing.assert_array_equal((q - scale.zero_point) * scale.scale, ramp)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 5.7), (-3.3, 0.0), (-1e-3, 1e3)])
def test_activation_scale_zero_is_exact_and_range_is_covered(low: float, high: float) -> None:
    scale = activation_scale(low, high, ORT)
    ends = (np.array([0, 255]) - float(scale.zero_point)) * float(scale.scale)
    assert ends[0] <= low + scale.scale / 2
    assert ends[1] >= high - scale.scale / 2
    assert 0 <= scale.zero_point <= 255


def test_activation_scale_of_a_tensor_that_is_zero_everywhere_is_one() -> None:
    assert activation_scale(0.0, 0.0, ORT).scale == 1


def test_activation_scale_signed_ramp_of_all_256_values_round_trips() -> None:
    ramp = np.arange(256, dtype=np.float32) * np.float32(0.5) - 32
    scale = activation_scale(float(ramp.min()), float(ramp.max()), PROFILES["ort-arm"])
    assert scale.zero_point == 64 - 128
    q = np.rint(ramp / scale.scale) + scale.zero_point
    np.testing.assert_array_equal(q, np.arange(-128, 128))


def test_activation_scale_symmetric_range_has_zero_point_zero() -> None:
    scale = activation_scale(-3.0, 12.7, PROFILES["tensorrt"])
    assert scale.zero_point == 0
    assert scale.zero_point.dtype == np.int8
    assert scale.scale == np.float32(12.7 / 127)


@pytest.mark.parametrize(("high", "exponent"), [(127.0, 0), (127.1, 1), (0.9, -7), (64.0, 0)])
def test_activation_scale_power_of_two_is_the_next_that_covers_the_range(
    high: float, exponent: int
) -> None:
    assert activation_scale(0.0, high, PROFILES["pow2"]).scale == np.exp2(exponent)


def test_quantize_weight_of_seven_bits_cannot_saturate_sixteen_bit_sums() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 8, 3, 3), dtype=np.float32)
    q, scale = quantize_weight(weight, PROFILES["ort-avx2"], None, np.float32(1))
    assert np.abs(q).max() == 64
    assert 2 * 255 * int(np.abs(q).max()) <= np.iinfo(np.int16).max
    assert np.abs(q * scale.reshape(-1, 1, 1, 1) - weight).max() <= scale.max() / 2 * 1.0001


def test_quantize_weight_power_of_two_has_one_scale_for_all_channels() -> None:
    weight = np.array([[1.0], [0.25]], dtype=np.float32).reshape(2, 1, 1, 1)
    q, scale = quantize_weight(weight, PROFILES["pow2"], None, np.float32(1))
    assert scale == np.float32(1 / 64)
    assert scale.shape == ()
    np.testing.assert_array_equal(q.ravel(), [64, 16])


def test_quantize_weight_power_of_two_clips_an_outlier_that_costs_less_than_it_saves() -> None:
    weight = np.random.default_rng(0).uniform(-1, 1, (1, 999, 1, 1)).astype(np.float32)
    weight = np.append(weight, np.float32(1.02)).reshape(1, 1000, 1, 1)
    q, scale = quantize_weight(weight, PROFILES["pow2"], None, np.float32(1))
    assert scale == np.exp2(-7)  # the next that covers 1.02 is 2^-6
    assert np.square(q * scale - weight).mean() < np.square(2.0**-6) / 12


def test_quantize_weight_ramp_is_exact_and_channels_do_not_share_a_scale() -> None:
    ramp = np.arange(-127, 128, dtype=np.float32)
    weight = np.stack([ramp, ramp * 1000]).reshape(2, 255, 1, 1)  # the second is an outlier
    q, scale = quantize_weight(weight, ORT, None, np.float32(1))
    np.testing.assert_array_equal(q[0].ravel(), ramp)
    np.testing.assert_array_equal(q[1].ravel(), ramp)
    np.testing.assert_allclose(scale, [1, 1000])


def test_quantize_weight_never_uses_minus_128() -> None:
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3), dtype=np.float32)
    q, scale = quantize_weight(weight, ORT, None, np.float32(1))
    assert q.min() >= -127
    assert np.abs(q * scale.reshape(-1, 1, 1, 1) - weight).max() <= scale.max() / 2 * 1.0001


@pytest.mark.parametrize("target", ["ort", "openvino", "ncnn"])  # a float bias, too
def test_quantize_weight_of_a_dead_channel_keeps_its_bias_within_32_bits(target: str) -> None:
    weight = np.zeros((2, 4, 1, 1), dtype=np.float32)
    weight[1] = 1
    bias = np.array([7.0, 1.0], dtype=np.float32)
    input_scale = np.float32(1e-3)
    q, scale = quantize_weight(weight, PROFILES[target], bias, input_scale)
    bias_q = np.rint(bias / (input_scale * scale).astype(np.float64))
    assert np.abs(bias_q).max() <= BIAS_MAX
    np.testing.assert_allclose(bias_q * input_scale * scale, bias, rtol=1e-6)
    assert not q[0].any()


def test_quantize_int8_follows_the_float_graph(images: list[np.ndarray]) -> None:
    model = refine_model()
    result = quantized(model, images)
    onnx.checker.check_model(result, full_check=True)
    fidelity = Fidelity()
    for image in images:
        expected, found = run(model, image)[0], run(result, image)[0]
        labels = expected.argmax(0).astype(np.uint8), found.argmax(0).astype(np.uint8)
        fidelity.update(expected, found, *labels)
    assert 30 < fidelity.sqnr_db < 60  # 8 bits leave noise, but little
    assert fidelity.agreement > 0.95


@pytest.mark.parametrize("name", PROFILES)
def test_quantize_int8_of_every_profile_follows_the_float_graph(
    images: list[np.ndarray], name: str
) -> None:
    model = refine_model()
    result = quantized(model, images, name)
    onnx.checker.check_model(result, full_check=True)
    expected = np.stack([run(model, image)[0] for image in images])
    error = np.stack([run(result, image)[0] for image in images]) - expected
    sqnr_db = 10 * np.log10((expected**2).sum() / (error**2).sum())
    assert (18 if name == "pow2" else 28) < sqnr_db < 60


def test_quantize_int8_tensorrt_has_float_biases_and_a_float_output(
    images: list[np.ndarray],
) -> None:
    result = quantized(refine_model(), images, "tensorrt")
    (classifier,) = (n for n in result.graph.node if n.name == "classifier")
    assert classifier.output[0] == "logits"
    assert classifier.input[2] == "b4"
    quantizers = [n for n in result.graph.node if n.op_type == "QuantizeLinear"]
    graph = Graph(result)
    assert {int(graph.constants[n.input[2]]) for n in quantizers} == {0}
    assert all(
        c.op_type != "Resize"
        for n in result.graph.node
        if n.op_type == "DequantizeLinear"
        for c in graph.consumers[n.output[0]]
    )


def test_quantize_int8_pow2_has_scales_that_are_powers_of_two_and_8_bit_biases(
    images: list[np.ndarray],
) -> None:
    result = quantized(refine_model(), images, "pow2")
    constants = Graph(result).constants
    scales = [value for name, value in constants.items() if name.endswith("_scale")]
    assert all(value.shape == () and np.frexp(value)[0] == 0.5 for value in scales)
    assert constants["conv1.bias_quantized"].dtype == np.int8


def test_quantize_int8_excluded_nodes_are_as_they_were(images: list[np.ndarray]) -> None:
    model = refine_model()
    graph = Graph(model)
    everything = [n.name for n in model.graph.node if n.op_type not in ("Relu", "Clip")]
    placement = place(graph, ORT, set(everything) - {"conv2"})
    result = quantize_int8(graph, placement, {"r1": (0, 4), "k2": (0, 6)}, ORT)
    onnx.checker.check_model(result, full_check=True)
    assert count_ops(result)["QuantizeLinear"] == 2
    kept = {n.name: n for n in result.graph.node}
    assert list(kept["conv1"].input) == ["image", "w1", "b1"]
    assert list(kept["classifier"].output) == ["logits"]


def test_quantize_int8_leaves_its_input_unchanged(images: list[np.ndarray]) -> None:
    model = refine_model()
    before = model.SerializeToString(deterministic=True)
    quantized(model, images)
    assert model.SerializeToString(deterministic=True) == before


def test_quantize_int8_is_the_same_for_the_same_input(images: list[np.ndarray]) -> None:
    first, second = (quantized(refine_model(), images) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_quantize_int8_has_no_float_weight_left(images: list[np.ndarray]) -> None:
    result = quantized(refine_model(), images)
    for tensor in result.graph.initializer:
        value = numpy_helper.to_array(tensor)
        assert value.dtype != np.float32 or tensor.name.endswith("_scale") or value.size == 1


def test_quantize_int8_pooling_and_resizing_share_their_input_scale(
    images: list[np.ndarray],
) -> None:
    result = quantized(refine_model(), images)
    scale = {n.input[0]: n.input[1] for n in result.graph.node if n.op_type == "QuantizeLinear"}
    assert scale["p1_float"] == scale["r1_float"]
    assert scale["u3_float"] == scale["c3_float"]
    assert scale["s5_float"] != scale["r4_float"]


def test_quantize_int8_runs_in_integer_kernels(
    images: list[np.ndarray], tmp_path: pytest.TempPathFactory
) -> None:
    result = quantized(refine_model(), images)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimized.onnx"
    options.log_severity_level = 3
    onnxruntime.InferenceSession(result.SerializeToString(), options)
    ops = count_ops(onnx.load(options.optimized_model_filepath))
    assert ops["QLinearConv"] == 4
    assert ops["QLinearAdd"] == 2
    assert not {"Conv", "Add", "Relu", "Clip"} & ops.keys()


def test_quantize_int8_all_zero_activations_stay_zero() -> None:
    model = refine_model()
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "b1"):
            tensor.CopyFrom(
                numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name)
            )
    image = np.ones((1, 3, 16, 16), dtype=np.float32)
    result = quantized(model, [image])
    assert np.isfinite(run(result, image)).all()
