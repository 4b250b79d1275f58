import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy.calibration import CalibrationError, TensorStatistics, observe
from deploy.calibration.observe import SAMPLES

Float32Array = NDArray[np.float32]

SIZE = (34, 46)
SHAPES = {  # of the graph's tensors
    "image": (1, 3, *SIZE),
    "hidden": (1, 16, *SIZE),
    "active": (1, 16, *SIZE),
    "logits": (1, 4, *SIZE),
}


@pytest.fixture
def model() -> onnx.ModelProto:
    """Return image -> Conv 3x3 -> hidden -> Relu -> active -> Conv 1x1 -> logits."""
    generator = np.random.default_rng(0)
    weights = {"w1": (16, 3, 3, 3), "w2": (4, 16, 1, 1)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["hidden"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Conv", ["active", "w2"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPES["image"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, SHAPES["logits"])],
        [
            numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return make_model(graph)


def make_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def identity(shape: tuple[int, ...], op: str = "Identity") -> onnx.ModelProto:
    """Return a graph image -> ``op`` -> x -> Neg -> out: what x is, the caller chooses."""
    nodes = [helper.make_node(op, ["image"], ["x"]), helper.make_node("Neg", ["x"], ["out"])]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    return make_model(helper.make_graph(nodes, "identity", inputs, outputs))


def draw(count: int, shape: tuple[int, ...], seed: int = 0) -> list[Float32Array]:
    generator = np.random.default_rng(seed)
    return [(generator.normal(size=shape) * 2**i).astype(np.float32) for i in range(count)]


def run(model: onnx.ModelProto, name: str, images: list[Float32Array]) -> Float32Array:
    """Return a tensor's values on all images, computed by the reference evaluator."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPES.get(name))
    )
    evaluator = ReferenceEvaluator(copy)
    return np.concatenate([evaluator.run(None, {"image": image})[0] for image in images])


def test_observe_finds_minimum_and_maximum_over_all_images(model: onnx.ModelProto) -> None:
    images = draw(3, SHAPES["image"])
    statistics = observe(model, SHAPES, iter(images), non_negative=frozenset({"active"}), threads=1)
    assert list(statistics) == list(SHAPES)
    for name in ("hidden", "active", "logits"):
        values = run(model, name, images)
        found = statistics[name].channel_minimum, statistics[name].channel_maximum
        expected_minimum = np.zeros(16) if name == "active" else values.min(axis=(0, 2, 3))
        np.testing.assert_allclose(found[0], expected_minimum, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[1], values.max(axis=(0, 2, 3)), rtol=1e-5)
    batch = np.concatenate(images)
    assert np.array_equal(statistics["image"].channel_minimum, batch.min(axis=(0, 2, 3)))
    assert np.array_equal(statistics["image"].channel_maximum, batch.max(axis=(0, 2, 3)))


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_observe_taps_graphs_of_any_opset(opset: int, model: onnx.ModelProto) -> None:
    images = draw(2, SHAPES["image"])
    expected = observe(model, SHAPES, images, threads=1)
    model.opset_import[0].version = opset
    found = observe(model, SHAPES, images, threads=1)
    assert {k: v.to_json() for k, v in found.items()} == {
        k: v.to_json() for k, v in expected.items()
    }


def test_observe_does_not_change_the_model(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    observe(model, SHAPES, draw(1, SHAPES["image"]), threads=1)
    assert model.SerializeToString(deterministic=True) == before


def test_observe_samples_all_of_a_small_tensor() -> None:
    shape = (1, 3, 20, 30)
    (image,) = draw(1, shape)
    expected = TensorStatistics()
    expected.update(float(image.min()), float(image.max()), image)
    observed = observe(identity(shape), {"x": shape}, [image], threads=1)["x"]
    assert np.array_equal(observed.counts, expected.counts)
    assert observed.exponent == expected.exponent


@pytest.mark.parametrize("shape", [(1, 3, 200, 210), (1, 64, 25, 32), (1, 40_000, 1, 1)])
def test_observe_samples_a_grid_of_a_large_tensor(shape: tuple[int, ...]) -> None:
    images = draw(2, shape)
    stride = math.ceil(math.sqrt(math.prod(shape) / SAMPLES))
    assert stride > 1
    expected = TensorStatistics()
    for image in images:
        samples = image[:, :, ::stride, ::stride]
        expected.update(float(image.min()), float(image.max()), samples)
    observed = observe(identity(shape), {"x": shape}, images, threads=1)["x"]
    assert observed.counts.sum() == expected.counts.sum()
    assert np.array_equal(observed.counts, expected.counts)
    assert (observed.minimum, observed.maximum) == (expected.minimum, expected.maximum)


def test_observe_of_a_non_negative_tensor_takes_zero_as_minimum() -> None:
    shape = (1, 3, 8, 8)
    image = np.abs(draw(1, shape)[0]) + 1
    model = identity(shape, "Relu")
    told = observe(model, {"x": shape}, [image], non_negative=frozenset({"x"}), threads=1)["x"]
    untold = observe(model, {"x": shape}, [image], threads=1)["x"]
    assert (told.minimum, untold.minimum) == (0, image.min())
    assert told.maximum == untold.maximum == image.max()


def test_observe_of_zeros_only() -> None:
    shape = (1, 3, 8, 8)
    zeros = np.zeros(shape, dtype=np.float32)
    for non_negative in (frozenset[str](), frozenset({"x"})):
        statistics = observe(
            identity(shape), {"x": shape}, [zeros], non_negative=non_negative, threads=1
        )
        assert (statistics["x"].minimum, statistics["x"].maximum) == (0, 0)


def test_observe_without_images_is_an_error(model: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no images to calibrate with: give at least one"):
        observe(model, SHAPES, [], threads=1)


@pytest.mark.parametrize(("threads", "images_at_a_time"), [(1, 1), (2, 2), (8, 2)])
def test_observe_holds_an_image_a_stream(
    threads: int, images_at_a_time: int, model: onnx.ModelProto
) -> None:
    alive = 0
    most = 0

    class Image(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def images() -> Iterator[Float32Array]:
        nonlocal alive, most
        for image in draw(9, SHAPES["image"]):
            alive += 1
            most = max(most, alive)
            yield image.copy().view(Image)

    observe(model, {"logits": SHAPES["logits"]}, images(), threads=threads)
    assert most <= images_at_a_time + 1  # the one before is dropped when the next has been made


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_observe_names_the_first_image_that_fails_with_any_threads(threads: int) -> None:
    shape = (1, 3, 40, 40)
    images = draw(12, shape)
    for image in images[6:]:
        image[0, 1, 2, 3] = math.nan
    taken = iter(images)
    with pytest.raises(CalibrationError, match="tensor x on image 7: "):
        observe(identity(shape), {"x": shape}, taken, threads=threads)
    assert len(list(taken)) >= 4  # no more are taken after a failure


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [ValueError("image 3 is torn"), KeyboardInterrupt()])
def test_observe_hands_on_what_reading_an_image_raises(
    threads: int, error: BaseException, model: onnx.ModelProto
) -> None:
    def images() -> Iterator[Float32Array]:
        yield from draw(2, SHAPES["image"])
        raise error

    with pytest.raises(type(error)) as raised:
        observe(model, SHAPES, images(), threads=threads)
    assert raised.value is error


@pytest.mark.parametrize("threads", [1, 2])
def test_observe_hands_on_what_the_runtime_raises(threads: int, model: onnx.ModelProto) -> None:
    images = iter([*draw(1, SHAPES["image"]), *draw(30, (1, 3, 8, 8))])
    with pytest.raises(Exception, match="invalid dimensions"):
        observe(model, SHAPES, images, threads=threads)
    assert len(list(images)) >= 27


def test_observe_takes_one_image_at_a_time(model: onnx.ModelProto) -> None:
    busy = threading.Lock()

    def images() -> Iterator[Float32Array]:
        for image in draw(8, SHAPES["image"]):
            assert busy.acquire(blocking=False)
            time.sleep(0.001)
            busy.release()
            yield image

    assert observe(model, SHAPES, images(), threads=2)["image"].counts.sum() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 16, 9, 7), (1, 3, 200, 210), (1, 5, 1, 1)])
@pytest.mark.parametrize("where", ["first", "inside", "everywhere"])
def test_observe_of_a_value_that_is_not_finite(
    bad: float, shape: tuple[int, ...], where: str
) -> None:
    good, image = draw(2, shape)
    flat = image.reshape(-1)
    flat[{"first": slice(1), "inside": slice(3, 4), "everywhere": slice(None)}[where]] = bad
    tensors = {"x": shape, "out": shape}  # a NaN between the samples shows at the output
    with pytest.raises(CalibrationError, match=r"tensor (x|out) on image 2: .* cannot be calib"):
        observe(identity(shape), tensors, [good, image], threads=1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_observe_of_a_rectified_value_that_is_not_finite(bad: float) -> None:
    shape = (1, 16, 20, 21)
    (image,) = draw(1, shape)
    image[0, 7, 11, 13] = bad
    with pytest.raises(CalibrationError, match="tensor x on image 1"):
        observe(
            identity(shape, "Relu"),
            {"x": shape},
            [image],
            non_negative=frozenset({"x"}),
            threads=1,
        )
