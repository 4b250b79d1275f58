"""Calibrate a target, or reuse its calibration, and write its FP16 and INT8 graphs."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from calibration import (
    Calibration,
    CalibrationError,
    CalibrationKey,
    DataError,
    Fit,
    Method,
    RangeConfig,
    Sample,
    choose_method,
    choose_range,
    find_voc_root,
    observe,
    preprocess,
    read_calibration,
    read_split,
)
from calibration.observe import SAMPLES
from calibration.preprocess import Float32Array
from calibration.record import CalibrationImage, identify
from calibration.voc import pick, read_image
from deploy.artifacts import Target, int8_name
from deploy.files import write_whole
from deploy.graph import (
    Graph,
    graph_sha256,
    read_graph,
    read_metadata,
    set_metadata,
    with_node_names,
)
from deploy.progress import Progress
from deploy.quantize.fp16 import convert_fp16
from deploy.quantize.int8 import quantize_int8
from deploy.quantize.placement import Placement, place
from deploy.quantize.rewrite import rewrite
from deploy.runtime import OnnxRunner, default_threads
from deploy.targets import DEFAULT_TARGET, PROFILES, Profile

EVALUATION_SPLIT = "val"


@dataclass(frozen=True, kw_only=True)
class CalibrationSource:
    """The images that calibrate."""

    split: str
    samples: list[Sample]
    images: tuple[CalibrationImage, ...]

    @classmethod
    def find(cls, voc_root: Path | None, split: str, count: int) -> "CalibrationSource":
        """Pick ``count`` images of ``split``, evenly spaced over its list.

        Raises:
            DataError: there is no such data.
            CalibrationError: the split has fewer images, or shares one with the evaluation split.
        """
        root = find_voc_root(voc_root)
        listed = read_split(root, split)
        if not 1 <= count <= len(listed):
            raise CalibrationError(
                f"{count} calibration images asked for, but split {split!r} of {root} has "
                f"{len(listed)}: pass --images with 1 to {len(listed)}"
            )
        samples = pick(listed, count)
        try:
            evaluated = {s.name for s in read_split(root, EVALUATION_SPLIT)}
        except DataError:
            evaluated = set()  # no such split: validation checks again, by content
        shared = sorted(evaluated & {s.name for s in samples})
        if shared:
            raise CalibrationError(
                f"{len(shared)} calibration images of split {split!r} are also in "
                f"{EVALUATION_SPLIT!r} ({shared[0]}, …): accuracy would be flattered; calibrate "
                "with images of 'train'"
            )
        return cls(split=split, samples=samples, images=identify(samples))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A float graph that is ready to be quantized."""

    target: Target
    graph: Graph
    placement: Placement  # of the default profile: it observes what any needs
    calibration: Calibration
    reused: bool  # the calibration was on disk already


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """What a quantization wrote."""

    target: str
    precision: str
    path: Path
    size_bytes: int
    quantized_nodes: int
    kept_float: dict[str, str]  # node -> reason
    calibration_reused: bool
    methods: dict[str, str] = field(default_factory=dict)  # tensor -> what `auto` chose for it


def prepare(
    target: Target, source: CalibrationSource, fit: Fit | None, progress: Progress
) -> Prepared:
    """Read a target's float graph and calibrate it, unless its calibration is there already.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: its statistics cannot be collected, or an old file cannot be read.
    """
    model = with_node_names(read_graph(target.fp32))
    graph = Graph(model)
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    fit = fit or Fit(read_metadata(model).get("fit", Fit.CROP.value))
    size = graph.input_size
    key = CalibrationKey(
        graph_sha256=graph_sha256(model),
        fit=fit,
        images=source.images,
        samples_per_tensor=SAMPLES,
    )
    if target.calibration.is_file():
        found = read_calibration(target.calibration)
        if found.key == key:
            return Prepared(
                target=target, graph=graph, placement=placement, calibration=found, reused=True
            )

    def inputs() -> Iterator[Float32Array]:
        for sample in progress.track(source.samples, f"calibrate {target.name}"):
            yield preprocess(read_image(sample.image), fit, size)

    tensors = observe(
        model,
        {name: graph.shapes[name] for name in placement.observed},
        inputs(),
        non_negative=placement.non_negative,
        threads=default_threads(),
    )
    calibration = Calibration(key=key, tensors=tensors)
    write_whole(target.calibration, calibration.to_json())
    return Prepared(
        target=target, graph=graph, placement=placement, calibration=calibration, reused=False
    )


def write_fp16(prepared: Prepared, progress: Progress) -> QuantizedGraph:
    """Write ``fp16.onnx``; nodes whose measured values do not fit a half stay FP32."""
    with progress.step(f"fp16 {prepared.target.name}"):
        tensors = prepared.calibration.tensors
        magnitudes = {
            name: max(abs(tensors[root].minimum), abs(tensors[root].maximum))
            for name, root in prepared.placement.scale_of.items()
        }
        half = convert_fp16(prepared.graph, magnitudes)
        count = len(prepared.graph.model.graph.node) - len(half.kept_float)
        return _write(prepared, "fp16", half.model, count, half.kept_float, {"precision": "fp16"})


def write_int8(
    prepared: Prepared,
    config: RangeConfig,
    progress: Progress,
    profile: Profile = PROFILES[DEFAULT_TARGET],
    exclude: Collection[str] = frozenset(),
) -> QuantizedGraph:
    """Write the INT8 graph for a profile, with ranges chosen by ``config``.

    Raises:
        GraphError: a node in ``exclude``, which shall stay float, cannot.
    """
    name = int8_name(profile.name)
    with progress.step(f"{name} {prepared.target.name}"):
        placement = place(prepared.graph, profile, exclude)
        tensors = {tensor: prepared.calibration.tensors[tensor] for tensor in placement.observed}
        methods = {tensor: choose_method(found, config) for tensor, found in tensors.items()}
        ranges = {
            tensor: choose_range(found, replace(config, method=methods[tensor]))
            for tensor, found in tensors.items()
        }
        model = rewrite(quantize_int8(prepared.graph, placement, ranges, profile), profile)
        metadata = {
            "precision": "int8",
            "target": profile.name,
            "calibration_method": config.method.value,
            "calibration_images": json.dumps([i.sha256 for i in prepared.calibration.key.images]),
        }
        chosen = {}
        if config.method == Method.AUTO:
            chosen = {tensor: method.value for tensor, method in methods.items()}
            metadata["calibration_methods"] = json.dumps(chosen)
        if exclude:
            metadata["kept_float"] = json.dumps(sorted(exclude))
        count, kept = len(placement.nodes), placement.kept_float
        return replace(_write(prepared, name, model, count, kept, metadata), methods=chosen)


def _write(
    prepared: Prepared,
    name: str,
    model: onnx.ModelProto,
    quantized_nodes: int,
    kept_float: dict[str, str],
    metadata: dict[str, str],
) -> QuantizedGraph:
    """Check a graph, see that it loads, write it whole, and describe it."""
    source = prepared.graph.model
    set_metadata(
        model,
        {
            **read_metadata(source),
            "fit": prepared.calibration.key.fit.value,
            "source_sha256": prepared.calibration.key.graph_sha256,
            **metadata,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    OnnxRunner(model)
    content = model.SerializeToString(deterministic=True)
    path = prepared.target.graph(name)
    write_whole(path, content)
    return QuantizedGraph(
        target=prepared.target.name,
        precision=metadata["precision"],
        path=path,
        size_bytes=len(content),
        quantized_nodes=quantized_nodes,
        kept_float=kept_float,
        calibration_reused=prepared.reused,
    )
