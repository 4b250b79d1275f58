"""Labels for a user's own images: a mask and an overlay each, at the image's own size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy import models
from deploy.calibration import CLASSES, Fit
from deploy.calibration.preprocess import Size
from deploy.calibration.voc import read_image
from deploy.errors import DeployError
from deploy.export.heads import refuse_wrapped
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.predict.image_paths import find_images, name_results
from deploy.predict.labelling import label_image, run_checked, show_share
from deploy.predict.overlay import encode_mask, encode_overlay
from deploy.progress import Progress, SilentProgress
from deploy.runtimes.open import open_graph
from deploy.runtimes.runner import Runner
from deploy.runtimes.torch import TorchRunner
from deploy.store.files import write_whole
from deploy.validate.classes import name_classes, read_class_names

DEFAULT_SIZE: Size = (500, 500)
DEFAULT_PREDICTIONS = Path("predictions")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that is ready to predict."""

    name: str
    runner: Runner
    size: Size  # of its input, height and width
    logits_size: Size
    fit: Fit  # how images become inputs
    classes: tuple[str, ...]  # by label
    weights: str | None  # where the parameters come from, if that is known


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was written for one image."""

    image: Path
    mask: Path
    overlay: Path
    size: Size  # of all three, height and width
    shares: dict[str, float]  # class -> share of the image's area, the largest first


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What was predicted, and by what."""

    model: str
    weights: str | None
    fit: str
    input_size: Size
    images: list[Prediction]


def predict(
    model: str,
    images: Sequence[str],
    *,
    variant: str | None = None,
    weights: Path | None = None,
    fit: Fit | None = None,
    input_size: Size | None = None,
    out: Path = DEFAULT_PREDICTIONS,
    progress: Progress | None = None,
) -> Predictions:
    """Write ``<out>/<name>-mask.png`` and ``<out>/<name>-overlay.png`` for each image.

    All images are read before anything is written, so that a bad one stops it in time.

    Args:
        model: a variant's id, for its torch network; the path of an ONNX file; or that of a torch
            checkpoint, with ``variant``.
        images: files, folders, or patterns (see :func:`deploy.predict.image_paths.find_images`).
        variant: of a checkpoint.
        weights: the parameters of a variant; by default those that ``deploy export`` would take.
        fit: how images become inputs; by default as the graph's metadata say, else crop. An image
            that is longer than a cropped input is seen in several windows: nothing is left out.
        input_size: where the graph does not fix it; by default 500x500.
        out: the folder of the results.
        progress: where to show what is going on.

    Raises:
        DeployError, ModelError, DataError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    paths = find_images(images)
    results = name_results(paths, out)
    for path in progress.track(paths, "read"):
        read_image(path, upright=True)
    network = open_network(model, variant, weights, fit, input_size)
    pairs = list(zip(paths, results, strict=True))
    return Predictions(
        model=network.name,
        weights=network.weights,
        fit=network.fit.value,
        input_size=network.size,
        images=[_predict(network, *pair) for pair in progress.track(pairs, "predict")],
    )


def _predict(network: Network, path: Path, result: Path) -> Prediction:
    """Label one image and write what comes of it."""
    image = read_image(path, upright=True)
    size = (image.shape[0], image.shape[1])
    labels = label_image(network.runner, image, network.fit, network.size, network.logits_size)
    areas = np.bincount(labels.ravel(), minlength=len(network.classes)) / labels.size
    present = [int(label) for label in np.argsort(-areas, kind="stable") if areas[label]]
    shares = {network.classes[label]: float(areas[label]) for label in present}
    legend = {
        label: f"{network.classes[label]} {show_share(float(areas[label]))}" for label in present
    }
    # not with_suffix: a name may hold a dot
    mask, overlay = (result.parent / f"{result.name}-{what}.png" for what in ("mask", "overlay"))
    write_whole(mask, encode_mask(labels))
    write_whole(overlay, encode_overlay(image, labels, legend))
    return Prediction(image=path, mask=mask, overlay=overlay, size=size, shares=shares)


def open_network(
    model: str,
    variant: str | None = None,
    weights: Path | None = None,
    fit: Fit | None = None,
    input_size: Size | None = None,
) -> Network:
    """Load what :func:`predict` takes as ``model``.

    Raises:
        DeployError: it is none of the three, or an argument does not go with it.
        ModelError: the parameters cannot be loaded.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        if variant or weights:
            raise DeployError(f"{model} has its parameters in it: leave out --variant, --weights")
        with naming(path):
            return _open_onnx(path, fit, input_size)
    if model in models.VARIANTS:
        if variant not in (None, model):
            raise DeployError(f"{model} is a variant itself: leave out --variant {variant}")
        variant = model
    elif not path.is_file():
        raise DeployError(
            f"{model!r} is neither a variant ({', '.join(models.VARIANTS)}) nor an .onnx file or a "
            "checkpoint"
        )
    elif variant is None or weights:
        raise DeployError(f"{model} is a checkpoint: say of which network with --variant alone")
    else:
        weights = path
    module, source = models.build_with_weights(variant, weights)
    size = input_size or DEFAULT_SIZE
    classes = name_classes(module, source, None)
    return _tried(variant, TorchRunner(module), size, fit or Fit.CROP, classes, str(source))


def _open_onnx(path: Path, fit: Fit | None, input_size: Size | None) -> Network:
    graph = Graph(read_graph(path))
    refuse_wrapped(graph.model, path, "predict with the graph without these, it has the logits")
    metadata = read_metadata(graph.model)
    size = graph.size_or(input_size or DEFAULT_SIZE)
    if input_size not in (None, size):
        raise DeployError(f"{path} takes images of {size[0]}x{size[1]}: leave out --input-size")
    fit = fit or Fit(metadata.get("fit", Fit.CROP.value))
    classes = read_class_names(graph.model)
    return _tried(str(path), open_graph(path), size, fit, classes, metadata.get("weights"))


def _tried(
    name: str,
    runner: Runner,
    size: Size,
    fit: Fit,
    classes: tuple[str, ...] | None,
    weights: str | None,
) -> Network:
    """Return a network that has been run once: what it gives is known.

    Without names for its classes they are VOC's, if there are 21, else class0, class1, ….
    """
    logits = run_checked(runner, np.zeros((1, 3, *size), dtype=np.float32))
    if classes is None or len(classes) != len(logits):
        count = len(logits)
        classes = CLASSES if count == len(CLASSES) else tuple(f"class{i}" for i in range(count))
    return Network(
        name=name,
        runner=runner,
        size=size,
        logits_size=(logits.shape[1], logits.shape[2]),
        fit=fit,
        classes=classes,
        weights=weights,
    )
