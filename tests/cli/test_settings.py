"""The settings file, on a small app of every kind of option and on deploy's own commands."""

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from conftest import REPOSITORY, run_main
from typer.testing import CliRunner

from deploy import cli
from deploy.cli.common import prepare, with_common_options
from deploy.cli.settings import SettingsError, find_settings, read_settings


class Heat(StrEnum):
    LOW = "low"
    HIGH = "high"


def bake(
    pie: Annotated[str, typer.Argument()] = "apple",
    oven: Annotated[Path | None, typer.Option("--oven", envvar="OVEN")] = None,
    recipes: Annotated[list[Path] | None, typer.Option("--recipe")] = None,
    mixed: Annotated[list[str] | None, typer.Option("--mix", metavar="DIR[=WEIGHT]")] = None,
    heat: Annotated[Heat, typer.Option("--heat", "--fire")] = Heat.LOW,
    minutes: Annotated[int, typer.Option(min=1)] = 30,
    sugar: Annotated[float, typer.Option("--sugar", "-s")] = 0.5,
    shape: Annotated[tuple[float, float], typer.Option()] = (1.0, 1.0),
    crust: Annotated[bool | None, typer.Option("--crust/--no-crust")] = None,
    size: Annotated[str, typer.Option()] = "20",
) -> None:
    print(json.dumps(locals(), default=str))


