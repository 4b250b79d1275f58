"""The command line as a user meets it: what is printed where, and how it exits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_main
from graphs import quantized, refine_model
from typer.testing import CliRunner

import deploy
from deploy import models
from deploy.cli import app
from deploy.cli.options import parse_size
from deploy.graph.metadata import set_metadata

VARIANT = models.DEFAULT_VARIANT
COMMANDS = [
    "export",
    "simplify",
    "bundle",
    "calibrate",
    "quantize",
    "lint",
    "validate",
    "report",
    "export-all",
    "models",
    "scenes",
    "fetch-voc",
    "train",
    "predict",
    "inspect",
    "latency",
]


@pytest.fixture(autouse=True)
def no_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep a developer's own checkpoints, data and settings out of the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-torch"))
    monkeypatch.delenv("VOC_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert all(f"│ {command} " in result.stdout for command in COMMANDS)


def test_models_json_has_the_variants_and_where_their_weights_are() -> None:
    result = CliRunner().invoke(app, ["models", "--json"])
    variants = {v["id"]: v for v in json.loads(result.stdout)}
    assert list(variants) == list(models.VARIANTS)
    assert variants["rf101"]["parameters"] == 118_052_437
    assert variants["rf101"]["weights"] == {"source": "random", "path": None}
    assert variants[VARIANT]["weights"]["source"] == "repository"
    assert variants["rf152"]["published_miou"] is None
    assert variants["rf152"]["upstream_file"] is None
    assert variants["rf-lw50"]["macs"] == pytest.approx(31.194e9, rel=1e-4)


def test_models_table_is_whole_at_width_80() -> None:
    result = CliRunner().invoke(app, ["models"])
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert rows[2] == ["rf50", "RefineNet-ResNet50", "random", "99.06", "234.58", *"–––"]
    assert rows[3][:3] == ["rf101", "RefineNet-ResNet101", "random"]
    assert rows[3][3:] == ["118.05", "253.97", "80.5", "78.04", "76.94"]


@pytest.mark.parametrize(
    ("text", "size"), [("500", (500, 500)), ("256x512", (256, 512)), ("64X32", (64, 32))]
)
def test_parse_size(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "rf-lw51"], "neither a variant"),
        (["export", VARIANT, "--weights", "none.pth"], "no checkpoint at none.pth"),
        (["export", VARIANT, "--input-size", "8"], "below 32x32"),
        (["quantize", VARIANT, "--voc-root", "none"], "no VOC2012 data set at none"),
        (["quantize", "--int8"], "no VOC2012 data set at data/VOCdevkit/VOC2012"),
        (
            ["quantize", "none.onnx", "--voc-root", "VOC", "--images", "2"],
            "no ONNX file at none.onnx",
        ),
        (["validate", "model.txt", "--voc-root", "VOC"], "neither a variant"),
        (["validate", VARIANT, "--voc-root", "VOC"], "run 'deploy export rf-lw-mbv2'"),
        (["validate", "--voc-root", "VOC"], "run 'deploy export'"),
        (["validate", VARIANT, "--voc-root", "VOC", "--split", "test"], "no split 'test'"),
        (["report"], "run 'deploy validate'"),
        (["scenes", "VOC"], "is not empty"),
        (["fetch-voc", "x", "--url", "ftp://y"], "no http or https address"),
        (["train", VARIANT], "no data"),
        (["train", VARIANT, "--voc-root", "none"], "no VOC2012 data set at none"),
        (["quantize", VARIANT, "--target", "npu"], "no target 'npu': choose one of ort"),
        (["lint", "none.onnx"], "no ONNX file at none.onnx"),
        (["lint", "broken.onnx"], "broken.onnx is no valid ONNX graph"),
        (["simplify", "none.onnx"], "no ONNX file at none.onnx"),
        (["quantize", VARIANT, "--voc-root", "VOC", "--images", "99"], "99 calibration images"),
        (["quantize", VARIANT, "--voc-root", "VOC", "--percentile", "7"], "percentile is 7"),
        (["calibrate", "none.onnx", "--voc-root", "VOC", "--images", "2"], "no ONNX file at none"),
        (
            ["calibrate", VARIANT, "--voc-root", "VOC", "--images", "2", "--part", "3/2"],
            "there is no part 3/2",
        ),
        (["calibrate", VARIANT, "--merge", "none.json"], "none.json is no readable"),
        (["quantize", VARIANT, "--calibration", "none.json"], "none.json is no readable"),
        (
            ["bundle", VARIANT, "--target", "tensorrt"],
            "run 'deploy quantize rf-lw-mbv2 --int8 --target tensorrt'",
        ),
        (["bundle", "model.txt", "--target", "vacc"], "neither a variant"),
    ],
)
def test_bad_input_is_one_line_and_exit_1(
    arguments: list[str],
    message: str,
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(voc_root) if a == "VOC" else a for a in arguments]
    (tmp_path / "broken.onnx").write_bytes(b"no graph at all")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run_main(arguments, monkeypatch, capsys)
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "rf-lw50", "rf101", "--weights", "x"],
        ["export", VARIANT, "--input-size", "large"],
        ["quantize", "--method", "median"],
        ["quantize", "--images", "0"],
        ["calibrate"],
        ["calibrate", VARIANT, "--part", "half"],
        ["calibrate", VARIANT, "part.json"],
        ["calibrate", VARIANT, "--merge"],
        ["calibrate", VARIANT, "--merge", "part.json", "--part", "1/2"],
        ["validate", "--limit", "0"],
        ["bundle", VARIANT],
        ["bundle", VARIANT, "--target", "tpu"],
        ["export", VARIANT, "--head", "softmax"],
        ["validate", "--fit", "stretch"],
        ["train", VARIANT, "--voc-root", "x=y"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(arguments, monkeypatch, capsys)
    assert code == 2
    assert out == ""
    assert "Usage:" in err


def test_int8_alone_exports_the_default_variant_first(
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOC_ROOT", str(voc_root))
    code, out, err = run_main(["quantize", "--int8", "--images", "1"], monkeypatch, capsys)
    assert code == 0
    folder = tmp_path / "artifacts" / VARIANT
    names = {p.name for p in folder.iterdir()}
    levers = "levers-127-channel-int32.safetensors"
    assert names == {"fp32.onnx", "int8.onnx", "calibration.json", levers}
    assert out.startswith(f"{VARIANT} int8: artifacts/{VARIANT}/int8.onnx")
    assert "128 nodes in int8, 0 stay float" in out
    assert "calibrate rf-lw-mbv2" in err
    assert "calibrate" not in out
    arguments = ["quantize", "--int8", "--images", "1", "--method", "auto"]
    code, out, err = run_main(arguments, monkeypatch, capsys)
    assert code == 0
    assert re.search(r"^  auto: \d+ \w+(, \d+ \w+)*$", out, re.MULTILINE)


def test_lint_prints_clean_or_each_finding_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    path = tmp_path / "int8.onnx"
    onnx.save(quantized(refine_model(), [image]), path)
    result = CliRunner().invoke(app, ["lint", str(path)])
    assert (result.exit_code, result.stdout) == (0, "clean\n")
    code, out, err = run_main(["lint", str(path), "--target", "tensorrt"], monkeypatch, capsys)
    assert (code, err) == (1, "")
    assert "bias-form (3): keep it a float initializer\n  conv1 has a bias dequantized" in out
    assert out.splitlines()[-1].endswith(f"findings for target tensorrt in {path}")
    code, out, _ = run_main(
        ["lint", str(path), "--target", "ort-avx2", "--json"], monkeypatch, capsys
    )
    content = json.loads(out)
    assert code == 1
    assert content["target"] == "ort-avx2"
    assert content["findings"][0] == {
        "rule": "weight-range",
        "node": "conv1",
        "problem": "has weights up to 127 of 64: sums may saturate",
        "remedy": "quantize weights to 7 bits (reduce_range)",
    }


def test_lint_of_a_chip_names_what_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    model = quantized(refine_model(), [image], "qnn", frozenset({"conv2"}))
    set_metadata(model, {"target": "qnn", "kept_float": '["conv2"]'})
    path = tmp_path / "int8-qnn.onnx"
    onnx.save(model, path)
    assert run_main(["lint", str(path)], monkeypatch, capsys) == (0, "clean\n", "")
    code, out, err = run_main(["lint", str(path), "--soc", "sm7325"], monkeypatch, capsys)
    assert (code, err) == (1, "")
    assert out.splitlines()[1:] == [
        "  conv2 weight w2 is float",
        f"1 finding for target qnn, sm7325 in {path}",
    ]
    code, out, err = run_main(["lint", str(path), "--soc", "sm1"], monkeypatch, capsys)
    assert (code, out) == (1, "")
    assert "target qnn has no chip 'sm1': choose one of" in err


def test_export_prints_the_difference_and_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", VARIANT, "--input-size", "64x96", "--out", str(tmp_path / "a")]
    code, out, _ = run_main(arguments, monkeypatch, capsys)
    assert code == 0
    assert "differs from torch by max " in out
    assert "78 Conv" in out
    assert "weights: repository" in out
    code, out, _ = run_main([*arguments, "--json"], monkeypatch, capsys)
    (content,) = json.loads(out)
    assert (content["reused"], content["difference"], content["simplified"]) == (True, None, None)
    code, out, _ = run_main([*arguments, "--json", "--force"], monkeypatch, capsys)
    (content,) = json.loads(out)
    assert content["variant"] == VARIANT
    assert content["difference"]["maximum"] < 1e-3


def test_random_parameters_are_called_random_and_have_no_accuracy(
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["rf-lw-nasnet", "--out", str(tmp_path / "a")]
    data = ["--voc-root", str(voc_root)]
    code, out, _ = run_main(["export", *common, "--input-size", "64"], monkeypatch, capsys)
    assert "weights: random" in out
    run_main(["quantize", *common, *data, "--int8", "--images", "2"], monkeypatch, capsys)
    code, out, _ = run_main(["validate", *common, *data], monkeypatch, capsys)
    rows = [line for line in out.splitlines() if line.startswith(" rf-lw-nasnet")]
    assert code == 0
    assert len(rows) == 3
    assert all(row.split()[2:5] == ["random", "–", "–"] for row in rows)  # no mIoU, no drop
    code, out, _ = run_main(["report", "--out", str(tmp_path / "a")], monkeypatch, capsys)
    assert "random: seeded random parameters, which have no accuracy" in out
    content = json.loads((tmp_path / "a" / "report" / "report.json").read_text())
    results = content["variants"]["rf-lw-nasnet"]["results"]
    assert [figures["miou"] for figures in results.values()] == [None] * 3
    assert results["int8"]["cosine"] > 0.9


def test_console_script_reader_that_goes_away_leaves_no_traceback() -> None:
    script = Path(sys.executable).with_name("deploy")
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "deploy"]
    process = subprocess.Popen(
        [*command, "models", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(deploy.__file__).parent.parent)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in errors


def test_a_missed_gate_ends_with_exit_code_3(
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "net.onnx"
    network = refine_model(classes=21)
    set_metadata(network, {"fit": "squash", "weights": "mine.pth"})
    model.write_bytes(network.SerializeToString())
    command = ["quantize", str(model), "--int8", "--images", "2", "--voc-root", str(voc_root)]
    command += ["--out", str(tmp_path / "out"), "--recipe", "plain", "--max-float-layers", "0"]
    code, out, _ = run_main([*command, "--min-ratio", "1.0"], monkeypatch, capsys)
    missed = tmp_path / "out" / "net" / "int8-missed.onnx"
    assert code == 3
    assert "GATE MISSED" in out
    assert missed.is_file()
    assert not missed.with_name("int8.onnx").exists()
    code, out, _ = run_main([*command, "--max-drop", "100"], monkeypatch, capsys)
    assert code == 0
    assert "gate holds" in out
    assert not missed.exists()
