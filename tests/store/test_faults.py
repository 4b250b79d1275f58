"""Nothing is lost when things go wrong: kills, signals, full disks, two runs at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_mask
from PIL import Image
from processes import CONTEXT, READY, lines, run, start

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError
from deploy.progress import SilentProgress
from deploy.store.files import remove_stale, write_folder_whole, write_whole
from deploy.store.locks import LOCK, hold

VARIANT = models.DEFAULT_VARIANT
KILLS = 30
STOPS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a few drawn scenes."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", train=3, val=3, seed=5)


class Whole:
    """What an undisturbed run of everything leaves, and how long it takes."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.data, self.folder = data, folder / "undisturbed"
        begun = time.monotonic()
        assert run(self.command(self.folder), folder / "log") == (0, [])
        self.seconds = time.monotonic() - begun
        self.files = sorted(p.relative_to(self.folder) for p in files(self.folder))

    def command(self, out: Path) -> list[str]:
        """Return the arguments of a run into ``out``."""
        arguments = ["export-all", VARIANT, "--voc-root", str(self.data), "--out", str(out)]
        return [*arguments, "--images", "2", "--limit", "2", "--input-size", "32"]

    def check(self, out: Path, *, complete: bool) -> None:
        """Compare what is in ``out`` with what the undisturbed run left."""
        found = sorted(p.relative_to(out) for p in files(out) if not is_hidden(p, out))
        assert set(found) <= set(self.files)
        for path in found:
            assert content(out / path) == content(self.folder / path), path
        if complete:
            assert found == self.files
            assert not [p for p in files(out) if is_hidden(p, out)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Whole:
    """Return what an undisturbed run leaves."""
    return Whole(tmp_path_factory.mktemp("whole"), data)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def content(path: Path) -> object:
    """Return what two runs must agree on: all but times, dates, and hashes over them."""
    if path.suffix == ".json" and path.name != "calibration.json":
        return timeless(json.loads(path.read_text()))
    if path.suffix in (".md", ".html"):
        return path.read_text().splitlines()[-1]
    return path.read_bytes()


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("latency_ms", "speed", "date", "stage_sha256", "command")  # which names the folder
        return {k: timeless(v) for k, v in value.items() if k not in timed}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def empty(folder: Path, *, keep_float_graph: bool) -> None:
    """Remove what a run has left, so that another has all, or all but the export, to do."""
    for path in files(folder):
        if not (keep_float_graph and path.name == "fp32.onnx"):
            path.unlink()


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_any_moment_leaves_nothing_partial_and_goes_on(
    whole: Whole, tmp_path: Path
) -> None:
    moments, out, log = np.random.default_rng(0), tmp_path / "out", tmp_path / "log"
    kills, completions = 0, 0
    while kills < KILLS:
        process = start(whole.command(out), log)
        process.join(0.9 * whole.seconds * moments.random() ** 2)
        killed = process.is_alive()
        process.kill()
        process.join()
        killed = killed and process.exitcode == -signal.SIGKILL
        kills += killed
        whole.check(out, complete=not killed)
        if not killed:
            assert process.exitcode == 0
            completions += 1
            empty(out, keep_float_graph=completions % 2 == 1)
    assert run(whole.command(out), log) == (0, [])
    whole.check(out, complete=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_is_one_line_an_exit_code_and_no_debris(
    whole: Whole, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    moments, out, log = np.random.default_rng(int(sent)), tmp_path / "out", tmp_path / "log"
    stops = 0
    while stops < STOPS:
        process = start(whole.command(out), log)
        wait_for(log.with_suffix(".err"), READY)
        process.join(0.1 + 0.7 * whole.seconds * moments.random() ** 2)
        if process.is_alive():
            os.kill(process.pid or 0, sent)
        process.join()
        whole.check(out, complete=process.exitcode == 0)
        if process.exitcode == 0:
            empty(out, keep_float_graph=True)
            continue
        stops += 1
        assert process.exitcode == code, log.with_suffix(".err").read_text()
        (line,) = lines(log)
        assert line.endswith(": nothing half-written was left")
        assert not [path for path in files(tmp_path / "out") if is_hidden(path, out)]


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} does not say {text!r}"
        time.sleep(0.01)


@pytest.mark.slow
def test_two_runs_at_once_on_one_folder_give_what_one_gives(whole: Whole, tmp_path: Path) -> None:
    out, logs = tmp_path / "out", [tmp_path / "one", tmp_path / "two"]
    runs = [start(whole.command(out), log) for log in logs]
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0]
    whole.check(out, complete=True)
    texts = [log.with_suffix(".err").read_text() for log in logs]
    assert sum("is in use by another run: waiting for its end" in text for text in texts) == 1
    assert sum("reused" in text for text in texts) == 1


def keep_locked(folder: Path, ready: Path) -> None:
    """Hold a folder's lock until this process is killed, with a file half-written."""
    with hold(folder, SilentProgress()):
        (folder / f".fp32.onnx.{os.getpid()}-abc").write_bytes(b"half")
        ready.write_text("held")
        time.sleep(600)


def test_folder_in_use_is_one_clear_error_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    folder, ready = tmp_path / "variant", tmp_path / "ready"
    process = CONTEXT.Process(target=keep_locked, args=(folder, ready))
    process.start()
    wait_for(ready, "held")
    with (
        pytest.raises(DeployError, match=r"variant is still in use .* after 0 s: wait .* --out"),
        hold(folder, SilentProgress(), patience=0.3),
    ):
        pass
    remove_stale(folder)  # of a process that runs
    half = f".fp32.onnx.{process.pid}-abc"
    assert {path.name for path in folder.iterdir()} == {LOCK, half}
    process.kill()
    process.join()
    with hold(folder, SilentProgress(), patience=5):
        assert {path.name for path in folder.iterdir()} == {LOCK}
    assert list(folder.iterdir()) == []


def test_lock_is_held_several_times_over_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "variant"
    with hold(folder, SilentProgress()), hold(folder, SilentProgress()):
        assert (folder / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []


def write_on_and_on(folder: Path) -> None:
    """Write a file and a folder, with one content and another, until this process is killed."""
    for number in range(10**9):
        text = str(number % 10) * 300_000
        write_whole(folder / "file", text)
        write_folder_whole(folder / "folder", {"a": text, "b/c": text})


def test_killed_while_it_writes_leaves_whole_files_and_folders(tmp_path: Path) -> None:
    moments, folder, found = np.random.default_rng(0), tmp_path / "out", set()
    for _ in range(20):
        process = CONTEXT.Process(target=write_on_and_on, args=(folder,))
        process.start()
        while not folder.is_dir():
            time.sleep(0.001)
        process.join(0.3 * moments.random())
        process.kill()
        process.join()
        found |= {path.name for path in folder.iterdir()}
        remove_stale(folder)
        assert {path.name for path in folder.iterdir()} <= {"file", "folder"}
        for path in files(folder):
            text = path.read_text()
            assert text == text[0] * 300_000
        parts = [path.read_bytes() for path in files(folder / "folder")]
        assert parts == parts[:1] * (2 if (folder / "folder").is_dir() else 0)
    assert any(name.startswith(".") for name in found)  # some kills came in the midst of a write


def test_folder_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    temporary = tmp_path / f".vacc.{2**22 + 1}-abc"  # beyond the largest number of a process
    (temporary / "old").mkdir(parents=True)
    (temporary / "old" / "file").write_text("before")
    (temporary / "new").mkdir()
    remove_stale(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in files(tmp_path)] == ["vacc/file"]


@pytest.fixture(scope="module")
def exported(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return artifacts as they are after the export."""
    out = tmp_path_factory.mktemp("exported")
    (out / VARIANT).mkdir()
    shutil.copy(whole.folder / VARIANT / "fp32.onnx", out / VARIANT)
    return out


FULL = [  # arguments, bytes that a file may have, what cannot be written
    (["export", VARIANT, "--input-size", "64"], 10**6, "fp32.onnx"),
    (["calibrate", VARIANT, "--images", "2"], 10**5, "calibration.json"),
    (["quantize", VARIANT, "--images", "2"], 3 * 10**6, "fp16.onnx"),
    (["quantize", VARIANT, "--images", "2", "--int8", "--recipe", "plain"], 3 * 10**6, "int8.onnx"),
    (["quantize", VARIANT, "--images", "2", "--int8", "--target", "vacc"], 10**6, "vacc"),
    (["scenes", "OUT/scenes", "--train", "1", "--val", "1"], 10**4, "scenes"),
    (["train", VARIANT, "--steps", "1", "--crop", "64", "--batch-size", "2"], 10**6, "checkpoint"),
    (["contact-sheet", "--images", "1"], 10**4, "sheet.png"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "limit", "what"), FULL, ids=lambda value: str(value)[:40])
def test_full_disk_is_one_line_and_leaves_what_was_there(
    exported: Path, data: Path, tmp_path: Path, arguments: list[str], limit: int, what: str
) -> None:
    out = Path(shutil.copytree(exported, tmp_path / "out"))
    before = {path: path.read_bytes() for path in files(out)}
    arguments = [argument.replace("OUT", str(out)) for argument in arguments]
    if arguments[0] not in ("export", "scenes"):
        arguments += ["--voc-root", str(data)]
    if arguments[0] != "scenes":
        arguments += ["--out", str(out / "sheet.png" if what == "sheet.png" else out)]
    code, told = run(arguments, tmp_path / "log", file_limit=limit)
    assert code == 1
    assert len(told) == 1
    assert f"{what}" in told[0]
    assert "cannot be written" in told[0]
    assert "File too large" in told[0]
    now = {path: path.read_bytes() for path in files(out)}
    now.pop(out / VARIANT / "calibration.json" if what != "calibration.json" else out, None)
    assert now == before


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file/below", "/proc/none"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", VARIANT, "--input-size", "32"],
        ["export-all", VARIANT, "--input-size", "32", "--images", "2", "--limit", "1"],
        ["scenes", "--train", "1", "--val", "1"],
        ["train", VARIANT, "--steps", "1", "--crop", "64", "--batch-size", "2"],
        ["contact-sheet", "--images", "1"],
    ],
    ids=lambda value: str(value[0]),
)
def test_place_that_cannot_be_written_to_is_one_line(
    data: Path, tmp_path: Path, arguments: list[str], place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / place)  # an absolute place stays as it is
    if arguments[0] == "scenes":
        arguments = [*arguments, out]
    else:
        arguments = [*arguments, "--out", out]
        if arguments[0] != "export":
            arguments += ["--voc-root", str(data)]
    code, told = run(arguments, tmp_path / "log")
    assert code == 1
    assert len(told) == 1
    assert "cannot be written" in told[0]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".err"] == ["file", "log"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["validation.json", "report"])
def test_results_that_cannot_be_written_are_one_line(
    whole: Whole, data: Path, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(whole.folder, tmp_path / "out"))
    if name == "report":
        shutil.rmtree(out / "report")
        (out / "report").write_text("in the way")
        arguments = ["report"]
    else:
        (out / VARIANT / name).unlink()
        (out / VARIANT / name).mkdir()
        arguments = ["validate", VARIANT, "--voc-root", str(data), "--limit", "1"]
    before = sorted(out.rglob("*"))
    code, told = run([*arguments, "--out", str(out)], tmp_path / "log")
    assert code == 1
    assert len(told) == 1
    assert name in told[0]
    assert "cannot be written" in told[0]
    assert sorted(out.rglob("*")) == before


def peak_memory(arguments: list[str]) -> float:
    """Return the largest resident set of ``deploy ARGUMENTS``, MB."""
    command = [sys.executable, "-m", "deploy", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.mark.slow
@pytest.mark.long
def test_memory_is_flat_over_the_images(tmp_path: Path) -> None:
    few, many, side = 40, 400, 96  # inputs alone would take 40 MB more
    root, out = tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "out"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        names = [f"{split}_{i}" for i in range(many)]
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            pixels = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            save_mask(root / "SegmentationClass" / f"{name}.png", pixels[..., 0] % 21)
    deploy.export(VARIANT, out=out, input_size=(side, side))
    common = [VARIANT, "--voc-root", str(root), "--out", str(out)]
    # of validation 0.1 MB an image was measured (docs/robustness.md)
    for name, option, bound in (("calibrate", "--images", 25), ("validate", "--limit", 50)):
        peaks = [peak_memory([name, *common, option, str(count)]) for count in (few, many)]
        assert peaks[1] - peaks[0] < bound, (name, peaks)
