"""From ``--cluster`` to a connection: to an address, or to workers on this machine."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.errors import ClusterError, DeployError
from deploy.store.environment import default_threads

if TYPE_CHECKING:
    import distributed

CONNECT_SECONDS = 10
LOCAL = "local"
ROUTES = "distributed.scheduler.http.routes"  # of its pages
PROFILE = "distributed.worker.profile.enabled"  # it looks at all threads every 10 ms
FORMS = "tcp://HOST:8786, tls://HOST:8786, local, local:N or a scheduler's FILE.json"
# Ctrl-C in a terminal reaches the workers too, which shall end what they have begun.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
TLS = {"tls_ca_file": "CA_FILE", "tls_client_cert": "CLIENT__CERT", "tls_client_key": "CLIENT__KEY"}


def find_place(text: str) -> str:
    """Return the scheduler's address that a user means, or "local:N".

    Args:
        text: see FORMS; a scheduler's file has its address.

    Raises:
        ClusterError: it is none of these, or the file cannot be read.
        DeployError: Dask's distributed is not installed.
    """
    if find_spec("distributed") is None:
        raise DeployError(
            "distributed is not installed: run \"pip install 'refinenet-deploy[cluster]'\""
        )
    if text == LOCAL:
        return f"{LOCAL}:{default_threads()}"
    if text.startswith(f"{LOCAL}:"):
        number = text.partition(":")[2]
        if not (number.isascii() and number.isdigit() and int(number) > 0):
            raise ClusterError(f"--cluster {text!r}: the number of workers must be at least 1")
        return text
    return _address(text)


@contextmanager
def connected(place: str) -> Iterator["distributed.Client"]:
    """Yield a connection to a scheduler.

    Args:
        place: as :func:`find_place` returns it. ``local:N`` starts N workers of one slot each,
            which end with the command; they speak TLS with a certificate of their own.

    Raises:
        ClusterError: no scheduler answers, or there are no certificates for it.
    """
    _silence()
    if place.startswith(f"{LOCAL}:"):
        workers = int(place.partition(":")[2])
        with _local(workers) as own, closing(_client(own, own.security)) as client:
            yield client
        return
    try:
        client = _client(place, _security(place))
    except (OSError, TimeoutError):
        raise ClusterError(
            f"no scheduler answers at {place}: start one with 'dask scheduler', or see whether "
            "host and port are right"
        ) from None
    with closing(client):
        yield client


def _silence() -> None:
    """Keep Dask, which sets up loggers of its own when it is loaded, from telling what we tell."""
    import distributed  # noqa: F401

    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _client(where: Any, security: Any) -> "distributed.Client":
    from distributed import Client

    return Client(where, security=security, timeout=CONNECT_SECONDS, set_as_default=False)


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    with (
        dask.config.set({PROFILE: False, ROUTES: []}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            preload=[DEAF_TO_CTRL_C],
        ) as cluster,
    ):
        yield cluster


def _address(text: str) -> str:
    """Return the address of a scheduler, which a file may hold."""
    if text.endswith(".json"):
        path = Path(text)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            address = str(content["address"])
        except OSError as error:
            raise ClusterError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ClusterError(
                f"{path} is no scheduler's file: 'dask scheduler --scheduler-file {path}' writes it"
            ) from None
        source = f"{path} has the address"
    else:
        address, source = text, "--cluster"
    protocol, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if protocol not in ("tcp", "tls") or not host or not port.isdigit() or int(port) > 65535:
        raise ClusterError(f"{source} {address!r}: {FORMS} is expected")
    return address


def _security(address: str) -> Any:
    """Return the certificates that Dask is configured with, where the address asks for them."""
    from distributed.security import Security

    if not address.startswith("tls://"):
        return None
    security = Security(require_encryption=True)
    for field, name in TLS.items():
        given = getattr(security, field)
        variable = f"DASK_DISTRIBUTED__COMM__TLS__{name}"
        if not given and field != "tls_client_key":  # it may be in the certificate's file
            raise ClusterError(f"{address} needs certificates: set {variable} (docs/cluster.md)")
        if given and "\n" not in given and not Path(given).is_file():
            raise ClusterError(f"no file {given} for {address}: see {variable} (docs/cluster.md)")
    return security
