"""What ``--cluster`` may be, and how what it may not be is refused."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_main
from dask_processes import DaskProcesses

from deploy.calibration.scenes import write_scenes
from deploy.cluster.client import use_cluster
from deploy.cluster.connect import connected, find_place
from deploy.errors import ClusterError, DeployError
from deploy.progress import SilentProgress

pytest.importorskip("distributed")


@pytest.mark.parametrize(
    "text",
    ["", "host:8786", "tcp://host", "tcp://:8786", "tcp://host:port", "udp://host:1", "local:0"],
)
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(ClusterError, match=r"expected|at least 1"):
        find_place(text)


@pytest.mark.parametrize("text", ["local:x", "local:-1", "tcp://host:99999", "local:"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ClusterError):
        find_place(text)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 5}', "\udcff", "[" * 10**5])
def test_files_that_are_no_schedulers(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ClusterError) as error:
        find_place(str(path))
    assert str(path) in str(error.value)


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"none\.json cannot be read: No such file"):
        find_place(str(tmp_path / "none.json"))


def test_places() -> None:
    assert find_place("local:3") == "local:3"
    assert re.fullmatch(r"local:\d+", find_place("local"))
    assert find_place("tls://host:8786") == "tls://host:8786"
    assert find_place("tcp://[::1]:8786") == "tcp://[::1]:8786"


def test_distributed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.cluster.connect.find_spec", lambda name: None)
    with pytest.raises(DeployError, match=r"pip install 'refinenet-deploy\[cluster\]'"):
        find_place("local")


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.cluster.connect.CONNECT_SECONDS", 0.3)
    message = r"no scheduler answers at tcp://127.0.0.1:9: start"
    with pytest.raises(ClusterError, match=message), connected("tcp://127.0.0.1:9"):
        pass


def test_tls_without_certificates() -> None:
    message = "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE"
    with pytest.raises(ClusterError, match=message), connected("tls://127.0.0.1:8786"):
        pass


def test_certificates_that_are_missing(tmp_path: Path) -> None:
    import dask

    settings = {"distributed.comm.tls.ca-file": str(tmp_path / "ca.pem")}
    with (
        dask.config.set(settings),
        pytest.raises(ClusterError, match=r"no file .*/ca\.pem for"),
        connected("tls://127.0.0.1:8786"),
    ):
        pass


def test_command_line_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_scenes(tmp_path / "data", train=1, val=1, seed=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPLOY_CLUSTER", "nowhere")
    arguments = ["calibrate", "rf-lw-mbv2", "--voc-root", str(root)]
    code, out, err = run_main([*arguments, "--images", "1"], monkeypatch, capsys)
    assert (code, out) == (1, "")
    assert err == (
        "ClusterError: --cluster 'nowhere': tcp://HOST:8786, tls://HOST:8786, local, local:N or a "
        "scheduler's FILE.json is expected\n"
    )


def test_settings_file_names_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_scenes(tmp_path / "data", train=1, val=1, seed=0)
    (tmp_path / "deploy.toml").write_text('cluster = "none.json"\n')
    (tmp_path / ".git").mkdir()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    arguments = ["calibrate", "rf-lw-mbv2", "--voc-root", str(root), "--images", "1"]
    code, _, err = run_main(arguments, monkeypatch, capsys)
    assert code == 1
    assert err.startswith("ClusterError: ../none.json cannot be read")


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[DaskProcesses, dict[str, str]]]:
    """Return a cluster that speaks TLS, and how a client is configured for it."""
    from distributed.security import Security

    made = Security.temporary()
    (tmp_path / "cert.pem").write_text(made.tls_client_cert)
    (tmp_path / "key.pem").write_text(made.tls_client_key)
    variables = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(tmp_path / "cert.pem")}
    settings = {"distributed.comm.tls.ca-file": str(tmp_path / "cert.pem")}
    for role in ("scheduler", "worker", "client"):
        for kind in ("cert", "key"):
            path = str(tmp_path / f"{kind}.pem")
            variables[f"DASK_DISTRIBUTED__COMM__TLS__{role.upper()}__{kind.upper()}"] = path
            settings[f"distributed.comm.tls.{role}.{kind}"] = path
    processes = DaskProcesses(tmp_path, protocol="tls", options=variables)
    yield processes, settings
    processes.end()


@pytest.mark.slow
def test_tls(secured: tuple[DaskProcesses, dict[str, str]]) -> None:
    import dask

    processes, settings = secured
    processes.work()
    assert processes.address.startswith("tls://")
    with (
        dask.config.set(settings),
        use_cluster(processes.address, SilentProgress()) as cluster,
    ):
        assert cluster is not None
        assert cluster.slots == 1


@pytest.mark.slow
def test_two_commands_of_a_laptop(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    block = text.split("## A laptop")[1].split("```")[1]
    commands = [line.split() for line in block.strip().splitlines()]
    assert [command[0] for command in commands] == ["deploy", "deploy"]
    write_scenes(tmp_path / "data" / "scenes", train=2, val=2, seed=0)
    (tmp_path / "deploy.toml").write_text("[export]\ninput-size = 64\n")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("VOC_ROOT", None)
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert re.search(r"validate rf-lw-mbv2 +2 over \d+ ", done.stderr)
    assert (tmp_path / "artifacts" / "rf-lw-mbv2" / "validation.json").is_file()
    assert not (tmp_path / "artifacts" / "rf-lw-mbv2" / ".cluster").exists()
    shutil.rmtree(tmp_path / "artifacts")
