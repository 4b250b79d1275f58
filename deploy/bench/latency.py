"""``python -m deploy.bench.latency FILES``: graphs in both runtimes, in turn, and nothing else.

Unlike the whole benchmark it takes seconds: for a moment in which the machine is quiet.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from deploy import display
from deploy.bench.measure import measure_latency
from deploy.bench.table import LATENCY_COLUMNS, latency_cells
from deploy.environment import describe_environment
from deploy.errors import USER_ERRORS
from deploy.graph import Graph, read_graph


def latency(
    files: Annotated[list[Path], typer.Argument(help="ratios are to the first one")],
    passes: Annotated[int, typer.Option(min=1, help="of each graph")] = 30,
) -> None:
    """Measure the latency of ONNX files, batch 1, median of passes taken in turn."""
    graphs = {str(path): path for path in files}
    size = Graph(read_graph(files[0])).input_size
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    rows = measure_latency(graphs, image, passes, base=str(files[0]))
    cells = [[name, *latency_cells(row)] for name, row in rows.items()]
    environment = describe_environment()
    title = f"{passes} passes, {environment['threads']} threads, {environment['date']}"
    display.table(title, ["graph", *LATENCY_COLUMNS], cells, left=1)


if __name__ == "__main__":
    try:
        typer.run(latency)
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
