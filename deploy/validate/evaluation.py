"""Measure a target: its torch network and its graphs, side by side, on the images of a split."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy import models
from deploy.calibration import DataError
from deploy.calibration.record import file_sha256
from deploy.cluster.client import Cluster
from deploy.errors import DeployError, GraphError
from deploy.export.heads import refuse_wrapped
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_fit, read_metadata, read_texts
from deploy.graph.reading import naming, read_graph
from deploy.progress import Progress
from deploy.runtimes.open import open_graph
from deploy.runtimes.runner import Backend, Execution, Runner, Runtime
from deploy.runtimes.torch import TorchRunner
from deploy.store.artifacts import SCHEMA, Network
from deploy.store.environment import command_line, describe_environment
from deploy.store.reuse import images_sha256, stage_key
from deploy.targets import GRAPHS, VENDOR, executed_in, graphs_for
from deploy.validate.classes import check_classes
from deploy.validate.closeup import find_int8, measure_layers
from deploy.validate.default_options import separate
from deploy.validate.evaluation_set import EvaluationSet
from deploy.validate.examples import WorstImages
from deploy.validate.protocol import Protocol
from deploy.validate.side_by_side import SideBySide
from deploy.validate.spread_evaluation import GraphOn, TorchOn
from deploy.validate.stored_results import GATE, find_problem
from deploy.validate.turns import in_groups

BASELINE = "torch"
FLOATS = frozenset({"fp32", "fp16"})
COST = ("miou_drop", "miou_ratio")
ACCURACY = ("miou", "per_class_iou", "pixel_accuracy", *COST)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The results of a target as plain values, and the pictures that they name."""

    result: dict[str, Any]  # validation.json (docs/formats.md)
    pictures: Mapping[str, bytes]  # by file name


def measure(
    network: Network,
    data: EvaluationSet,
    protocol: Protocol | None,
    baseline: str | None,
    weights: Path | None,
    backend: Backend,
    progress: Progress,
    cluster: Cluster | None = None,
) -> Measurement:
    """Return the results of a target.

    What random parameters score against the masks is no accuracy: it is left out (None), and so is
    the latency of an emulator. Layers and pictures are those of the default runtime. A cluster does
    the images; latency is always this machine's, which the results describe.

    Raises:
        DeployError: it has no graph, or a graph is of other parameters than torch's network, of
            another input size, of other classes than the data, or was calibrated on an image that
            is evaluated.
        ModelError, DataError: as the stages raise.
    """
    paths = _graph_paths(network, backend)
    checked = {name: _check_graph(path, data) for name, path in paths.items()}
    metadata = {name: entries for name, (entries, _) in checked.items()}
    sizes = {size for _, size in checked.values()}
    if len(sizes) > 1:
        raise GraphError(f"{network.folder} holds graphs of different input sizes: export again")
    (size,) = sizes
    first = next(iter(metadata.values()))
    protocol = protocol or Protocol(read_fit(first, next(iter(paths.values()))).value)
    variant = network.name if network.is_variant else baseline or first.get("variant")
    if variant is not None and variant not in models.VARIANTS and not baseline:
        raise GraphError(
            f"{next(iter(paths.values()))} is of variant {variant!r} by its metadata, which is "
            "unknown: pass --baseline with one of 'deploy models'"
        )
    networks: dict[str, Callable[[], Runner]] = {}
    spread_over: dict[str, GraphOn | TorchOn] = {}
    random = {name for name, entries in metadata.items() if entries.get("weights") == "random"}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "name": network.name,
        "variant": variant,
        "dataset": data.describe(protocol, size),
        "environment": describe_environment(),
        "command": command_line(),
        "runtime": backend.runtime.value,
        "soc": backend.soc,
        "exact_options": backend.exact_options(),
        "weights": None,
    }
    if variant is not None:
        classes = len(data.data.classes)
        module, source = models.build_with_weights(variant, weights, classes)
        sha256 = models.state_dict_hash(module)
        _check_weights(network, metadata, sha256)
        random |= set() if source.trained else {BASELINE}
        result |= {
            "weights": {"source": source.kind, "sha256": sha256},
            "parameters": models.count_parameters(module),
            "macs": models.count_macs(module, *size),
        }
        networks[BASELINE] = partial(TorchRunner, module)
        if cluster is not None:
            spread_over[BASELINE] = TorchOn.of(cluster, variant, classes, module, network.folder)
        del module  # the network's turn takes it along
    networks |= {name: partial(open_graph, path, backend) for name, path in paths.items()}
    is_default = backend.runtime is Runtime.ONNXRUNTIME
    is_looked_at = is_default and network.is_variant and BASELINE in networks
    int8 = find_int8(paths) if is_looked_at else None
    watch = None
    if int8 is not None and not random & {BASELINE, int8}:  # else there is no accuracy to be seen
        watch = WorstImages(BASELINE, int8, data.data)
    sizes_of = {name: _file_facts(paths.get(name), result.get("parameters")) for name in networks}
    side_by_side = SideBySide(
        openers=networks,
        groups=in_groups({name: facts["size_bytes"] for name, facts in sizes_of.items()}),
        samples=data.samples,
        protocol=protocol,
        size=size,
        baseline=BASELINE if BASELINE in networks else None,
        class_names=list(data.data.classes),
        watch=watch,
        name=network.name,
        progress=progress,
    )
    with naming(network.given or network.folder):
        if cluster is None:
            measured = side_by_side.here()
        else:
            spread_over |= {n: GraphOn.of(cluster, path, backend) for n, path in paths.items()}
            timed = {BASELINE} if backend.soc else set(spread_over)
            measured = side_by_side.on(cluster, spread_over, network.folder, timed)
    executions = side_by_side.executions
    scores, defaults = separate(measured)
    result["calibration"] = _describe_calibration(metadata)
    result["gate"] = _read_gate(network)
    result["results"] = {
        name: score.to_json()
        | _describe_execution(executions[name])
        | ({"latency_ms": None} if backend.soc and name != BASELINE else {})
        | dict.fromkeys(_without_meaning(name, random))
        | {"default_options": _with_meaning(defaults[name], _without_meaning(name, random))}
        | sizes_of[name]
        for name, score in scores.items()
    }
    result["layers"] = None
    if int8 is not None and "fp32" in paths:
        with progress.step(f"layers {network.name}"):
            # of random parameters one image shows as much as several
            chosen = data.samples[:1] if int8 in random else data.samples
            layers = measure_layers(paths["fp32"], paths[int8], chosen, protocol.fit, size)
        result["layers"] = {"graph": int8, **layers}
    examples = watch and watch.examples()
    result["examples"] = examples and examples.record
    return Measurement(result=result, pictures=examples.pictures if examples else {})


