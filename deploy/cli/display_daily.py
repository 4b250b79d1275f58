"""What ``predict``, ``inspect`` and ``bench`` print: text for a person, JSON for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from deploy.cli import display
from deploy.cli.display import print_json
from deploy.predict.labelling import show_share
from deploy.report.figures import number, percent

if TYPE_CHECKING:
    from deploy.inspect.inspection import Inspection, Value
    from deploy.inspect.latency import Latencies, Timing
    from deploy.predict.predict import Predictions

SHOWN = 8  # lines of a list that may be long
NOISY = 1.5  # p95 by median: other work disturbs what is measured
LONGEST = 64  # characters of a metadata value


def predicted(result: Predictions, *, as_json: bool) -> None:
    """Print the classes of each image with their shares of its area, and where the results are."""
    if as_json:
        return print_json(asdict(result))
    source = f", weights: {result.weights}" if result.weights else ""
    height, width = result.input_size
    print(f"{result.model}{source}, input {height}x{width}, fit {result.fit}\n")
    for found in result.images:
        shares = ", ".join(f"{name} {show_share(share)}" for name, share in found.shares.items())
        print(f"{found.image}  {found.size[1]}x{found.size[0]}  {shares}")
        print(f"  {found.mask}  {found.overlay}")
    if result.weights == "random":
        print("\nrandom: seeded random parameters, which predict nothing; pass --weights")
    return None


def inspected(results: Sequence[Inspection], *, tensors: bool, as_json: bool) -> None:
    """Print what is in graphs; with ``tensors``, also every activation's scale and range."""
    if as_json:
        return print_json([result.to_json() for result in results])
    for i, result in enumerate(results):
        if i:
            print()
        _inspected(result, tensors=tensors)
    return None


def _inspected(result: Inspection, *, tensors: bool) -> None:
    megabytes = f"{result.size_bytes / 1e6:.1f} MB"
    facts = [result.form, megabytes, f"opset {result.opset}", result.producer]
    print(f"{result.path}: {', '.join(fact for fact in facts if fact)}")
    for kind, values in (("input", result.inputs), ("output", result.outputs)):
        print(f"  {kind:<8}{', '.join(map(_value, values))}")
    cost = f"{result.parameters:,} parameters"
    macs = "MACs unknown: a shape is not fixed"
    if result.macs is not None:
        macs = f"{result.macs:,} multiply-accumulates"
    print(f"  {'cost':<8}{cost}, {macs}")
    for key, value in result.metadata.items():
        shown = value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value)} characters)"
        print(f"  {key:<20}  {shown}")
    _operators(result)
    _precision(result)
    if result.target is not None or result.activations:
        _scales(result, tensors=tensors)
        _findings(result)


def _value(value: Value) -> str:
    return f"{value.name} {value.type} {'x'.join(map(str, value.shape))}"


def _operators(result: Inspection) -> None:
    before = result.before.operators if result.before else {}
    title = "\noperators"
    if result.before:
        source = "" if result.before.is_source is not False else ", of another graph"
        size = f"{result.before.size_bytes / 1e6:.1f} MB"
        title = f"\noperators, before: {result.before.path} ({size}{source})"
    names = sorted({*before, *result.operators}, key=lambda n: (-result.operators.get(n, 0), n))
    rows = [[n, str(before.get(n, 0)), str(result.operators.get(n, 0))] for n in names]
    columns = ["operator", "before", "nodes"]
    if not result.before:
        rows, columns = [[row[0], row[2]] for row in rows], ["operator", "nodes"]
    display.table(title, columns, rows, left=1)


def _precision(result: Inspection) -> None:
    """Print how much is computed in 8 bits or in half, and what stays float."""
    numbers = "half" if result.form == "float16" else "integers"
    if result.form == "float32":
        return
    shares = [result.share(numbers, of_work=of_work) for of_work in (False, True)]
    nodes, work = (percent(share, 1) for share in shares)
    print(f"in {numbers}: {nodes}% of the nodes, {work}% of the multiply-accumulates")
    in_float = [node for node in result.nodes if node.numbers == "float"]
    in_float.sort(key=lambda node: -(node.macs or 0))  # what costs most first
    if in_float:
        counts = Counter(node.operator for node in in_float).most_common()
        print("in float: " + ", ".join(f"{count} {operator}" for operator, count in counts))
    total = result.macs or 0
    lines = [
        f"  {node.node} ({node.operator})"
        + (f": {node.reason}" if node.reason else "")
        + (f", {percent(node.macs / total, 1)}% of the work" if node.macs and total else "")
        for node in in_float
    ]
    _some(lines)


def _some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(line)
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more (--json has all)")


