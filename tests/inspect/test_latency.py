import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model
from onnx import helper
from onnxruntime.quantization import quantize_dynamic

from deploy import latency as latency_function
from deploy.cli import main
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph
from deploy.graph.metadata import set_metadata
from deploy.inspect.latency import WARM_UP, Latencies, time_in_turn
from deploy.inspect.slowness import explain
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.openvino import OpenVinoRunner
from deploy.runtimes.runner import Execution, Runtime
from deploy.runtimes.sessions import kernels_saturate

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
ALL_IN_8_BITS = Execution(
    integer_convolutions=4, float_convolutions=(), float_nodes={}, conversions=2
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of graphs of the tiny network, as a variant's would be."""
    onnx.save(refine_model(), tmp_path / "fp32.onnx")
    onnx.save(convert_fp16(Graph(refine_model()), {}).model, tmp_path / "fp16.onnx")
    for target in ("ort", "tensorrt"):
        model = quantized(refine_model(), [IMAGE], target)
        set_metadata(model, {"target": target})
        onnx.save(model, tmp_path / f"{target}.onnx")
    return tmp_path


def measure(folder: Path, *names: str, **options: object) -> Latencies:
    paths = [str(folder / f"{name}.onnx") for name in names]
    return latency_function(paths, runs=3, threads=1, **options)  # type: ignore[arg-type]


def test_time_in_turn_takes_each_call_once_a_turn_in_changing_order() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = time_in_turn(calls, 3)
    turns = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert len(turns) == WARM_UP + 3
    assert turns[WARM_UP:] == ["abc", "cba", "abc"]
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 3)


def test_every_graph_has_its_figures_and_its_ratio_to_float32(folder: Path) -> None:
    found = measure(folder, "fp32", "fp16", "ort")
    assert [timing.form for timing in found.graphs] == ["float32", "float16", "QDQ"]
    assert found.graphs[0].ratio == 1
    for timing in found.graphs:
        assert 0 < timing.median_ms <= timing.p95_ms
        assert timing.images_per_second > 0
        assert timing.ratio
        assert timing.input_size == (16, 16)
    assert found.graphs[0].execution is None
    assert found.environment["versions"]["onnxruntime"]


