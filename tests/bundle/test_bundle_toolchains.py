"""What a bundle has for each toolchain, run where the tool or its protocol can be."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import COMMON, DEVICE, PLAIN, VARIANT, check, make, names, triton_config
from google.protobuf import text_format
from results import validation
from toolchains import needs_litert, needs_ncnn, needs_qnn, needs_rockchip, needs_sophgo

import deploy
from deploy.calibration.record import file_sha256
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError, GraphError
from deploy.export.interface import Interface
from deploy.graph.reading import read_graph
from deploy.runtimes.litert_tape import Borders
from deploy.runtimes.openvino import openvino_core
from deploy.targets import Toolchain
from deploy.targets.accelerator import Precision
from deploy.toolchains.install import find_interpreter


def test_openvinos_form_loads_and_gives_the_golden_output(
    bundled_artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    folder = make(bundled_artifacts, tmp_path, Toolchain.OPENVINO, PLAIN, Precision.FP32)
    golden = np.load(folder / "golden.npz")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(str(folder / "model.xml"), "CPU", hints)
    assert compiled.input(0).any_name == "image"
    assert compiled.output(0).any_name == "logits"
    logits = compiled([golden["image"]])[0]
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4 * np.ptp(golden["logits"]))


def test_openvino_that_is_not_installed_leaves_onnx_and_a_note(
    bundled_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    folder = make(bundled_artifacts, tmp_path, Toolchain.OPENVINO, DEVICE)
    assert names(folder) == COMMON | {"model.onnx"}
    assert "Note: OpenVINO was not installed" in (folder / "README.md").read_text()
    assert check(folder).returncode == 0  # in onnxruntime


@pytest.mark.parametrize("interface", [PLAIN, DEVICE], ids=["plain", "device"])
def test_tritons_configuration_is_that_of_the_model(
    interface: Interface, bundled_artifacts: Path, tmp_path: Path
) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.TRITON, interface)
    (text,) = folder.rglob("config.pbtxt")
    config = text_format.Parse(text.read_text(), triton_config())
    assert config.name == text.parent.name  # or Triton refuses to load it
    assert [config.backend, config.max_batch_size] == ["onnxruntime", 0]
    assert [(g.count, g.kind) for g in config.instance_group] == [(1, 2)]
    assert {p.key: p.value.string_value for p in config.parameters} == {
        "intra_op_thread_count": "0"
    }
    graph = read_graph(text.parent / "1" / "model.onnx").graph
    triton_types = {onnx.TensorProto.FLOAT: 11, onnx.TensorProto.UINT8: 2}
    for ours, theirs in ((graph.input, config.input), (graph.output, config.output)):
        assert [
            (v.name, triton_types[v.type.tensor_type.elem_type], [d.dim_value for d in dims(v)])
            for v in ours
        ] == [(t.name, t.data_type, list(t.dims)) for t in theirs]


def dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


@pytest.fixture
def triton(bundled_artifacts: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a bundle's repository by KServe's protocol; yield its address and the bundle."""
    folder = make(bundled_artifacts, tmp_path, Toolchain.TRITON, DEVICE)
    (path,) = folder.rglob("model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == f"/v2/models/{path.parent.parent.name}/infer"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers["Inference-Header-Content-Length"])
            request = json.loads(body[:length])
            (given,), (wanted,) = request["inputs"], request["outputs"]
            assert given["datatype"] == "UINT8"
            assert given["parameters"] == {"binary_data_size": len(body) - length}
            assert wanted["parameters"] == {"binary_data": True}
            image = np.frombuffer(body[length:], np.uint8).reshape(given["shape"])
            (labels,) = session.run([wanted["name"]], {given["name"]: image})
            output = {"name": wanted["name"], "datatype": "UINT8", "shape": list(labels.shape)}
            output["parameters"] = {"binary_data_size": labels.nbytes}
            header = json.dumps({"model_name": "x", "outputs": [output]}).encode()
            self.send_response(200)
            self.send_header("Inference-Header-Content-Length", str(len(header)))
            self.send_header("Content-Length", str(len(header) + labels.nbytes))
            self.end_headers()
            self.wfile.write(header + labels.tobytes())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_check_asks_a_server_by_its_protocol(triton: tuple[str, Path]) -> None:
    address, folder = triton
    result = check(folder, address)
    assert result.stdout == "100.00% of the labels agree (90% are wanted)\n", result.stderr


TRTEXEC = """\
#!{python}
# Takes what build.sh passes and exports outputs in trtexec's format.
import json, sys, numpy, onnxruntime
options = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
with open("calls.txt", "a") as file:
    print(*sys.argv[1:], file=file)
if "saveEngine" in options:
    open(options["saveEngine"], "wb").write(open(options["onnx"], "rb").read())
else:
    session = onnxruntime.InferenceSession(open(options["loadEngine"], "rb").read())
    (given,) = session.get_inputs()
    name, _, path = options["loadInputs"].partition(":")
    kind = {{"tensor(uint8)": "uint8", "tensor(float)": "float32"}}[given.type]
    feed = {{name: numpy.fromfile(path, kind).reshape(given.shape)}}
    entries = [
        {{"name": o.name, "dimensions": "x".join(map(str, v.shape)), "values": v.ravel().tolist()}}
        for o, v in zip(session.get_outputs(), session.run(None, feed))
    ]
    json.dump(entries, open(options["exportOutput"], "w"))
"""


@pytest.mark.parametrize("interface", [PLAIN, DEVICE], ids=["plain", "device"])
@pytest.mark.parametrize(
    ("precision", "flags"),
    [(Precision.INT8, "--stronglyTyped"), (Precision.FP32, "--stronglyTyped --noTF32")],
)
def test_tensorrts_script_builds_runs_and_checks(
    precision: Precision, flags: str, interface: Interface, bundled_artifacts: Path, tmp_path: Path
) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.TENSORRT, interface, precision)
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "trtexec"
    tool.write_text(TRTEXEC.format(python=sys.executable))
    tool.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    script = ["sh", str(folder / "build.sh")]
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    # a link to a virtual environment's interpreter finds its packages by this
    path["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
    result = subprocess.run(script, capture_output=True, text=True, env=path, check=False)
    assert result.returncode == 0, result.stderr
    assert "100.00% of the labels agree" in result.stdout
    calls = (folder / "calls.txt").read_text().splitlines()
    assert calls == [
        f"--onnx=model.onnx --saveEngine=model.plan {flags}",
        "--loadEngine=model.plan --loadInputs=image:golden-input.bin --exportOutput=output.json",
    ]
    environment = path | {"FLAGS": "--int8 --fp16"}
    subprocess.run(script, capture_output=True, env=environment, check=True)
    assert (folder / "calls.txt").read_text().splitlines()[2].endswith("plan --int8 --fp16")


@pytest.mark.parametrize(
    ("precision", "name"), [(Precision.INT8, "vacc"), (Precision.FP16, "vacc-fp16")]
)
def test_vaccs_folder_is_the_one_that_quantize_wrote(
    precision: Precision, name: str, bundled_artifacts: Path, tmp_path: Path
) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.VACC, PLAIN, precision)
    own = bundled_artifacts / VARIANT / name
    assert names(folder) == names(own) | COMMON
    assert {n: (folder / n).read_bytes() for n in names(own)} == {
        n: (own / n).read_bytes() for n in names(own)
    }
    golden = np.load(folder / "golden.npz")
    np.save(tmp_path / "output.npy", golden["logits"])
    assert check(folder, str(tmp_path / "output.npy")).returncode == 0
    np.save(tmp_path / "output.npy", golden["logits"][:, :, 1:])
    assert "the output's shape is" in check(folder, str(tmp_path / "output.npy")).stdout


