"""The gate's search, on a tiny trained-looking network and drawn images."""

import json
from pathlib import Path

import numpy as np
import pytest
from graphs import refine_model
from PIL import Image

import deploy
from deploy.calibration.voc import find_voc_root, read_split
from deploy.errors import DeployError
from deploy.graph.graph import Graph, with_node_names
from deploy.graph.metadata import set_metadata
from deploy.quantize.gate import Gate
from deploy.quantize.recipe import RecipeName
from deploy.quantize.sensitivity import int8_share
from deploy.quantize.written import QuantizedGraph
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.validate.scores import Result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a float graph of 21 classes."""
    path = tmp_path / "net.onnx"
    network = refine_model(classes=21)
    set_metadata(network, {"fit": "squash", "weights": "checkpoint.pth"})
    path.write_bytes(network.SerializeToString())
    return path


def labelled_by(model: Path, voc_root: Path, root: Path) -> Path:
    """Return a data set whose masks are what the network says: its float mIoU is 100%."""
    source = find_voc_root(voc_root)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    runner = OnnxRunner(model)
    from deploy.calibration.preprocess import Fit, logits_to_labels, preprocess
    from deploy.calibration.voc import read_image

    for split in ("train", "val"):
        names = []
        for sample in read_split(source, split):
            small = root / "JPEGImages" / sample.image.name
            Image.fromarray(read_image(sample.image)).resize((16, 16)).save(small)
            logits = runner(preprocess(read_image(small), Fit.SQUASH, (16, 16)))
            labels = logits_to_labels(logits, (16, 16))
            Image.fromarray(labels).save(root / "SegmentationClass" / f"{sample.name}.png")
            names.append(sample.name)
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture
def data(model: Path, voc_root: Path, tmp_path: Path) -> Path:
    return labelled_by(model, voc_root, tmp_path / "data")


def quantize(model: Path, data: Path, gate: Gate, **options: object) -> QuantizedGraph:
    (graph,) = deploy.quantize(
        [str(model)],
        fp16=False,
        images=2,
        voc_root=data,
        out=model.parent / "out",
        gate=gate,
        **options,  # type: ignore[arg-type]
    )
    return graph


def test_a_gate_that_plain_quantization_passes_is_confirmed(model: Path, data: Path) -> None:
    graph = quantize(model, data, Gate(min_ratio=0.01), recipe=RecipeName.AUTO)
    assert graph.gate is not None
    assert graph.gate["held"]
    assert [step["recipe"] for step in graph.gate["steps"]] == ["plain"]
    assert graph.gate["confirmed"]["miou_ratio"]["value"] > 0.01
    assert graph.path.name == "int8.onnx"
    assert json.loads((graph.path.parent / "gate.json").read_text()) == graph.gate


def test_an_impossible_gate_is_missed_within_the_budget(model: Path, data: Path) -> None:
    graph = quantize(model, data, Gate(min_ratio=1.0, max_float_layers=2), recipe=RecipeName.AUTO)
    assert graph.gate is not None
    tried = [(step["recipe"], step["float_layers"]) for step in graph.gate["steps"]]
    assert not graph.gate["held"]
    assert tried == [
        *(("plain", 0), ("fast", 0), ("accurate", 0)),
        *(("accurate", 1), ("accurate", 2)),
    ]
    shares = [step["int8_share_of_macs"] for step in graph.gate["steps"]]
    assert shares[:3] == [1, 1, 1]
    assert 1 > shares[3] > shares[4] > 0
    assert graph.gate["confirmed"] is None
    assert graph.path.name == "int8-missed.onnx"
    assert len(graph.gate["float_layers"]) == 2
    assert set(graph.gate["float_layers"]) <= set(graph.kept_float)


def test_layers_return_to_float_until_the_gate_holds(model: Path, data: Path) -> None:
    tight = quantize(model, data, Gate(min_ratio=1.0, max_float_layers=4), recipe=RecipeName.PLAIN)
    assert tight.gate is not None
    ratios = [step["miou_ratio"]["value"] for step in tight.gate["steps"]]
    assert max(ratios[1:]) > ratios[0]
    wanted = (ratios[0] + max(ratios)) / 2
    graph = quantize(
        model, data, Gate(min_ratio=wanted, max_float_layers=4), recipe=RecipeName.PLAIN
    )
    assert graph.gate is not None
    passing = [step["float_layers"] for step in graph.gate["steps"] if step["held"]]
    failing = [step["float_layers"] for step in graph.gate["steps"] if not step["held"]]
    assert len(graph.gate["float_layers"]) == min(passing) == max(failing) + 1


def test_a_graph_of_an_earlier_search_does_not_stay(model: Path, data: Path) -> None:
    missed = quantize(model, data, Gate(min_ratio=1.0, max_float_layers=0), recipe=RecipeName.PLAIN)
    held = quantize(model, data, Gate(min_ratio=0.01), recipe=RecipeName.PLAIN)
    assert held.path.is_file()
    assert not missed.path.exists()
    again = quantize(model, data, Gate(min_ratio=1.0, max_float_layers=0), recipe=RecipeName.PLAIN)
    assert again.path.is_file()
    assert not held.path.exists()


def test_random_parameters_cannot_be_gated(model: Path, data: Path) -> None:
    network = refine_model(classes=21)
    set_metadata(network, {"fit": "squash", "weights": "random"})
    model.write_bytes(network.SerializeToString())
    with pytest.raises(DeployError, match="random parameters"):
        quantize(model, data, Gate(min_ratio=0.9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs --min-ratio or --max-drop"),
        ({"min_ratio": 1.5}, "at most 1"),
        ({"min_ratio": 0.0}, "above 0"),
        ({"max_drop": -1.0}, "not be negative"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(DeployError, match=message):
        Gate(**options)  # type: ignore[arg-type]


def test_max_drop_is_in_points() -> None:
    from deploy.validate.metrics import Estimate

    def result(drop: float) -> Result:
        estimate = Estimate(value=drop, low=drop, high=drop)
        return Result(
            miou=0.5, miou_drop=estimate, miou_ratio=Estimate(value=0.99, low=0.9, high=1),
            per_class_iou={}, pixel_accuracy=1, agreement=1, sqnr_db=30, cosine=1, latency_ms=1,
        )  # fmt: skip

    assert Gate(max_drop=0.5).holds(result(0.0049))
    assert not Gate(max_drop=0.5).holds(result(0.0051))
    assert not Gate(max_drop=0.5, min_ratio=0.995).holds(result(0.001))


def test_share_of_work_in_8_bits() -> None:
    graph = Graph(with_node_names(refine_model()))
    assert int8_share(graph, set()) == 1
    # conv1: 8 x 27 products at 16x16, conv2: 8 x 8 and depthwise: 8 x 9 at 8x8, classifier: 4 x 72
    # at 16x16
    all_ = 256 * (216 + 288) + 64 * (64 + 72)
    assert int8_share(graph, {"conv1", "relu1"}) == pytest.approx(1 - 256 * 216 / all_)
    assert np.isclose(int8_share(graph, {"conv1", "conv2", "depthwise", "classifier"}), 0)


def test_auto_without_a_gate_is_refused(model: Path, data: Path) -> None:
    with pytest.raises(DeployError, match="needs a gate"):
        deploy.quantize([str(model)], voc_root=data, recipe=RecipeName.AUTO)
