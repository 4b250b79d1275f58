"""How long graphs take, all in turn in one process, and why an INT8 graph is not faster."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.errors import DeployError
from deploy.export.heads import refuse_wrapped
from deploy.graph.graph import Graph
from deploy.graph.integers import is_quantized
from deploy.graph.metadata import read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.inspect.inspection import find_form_of, graph_paths
from deploy.inspect.slowness import explain
from deploy.progress import Progress, SilentProgress
from deploy.runtimes.open import BACKENDS
from deploy.runtimes.runner import Execution, Runner, Runtime
from deploy.store.artifacts import DEFAULT_OUT, resolve_network
from deploy.store.environment import default_threads, describe_environment

WARM_UP = 2  # turns that do not count
DEFAULT_RUNS = 30
OPEN_SIZE = (500, 500)  # of inputs whose size the graph leaves open
FASTER = 0.95  # of the float graph's time: above it an INT8 graph is not called faster
FLOAT32 = "float32"

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one graph takes in one runtime."""

    path: Path
    runtime: str
    form: str  # "float32", "float16", "QDQ", …
    target: str | None  # that its metadata name
    input_size: tuple[int, int]
    median_ms: float
    p95_ms: float
    images_per_second: float
    default_ms: float | None  # median with default options, where these compute something else
    ratio: float | None  # median over the turns of its time by the first float32 graph's
    execution: Execution | None  # of quantized graphs
    slow_because: list[str]  # why a quantized graph is not faster than float32, where it is not


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """What was measured, and where."""

    environment: dict[str, Any]
    threads: int
    runs: int
    exact_options: dict[str, str]  # by runtime, where its kernels saturate by default
    graphs: list[Timing]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A graph that is ready to be timed."""

    path: Path
    runtime: Runtime
    runner: Runner
    form: str
    target: str | None
    size: tuple[int, int]
    default: Runner | None = None  # with default options, where these compute something else

    @property
    def is_quantized(self) -> bool:
        return self.form not in (FLOAT32, "float16")


def latency(
    targets: Sequence[str],
    *,
    runtimes: Sequence[Runtime] = (Runtime.ONNXRUNTIME,),
    threads: int | None = None,
    runs: int = DEFAULT_RUNS,
    out: Path = DEFAULT_OUT,
    progress: Progress | None = None,
) -> Latencies:
    """Measure graphs on one random image each, batch 1, in turn, so that ratios are fair.

    Args:
        targets: paths of ONNX files, and variants, of which it is every graph in ``out``.
        runtimes: what runs them; ratios are to the float32 graph in the first one.
        threads: by default all processors that this process may use.
        runs: of each graph.
        out: the folder of the artifacts.
        progress: where to show what is going on.

    Raises:
        DeployError, GraphError: a target is none, or a graph cannot be run.
    """
    progress = progress or SilentProgress()
    for runtime in runtimes:
        if BACKENDS[runtime].soc is not None:
            raise DeployError(f"{runtime} emulates a chip: its time says nothing of the chip's")
    threads = threads or default_threads()
    found = [path for name in targets for path in graph_paths(resolve_network(name, out))]
    paths = list(dict.fromkeys(found))
    with progress.step("load"):
        entries = {
            (path, runtime): _open(path, runtime, threads)
            for runtime in dict.fromkeys(runtimes)
            for path in paths
        }
    calls = {key: _call(entry.runner, entry.size) for key, entry in entries.items()}
    defaults = {
        (*key, "default"): _call(entry.default, entry.size)
        for key, entry in entries.items()
        if entry.default
    }
    with progress.step("latency"):
        seconds = time_in_turn({**calls, **defaults}, runs)
    told = {runtime: BACKENDS[runtime].exact_options() for runtime in runtimes}
    return Latencies(
        environment=describe_environment(),
        threads=threads,
        runs=runs,
        exact_options={runtime.value: text for runtime, text in told.items() if text},
        graphs=[_describe(entry, entries, seconds) for entry in entries.values()],
    )


def time_in_turn(calls: Mapping[K, Callable[[], object]], runs: int) -> dict[K, list[float]]:
    """Return the seconds of each call in each turn; every other turn goes backwards.

    What a machine does meanwhile thus meets all of them alike, and none always follows the same.
    """
    seconds: dict[K, list[float]] = {key: [] for key in calls}
    for turn in range(-WARM_UP, runs):
        for key in list(calls)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            calls[key]()
            if turn >= 0:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def _open(path: Path, runtime: Runtime, threads: int) -> _Entry:
    model = read_graph(path)
    refuse_wrapped(model, path, "measure the graph without these")
    backend = BACKENDS[runtime]
    with naming(path):
        runner = backend.open(path, threads, backend.exact_in_8_bits)  # as it is deployed
        differs = backend.exact_in_8_bits and is_quantized(model) and backend.exact_options()
        default = backend.open(path, threads, False) if differs else None
        return _Entry(
            path=path,
            runtime=runtime,
            runner=runner,
            form=find_form_of(model),
            target=read_metadata(model).get("target"),
            size=Graph(model).size_or(OPEN_SIZE),
            default=default,
        )


def _call(runner: Runner, size: tuple[int, int]) -> Callable[[], object]:
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    return lambda: runner(image)


Key = tuple[Path, Runtime]


def _describe(
    entry: _Entry,
    entries: Mapping[Key, _Entry],
    seconds: Mapping[tuple[Path, Runtime] | tuple[Path, Runtime, str], list[float]],
) -> Timing:
    own = np.array(seconds[entry.path, entry.runtime])
    first = next(iter(entries.values())).runtime
    base = _find_base(entry, first, entries)
    same_runtime = _find_base(entry, entry.runtime, entries)
    execution = entry.runner.execution() if entry.is_quantized else None
    reasons: list[str] = []
    if execution and same_runtime and _ratio(own, seconds[same_runtime]) > FASTER:
        sets = describe_environment()["instruction_sets"]
        reasons = explain(
            entry.path, entry.runtime, entry.form, entry.target, execution, instructions=sets
        )
    return Timing(
        path=entry.path,
        runtime=entry.runtime.value,
        form=entry.form,
        target=entry.target,
        input_size=entry.size,
        median_ms=1000 * float(np.median(own)),
        p95_ms=1000 * float(np.percentile(own, 95)),
        default_ms=None
        if entry.default is None
        else 1000 * float(np.median(seconds[entry.path, entry.runtime, "default"])),
        images_per_second=len(own) / float(own.sum()),
        ratio=None if base is None else _ratio(own, seconds[base]),
        execution=execution,
        slow_because=reasons,
    )


def _ratio(own: NDArray[np.float64], base: Sequence[float]) -> float:
    """Return the median over the turns of one time over another."""
    return float(np.median(own / np.array(base)))


def _find_base(entry: _Entry, runtime: Runtime, entries: Mapping[Key, _Entry]) -> Key | None:
    """Return the float32 graph to compare with: that of the same folder, else the first one."""
    keys = [key for key, other in entries.items() if other.form == FLOAT32 and key[1] is runtime]
    beside = [key for key in keys if key[0].parent == entry.path.parent]
    return next(iter([*beside, *keys]), None)
