"""A stage whose result is there is not run again; the same inputs give the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import refine_model
from PIL import Image
from threadpoolctl import threadpool_limits

import deploy
from deploy import models
from deploy.calibration.ranges import Method, RangeConfig
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.progress import REUSED, SilentProgress, Step
from deploy.quantize.gate import Gate
from deploy.quantize.recipe import RecipeName
from deploy.quantize.weights import _one_thread
from deploy.store import reuse
from deploy.store.reuse import (
    SEAL,
    read_sealed_graph,
    read_sealed_json,
    seal_graph,
    seal_json,
    stage_key,
)
from deploy.validate.protocol import Protocol

VARIANT = models.DEFAULT_VARIANT
GRAPHS = ("fp32.onnx", "fp16.onnx", "int8.onnx")


class Log(SilentProgress):
    """Remembers each stage with its note."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, Step] = {}

    def step(self, stage: str) -> Any:
        return _Remembering(self, stage)

    def of(self, *stages: str) -> list[str]:
        return [self.steps[f"{stage} {VARIANT}"].note for stage in stages]


class _Remembering:
    def __init__(self, log: Log, stage: str) -> None:
        self.log, self.stage = log, stage

    def __enter__(self) -> Step:
        return self.log.steps.setdefault(self.stage, Step())

    def __exit__(self, *_error: object) -> None:
        pass


def test_seal_of_a_graph_holds_for_its_key_and_content_alone(tmp_path: Path) -> None:
    path, key = tmp_path / "a.onnx", stage_key("export", size=(64, 64))
    model = refine_model()
    set_metadata(model, {"variant": "mine", "fit": "crop"})
    plain = model.SerializeToString(deterministic=True)
    onnx.save(model, path)
    assert read_sealed_graph(path, key) is None  # brought by somebody
    path.write_bytes(seal_graph(model, key).SerializeToString(deterministic=True))
    sealed = path.read_bytes()
    assert read_sealed_graph(path, key) == model
    assert read_sealed_graph(path, stage_key("export", size=(64, 65))) is None
    assert read_sealed_graph(path, stage_key("simplify", size=(64, 64))) is None
    assert read_sealed_graph(tmp_path / "none.onnx", key) is None
    assert seal_graph(model, key).SerializeToString(deterministic=True) == sealed  # twice: the same
    metadata = read_metadata(model)
    del metadata[SEAL]
    set_metadata(model, metadata)
    assert model.SerializeToString(deterministic=True) == plain


@pytest.mark.parametrize("change", ["weight", "metadata", "cut", "empty"])
def test_changed_graph_is_not_reused(tmp_path: Path, change: str) -> None:
    path, key = tmp_path / "a.onnx", stage_key("export")
    model = seal_graph(refine_model(), key)
    content = model.SerializeToString(deterministic=True)
    if change == "weight":
        values = bytearray(model.graph.initializer[0].raw_data)
        values[0] ^= 1  # the last bit of one number
        model.graph.initializer[0].raw_data = bytes(values)
        content = model.SerializeToString(deterministic=True)
    elif change == "metadata":
        set_metadata(model, read_metadata(model) | {"weights": "others"})
        content = model.SerializeToString(deterministic=True)
    path.write_bytes({"cut": content[:-100], "empty": b""}.get(change, content))
    assert read_sealed_graph(path, key) is None


def test_seal_of_results_holds_for_their_key_and_content_alone(tmp_path: Path) -> None:
    path, key = tmp_path / "a.json", stage_key("validate")
    content = seal_json({"miou": 0.1 + 0.2, "results": {"a": [1, None]}}, key)
    path.write_text(json.dumps(content, indent=1))
    assert read_sealed_json(path, key) == content
    assert seal_json(content, key) == content
    assert read_sealed_json(path, stage_key("gate")) is None
    assert read_sealed_json(tmp_path / "none.json", key) is None
    for text in (json.dumps(content | {"miou": 0.4}), path.read_text()[:-3], "", "[]", "{}"):
        path.write_text(text)
        assert read_sealed_json(path, key) is None


