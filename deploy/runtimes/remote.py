"""Running a network that a worker holds."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.preprocess import Float32Array
from deploy.runtimes.runner import cannot
from deploy.runtimes.worker import WorkerError


class Asked(Protocol):
    """A worker, whether or not it is started again."""

    name: str
    folder: Path

    def ask(self, seconds: float, **request: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        ...


def run_in(
    worker: Asked, graph: str, seconds: float, image: Float32Array, do: str = "run", **more: str
) -> NDArray[Any]:
    """Return what a worker's program makes of an image, by way of files.

    Args:
        worker: answers ``do`` with ``image`` and ``result``, the files of arrays, and ``more``.
        graph: for messages.
        seconds: that it may take.
        image: in the form that the program wants.
        do: the request.
        more: of its arguments.

    Raises:
        GraphError: it fails, ends or gives no answer in time.
    """
    given, got = (worker.folder / f"{each}.npy" for each in ("image", "result"))
    np.save(given, image)
    try:
        worker.ask(seconds, do=do, image=str(given), result=str(got), **more)
    except WorkerError as error:
        raise cannot("run", worker.name, graph, error) from None
    found: NDArray[Any] = np.load(got)
    return found
