"""Names and number of classes: which ones a graph gets, and whether they are a data set's."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from deploy import models
from deploy.calibration import CLASSES, DataError, DataSet, describe_data_set, find_voc_root
from deploy.calibration.dataset import FILE_NAME
from deploy.errors import GraphError
from deploy.graph.metadata import read_metadata

if TYPE_CHECKING:
    from torch import nn

KEY = "classes"  # of the metadata


def find_named_data_set(voc_root: Path | None) -> DataSet | None:
    """Return the data set whose classes an export takes over.

    That is the one at ``voc_root``; without it, a data set with a ``dataset.toml`` where
    :func:`deploy.calibration.find_voc_root` looks. None: there is none, and none is needed.

    Raises:
        DataError: there is none at ``voc_root``, or its ``dataset.toml`` cannot be used.
    """
    if voc_root is not None:
        return describe_data_set(find_voc_root(voc_root))
    try:
        root = find_voc_root()
    except DataError:
        return None
    data = describe_data_set(root)
    return data if data.own else None


def name_classes(
    module: "nn.Module", source: models.WeightsSource, data: DataSet | None
) -> tuple[str, ...]:
    """Return the names of a network's classes, by label.

    They are the data set's, if there is one; else those in the checkpoint; else VOC's for 21
    classes; else class0, class1, …

    Raises:
        GraphError: the checkpoint names other classes than the data set, or another order.
    """
    count = models.count_classes(module.state_dict()) or 0
    stored = models.read_class_names(source.path) if source.path else None
    if stored is not None and len(stored) != count:
        stored = None  # another tool's key of that name
    if data is not None:
        if stored is not None:
            _compare(f"{source.path}", stored, data)
        return data.classes
    return stored or (CLASSES if count == len(CLASSES) else _placeholders(count))


def read_class_names(model: onnx.ModelProto) -> tuple[str, ...] | None:
    """Return the names of a graph's classes; None if it has none, or not one for each logit."""
    text = read_metadata(model).get(KEY)
    names = tuple(text.split(",")) if text else ()
    count = count_classes(model)
    if not names or names == _placeholders(len(names)) or (count and count != len(names)):
        return None
    return names


def count_classes(model: onnx.ModelProto) -> int | None:
    """Return the number of logits a pixel that a graph declares; None if it leaves that open."""
    if not model.graph.output:
        return None  # what would run it says so
    dims = model.graph.output[0].type.tensor_type.shape.dim
    return dims[1].dim_value or None if len(dims) == 4 else None


def check_classes(path: Path, model: onnx.ModelProto, data: DataSet) -> None:
    """Refuse a graph on data of other classes, also where only their order is another.

    A graph without names, such as one of another tool, must have as many classes.

    Raises:
        GraphError: with both counts, or the first label on which the two differ.
    """
    count = count_classes(model)
    if count is not None and count != len(data.classes):
        raise GraphError(_other_count(f"{path}", count, data))
    names = read_class_names(model)
    if names is not None:
        _compare(f"{path}", names, data)


def check_same_classes(sets: Sequence[DataSet]) -> None:
    """Refuse to mix data sets of other classes; raises DataError with the first difference."""
    first = sets[0]
    for other in sets[1:]:
        if len(other.classes) != len(first.classes):
            raise DataError(
                f"data sets {first.name} ({first.root}) and {other.name} ({other.root}) have "
                f"{len(first.classes)} and {len(other.classes)} classes: mix those of one list only"
            )
        if other.classes != first.classes:
            label = _first_difference(first.classes, other.classes)
            raise DataError(
                f"label {label} is {first.classes[label]!r} in data set {first.name} "
                f"({first.root}), but {other.classes[label]!r} in {other.name} ({other.root}): mix "
                "those of one list only"
            )


def _compare(what: str, names: tuple[str, ...], data: DataSet) -> None:
    """Raise GraphError unless ``names`` are the data set's."""
    if len(names) != len(data.classes):
        raise GraphError(_other_count(what, len(names), data))
    if names == data.classes:
        return
    label = _first_difference(names, data.classes)
    order = ", the same classes in another order" if set(names) == set(data.classes) else ""
    where = data.root / FILE_NAME if data.own else "a dataset.toml"
    raise GraphError(
        f"label {label} is {names[label]!r} in {what}, but {data.classes[label]!r} in data set "
        f"{data.name}{order}: correct the classes in {where}, or name the right data with "
        "--voc-root, at the export too"
    )


def _other_count(what: str, count: int, data: DataSet) -> str:
    return (
        f"{what} has {count} classes, but data set {data.name} has {len(data.classes)}: name the "
        "data that it was made for with --voc-root"
    )


def _first_difference(one: Sequence[str], other: Sequence[str]) -> int:
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)


def _placeholders(count: int) -> tuple[str, ...]:
    return tuple(f"class{label}" for label in range(count))
