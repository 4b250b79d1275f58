"""The search for the cheapest INT8 graph that passes the gate."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

from deploy.calibration import CalibrationError, RangeConfig, Sample
from deploy.calibration.voc import pick
from deploy.errors import DeployError
from deploy.graph.metadata import read_metadata
from deploy.graph.profile import Profile
from deploy.progress import Progress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.gate import Gate
from deploy.quantize.judge import Judge
from deploy.quantize.plan import Int8Plan
from deploy.quantize.preparation import Prepared
from deploy.quantize.quantization import find_quantized, write_int8
from deploy.quantize.sensitivity import int8_share
from deploy.quantize.written import QuantizedGraph
from deploy.store.files import write_whole
from deploy.store.reuse import read_sealed_json, seal_json
from deploy.targets import int8_name
from deploy.validate.classes import check_classes
from deploy.validate.scores import Result

SCHEMA = 1


MISSED = "-missed"  # ends the name of a graph that does not pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the search found."""

    plan: Int8Plan
    float_layers: tuple[str, ...]
    held: bool  # on the tuning set and, where that was so, on the evaluation split
    record: dict[str, Any]  # the content of gate.json


def search(
    prepared: Prepared,
    source: CalibrationSource,
    evaluated: Sequence[Sample],
    gate: Gate,
    plans: Sequence[Callable[[], Int8Plan]],
    progress: Progress,
) -> Outcome:
    """Return the cheapest INT8 graph that passes the gate, or the best there is within the budget.

    Args:
        prepared: the float graph.
        source: what calibrated; layers are ranked on some of it, and the images of its split that
            calibrated nothing are tuned on.
        evaluated: images with masks to confirm on, once.
        gate: what must hold.
        plans: makes the plan of each recipe to try, the cheapest first.
        progress: where to show what is going on.

    Raises:
        DeployError: the parameters are random and have no accuracy, or the graph is of other
            classes than the data.
        CalibrationError: there is no image to tune on.
    """
    name = prepared.target.name
    if read_metadata(prepared.graph.model).get("weights") == "random":
        raise DeployError(
            f"{name} has random parameters: they have no accuracy to hold; drop the gate"
        )
    check_classes(prepared.target.fp32, prepared.graph.model, source.data)
    if not source.others:
        raise CalibrationError(
            "every image of the split calibrates, none is left to tune on: lower --images"
        )
    tuning = tuning_set(source, gate)
    judge = Judge(prepared, tuning, source.data.classes, progress)
    steps: list[dict[str, Any]] = []
    float_layers: tuple[str, ...] = ()
    held = False
    for make in plans:
        plan = make()
        held = _try(judge, gate, plan, (), steps)
        if held:
            break
    if not held and gate.max_float_layers:
        float_layers, held = _return_layers(judge, gate, plan, source, steps)
    confirmed = None
    if held:
        result = judge.measure(plan, float_layers, evaluated, f"confirm {name}")
        confirmed, held = _figures(result), gate.holds(result)
    record = {
        "schema": SCHEMA,
        "gate": asdict(gate),
        "target": plan.profile.name,
        "tuning_images": len(tuning),
        "steps": steps,
        "float_layers": list(float_layers),
        "evaluated_images": len(evaluated) if confirmed else 0,
        "confirmed": confirmed,
        "held": held,
    }
    return Outcome(plan=plan, float_layers=float_layers, held=held, record=record)


def tuning_set(source: CalibrationSource, gate: Gate) -> list[Sample]:
    """Return the images that the search looks at."""
    return pick(source.others, min(gate.images, len(source.others))) if source.others else []


def find_gated(
    prepared: Prepared, profile: Profile, key: str, progress: Progress
) -> QuantizedGraph | None:
    """Return the graph of an earlier search if it and gate.json bear the seal of ``key``."""
    record = read_sealed_json(prepared.target.gate, key)
    if record is None:
        return None
    name, stale = _names(profile, held=record["held"])
    found = find_quantized(prepared, name, key, progress)
    if found is None:
        return None
    prepared.target.graph(stale).unlink(missing_ok=True)
    return replace(found, gate=record)


def write_gated(
    prepared: Prepared,
    outcome: Outcome,
    config: RangeConfig,
    progress: Progress,
    key: str | None = None,
) -> QuantizedGraph:
    """Write the graph that the search found and gate.json; a graph that missed has another name.

    The graph of the name that is not written now is removed: it was of an earlier search. Stopped
    in between, there is no gate.json, and never one of another graph. Both get the seal of ``key``.
    """
    target = prepared.target
    _, stale = _names(outcome.plan.profile, held=outcome.held)
    suffix = "" if outcome.held else MISSED
    target.gate.unlink(missing_ok=True)
    written = write_int8(
        prepared, outcome.plan, config, progress, outcome.float_layers, suffix, key
    )
    target.graph(stale).unlink(missing_ok=True)
    record = seal_json(outcome.record, key) if key else outcome.record
    write_whole(target.gate, json.dumps(record, indent=1) + "\n")
    return replace(written, gate=record)


def _names(profile: Profile, *, held: bool) -> tuple[str, str]:
    """Return the name of the graph, and that of the one that must not be there."""
    name = int8_name(profile.name)
    return (name, f"{name}{MISSED}") if held else (f"{name}{MISSED}", name)


def _try(
    judge: Judge,
    gate: Gate,
    plan: Int8Plan,
    exclude: Sequence[str],
    steps: list[dict[str, Any]],
) -> bool:
    """Measure a graph on the tuning set, note it, and say whether the gate holds."""
    label = f"{plan.recipe.name} {judge.name}"
    if exclude:
        label = f"{plan.recipe.name}, {len(exclude)} float {judge.name}"
    result = judge.measure(plan, exclude, judge.tuning, label)
    held = gate.holds(result)
    steps.append(
        {
            "recipe": plan.recipe.name,
            "float_layers": len(exclude),
            "int8_share_of_macs": int8_share(plan.graph, exclude),
            **_figures(result),
            "held": held,
        }
    )
    return held


def _return_layers(
    judge: Judge,
    gate: Gate,
    plan: Int8Plan,
    source: CalibrationSource,
    steps: list[dict[str, Any]],
) -> tuple[tuple[str, ...], bool]:
    """Return the fewest of the worst layers that must be float, and whether that suffices.

    Their number doubles until the gate holds, then the least that will do is sought between the
    last that failed and the first that passed.
    """
    ranked = judge.rank(plan, source)[: gate.max_float_layers]
    failed = 0
    for power in count():
        number = min(2**power, len(ranked))
        if _try(judge, gate, plan, ranked[:number], steps):
            break
        if number == len(ranked):
            return tuple(ranked), False
        failed = number
    while number - failed > 1:
        middle = (number + failed) // 2
        if _try(judge, gate, plan, ranked[:middle], steps):
            number = middle
        else:
            failed = middle
    return tuple(ranked[:number]), True


def _figures(result: Result) -> dict[str, Any]:
    """Return what is judged by, as plain values."""
    keys = ("miou", "miou_drop", "miou_ratio", "agreement", "sqnr_db", "latency_ms")
    content = result.to_json()
    return {key: content[key] for key in keys}