def _check_graph(path: Path, data: EvaluationSet) -> tuple[dict[str, str], tuple[int, int]]:
    """Return a graph's metadata and input size; raises GraphError, DataError if it is no good."""
    model = read_graph(path)
    refuse_wrapped(model, path, "validate the graph without these, it has the logits")
    with naming(path):
        Graph(model).check_output()
        size = Graph(model).input_size
    check_classes(path, model, data.data)
    metadata = read_metadata(model)
    _refuse_overlap(path, metadata, data)
    return metadata, size


def validation_key(
    network: Network,
    data: EvaluationSet,
    protocol: Protocol | None,
    weights: Path | None,
    backend: Backend,
) -> str:
    """Return the SHA-256 of all that a variant's results depend on: see :func:`measure`.

    The machine is part of it, for the latency; the day is not.

    Raises:
        DeployError: the variant has no graph.
        ModelError: there is no checkpoint at ``weights``.
    """
    source = models.find_weights(network.name, weights)
    return stage_key(
        "validate",
        name=network.name,
        graphs={name: file_sha256(path) for name, path in _graph_paths(network, backend).items()},
        gate=file_sha256(network.gate) if network.gate.is_file() else None,
        weights=[source.kind, source.path and file_sha256(source.path)],
        images=images_sha256(data.samples, masks=True),
        skipped=data.skipped,
        data=[data.data.name, data.data.classes, data.data.ignore, data.data.colors],
        split=data.split,
        protocol=protocol,
        runtime=[backend.runtime, backend.soc, backend.exact_options()],
        environment=describe_environment() | {"date": None},
    )


def _without_meaning(name: str, random: set[str]) -> tuple[str, ...]:
    """Return which figures of a network mean nothing, given whose parameters are random."""
    if name in random:
        return ACCURACY
    return COST if BASELINE in random else ()


