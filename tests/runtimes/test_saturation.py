import numpy as np
import onnx
from graphs import run
from onnx import numpy_helper

from deploy.runtimes.saturation import saturates
from deploy.runtimes.sessions import kernels_saturate, open_session

SIXTEEN_BITS = 32767


def weights(model: onnx.ModelProto) -> np.ndarray:
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return tensors["weight"][:, :, 0, 0].astype(np.int64)


def quantize(total: np.ndarray, model: onnx.ModelProto) -> np.ndarray:
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale, limit = tensors["result_scale"], np.iinfo(tensors["zero"].dtype).max
    return (np.rint(total / scale).clip(0, limit) * scale).astype(np.float32)


def in_32_bits(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return quantize(np.einsum("oc,nchw->nohw", weights(model), image), model)


def in_16_bits(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """Add products in pairs, as VPMADDUBSW does."""
    products = weights(model)[None, :, :, None, None] * image[:, None]
    pairs = (products[:, :, 0::2] + products[:, :, 1::2]).clip(-SIXTEEN_BITS - 1, SIXTEEN_BITS)
    return quantize(pairs.sum(axis=2), model)


def test_saturates_knows_16_bit_sums_from_32_bit_ones() -> None:
    assert not saturates(in_32_bits)
    assert saturates(in_16_bits)


def test_saturates_not_what_onnxruntime_computes_without_optimizations() -> None:
    assert not saturates(run)


def test_exact_sessions_never_saturate_and_default_ones_as_the_probe_says() -> None:
    def run_exact(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
        result: np.ndarray = open_session(model).run(None, {"image": image})[0]
        return result

    def run_default(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
        result: np.ndarray = open_session(model, exact=False).run(None, {"image": image})[0]
        return result

    assert not saturates(run_exact)
    assert saturates(run_default) == kernels_saturate()
