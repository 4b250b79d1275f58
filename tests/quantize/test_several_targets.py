"""Several targets from one calibration, and what their own quantizers make of the same images."""

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from graphs import refine_model
from toolchains import needs_qnn

import deploy
from deploy.errors import DeployError, GraphError
from deploy.graph.metadata import read_metadata
from deploy.quantize.gate import Gate
from deploy.quantize.recipe import RecipeName
from deploy.quantize.written import HandedFolder, QuantizedGraph
from deploy.runtimes.runner import Runtime
from deploy.targets import ACCELERATORS

TARGETS = ["ort", "qnn", "tensorrt", "pow2"]
Written = list[QuantizedGraph | HandedFolder]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small graph that can be quantized."""
    path = tmp_path / "mine.onnx"
    onnx.save(refine_model(classes=21), path)
    return path


def quantize(model: Path, voc_root: Path, out: str = "out", **options: object) -> Written:
    return deploy.quantize(
        [str(model)],
        fp16=False,
        images=3,
        voc_root=voc_root,
        out=model.parent / out,
        **options,  # type: ignore[arg-type]
    )


def names(written: Written) -> list[str]:
    return [graph.path.name for graph in written]


def test_together_they_give_the_bytes_that_each_gives_alone(model: Path, voc_root: Path) -> None:
    together = quantize(model, voc_root, target=TARGETS)
    assert names(together) == [
        "int8.onnx",
        "int8-qnn.onnx",
        "int8-tensorrt.onnx",
        "int8-pow2.onnx",
    ]
    for target, graph in zip(TARGETS, together, strict=True):
        (alone,) = quantize(model, voc_root, f"out-{target}", target=target)
        assert alone.path.read_bytes() == graph.path.read_bytes()


def test_an_equalized_graph_is_calibrated_once(model: Path, voc_root: Path) -> None:
    quantize(model, voc_root, target="ort", recipe=RecipeName.ACCURATE)
    path = model.parent / "out" / "mine" / "calibration-equalized.json"
    before = path.stat().st_mtime_ns
    (second,) = quantize(model, voc_root, target="qnn", recipe=RecipeName.ACCURATE)
    assert path.stat().st_mtime_ns == before
    (alone,) = quantize(model, voc_root, "alone", target="qnn", recipe=RecipeName.ACCURATE)
    assert alone.path.read_bytes() == second.path.read_bytes()


def test_a_folder_stands_beside_graphs(model: Path, voc_root: Path) -> None:
    written = quantize(model, voc_root, target=["vacc", "ort"])
    assert names(written) == ["vacc", "int8.onnx"]


def test_a_gate_is_of_one_target(model: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match=r"^a gate is held by one target's graph, not by 2$"):
        quantize(model, voc_root, target=["ort", "qnn"], gate=Gate(max_drop=1))


@pytest.mark.slow
def test_a_vendors_quantizer_gets_the_same_images(model: Path, voc_root: Path) -> None:
    written = quantize(model, voc_root, target=["ort", "qnn", "tensorrt"], vendor=True)
    assert names(written)[3:] == ["int8-vendor.onnx", "int8-qnn-vendor.onnx"]
    for target, ours, vendors in zip(("ort", "qnn"), written[:2], written[3:], strict=True):
        assert isinstance(vendors, QuantizedGraph)
        label = ACCELERATORS[target].vendor.label  # type: ignore[union-attr]
        one, other = (read_metadata(onnx.load(graph.path)) for graph in (ours, vendors))
        assert vendors.quantizer == other["quantizer"] == label
        assert other["target"] == target
        assert one["calibration_images"] == other["calibration_images"]
        assert len(json.loads(other["calibration_images"])) == 3
    again = quantize(model, voc_root, target=["ort", "qnn"], vendor=True)
    assert [isinstance(g, QuantizedGraph) and g.reused for g in again] == [True] * 4


def test_a_target_without_a_quantizer_of_its_own_is_one_line(model: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match=r"^tensorrt: no quantizer of its own runs here"):
        quantize(model, voc_root, target="tensorrt", vendor=True)
    assert not (model.parent / "out").exists()


def test_a_vendors_quantizer_that_fails_is_one_line(
    model: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\nsuch operator")

    vendor = dataclasses.replace(ACCELERATORS["ort"].vendor, quantize=fail)  # type: ignore[type-var]
    accelerator = dataclasses.replace(ACCELERATORS["ort"], vendor=vendor)
    monkeypatch.setattr("deploy.pipeline.quantizing.find_accelerator", lambda _: accelerator)
    with pytest.raises(GraphError, match=r"MinMax, .* fails on .*mine.onnx: no such operator$"):
        quantize(model, voc_root, vendor=True)
    assert not (model.parent / "out" / "mine" / "int8-vendor.onnx").exists()


@needs_qnn
@pytest.mark.slow
def test_both_are_measured_on_htp(model: Path, voc_root: Path) -> None:
    written = quantize(model, voc_root, target="qnn", vendor=True)
    results = deploy.validate(
        [str(graph.path) for graph in written],
        voc_root=voc_root,
        limit=2,
        runtime=Runtime.QNN,
        soc="sm8650",
        out=model.parent / "out",
    )
    for result in results:
        (figures,) = result["results"].values()
        assert (result["runtime"], result["soc"]) == ("qnn", "sm8650")
        assert figures["int8_convolutions"] == [4, 4]
        assert figures["footprint"]["context_bytes"] > 0
        assert figures["latency_ms"] is None
        assert figures["miou"] is not None