@pytest.mark.parametrize(
    ("precision", "name"), [(Precision.INT8, "vacc"), (Precision.FP16, "vacc-fp16")]
)
def test_vaccs_figures_are_said_to_be_the_float_graphs(
    precision: Precision, name: str, bundled_artifacts: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(bundled_artifacts, tmp_path / "artifacts"))

    def text() -> str:
        folder = make(out, tmp_path, Toolchain.VACC, PLAIN, precision)
        return (folder / "README.md").read_text()

    kind = precision.upper()
    unmeasured = f"What VACC makes of it in {kind} was not measured.\n"
    assert f"`fp32.onnx`, a float graph made by deploy, of which VACC makes {kind} (" in text()
    assert f"Accuracy: not measured; `deploy validate` measures the float graph. {unmeasured}" in (
        text()
    )
    results = validation()
    results["results"]["fp32"]["sha256"] = file_sha256(out / VARIANT / "fp32.onnx")
    for other in ("int8", "fp16"):  # other graphs' figures are not this one's
        results["results"][other] = results["results"]["fp32"] | {"miou": 0.11, "agreement": 0.11}
    (out / VARIANT / "validation.json").write_text(json.dumps(results))
    assert "Accuracy: of the float graph, whose numbers this one gives bit for bit: mIoU " in text()
    assert unmeasured in text()
    assert "11.00%" not in text()
    if precision is Precision.INT8:
        root = write_scenes(tmp_path / "scenes", train=2, val=1, seed=1)
        options = {"fp16": False, "target": "vacc", "images": 2, "carrier": True}
        deploy.quantize([VARIANT], voc_root=root, out=out, **options)
        assert "recipe fast. Neither it nor what VACC makes of it was measured.\n" in text()
        assert "Accuracy: of the float graph: mIoU " in text()
        assert "ranges.json" in names(tmp_path / "bundle")


