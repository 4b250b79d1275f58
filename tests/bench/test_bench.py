import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import refine_model

from deploy.bench import measure, table
from deploy.bench.apart import run_apart
from deploy.bench.measure import (
    FLOAT,
    Settings,
    in_turn,
    kept_images,
    measure_latency,
    measure_quantizers,
    measure_stages,
)
from deploy.bench.quantizers import QUANTIZERS, Quantizer
from deploy.bench.work import Stage, prepare_work
from deploy.calibration import read_split
from deploy.errors import DeployError
from deploy.graph.graph import count_ops
from deploy.graph.metadata import set_metadata
from deploy.progress import SilentProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.runtimes.onnxruntime import OnnxRunner

SETTINGS = Settings(images=3, kept_images=2, limit=2, rounds=1)
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a tiny network of 21 classes; VOC_ROOT is the synthetic data set."""
    monkeypatch.setenv("VOC_ROOT", str(voc_root))
    model = refine_model(classes=21)
    set_metadata(model, {"fit": "squash"})
    onnx.save(model, tmp_path / "fp32.onnx")
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantize in this process: a fresh one takes seconds to begin."""

    def quantize(name: str, fp32: Path, int8: Path, count: int) -> dict[str, Any]:
        if name == "broken":
            raise DeployError("no luck")
        QUANTIZERS[name].quantize(fp32, int8, CalibrationSource.find(None, "train", count))
        return {"seconds": 1.0, "start_mib": 100.0, "peak_mib": 200.0}

    monkeypatch.setattr(measure, "quantize_apart", quantize)


def skip_if_missing(quantizer: Quantizer) -> None:
    if quantizer.missing:
        pytest.skip(f"{' and '.join(quantizer.missing)} not installed: make bench installs it")


@pytest.mark.parametrize("stage", Stage)
def test_prepare_work_returns_the_seconds_of_a_stage(folder: Path, stage: Stage) -> None:
    work = prepare_work(stage, folder / "fp32.onnx")
    assert work(read_split(folder / "VOCdevkit" / "VOC2012", "val")[:2]) > 0


def test_in_turn_takes_every_work_once_a_round() -> None:
    calls: Iterator[int] = iter(range(100))
    works = {stage: lambda samples: float(next(calls)) for stage in Stage}
    assert in_turn(works, [], 2) == {
        Stage.FORWARD: [0, 3],
        Stage.CALIBRATE: [1, 4],
        Stage.VALIDATE: [2, 5],
    }


@pytest.mark.parametrize("name", [n for n, q in QUANTIZERS.items() if not q.packages])
def test_quantizer_writes_a_graph_that_runs_in_8_bits(folder: Path, name: str) -> None:
    int8 = folder / "int8.onnx"
    source = CalibrationSource.find(None, "train", 3)
    QUANTIZERS[name].quantize(folder / "fp32.onnx", int8, source)
    assert {path.name for path in folder.glob("*.onnx")} == {"fp32.onnx", "int8.onnx"}
    assert count_ops(onnx.load(int8))["QuantizeLinear"] > 5
    float_logits, logits = (OnnxRunner(folder / f"{n}.onnx")(IMAGE) for n in ("fp32", "int8"))
    assert np.corrcoef(float_logits.ravel(), logits.ravel())[0, 1] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, q in QUANTIZERS.items() if q.packages])
@pytest.mark.filterwarnings("ignore")  # other tools' own
def test_quantizer_of_others_writes_a_graph(folder: Path, name: str) -> None:
    skip_if_missing(QUANTIZERS[name])
    found = run_apart("quantize", name, *(str(folder / n) for n in ("fp32.onnx", "int8.xml")), "3")
    assert found["seconds"] > 0
    assert (folder / "int8.xml").stat().st_size > 1000


@pytest.mark.slow
def test_run_apart_tells_time_and_memory_of_its_own_process(folder: Path) -> None:
    found = run_apart("work", "forward", str(folder / "fp32.onnx"), "2")
    assert found["seconds"] > 0
    assert 50 < found["start_mib"] <= found["peak_mib"] < 2000


