"""Every stage gives the same bytes on a cluster as in one process, whatever happens to workers."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import REPOSITORY, SYNTHETIC_SPLITS
from dask_processes import DaskProcesses, wait_for
from graphs import refine_model

import deploy
from deploy.calibration import Fit
from deploy.calibration.scenes import write_scenes
from deploy.graph.graph import Graph
from deploy.progress import SilentProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.gate import Gate
from deploy.quantize.half_ranges import find_unmeasured, measure_magnitudes
from deploy.quantize.recipe import Levers, RecipeName
from deploy.quantize.spread_magnitudes import measure_magnitudes_on
from deploy.runtimes.runner import Runtime

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")
LATENCIES = {"latency_ms", "stage_sha256", "command"}


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    processes.work(slots=2)
    yield processes
    processes.end()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(refine_model(classes=21), path)
    return path


def timeless(content: Any) -> Any:
    """Return plain values without times, and the hashes over them."""
    if isinstance(content, dict):
        return {k: timeless(v) for k, v in content.items() if k not in LATENCIES}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def contents(folder: Path) -> dict[str, Any]:
    """Return what two runs must agree on, by file."""
    found: dict[str, Any] = {}
    for path in (p for p in sorted(folder.rglob("*")) if p.is_file()):
        content: Any = path.read_bytes()
        if path.name in ("gate.json", "validation.json"):
            content = timeless(json.loads(content))
        found[str(path.relative_to(folder))] = content
    return found


def kill_later(dask: DaskProcesses, seed: int) -> threading.Thread:
    """Add a worker that dies at some moment."""
    victim = dask.work()
    timer = threading.Timer(random.Random(seed).uniform(2, 6), victim.kill)
    timer.start()
    return timer


def test_calibration_has_the_same_bytes_though_a_worker_dies(
    dask: DaskProcesses, graph: Path, voc_root: Path, tmp_path: Path
) -> None:
    images, one, many = SYNTHETIC_SPLITS["train"], tmp_path / "one", tmp_path / "many"
    deploy.calibrate(str(graph), images=images, voc_root=voc_root, out=one)
    kill_later(dask, seed=0)
    deploy.calibrate(str(graph), images=images, voc_root=voc_root, out=many, cluster=dask.address)
    assert contents(many) == contents(one)


def test_quantization_and_its_gate_have_the_same_bytes(
    dask: DaskProcesses, graph: Path, voc_root: Path, tmp_path: Path
) -> None:
    def run(out: Path, cluster: str | None) -> dict[str, Any]:
        deploy.quantize(
            [str(graph)],
            levers=Levers(equalize=True),
            gate=Gate(min_ratio=1.0, max_float_layers=2, images=2),
            images=4,
            voc_root=voc_root,
            out=out,
            cluster=cluster,
        )
        return contents(out)

    one = run(tmp_path / "one", None)
    # the search went through all of it
    gate = next(content for name, content in one.items() if name.endswith("gate.json"))
    assert [step["float_layers"] for step in gate["steps"]][:2] == [0, 1]
    kill_later(dask, seed=1)
    assert run(tmp_path / "many", str(dask.file)) == one


def test_magnitudes_for_half_precision_are_the_same(
    dask: DaskProcesses, graph: Path, voc_root: Path, tmp_path: Path
) -> None:
    source = CalibrationSource.find(voc_root, "train", 4)
    measured = Graph(onnx.load(graph))
    tensors = find_unmeasured(measured, [])
    assert len(tensors) > 3
    images = source.inputs(Fit.SQUASH, measured.input_size, SilentProgress(), "ranges")
    one = measure_magnitudes(measured, tensors, images)
    with dask.cluster() as cluster:
        where = (cluster, measured, tensors, source, Fit.SQUASH, SilentProgress())
        assert measure_magnitudes_on(*where, "ranges", tmp_path) == one


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_validation_has_the_same_results(
    dask: DaskProcesses, graph: Path, voc_root: Path, tmp_path: Path, runtime: Runtime
) -> None:
    if runtime is Runtime.OPENVINO:
        pytest.importorskip("openvino")
    deploy.quantize([str(graph)], int8=True, fp16=False, images=4, voc_root=voc_root, out=tmp_path)
    graphs = [str(graph), str(tmp_path / "tiny" / "int8.onnx")]

    def run(cluster: str | None) -> Any:
        options = {"runtime": runtime, "voc_root": voc_root, "out": tmp_path / "out"}
        return timeless(deploy.validate(graphs, cluster=cluster, **options))

    one, many = run(None), run(dask.address)
    assert many == one
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_whole_job_has_the_same_artifacts(dask: DaskProcesses, tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", train=6, val=6, seed=0)

    def run(name: str, cluster: str | None) -> dict[str, Any]:
        variant, out = "rf-lw-mbv2", tmp_path / name
        settings = {"voc_root": root, "out": out, "cluster": cluster}
        deploy.export(variant, out=out, input_size=(64, 96), voc_root=root)
        targets = ["ort", "ncnn", "pow2"]
        deploy.quantize([variant], target=targets, images=5, **settings)
        deploy.validate([variant], **settings)
        deploy.quantize(
            [variant],
            fp16=False,
            recipe=RecipeName.PLAIN,
            gate=Gate(min_ratio=0.999, max_float_layers=2, images=1),
            images=5,
            force=True,
            **settings,
        )
        return contents(out)

    one = run("one", None)
    kill_later(dask, seed=0)
    third = dask.work(slots=3)
    assert run("many", dask.address) == one
    third.kill()  # the other tests count on two slots


@pytest.mark.long
@pytest.mark.parametrize("runtime", [Runtime.QNN, Runtime.NCNN])
def test_emulated_accelerator_has_the_same_results(
    dask: DaskProcesses, tmp_path: Path, runtime: Runtime
) -> None:
    pytest.importorskip({Runtime.QNN: "onnxruntime_qnn", Runtime.NCNN: "ncnn"}[runtime])
    variant, root, out = "rf-lw-mbv2", tmp_path / "scenes", tmp_path / "out"
    write_scenes(root, train=2, val=8, seed=4)
    deploy.export(variant, out=out, input_size=(64, 96), voc_root=root)
    options = {"voc_root": root, "out": out}
    deploy.quantize([variant], target=[runtime.value], fp16=False, images=2, **options)

    def run(cluster: str | None) -> Any:
        return timeless(
            deploy.validate([variant], runtime=runtime, cluster=cluster, force=True, **options)
        )

    one = run(None)
    kill_later(dask, seed=2)
    assert run(dask.address) == one


@pytest.mark.long
def test_ctrl_c_leaves_the_cluster_usable_and_the_next_run_goes_on(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    root, out = write_scenes(tmp_path / "scenes", train=1, val=60, seed=0), tmp_path / "out"
    deploy.export("rf-lw-mbv2", out=out, input_size=(160, 160), voc_root=root)
    arguments = ["validate", "rf-lw-mbv2", "--voc-root", str(root), "--out", str(out)]
    command = [sys.executable, "-m", "deploy", *arguments, "--cluster", dask.address]

    def kept() -> int:
        files = list((out / "rf-lw-mbv2" / ".cluster").glob("*.results"))
        return sum(len(file.read_bytes().split(b"\n")) - 1 for file in files)

    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: kept() >= 3)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1:] == [
            "Interrupted: nothing half-written was left"
        ]
    assert process.returncode == 130
    assert 3 <= kept() < 60
    with dask.cluster() as cluster:
        client = cluster.client
        wait_for(lambda: not any(client.processing().values()))
    many = timeless(deploy.validate(["rf-lw-mbv2"], voc_root=root, out=out, cluster=dask.address))
    one = timeless(deploy.validate(["rf-lw-mbv2"], voc_root=root, out=out, force=True))
    assert many == one