@needs_qnn
@pytest.mark.slow
def test_htps_contexts_are_of_each_chip_and_run(bundled_artifacts: Path, tmp_path: Path) -> None:
    written = deploy.bundle(
        VARIANT,
        Toolchain.QNN,
        socs=["sm8650", "sm8350"],
        folder=tmp_path / "bundle",
        out=bundled_artifacts,
    )
    assert names(written.path) == COMMON | {
        "model.onnx",
        *(
            f"contexts/{chip}{end}"
            for chip in ("sm8350", "sm8650")
            for end in (".onnx", "_qnn.bin")
        ),
    }
    for chip in ("sm8350", "sm8650"):
        result = check(written.path, chip)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "sm8650 (v75), sm8350 (v68)" in (written.path / "README.md").read_text()


def test_a_chip_of_a_toolchain_that_knows_none_is_one_line(bundled_artifacts: Path) -> None:
    with pytest.raises(DeployError, match=r"^OpenVINO is not compiled for single chips here"):
        deploy.bundle(VARIANT, Toolchain.OPENVINO, socs=["sm8550"], out=bundled_artifacts)


@needs_ncnn
@pytest.mark.parametrize("precision", Precision)
def test_ncnns_files_give_the_golden_output_in_ncnn(
    precision: Precision, bundled_artifacts: Path, tmp_path: Path
) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.NCNN, PLAIN, precision)
    assert names(folder) == COMMON | {"model.param", "model.bin"}
    result = check(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "% of the labels agree" in result.stdout
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[::-1])
    assert check(folder).returncode != 0


def test_ncnn_takes_floats_and_gives_logits(bundled_artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="leave out --head labels and --embed-preprocessing"):
        make(bundled_artifacts, tmp_path, Toolchain.NCNN, DEVICE)


@needs_litert
@pytest.mark.parametrize("precision", Precision)
def test_litert_gives_the_golden_output(
    precision: Precision, bundled_artifacts: Path, tmp_path: Path
) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.LITERT, PLAIN, precision)
    assert names(folder) == COMMON | {"model.tflite"}
    model = json.loads((folder / "model.json").read_text())
    assert (model["input"]["shape"], model["input"]["layout"]) == ([1, 64, 96, 3], "NHWC")
    result = check(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "% of the labels agree" in result.stdout
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes()[:1000])
    assert check(folder).returncode != 0