def _with_meaning(
    figures: dict[str, Any] | None, without: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return figures, None in place of those that mean nothing."""
    return figures and {k: None if k in without else value for k, value in figures.items()}


def _graph_paths(network: Network, backend: Backend) -> dict[str, Path]:
    """Return the graphs to measure by the name that their results get.

    A runtime that does not execute others gets the INT8 graphs that are made for it, and, unless
    it emulates a chip and takes its time, the float ones. What others' quantizers made for another
    runtime is left to that one: it may be the only one that can load it.
    """
    if network.given is not None:
        return {network.name: network.given}
    wanted = graphs_for(backend.runtime)
    if backend.takes_others:
        wanted |= {name for name in GRAPHS if not name.endswith(VENDOR)}
    elif backend.soc is None:
        wanted |= FLOATS
    paths = {name: network.graph(name) for name in GRAPHS if name in wanted}
    paths = {name: path for name, path in paths.items() if path.is_file()}
    if not paths and not backend.takes_others:
        made_for = executed_in(backend.runtime)[0].name
        raise DeployError(
            f"{network.name} has no graph for {backend.runtime} in {network.folder}: run "
            f"'deploy quantize {network.name} --int8 --target {made_for}'"
        )
    if not paths:
        raise DeployError(
            f"{network.name} has no graph in {network.folder}: run 'deploy export {network.name}' "
            f"and 'deploy quantize {network.name}'"
        )
    return paths


def _refuse_overlap(path: Path, metadata: dict[str, str], data: EvaluationSet) -> None:
    """Refuse to evaluate a graph on an image that calibrated it, whatever its name."""
    calibrated = set(read_texts(metadata, "calibration_images", path))
    shared = [image.name for image in data.images if image.sha256 in calibrated]
    if shared:
        raise DataError(
            f"{path} was calibrated with {len(shared)} of the images to evaluate ({shared[0]}"
            f"{', …' if len(shared) > 1 else ''}): evaluate on another split, or calibrate on one"
        )


def _check_weights(network: Network, metadata: dict[str, dict[str, str]], sha256: str) -> None:
    """Refuse to compare a graph with a torch network of other parameters."""
    if not network.is_variant:
        return
    for name, entries in metadata.items():
        if entries.get("weights_sha256") != sha256:
            raise DeployError(
                f"{network.graph(name)} was exported from other parameters (its metadata: "
                f"{entries.get('weights', 'none')}) than torch would load: pass --weights with "
                f"that checkpoint, or run 'deploy export {network.name}' and 'deploy quantize' "
                "again"
            )


def _describe_execution(execution: Execution | None) -> dict[str, Any]:
    """Return how many convolutions computed in 8 bits, of how many, and what memory it takes.

    Of torch's network that is None, the memory of what runs on this processor likewise, and what
    is told of a device where nothing is.
    """
    if execution is None:
        return {"int8_convolutions": None, "footprint": None, "device": None}
    footprint = execution.footprint and dict(execution.footprint)
    device = execution.device and dict(execution.device)
    counts = [execution.integer_convolutions, execution.convolutions]
    return {"int8_convolutions": counts, "footprint": footprint, "device": device}


def _describe_calibration(metadata: dict[str, dict[str, str]]) -> dict[str, Any] | None:
    """Return how the 8-bit graph was calibrated, if there is one."""
    for entries in metadata.values():
        if "calibration_images" in entries:
            return {
                "method": entries.get("calibration_method"),
                "images": len(json.loads(entries["calibration_images"])),
                "recipe": entries.get("recipe"),
            }
    return None


def _read_gate(network: Network) -> dict[str, Any] | None:
    """Return what the accuracy gate of a variant's INT8 graph tried, if it had one."""
    if not network.gate.is_file():
        return None
    try:
        content: Any = json.loads(network.gate.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeployError(f"{network.gate} cannot be read ({error}): delete it") from None
    if problem := find_problem(content, GATE):
        raise DeployError(f"{network.gate} {problem}: delete it")
    return dict(content)


def _file_facts(path: Path | None, parameters: int | None) -> dict[str, Any]:
    """Return size and hash of a graph's file; of torch's network, the size of its parameters."""
    if path is None:
        return {"size_bytes": 4 * (parameters or 0), "sha256": None}
    return {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
