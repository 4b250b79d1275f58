"""Every command of the app, those to come too: options, help, exit codes, completion, reference."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest
import typer
from conftest import REPOSITORY, run_main
from graphs import refine_model
from typer.core import TyperGroup, TyperOption
from typer.testing import CliRunner, Result

from deploy import cli, models
from deploy.cli import reference
from deploy.graph.metadata import set_metadata
from deploy.targets import ACCELERATORS as TARGETS
from deploy.targets import Toolchain

GROUP = typing.cast(TyperGroup, typer.main.get_command(cli.app))
COMMANDS = [name for name, command in GROUP.commands.items() if not command.hidden]
DEPLOY = [sys.executable, "-m", "deploy"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of every call, without a developer's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-torch"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VOC_ROOT", raising=False)
    return tmp_path


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run([*DEPLOY, *arguments], capture_output=True, text=True, check=False)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_its_own_verbosity(name: str) -> None:
    options = {flag for param in GROUP.commands[name].params for flag in param.opts}
    assert options >= {"--json", "--quiet", "-q", "--verbose", "-v"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    assert str(GROUP.commands[name].epilog).startswith(f"Example: deploy {name}")
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert f"Example: deploy {name}" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_has_a_help_text(name: str) -> None:
    command = GROUP.commands[name]
    context = typer.Context(command, info_name=name)
    records = {param.name: param.get_help_record(context) for param in command.params}
    # a text besides what typer adds in brackets, such as [default: 5]
    bare = [n for n, record in records.items() if record and not re.match(r"[^\[\s]", record[1])]
    assert bare == []
    assert str(command.help).strip().endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_wrong_usage(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--nonsense"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "No such option: --nonsense" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_parameters_that_name_a_variant_or_a_target_propose_some(name: str) -> None:
    command = GROUP.commands[name]
    context = typer.Context(command, info_name=name)
    for param in command.params:
        proposed = [item.value for item in param.shell_complete(context, "")]
        if str(param.metavar).startswith("VARIANT"):
            assert proposed == list(models.VARIANTS), param.name
        if isinstance(param, TyperOption) and "--target" in param.opts:
            wanted = list(Toolchain) if name == "bundle" else list(TARGETS)
            assert proposed == wanted, param.name


def test_the_reference_is_up_to_date() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    command = page.splitlines()[0].removeprefix("<!-- ").removesuffix(" -->")
    assert reference.renewed(page) == page, f"run: {command}"
    assert all(f"\n## deploy {name}\n" in page for name in COMMANDS)


def test_the_reference_is_renewed_by_the_command_in_its_first_line(folder: Path) -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    (folder / "docs").mkdir()
    copy = folder / "docs" / "commands.md"
    copy.write_text(page.replace("## deploy export\n", "## deploy exprot\n"), encoding="utf-8")
    command = page.splitlines()[0].removeprefix("<!-- ").removesuffix(" -->").split()
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert copy.read_text(encoding="utf-8") == page
    copy.write_text("# no mark\n")
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True)
    assert done.returncode == 1
    assert "lacks its mark" in done.stderr


def test_exit_codes_0_1_and_2_of_the_real_process(folder: Path) -> None:
    done = deploy("-q", "scenes", "drawn", "--train", "1", "--val", "0", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["train"] == 1
    done = deploy("lint", "none.onnx", "--json")
    message = "GraphError: no ONNX file at none.onnx"
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(message)
    done = deploy("lint")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: deploy lint" in done.stderr
    (folder / "deploy.toml").write_text("nonsense = 1")
    done = deploy("lint", "none.onnx")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_exit_code_3_of_the_real_process(folder: Path, voc_root: Path) -> None:
    network = refine_model(classes=21)
    set_metadata(network, {"fit": "squash", "weights": "mine.pth"})
    Path("net.onnx").write_bytes(network.SerializeToString())
    command = ["quantize", "net.onnx", "--int8", "--images", "2", "--voc-root", str(voc_root)]
    command += ["--recipe", "plain", "--max-float-layers", "0", "--min-ratio", "1.0"]
    done = deploy("-q", *command, "--json")
    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout)[0]["gate"]["held"] is False


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "Interrupted: nothing half-written was left\n"),
        (signal.SIGTERM, 143, "Stopped by SIGTERM: nothing half-written was left\n"),
    ],
)
def test_a_signal_ends_with_its_code_one_line_and_no_debris(
    number: signal.Signals, code: int, message: str, folder: Path
) -> None:
    process = subprocess.Popen(
        [*DEPLOY, "scenes", "drawn", "--train", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not inherited
    )
    deadline = time.monotonic() + 100
    while not any(name.endswith(".jpg") for name in files(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    if number == signal.SIGTERM:
        process.send_signal(number)  # as timeout(1) does
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (code, "", message)
    assert files(folder) == []


def test_sigterm_while_training_leaves_whole_files_only(folder: Path, voc_root: Path) -> None:
    command = ["train", models.DEFAULT_VARIANT, "--voc-root", str(voc_root), "--out", "out", "-v"]
    command += ["--batch-size", "1", "--crop", "64", "--checkpoint-minutes", "0"]
    process = subprocess.Popen(
        [*DEPLOY, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if len([line for line in told if line.startswith("wrote ")]) == 3:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (143, ""), (told, err)
    assert err.endswith("Stopped by SIGTERM: nothing half-written was left\n")
    assert "Traceback" not in err
    assert files(folder / "out") == ["checkpoint.pt"]


@pytest.mark.parametrize("place", ["before", "behind"])
def test_quiet_shows_no_progress_and_verbose_every_file(
    place: str, folder: Path, voc_root: Path
) -> None:
    Path("net.onnx").write_bytes(refine_model(classes=21).SerializeToString())

    def calibrate(flag: str, out: str) -> Result:
        command = ["calibrate", "net.onnx", "--images", "2", "--voc-root", str(voc_root)]
        command += ["--out", out]
        arguments = [flag, *command] if place == "before" else [*command, flag]
        return CliRunner().invoke(cli.app, arguments)

    quiet = calibrate("-q", "a")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert quiet.stdout.startswith("net: a/net/calibration.json")
    verbose = calibrate("--verbose", "b")
    assert verbose.exit_code == 0
    lines = verbose.stderr.splitlines()
    assert lines[0].startswith("deploy ")
    assert "onnxruntime " in lines[0]
    assert lines[1] == "settings: no file"
    assert re.search(r"^  calibrate net +2 images +[\d.]+ s$", verbose.stderr, re.MULTILINE)
    size = (folder / "b" / "net" / "calibration.json").stat().st_size
    assert f"wrote b/net/calibration.json ({size} bytes)" in lines


def test_verbosity_of_one_call_is_not_that_of_the_next() -> None:
    def scenes(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, [*arguments, "--train", "1", "--val", "0"])
        assert result.exit_code == 0
        return result.stderr

    assert scenes("-q", "scenes", "a") == ""
    assert "settings: no file" in scenes("scenes", "b", "-v")
    assert re.fullmatch(r"  scenes +[\d.]+ s\n", scenes("scenes", "c"))
    assert "settings: no file" in scenes("-q", "scenes", "d", "-v")  # behind goes first


def test_quiet_and_verbose_exclude_each_other() -> None:
    for arguments in (["-q", "-v", "report"], ["report", "-qv"]):
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 2
        assert "exclude each other" in result.stderr


def test_verbose_shows_the_traceback_of_an_error_and_then_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(["-v", "lint", "none.onnx"], monkeypatch, capsys)
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("GraphError: no ONNX file at none.onnx")


def test_version_names_what_measurements_depend_on() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert re.match(r"deploy \S.*, Python 3\.\d+\.\d+, torch ", result.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_show_completion_prints_the_shells_script(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = deploy("--show-completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_DEPLOY_COMPLETE=complete_{shell}" in done.stdout
    assert done.stdout.rstrip().endswith("deploy")


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("deploy quantize rf-lw-m", ["rf-lw-mbv2"]),
        ("deploy train rf1", ["rf101", "rf152"]),
        ("deploy lint --target ort-a", ["ort-avx2", "ort-arm"]),
        ("deploy quantize --method p", ["percentile"]),
        ("deploy quanti", ["quantize"]),
        ("deploy models --js", ["--json"]),
    ],
)
def test_completion_proposes_variants_targets_methods_commands_and_options(
    line: str, proposed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_DEPLOY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(line.split()))
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    result = CliRunner().invoke(cli.app, prog_name="deploy")
    assert result.stdout.split() == proposed


def test_completion_works_in_bash_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    (folder / "bin").mkdir()
    script = folder / "bin" / "deploy"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m deploy "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    typed = "COMP_WORDS=(deploy validate rf-lw5); COMP_CWORD=2; _deploy_completion deploy"
    command = f'eval "$(deploy --show-completion bash)"; {typed}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rf-lw50"]


def test_a_folder_of_zsh_functions_gets_the_script(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("HOME", str(folder))
    assert deploy("--install-completion", "zsh").returncode == 0
    assert "#compdef deploy" in (folder / ".zfunc" / "_deploy").read_text()


def test_made_data_are_told_as_json() -> None:
    arguments = ["scenes", "drawn", "--train", "1", "--val", "0", "--seed", "3", "--json"]
    result = CliRunner().invoke(cli.app, arguments)
    content = json.loads(result.stdout)
    assert content == {"path": "drawn/VOCdevkit/VOC2012", "train": 1, "val": 0, "seed": 3}


def test_training_is_told_as_json_and_quiet_on_request(folder: Path, voc_root: Path) -> None:
    command = ["-q", "train", models.DEFAULT_VARIANT, "--voc-root", str(voc_root)]
    command += ["--validate", str(voc_root), "--steps", "1", "--batch-size", "1", "--crop", "64"]
    result = CliRunner().invoke(cli.app, [*command, "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    content = json.loads(result.stdout)
    assert content["path"] == "training/weights.safetensors"
    assert (folder / content["path"]).is_file()
    assert (content["variant"], content["step"], content["steps"]) == (models.DEFAULT_VARIANT, 1, 1)
    assert content["loss"] > 0
    assert 0 <= content["miou"][0] <= 1
