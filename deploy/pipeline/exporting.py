"""From a checkpoint to the float graph: export → simplify."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from deploy import models
from deploy.calibration import Fit
from deploy.calibration.preprocess import MEAN, STD
from deploy.errors import DeployError
from deploy.export.heads import refuse_wrapped, write_wrapped
from deploy.export.interface import Interface
from deploy.export.simplify import SimplifiedGraph, simplify_onnx
from deploy.export.trace import Difference, compare_with_torch, export_onnx
from deploy.graph.metadata import set_metadata
from deploy.graph.reading import naming, read_graph
from deploy.progress import REUSED, Progress, SilentProgress
from deploy.store.artifacts import DEFAULT_OUT, Network, resolve_network
from deploy.store.files import write_whole
from deploy.store.locks import hold
from deploy.store.memory import give_back
from deploy.store.reuse import read_sealed_graph, seal_graph, stage_key
from deploy.validate.classes import find_named_data_set, name_classes

Size = tuple[int, int]
DEFAULT_SIZE: Size = (500, 500)
MAX_SIDE = 8192  # pixels


@dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """What an export wrote, and the evidence that it is right."""

    variant: str
    path: Path
    weights: str  # "random", or where the parameters come from
    classes: tuple[str, ...]  # by label
    difference: Difference | None  # to torch; of a graph that is reused, when it was made
    simplified: SimplifiedGraph | None  # likewise
    reused: bool = False  # it was there already, made from the same
    wrapped: Path | None = None  # the same graph with the interface that was asked for


def export(
    variant: str,
    *,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    input_size: Size = DEFAULT_SIZE,
    fit: Fit = Fit.CROP,
    interface: Interface | None = None,
    voc_root: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportedGraph:
    """Export a variant to ``<out>/<variant>/fp32.onnx``, simplified and proved equal to torch.

    A graph that is there already, made from the same, is kept unless ``force`` is set. With
    ``voc_root`` the graph's classes get that data set's names, and must be as many. With an
    ``interface``, that graph with it stands beside (deploy/export/heads.py): ``fp32-labels.onnx``.

    Raises:
        ModelError: the variant is unknown or its parameters cannot be loaded.
        DataError: there is no data set at ``voc_root``.
        ExportError: the graph does not compute what torch computes.
        DeployError: the file cannot be written.
    """
    progress = progress or SilentProgress()
    if min(input_size) < 32:
        raise DeployError(
            f"input size {input_size[0]}x{input_size[1]} is below 32x32: use a larger one"
        )
    if max(input_size) > MAX_SIDE:
        raise DeployError(
            f"input size {input_size[0]}x{input_size[1]} is above {MAX_SIDE}x{MAX_SIDE}: use a "
            "smaller one"
        )
    target = resolve_network(variant, out)
    with hold(target.folder, progress):
        with progress.step(f"export {variant}") as step:
            data = find_named_data_set(voc_root)
            count = None if data is None else len(data.classes)
            module, source = models.build_with_weights(variant, weights, count)
            classes = name_classes(module, source, data)
            metadata = _describe_export(variant, module, source, classes, fit)
            key = stage_key("export", size=input_size, **metadata)
            reused = not force and read_sealed_graph(target.fp32, key) is not None
            if reused:
                step.note = REUSED
            else:
                traced = [export_onnx(module, input_size)]
                set_metadata(traced[0], metadata)
        difference, simplified = None, None
        if not reused:
            with progress.step(f"simplify {variant}"):
                simplified = simplify_onnx(traced.pop())  # nothing else holds it: it is let go
                difference = compare_with_torch(simplified.logits, module, input_size)
                give_back()
                sealed = seal_graph(simplified.model, key)
                write_whole(target.fp32, sealed.SerializeToString(deterministic=True))
        wrapped = write_wrapped(target.fp32, interface or Interface())
    return ExportedGraph(
        variant=variant,
        path=target.fp32,
        weights=str(source),
        classes=classes,
        difference=difference,
        simplified=simplified,
        reused=reused,
        wrapped=wrapped,
    )


def _describe_export(
    variant: str,
    module: nn.Module,
    source: models.WeightsSource,
    classes: Sequence[str],
    fit: Fit,
) -> dict[str, str]:
    """Return the metadata of an exported graph (docs/formats.md)."""
    return {
        "variant": variant,
        "weights": str(source),
        "weights_sha256": models.state_dict_hash(module),
        "classes": ",".join(classes),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "fit": fit.value,
    }


def export_if_missing(
    target: Network,
    weights: Path | None,
    out: Path,
    fit: Fit | None,
    voc_root: Path | None,
    progress: Progress,
) -> None:
    """Export a variant that has no float graph yet."""
    if target.is_variant and not target.fp32.is_file():
        export(
            target.name,
            weights=weights,
            out=out,
            fit=fit or Fit.CROP,
            voc_root=voc_root,
            progress=progress,
        )


def simplify(path: Path, output: Path | None = None) -> SimplifiedGraph:
    """Simplify an ONNX file into ``output``, by default ``<stem>-simplified.onnx`` beside it.

    Raises:
        GraphError: the file is no valid graph or cannot be simplified.
        ExportError: the result computes something else.
        DeployError: the file cannot be written.
    """
    model = read_graph(path)
    refuse_wrapped(model, path, "simplify the graph without these")
    with naming(path):
        simplified = simplify_onnx(model)
    write_whole(
        output or path.with_name(f"{path.stem}-simplified.onnx"),
        simplified.model.SerializeToString(),
    )
    return simplified
