"""How long graphs take, all in turn in one process, and why an INT8 graph is not faster."""

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.arguments import takes_plain
from deploy.artifacts import DEFAULT_OUT, resolve_target
from deploy.environment import describe_environment
from deploy.errors import GraphError
from deploy.execution import Execution, describe_execution
from deploy.graph import Graph, naming, read_graph, read_metadata
from deploy.heads import refuse_wrapped
from deploy.inspection import find_form_of, graph_paths
from deploy.lint import lint
from deploy.progress import Progress, SilentProgress
from deploy.runtime import (
    OnnxRunner,
    OpenVinoRunner,
    Runner,
    Runtime,
    default_threads,
    exact_options,
)
from deploy.targets import PROFILES
from deploy.work import is_quantized

WARM_UP = 2  # turns that do not count
DEFAULT_RUNS = 30
OPEN_SIZE = (500, 500)  # of inputs whose size the graph leaves open
FASTER = 0.95  # of the float graph's time: above it an INT8 graph is not called faster
INTEGER_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
ARM = {"asimddp", "i8mm"}
NAMES = 3  # of nodes, in a sentence
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
    runner: OnnxRunner | OpenVinoRunner
    form: str
    target: str | None
    size: tuple[int, int]
    default: OnnxRunner | None = None  # with default options, where these compute something else

    @property
    def is_quantized(self) -> bool:
        return self.form not in (FLOAT32, "float16")


@takes_plain
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
    threads = threads or default_threads()
    found = [path for name in targets for path in graph_paths(resolve_target(name, out))]
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
    with progress.step("bench"):
        seconds = time_in_turn({**calls, **defaults}, runs)
    told = {runtime: exact_options(runtime) for runtime in runtimes}
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
    runner: OnnxRunner | OpenVinoRunner
    default: OnnxRunner | None = None
    with naming(path):
        if runtime is Runtime.OPENVINO:  # as it is deployed: it has no exact 8-bit kernels to offer
            runner = OpenVinoRunner(path, threads, exact=False)
        else:
            runner = OnnxRunner(path, threads)
            if is_quantized(model) and exact_options(runtime):
                default = OnnxRunner(path, threads, exact=False)
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
    execution = describe_execution(entry.runner) if entry.is_quantized else None
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


def explain(
    path: Path,
    runtime: Runtime,
    form: str,
    target: str | None,
    execution: Execution,
    instructions: Collection[str],
) -> list[str]:
    """Return why a quantized graph is not faster than the float one, the likeliest first.

    Args:
        path: of the graph.
        runtime: that executed it.
        form: of its quantization.
        target: that its metadata name.
        execution: what the runtime made of it.
        instructions: the processor's, as deploy/environment.py names them.
    """
    found = []
    if not INTEGER_PRODUCTS.intersection(instructions):
        found.append(
            "this processor has no instructions for 8-bit products (VNNI or AMX on x86, dot "
            "products on ARM)"
        )
    if form == "dynamic":
        found.append("its scales are found anew while it runs: quantize it with deploy quantize")
    found += _wrong_form(path, runtime, target, bool(ARM.intersection(instructions)))
    if names := execution.float_convolutions:
        count = f"{len(names)} of {execution.convolutions} convolutions compute in float"
        found.append(f"{count}: {_first(names)}")
    if execution.float_nodes:
        parts = [f"{len(n)} {kind} ({_first(n)})" for kind, n in execution.float_nodes.items()]
        found.append(f"other nodes compute in float: {', '.join(parts)}")
    if execution.conversions > 2:  # more than one where it begins and one where it ends
        found.append(f"{execution.conversions} conversions between float and integers, every run")
    return found or [
        "all its nodes compute in integers: it is too small to gain, or the machine is busy "
        "(more --runs)"
    ]


def _wrong_form(path: Path, runtime: Runtime, target: str | None, is_arm: bool) -> list[str]:
    """Return whether a graph has another form than the runtime computes in integers."""
    own = "openvino" if runtime is Runtime.OPENVINO else "ort-arm" if is_arm else "ort"
    if target in _served_by(own):
        return []
    if target in PROFILES:
        return [
            f"its Q/DQ are in the form of target {target}: deploy quantize --int8 --target {own} "
            f"makes what {runtime.value} computes in integers"
        ]
    try:
        broken = dict.fromkeys(finding.rule for finding in lint(read_graph(path), own))
    except GraphError:
        return []  # integer operators: they run as they are
    if not broken:
        return []
    return [
        f"it breaks rules of target {own} ({', '.join(broken)}): deploy lint {path} --target {own} "
        "names each node"
    ]


def _served_by(own: str) -> set[str]:
    """Return the targets whose graphs a runtime computes in integers (docs/targets.md)."""
    if own == "openvino":
        return {"ort", "ort-avx2", "openvino", "tensorrt", "qnn", "pow2"}
    return {own, "ort", "ort-avx2", "qnn"}


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES]) + (", …" if len(names) > NAMES else "")