def test_ratio_is_to_the_float32_graph_of_the_same_folder(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    onnx.save(refine_model(classes=64), other / "fp32.onnx")
    found = measure(folder, "other/fp32", "fp32", "ort")
    assert [timing.ratio == 1 for timing in found.graphs] == [True, True, False]
    alone = measure(folder, "ort")
    assert alone.graphs[0].ratio is None
    assert alone.graphs[0].slow_because == []


def test_execution_in_onnxruntime_names_what_runs_in_float(folder: Path) -> None:
    good = OnnxRunner(folder / "ort.onnx").execution()
    assert (good.integer_convolutions, good.float_convolutions) == (4, ())
    bad = OnnxRunner(folder / "tensorrt.onnx").execution()
    assert bad.convolutions == 4
    assert {"conv1", "depthwise"} <= set(bad.float_convolutions)
    assert bad.float_nodes["Resize"] == ("resize",)
    assert bad.conversions > good.conversions


def test_execution_in_openvino_names_what_runs_in_float(folder: Path) -> None:
    pytest.importorskip("openvino")
    execution = OpenVinoRunner(folder / "tensorrt.onnx", exact=False).execution()
    assert (execution.integer_convolutions, execution.float_convolutions) == (4, ())
    assert "Interpolate" in execution.float_nodes
    as_float = OpenVinoRunner(folder / "fp32.onnx").execution()
    assert as_float.integer_convolutions == 0
    assert "conv2" in " ".join(as_float.float_convolutions) or as_float.convolutions == 4


def test_dynamic_quantization_is_named(folder: Path) -> None:
    quantize_dynamic(folder / "fp32.onnx", folder / "dynamic.onnx")
    execution = OnnxRunner(folder / "dynamic.onnx").execution()
    assert execution.integer_convolutions == 4
    assert "Mul" in execution.float_nodes
    reasons = explain(folder / "dynamic.onnx", Runtime.ONNXRUNTIME, "dynamic", None, execution, [])
    assert any("found anew while it runs" in reason for reason in reasons)


def reasons_of(
    path: Path,
    instructions: list[str],
    execution: Execution = ALL_IN_8_BITS,
    runtime: Runtime = Runtime.ONNXRUNTIME,
) -> str:
    target = {"ort": "ort", "tensorrt": "tensorrt"}.get(path.stem)
    return "\n".join(explain(path, runtime, "QDQ", target, execution, instructions))


def test_a_processor_without_8_bit_products_is_the_first_reason(
    folder: Path,
) -> None:
    text = reasons_of(folder / "ort.onnx", ["avx2"])
    assert text.startswith("this processor has no instructions")
    text = reasons_of(folder / "ort.onnx", ["avx2", "avx512_vnni"])
    assert text.startswith("all its nodes compute in integers")


def test_the_form_of_another_target_is_a_reason(
    folder: Path,
) -> None:
    path = folder / "tensorrt.onnx"
    text = reasons_of(path, ["avx_vnni"])
    assert "in the form of target tensorrt: deploy quantize --int8 --target ort" in text
    assert "form" not in reasons_of(path, ["avx_vnni"], runtime=Runtime.OPENVINO)
    assert "--target ort-arm" in reasons_of(path, ["asimddp"])


def test_a_graph_that_names_no_target_is_held_against_the_runtimes_rules(
    folder: Path,
) -> None:
    model = onnx.load(folder / "tensorrt.onnx")
    set_metadata(model, {})
    onnx.save(model, folder / "foreign.onnx")
    text = reasons_of(folder / "foreign.onnx", ["avx_vnni"])
    assert re.search(r"breaks rules of target ort \(.*bias-form.*\): deploy lint", text)


def test_float_nodes_and_conversions_are_named(
    folder: Path,
) -> None:
    execution = Execution(
        integer_convolutions=1,
        float_convolutions=("a", "b", "c", "d"),
        float_nodes={"Resize": ("up",), "Add": ("s", "t")},
        conversions=9,
    )
    assert reasons_of(folder / "ort.onnx", ["avx_vnni"], execution).splitlines() == [
        "4 of 5 convolutions compute in float: a, b, c, …",
        "other nodes compute in float: 1 Resize (up), 2 Add (s, t)",
        "9 conversions between float and integers, every run",
    ]


def test_graphs_that_cannot_be_measured_are_refused(folder: Path) -> None:
    with pytest.raises(GraphError, match="no ONNX file at"):
        measure(folder, "none")
    with pytest.raises(DeployError, match="run 'deploy export rf101'"):
        latency_function(["rf101"], out=folder)
    nodes = [helper.make_node("Flatten", ["image"], ["logits"])]
    onnx.save(make_model(nodes, {}), folder / "flat.onnx")
    with pytest.raises(GraphError, match=r"flat\.onnx gives an output of shape"):
        measure(folder, "flat")


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a millisecond pass whenever somebody looks, so that all graphs take the same."""
    clock: Iterator[float] = (n / 1000 for n in range(10**5))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))


def test_output_is_whole_with_its_warning(
    folder: Path,
    steady_clock: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    names = ["fp32.onnx", "tensorrt.onnx"]
    monkeypatch.setattr(sys, "argv", ["deploy", "latency", *names, "--runs", "4", "--threads", "1"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith("threads: 1, runs: 4, onnxruntime ")
    assert lines[3:7] == [
        " graph          runtime      form     median ms  p95 ms  images/s  x FP32",
        " " + 72 * "─",
        " fp32.onnx      onnxruntime  float32        1.0     1.0   1,000.0    1.00",
        " tensorrt.onnx  onnxruntime  QDQ            1.0     1.0   1,000.0    1.00",
    ]
    rest = lines[8:]
    assert rest[0].startswith("This processor lacks 8-bit dot products") == kernels_saturate()
    rest = rest[kernels_saturate() :]
    assert rest[0].startswith("tensorrt.onnx in onnxruntime: ")
    assert rest[1] == "  WARNING: not faster than float32, because"
    assert any("in the form of target tensorrt" in line for line in rest[2:])
    assert all(line.startswith("  - ") for line in rest[2:])


def test_json_has_every_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rf-lw50").mkdir()
    for name in ("fp32", "ort"):
        to = folder / "rf-lw50" / f"{'int8' if name == 'ort' else name}.onnx"
        to.write_bytes((folder / f"{name}.onnx").read_bytes())
    arguments = ["bench", "rf-lw50", "--out", str(folder), "--runs", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["deploy", *arguments])
    with pytest.raises(SystemExit):
        main()
    content = json.loads(capsys.readouterr().out)
    assert [Path(graph["path"]).name for graph in content["graphs"]] == ["fp32.onnx", "int8.onnx"]
    assert content["runs"] == 2
    assert content["graphs"][1]["execution"]["integer_convolutions"] == 4
    assert {"cpu", "instruction_sets", "threads"} <= content["environment"].keys()
