import sys
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.store.other_python import find_python, make_environment

STAND_IN = """\
#!/bin/sh
[ "$PYENV_VERSION" = 3.99.1 ] || { echo "pyenv: command not found" >&2; exit 127; }
echo /chosen/python
"""


def test_python_of_this_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"python{version}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python("3.99", version).resolve() == Path(sys.executable).resolve()


def test_stand_in_is_asked_for_the_version_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {"python3.99": STAND_IN, "pyenv": "#!/bin/sh\necho 3.99.1\n"}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYENV_VERSION", raising=False)
    assert find_python("3.99") == Path("/chosen/python")


def test_python_that_is_missing_is_one_line() -> None:
    with pytest.raises(DeployError, match=r"no Python 3.98 or 3.99 on the PATH: install one"):
        find_python("3.98", "3.99")


def test_environment_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeployError, match=r"no environment with some-package: .*"):
        make_environment(tmp_path / "file", Path(sys.executable), ["some-package"])