def test_key_depends_on_our_code_and_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_key("export")
    assert stage_key("export") == before
    monkeypatch.setattr(reuse, "code_sha256", lambda: "other")
    other_code = stage_key("export")
    monkeypatch.undo()
    monkeypatch.setattr(reuse, "libraries", lambda: {"torch": "0"})
    assert len({before, other_code, stage_key("export")}) == 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the default variant exported at 32x32."""
    out = tmp_path_factory.mktemp("shared")
    deploy.export(VARIANT, out=out, input_size=(32, 32))
    return out


@pytest.fixture
def out(shared: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "artifacts"))


def do_all(out: Path, voc_root: Path, **options: Any) -> Log:
    """Export, quantize, validate; returns what was reused."""
    log = Log()
    given: dict[str, Any] = {"images": 2, "limit": 2, "input_size": (32, 32), **options}
    deploy.export_all([VARIANT], voc_root=voc_root, out=out, progress=log, **given)
    return log


STAGES = ("export", "calibrate", "fp16", "int8", "validate")


@pytest.mark.slow
@pytest.mark.long
def test_every_stage_is_reused_until_something_that_it_depends_on_changes(
    out: Path, voc_root: Path
) -> None:
    folder = out / VARIANT
    assert do_all(out, voc_root).of(*STAGES) == [REUSED, "", "", "", ""]
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert do_all(out, voc_root).of(*STAGES) == [REUSED] * 5
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    config = RangeConfig(method=Method.PERCENTILE, percentile=99)
    assert do_all(out, voc_root, method=config).of(*STAGES) == [REUSED, REUSED, REUSED, "", ""]
    assert do_all(out, voc_root).of(*STAGES) == [REUSED, REUSED, REUSED, "", ""]
    assert do_all(out, voc_root, limit=1).of(*STAGES) == [*[REUSED] * 4, ""]
    half = folder / "fp16.onnx"
    half.write_bytes(half.read_bytes()[:1000])
    assert do_all(out, voc_root).of(*STAGES) == [REUSED, REUSED, "", REUSED, ""]
    assert half.read_bytes() == before[half]

    image = next((voc_root / "JPEGImages").glob("train_0.jpg"))
    Image.fromarray(np.asarray(Image.open(image))[::-1]).save(image)
    assert do_all(out, voc_root).of(*STAGES) == [REUSED, "", "", "", ""]
    mask = voc_root / "SegmentationClass" / "val_0.png"
    with Image.open(mask) as picture:
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(mask)
    assert do_all(out, voc_root).of(*STAGES) == [*[REUSED] * 4, ""]
    assert do_all(out, voc_root, protocol=Protocol.SQUASH).of(*STAGES) == [""] * 5


@pytest.mark.slow
def test_other_parameters_and_force_make_everything_anew(
    out: Path, voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_all(out, voc_root)
    before = {name: (out / VARIANT / name).read_bytes() for name in GRAPHS}
    forced = do_all(out, voc_root, force=True)
    assert forced.of(*STAGES) == [""] * 5
    assert {name: (out / VARIANT / name).read_bytes() for name in GRAPHS} == before
    monkeypatch.setattr("deploy.models.sources.SHIPPED", tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert do_all(out, voc_root).of(*STAGES) == [""] * 5
    assert read_metadata(onnx.load(out / VARIANT / "int8.onnx"))["weights"] == "random"


def test_export_again_says_that_the_graph_was_there(out: Path) -> None:
    again = deploy.export(VARIANT, out=out, input_size=(32, 32))
    assert (again.reused, again.difference, again.simplified) == (True, None, None)


def test_reused_graph_is_described_as_when_it_was_made(out: Path, voc_root: Path) -> None:
    options: dict[str, Any] = {"images": 2, "voc_root": voc_root, "out": out}
    options |= {"method": RangeConfig(method=Method.AUTO), "recipe": RecipeName.PLAIN}
    made = deploy.quantize([VARIANT], **options)
    found = deploy.quantize([VARIANT], **options)
    for one, other in zip(made, found, strict=True):
        assert not one.reused
        assert other.reused
        assert {**vars(one), "calibration_reused": 1, "reused": 1} == vars(other)


def test_calibration_that_was_cut_off_is_made_anew(out: Path, voc_root: Path) -> None:
    options: dict[str, Any] = {"images": 2, "voc_root": voc_root, "out": out}
    path = deploy.calibrate(VARIANT, **options).path
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert not deploy.calibrate(VARIANT, **options).reused
    assert path.read_bytes() == whole
    assert deploy.calibrate(VARIANT, **options).reused
    assert not deploy.calibrate(VARIANT, force=True, **options).reused


def test_gate_is_searched_once(voc_root: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    network = refine_model(classes=21)
    set_metadata(network, {"fit": "squash", "weights": "mine.pth"})
    onnx.save(network, model)

    def gated(**limits: float) -> Any:
        return deploy.quantize(
            [str(model)],
            fp16=False,
            recipe=RecipeName.PLAIN,
            gate=Gate(max_float_layers=0, **limits),
            images=2,
            voc_root=voc_root,
            out=tmp_path,
        )[0]

    missed = gated(min_ratio=1.0)
    again = gated(min_ratio=1.0)
    assert (missed.reused, again.reused) == (False, True)
    assert again.gate == missed.gate
    assert again.path.name == "int8-missed.onnx"
    record = tmp_path / "net" / "gate.json"
    record.unlink()
    assert not gated(min_ratio=1.0).reused  # stopped before it was written
    held = gated(max_drop=100.0)
    assert not held.reused
    assert held.path.name == "int8.onnx"
    assert gated(max_drop=100.0).reused
    (plain,) = deploy.quantize(
        [str(model)], fp16=False, images=2, recipe=RecipeName.PLAIN, voc_root=voc_root, out=tmp_path
    )
    assert not plain.reused
    assert not record.exists()


MAKE = """
import os, sys
cores, out, root = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
import deploy
from pathlib import Path
from deploy.quantize.recipe import RecipeName
given = {"images": 3, "voc_root": Path(root), "out": Path(out)}
deploy.export("rf-lw-mbv2", out=Path(out), input_size=(64, 64))
path = deploy.quantize(["rf-lw-mbv2"], recipe=RecipeName.PLAIN, **given)[1].path
path.rename(path.with_name("plain.onnx"))
deploy.quantize(["rf-lw-mbv2"], **given)
"""


@pytest.mark.slow
def test_one_thread_and_two_give_the_same_bytes(voc_root: Path, tmp_path: Path) -> None:
    found = []
    for cores in (1, 2):
        folder = tmp_path / str(cores)
        environment = os.environ | {"OMP_NUM_THREADS": str(cores)}
        arguments = [str(cores), str(folder), str(voc_root)]
        subprocess.run([sys.executable, "-c", MAKE, *arguments], check=True, env=environment)
        found.append({p.name: p.read_bytes() for p in (folder / VARIANT).iterdir() if p.is_file()})
    levers = "levers-127-channel-int32.safetensors"
    names = {*GRAPHS, "plain.onnx", "calibration.json", levers}
    assert found[0].keys() == found[1].keys() == names
    assert [name for name in names if found[0][name] != found[1][name]] == []


def test_levers_linear_algebra_does_not_depend_on_the_threads() -> None:
    patches = np.random.default_rng(0).standard_normal((320, 512))
    second = patches @ patches.T / 512 + 0.01 * np.eye(320)
    inverses = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"), _one_thread():
            inverses.append(np.linalg.inv(second))
    np.testing.assert_array_equal(*inverses)
