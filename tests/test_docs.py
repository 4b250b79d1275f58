"""Commands that the documents show: all are understood, and a day's work of them is done."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from conftest import run_main

from deploy.calibration.scenes import write_scenes
from deploy.cli import app

REPOSITORY = Path(__file__).parent.parent
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
# In the sandbox what is small stands for what is large; of so few images a gate says nothing.
SMALL = {"rf-lw50": "rf-lw-mbv2", "my.pth": "my.safetensors", "100": "4", "0.99": "0.1"}
SETTINGS = """
[export]
input-size = "64"
[quantize]
images = 2
[latency]
runs = 2
[validate]
limit = 2
"""
EARLIER = [  # what the day starts from
    "deploy export rf-lw-mbv2",
    "deploy quantize rf-lw-mbv2 --int8 --recipe plain",
    "deploy validate rf-lw-mbv2",
    "deploy report",
]


def commands(document: Path) -> list[str]:
    """Return the calls of deploy in the code blocks of a document, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    parts = [part.strip(" $;") for line in lines for part in re.split(r"&&|; do|; done", line)]
    return [part.replace("$t", "ort") for part in parts if re.match(r"deploy [a-z]", part)]


ALL = [(path, command) for path in DOCUMENTS for command in commands(path)]
DAY = [
    command
    for command in commands(REPOSITORY / "docs" / "usage.md")
    if command.split()[1] not in ("export-all", "fetch-voc", "train", "scenes")
]


def test_commands_were_found() -> None:
    assert len(ALL) > 50
    assert len(DAY) >= 15
    assert {path.name for path, _ in ALL} >= {"usage.md", "targets.md", "own-data.md"}


@pytest.mark.parametrize(
    ("document", "command"), ALL, ids=[f"{path.stem}: {command}" for path, command in ALL]
)
def test_documented_commands_are_understood(document: Path, command: str) -> None:
    group = typer.main.get_command(app)
    _, name, *arguments = shlex.split(command)
    found = group.get_command(typer.Context(group), name)  # type: ignore[attr-defined]
    assert found is not None, f"{document}: no command {name}"
    found.make_context(name, arguments)  # raises on what it does not know, and runs nothing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_what_documents_refer_to_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    named = re.findall(r"`((?:tests|deploy|models|calibration)/[\w/]+\.\w+)`", text)
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_make_targets_that_are_documented_exist() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    wanted = set(re.findall(r"^make ([a-z-]+)", text, re.M)) | set(
        re.findall(r"`make ([a-z-]+)", text)
    )
    targets = re.findall(
        r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert {"export-all", "test"} <= wanted <= set(targets)


@pytest.mark.slow
def test_a_day_of_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_scenes(tmp_path / "data", train=4, val=2, seed=1)
    monkeypatch.setenv("VOC_ROOT", str(root))
    (tmp_path / "deploy.toml").write_text(SETTINGS, encoding="utf-8")
    shutil.copytree(root / "JPEGImages", tmp_path / "photos")
    shutil.copytree(root / "JPEGImages", tmp_path / "more" / "of-them")
    shipped = REPOSITORY / "models" / "weights" / "rf-lw-mbv2.safetensors"
    shutil.copy(shipped, tmp_path / "my.safetensors")

    def run(command: str) -> None:
        arguments = [SMALL.get(word, word) for word in shlex.split(command)[1:]]
        code, _, err = run_main(arguments, monkeypatch, capsys)
        # a foreign graph may break rules
        assert code in ((0, 1) if "lint" in arguments else (0,)), f"{command}: {err}"

    for command in EARLIER:
        run(command)
    artifacts = tmp_path / "artifacts"
    shutil.copy(artifacts / "rf-lw-mbv2" / "int8.onnx", tmp_path / "other-tools.onnx")
    shutil.copy(artifacts / "rf-lw-mbv2" / "fp32.onnx", tmp_path / "mine.onnx")
    shutil.copytree(artifacts / "report", tmp_path / "earlier")
    for command in DAY:
        run(command)