def _scales(result: Inspection, *, tensors: bool) -> None:
    found = result.activations
    types = Counter(tensor.type for tensor in found)
    shown = ", ".join(f"{count} {name}" for name, count in types.items()) or "none with a scale"
    title = f"\nactivations: {shown}"
    if found and tensors:
        rows = [
            [t.tensor, t.type, *(f"{v:.4g}" for v in (t.low, t.high, t.scale)), str(t.zero_point)]
            for t in found
        ]
        display.table(title, ["tensor", "type", "low", "high", "scale", "zero"], rows, left=2)
    else:
        print(title)
    if found and not tensors:
        low, high = (f(found, key=lambda t: t.high - t.low) for f in (min, max))
        for what, tensor in (("narrowest", low), ("widest", high)):
            print(
                f"  {what} range: {tensor.tensor} {tensor.low:.4g} … {tensor.high:.4g} "
                f"(scale {tensor.scale:.4g}, zero point {tensor.zero_point})"
            )
    if result.unreadable_scales:
        print(f"  {result.unreadable_scales} nodes have scales that are no constants: not shown")
    _weights(result)
    if result.suspicions:
        print(f"{len(result.suspicions)} to look at:")
        _some([f"  {s.what}: {s.where}: {s.problem}" for s in result.suspicions])
    else:
        print("no scale looks wrong")


def _weights(result: Inspection) -> None:
    forms = Counter(
        f"{w.type} {'per channel' if w.scales > 1 else 'per tensor'}" for w in result.weights
    )
    biases = Counter(w.bias or "float or no" for w in result.weights)
    if forms:
        shown = ", ".join(f"{count} {form}" for form, count in forms.items())
        print(f"weights: {shown}; {', '.join(f'{n} {kind} biases' for kind, n in biases.items())}")


def _findings(result: Inspection) -> None:
    if result.target is None:
        return None
    if result.unchecked:
        return print(f"rules of target {result.target}: not checked: {result.unchecked}")
    if not result.findings:
        return print(f"rules of target {result.target}: clean")
    rules: Mapping[str, int] = Counter(finding.rule for finding in result.findings)
    shown = ", ".join(f"{rule} ({count})" for rule, count in rules.items())
    print(f"rules of target {result.target} that it breaks: {shown}")
    return print(f"  deploy lint {result.path} --target {result.target} names each node")


def timed(result: Latencies, *, as_json: bool) -> None:
    """Print what graphs take, how their nodes were executed, and why one is not faster."""
    from deploy.report.processor import say_exact

    if as_json:
        return print_json(result.to_json())
    environment = result.environment
    runtimes = {timing.runtime for timing in result.graphs}
    versions = ", ".join(f"{n} {v}" for n, v in environment["versions"].items() if n in runtimes)
    sets = ", ".join(environment["instruction_sets"]) or "no 8-bit or vector instructions known"
    print(f"{environment['cpu']} ({sets})")
    title = f"threads: {result.threads}, runs: {result.runs}, {versions}, {environment['date']}"
    rows = [
        [
            str(timing.path),
            timing.runtime,
            timing.form,
            number(timing.median_ms),
            number(timing.p95_ms),
            number(timing.images_per_second),
            number(timing.ratio, 2),
        ]
        for timing in result.graphs
    ]
    columns = ["graph", "runtime", "form", "median ms", "p95 ms", "images/s", "x FP32"]
    display.table(title, columns, rows, left=3)
    if all(timing.ratio is None for timing in result.graphs):
        print("no float32 graph to compare with: name one, too")
    if len({timing.input_size for timing in result.graphs}) > 1:
        print("inputs differ in size: ratios compare different work")
    if any(timing.p95_ms > NOISY * timing.median_ms for timing in result.graphs):
        print(f"times vary, p95 is over {NOISY} times a median: a busy machine; try more --runs")
    for runtime, options in result.exact_options.items():
        timings = [timing for timing in result.graphs if timing.runtime == runtime]
        costs = [timing.median_ms / timing.default_ms for timing in timings if timing.default_ms]
        print(say_exact(runtime, options, costs))
    for timing in result.graphs:
        _executed(timing)
    return None


def _executed(timing: Timing) -> None:
    """Say how a quantized graph was executed, and why it is not faster."""
    execution = timing.execution
    if execution is None:
        return
    label = f"{timing.path} in {timing.runtime}"
    done = f"{execution.integer_convolutions} of {execution.convolutions} convolutions in 8 bits"
    rest = ", ".join(f"{len(names)} {kind}" for kind, names in execution.float_nodes.items())
    print(f"{label}: {done}; in float: {rest or 'nothing else'}")
    if timing.slow_because:
        print("  WARNING: not faster than float32, because")
        for reason in timing.slow_because:
            print(f"  - {reason}")