@pytest.mark.slow
def test_run_apart_failure_is_one_line(folder: Path) -> None:
    with pytest.raises(DeployError, match=r"^quantize deploy-plain failed: .*7 calibration images"):
        run_apart("quantize", "deploy-plain", str(folder / "fp32.onnx"), "x.onnx", "7")


def test_measure_quantizers_names_what_is_missing_and_what_failed(
    folder: Path, in_process: None
) -> None:
    plain = QUANTIZERS["deploy-plain"]
    quantizers = {
        "deploy-plain": plain,
        "onnxruntime-entropy": QUANTIZERS["onnxruntime-entropy"],
        "absent": replace(plain, label="absent", packages=("no_such_package",)),
        "broken": plain,
    }
    rows = measure_quantizers("tiny", folder, SETTINGS, SilentProgress(), quantizers)
    by_name = {row["quantizer"]: row for row in rows}
    assert list(by_name) == [FLOAT, *quantizers]
    assert by_name["absent"]["note"] == (
        "not measured, for want of no_such_package: pip install '.[bench]'"
    )
    assert by_name["broken"]["note"] == "no luck"
    ours, kept = by_name["deploy-plain"], by_name["onnxruntime-entropy"]
    assert (ours["images"], kept["images"]) == (3, 2)
    assert ours["ratio"] > 0
    assert ours["sqnr_db"] > 20
    assert by_name[FLOAT]["onnxruntime_ratio"] == 1
    assert by_name[FLOAT]["agreement"] == 1
    text = table.quantizer_table(rows).to_markdown()
    assert len(text.splitlines()) == 2 + 2 + len(rows)
    assert any(line.startswith("absent: not measured") for line in table.notes(rows))


def test_measure_quantizers_random_parameters_have_no_accuracy(
    folder: Path, in_process: None
) -> None:
    model = onnx.load(folder / "fp32.onnx")
    set_metadata(model, {"fit": "squash", "weights": "random"})
    onnx.save(model, folder / "fp32.onnx")
    ours = {"deploy-plain": QUANTIZERS["deploy-plain"]}
    rows = measure_quantizers("tiny", folder, SETTINGS, SilentProgress(), ours)
    assert all("miou" not in row and "agreement" in row for row in rows)


@pytest.mark.slow
def test_measure_stages_has_a_row_for_each_work_of_each_graph(folder: Path) -> None:
    onnx.save(onnx.load(folder / "fp32.onnx"), folder / "deploy-plain.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "work_apart", lambda *_: {"peak_mib": None})
        rows = measure_stages("tiny", folder, SETTINGS, SilentProgress())
    assert [row["work"] for row in rows] == [*Stage, "forward", "validate"]
    assert rows[0]["ratio"] == 1
    assert "| tiny | fp32 | forward |" in table.stage_table(rows).to_markdown()


def test_measure_latency_is_a_multiple_of_fp32_in_onnxruntime(folder: Path) -> None:
    graphs = {FLOAT: folder / "fp32.onnx", "same": folder / "fp32.onnx"}
    rows = measure_latency(graphs, IMAGE, 5)
    assert rows[FLOAT]["onnxruntime_ratio"] == 1
    assert rows["same"]["onnxruntime_ms"] > 0


def test_kept_images_is_what_free_memory_holds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements = 16 * 16 * (8 + 8 + 8 + 8 + 8 + 8 + 21) + 8 * 8 * (8 + 8 + 8 + 8)
    for images, expected in ((10.5, 10), (0.1, 1)):
        needed = images * 4 * elements * measure.KEPT_OVERHEAD / measure.KEPT_SHARE
        monkeypatch.setattr(measure, "_available_bytes", lambda needed=needed: int(needed) + 1)
        assert kept_images(folder / "fp32.onnx") == expected


def test_tables_show_a_dash_for_what_there_is_not() -> None:
    row = {"variant": "v", "quantizer": "q", "label": "Q", "note": "not installed"}
    shown = table.quantizer_table([row])
    assert shown.rows[0][2:] == ["–"] * (len(shown.columns) - 2)
    assert json.dumps(shown.rows)
    assert table.notes([row]) == ["Q: not installed"]