@needs_litert
def test_litert_takes_and_gives_bytes_where_that_is_asked_for(
    bundled_artifacts: Path, tmp_path: Path
) -> None:
    written = deploy.bundle(
        VARIANT,
        Toolchain.LITERT,
        borders=Borders.UINT8,
        folder=tmp_path / "bundle",
        out=bundled_artifacts,
    )
    model = json.loads((written.path / "model.json").read_text())
    for side in ("input", "output"):
        assert model[side]["type"] == "uint8"
        assert model[side]["quantization"]["scale"] > 0
    assert np.load(written.path / "golden.npz")["image"].dtype == np.uint8
    result = check(written.path)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_litert
def test_borders_of_a_float_model_or_another_toolchain_are_refused(
    bundled_artifacts: Path, tmp_path: Path
) -> None:
    with pytest.raises(GraphError, match="leave out --head labels and --embed-preprocessing"):
        make(bundled_artifacts, tmp_path, Toolchain.LITERT, DEVICE)
    for toolchain, precision, message in (
        (Toolchain.NCNN, Precision.INT8, r"^ncnn has no choice of borders: leave out --borders$"),
        (Toolchain.LITERT, Precision.FP32, r"^uint8 borders: the image is not quantized"),
    ):
        with pytest.raises(DeployError, match=message):
            deploy.bundle(
                VARIANT,
                toolchain,
                precision=precision,
                borders=Borders.UINT8,
                folder=tmp_path / "bundle",
                out=bundled_artifacts,
            )
    assert not (tmp_path / "bundle").exists()


def test_ort_arms_graph_gives_the_golden_output(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain["ORT-ARM"])
    assert names(folder) == COMMON | {"model.onnx"}
    assert check(folder).returncode == 0


def test_rockchips_graph_and_what_builds_it(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.ROCKCHIP, PLAIN)
    assert names(folder) == COMMON | {"model.onnx", "build.py"}
    compile((folder / "build.py").read_text(), "build.py", "exec")
    graph = read_graph(folder / "model.onnx")
    assert graph.ir_version <= 9
    assert "Rockchip's own licence" in (folder / "README.md").read_text()
    with pytest.raises(DeployError, match="takes float images and gives logits here"):
        make(bundled_artifacts, tmp_path, Toolchain.ROCKCHIP, DEVICE)


@needs_rockchip
def test_rockchips_golden_image_in_its_simulator(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.ROCKCHIP, PLAIN, Precision.FP32)
    python = find_interpreter("rockchip")
    done = subprocess.run(
        [str(python), "build.py", "rk3566"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    assert (folder / "rk3566.rknn").stat().st_size > 0
    assert "of the labels agree" in done.stdout


def test_sophgos_graph_has_its_table_and_what_builds_it(
    bundled_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no toolchain there
    folder = make(bundled_artifacts, tmp_path, Toolchain.SOPHGO, PLAIN)
    assert names(folder) == COMMON | {"model.onnx", "build.sh", "calibration_table"}
    assert "the toolchain was not installed" in (folder / "README.md").read_text()
    assert "--quantize INT8" in (folder / "build.sh").read_text()
    done = subprocess.run(["sh", "-n", "build.sh"], cwd=folder, check=False)
    assert done.returncode == 0
    wide = make(bundled_artifacts, tmp_path, Toolchain.SOPHGO, PLAIN, Precision.FP32)
    assert names(wide) == COMMON | {"model.onnx", "build.sh"}
    assert "--quantize BF16" in (wide / "build.sh").read_text()


@pytest.mark.long  # compiles for a minute
@needs_sophgo
def test_sophgos_golden_image_in_the_c_model(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.SOPHGO, PLAIN, Precision.FP32)
    done = subprocess.run(
        ["sh", "build.sh", "bm1684x"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    assert (folder / "bm1684x.bmodel").stat().st_size > 0
