import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPT = """\
import calibration
import models
import deploy

assert models.MINE and calibration.MINE  # the project's own
found = deploy.inspect("{graph}")
print(found[0].form, deploy.export.__name__, sorted(deploy.models.VARIANTS)[0])
from deploy.toolchains.record import toolchains
assert all(each.requirements.is_file() and each.check_program for each in toolchains().values())
assert "arm" in toolchains()
exported = deploy.export("rf-lw-mbv2", input_size=(64, 64), out="artifacts")
print(exported.weights)
"""

pytestmark = [pytest.mark.slow, pytest.mark.long]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel alone, which finds libraries in this one's folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "artifacts", "data", "build", "*.egg-info")
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=ignored)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    options = ("--no-deps", "--target", packages, "--no-compile")
    run(sys.executable, "-m", "pip", "install", "-q", *options, wheel, cwd=folder)
    return environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with packages of its own that have the names of ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("MINE = True\n")
    (tmp_path / "calibration.py").write_text("MINE = True\n")
    return tmp_path


def test_installed_deploy_brings_one_name(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    assert {path.name for path in packages.iterdir() if path.suffix == ""} == {"deploy", "bin"}


def test_api_works_beside_a_projects_own_models_and_calibration(
    installed: Path, project: Path
) -> None:
    import onnx
    from graphs import refine_model

    onnx.save(refine_model(), project / "net.onnx")
    (project / "script.py").write_text(SCRIPT.format(graph="net.onnx"))
    out = run(installed / "bin" / "python", "script.py", cwd=project)
    assert out.splitlines() == ["float32 export rf-lw-mbv2", "repository rf-lw-mbv2.safetensors"]
    assert (project / "artifacts" / "rf-lw-mbv2" / "fp32.onnx").is_file()


def test_command_works_beside_a_projects_own_models_and_calibration(
    installed: Path, project: Path
) -> None:
    python = installed / "bin" / "python"
    assert "rf-lw-mbv2" in run(python, "-m", "deploy", "models", cwd=project)
    out = run(python, "-m", "deploy", "scenes", "data", "--train", "1", "--val", "1", cwd=project)
    assert "VOC2012" in out