def eat(fire: Annotated[Heat, typer.Option()] = Heat.LOW, minutes: int = 5) -> None:
    print(json.dumps(locals(), default=str))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory: empty, in no repository."""
    monkeypatch.chdir(tmp_path)
    for name in ("OVEN", "VOC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def kitchen() -> typer.Typer:
    app = typer.Typer()
    app.callback()(prepare)
    for command in (bake, eat):
        app.command()(with_common_options(command))
    return app


def run(app: typer.Typer, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    content: dict[str, Any] = json.loads(result.stdout)
    return content


EVERY_KIND = """
oven = "kitchen/oven"
recipe = ["a.txt", "/b.txt", "~/c.txt"]
mix = "flour=2"
heat = "high"
minutes = 7
sugar = 2
shape = [0.5, 1.5]
crust = false
size = 500
"""


def test_every_kind_of_option_takes_its_value_from_the_file(
    folder: Path, kitchen: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/cook")
    (folder / "deploy.toml").write_text(EVERY_KIND)
    assert run(kitchen, "bake") == {
        "pie": "apple",
        "oven": "kitchen/oven",
        "recipes": ["a.txt", "/b.txt", "/home/cook/c.txt"],
        "mixed": ["flour=2"],
        "heat": "high",
        "minutes": 7,
        "sugar": 2.0,
        "shape": [0.5, 1.5],
        "crust": False,
        "size": "500",
    }
    assert run(kitchen, "eat") == {"fire": "low", "minutes": 7}


def test_flags_go_before_environment_before_table_before_top_level(
    folder: Path, kitchen: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deploy.toml").write_text(
        'oven = "top"\nminutes = 1\nmix = ["x"]\n[bake]\nminutes = 2\nmix = []\ncrust = true\n'
    )
    content = run(kitchen, "bake")
    assert (content["oven"], content["minutes"], content["mixed"]) == ("top", 2, None)
    assert run(kitchen, "eat")["minutes"] == 1
    monkeypatch.setenv("OVEN", "environment")
    content = run(kitchen, "bake", "--minutes", "3", "--no-crust")
    assert (content["oven"], content["minutes"], content["crust"]) == ("environment", 3, False)
    assert run(kitchen, "bake", "--oven", "flag")["oven"] == "flag"


def test_an_options_first_name_goes_before_its_second(folder: Path, kitchen: typer.Typer) -> None:
    (folder / "deploy.toml").write_text('fire = "low"\nheat = "high"\n')
    assert run(kitchen, "bake")["heat"] == "high"
    assert run(kitchen, "eat")["fire"] == "low"
    (folder / "deploy.toml").write_text('heat = "low"\n[bake]\nfire = "high"\n')
    assert run(kitchen, "bake")["heat"] == "high"


def test_files_are_found_up_to_the_root_of_the_repository(
    folder: Path, kitchen: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = folder / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    (folder / "deploy.toml").write_text("minutes = 1")
    (folder / "repository" / "deploy.toml").write_text('minutes = 2\noven = "here"')
    monkeypatch.chdir(inner)
    assert find_settings() is None  # in no repository nothing above is looked at
    (folder / "repository" / ".git").mkdir()
    assert find_settings() == Path("../../deploy.toml")
    content = run(kitchen, "bake")
    assert (content["minutes"], content["oven"]) == (2, "../../here")
    (inner / "pyproject.toml").write_text("[tool.other]\nminutes = 9")
    assert find_settings() == Path("../../deploy.toml")
    (inner / "pyproject.toml").write_text("[tool.deploy]\nminutes = 3")
    assert run(kitchen, "bake")["minutes"] == 3
    (inner / "deploy.toml").write_text("minutes = 4")
    assert run(kitchen, "bake")["minutes"] == 4
    assert run(kitchen, "--config", "pyproject.toml", "bake")["minutes"] == 3
    assert run(kitchen, "--config", "/dev/null", "bake")["minutes"] == 30
    (folder / "repository" / "deploy.toml").unlink()
    (inner / "deploy.toml").unlink()
    (inner / "pyproject.toml").unlink()
    assert find_settings() is None  # the one above the root is another project's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("minute = 3", "deploy.toml: minute: there is no such option; nearest: minutes"),
        (
            "[bake]\nfries = 3",
            r"deploy.toml: \[bake\] fries: 'deploy bake' has no such option; nearest: fire",
        ),
        ("[bakes]\n", "deploy.toml: bakes: there is no such command; nearest: bake"),
        ("pie = 'plum'", "deploy.toml: pie: there is no such option"),  # an argument
        ("quiet = true", "deploy.toml: quiet: there is no such option"),
        ("no-crust = true", "deploy.toml: no-crust: there is no such option; nearest: crust"),
        ("minutes = '3'", "deploy.toml: minutes is '3': it must be a whole number"),
        ("minutes = true", "deploy.toml: minutes is True: it must be a whole number"),
        ("minutes = 1.5", "deploy.toml: minutes is 1.5: it must be a whole number"),
        ("minutes = [1]", r"deploy.toml: minutes is \[1\]: it must be a whole number"),
        ("sugar = 'much'", "deploy.toml: sugar is 'much': it must be a number"),
        ("crust = 1", "deploy.toml: crust is 1: it must be true or false"),
        ("oven = 5", "deploy.toml: oven is 5: it must be a text in quotes"),
        ("recipe = [1]", "deploy.toml: recipe is 1: it must be a text in quotes"),
        ("size = 1979-05-27", "deploy.toml: size is .*: it must be a text in quotes"),
        ("[bake]\nminutes = 0", r"deploy.toml: \[bake\] minutes, for 'deploy bake': .*1$"),
        (
            "heat = 'mild'",
            "deploy.toml: heat, for 'deploy bake': 'mild' is not one of 'low', 'high'",
        ),
        ("shape = [1.0]", "deploy.toml: shape, for 'deploy bake': .*2 values"),
        ("a = 1\nb = c", r"deploy.toml is no readable TOML: .*line 2"),
        ("a = 1\na = 2", "deploy.toml is no readable TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_key_and_remedy(
    content: str, message: str, folder: Path, kitchen: typer.Typer
) -> None:
    (folder / "deploy.toml").write_text(content)
    with pytest.raises(SettingsError, match=f"^{message}") as error:
        run(kitchen, "eat")  # whichever command is run
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_say_so(folder: Path, kitchen: typer.Typer) -> None:
    (folder / "latin.toml").write_bytes(b'oven = "\xe9"')
    (folder / "pyproject.toml").write_text("[project]\n")
    for name, message in (
        ("none.toml", "none.toml cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("latin.toml", "latin.toml is no readable TOML"),
        ("pyproject.toml", r"pyproject.toml has no table \[tool.deploy\]"),
    ):
        with pytest.raises(SettingsError, match=message):
            run(kitchen, "--config", name, "bake")


def test_help_shows_the_files_values_as_defaults(folder: Path, kitchen: typer.Typer) -> None:
    (folder / "deploy.toml").write_text("[bake]\nminutes = 77")
    assert "default: 77" in CliRunner().invoke(kitchen, ["bake", "--help"]).stdout


def test_deploys_own_commands_take_settings_and_say_which(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deploy.toml").write_text("seed = 4\njson = true\n[scenes]\ntrain = 2\nval = 1\n")
    code, out, err = run_main(["-v", "scenes", "drawn", "--val", "0"], monkeypatch, capsys)
    assert code == 0
    content = json.loads(out)
    assert (content["train"], content["val"], content["seed"]) == (2, 0, 4)
    assert "settings deploy.toml: --train 2, --seed 4, --json True\n" in err


def test_a_wrong_file_is_one_line_on_stderr_and_exit_code_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deploy.toml").write_text("voc_root = 'data'")
    code, out, err = run_main(["models"], monkeypatch, capsys)
    message = "SettingsError: deploy.toml: voc_root: there is no such option; nearest: voc-root\n"
    assert (code, out, err) == (2, "", message)


def test_voc_root_comes_from_flag_then_variable_then_file(
    folder: Path,
    voc_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "deploy.toml").write_text("voc-root = 'of-the-file'")
    command = ["calibrate", "none.onnx", "--images", "2"]
    assert "no VOC2012 data set at of-the-file" in run_main(command, monkeypatch, capsys)[2]
    monkeypatch.setenv("VOC_ROOT", "of-the-variable")
    assert "no VOC2012 data set at of-the-variable" in run_main(command, monkeypatch, capsys)[2]
    command += ["--voc-root", str(voc_root)]
    assert "no ONNX file at none.onnx" in run_main(command, monkeypatch, capsys)[2]


def test_the_documented_example_is_right(folder: Path) -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 1
    (folder / "deploy.toml").write_text(examples[0])
    group = typer.main.get_command(cli.app)
    settings = read_settings(Path("deploy.toml"), typer.Context(group, info_name="deploy"))
    assert settings.defaults["quantize"]["equalize"] is False
    assert settings.defaults["quantize"]["voc_root"] == "data"
    assert settings.defaults["train"]["voc_root"] == ["data=2", "mine"]
