"""What need not be made again: artifacts that say themselves what they were made from.

Each bears a seal: the SHA-256 of its stage's key (:func:`stage_key`) and of its own content. Where
an artifact has the seal that the next run would give it, that run has nothing to add. A file that
was made from something else, was cut off, changed or brought from elsewhere has another.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx

from deploy.calibration import Sample
from deploy.calibration.record import file_sha256
from deploy.errors import GraphError
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.graph.reading import read_graph

SEAL = "stage_sha256"
LIBRARIES = (
    *("ai-edge-litert", "ai-edge-quantizer"),
    *("ncnn", "nncf", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-qnn", "onnxscript"),
    *("onnxsim", "openvino", "pillow", "torch"),
)
SOURCES = (".py", ".toml", ".txt")


def stage_key(stage: str, **inputs: Any) -> str:
    """Return the SHA-256 of a stage and of all that its result depends on.

    That is our own code and the versions of the libraries, which are added here, and ``inputs``:
    plain values, or what has a text that tells it from others.
    """
    content = {"stage": stage, "code": code_sha256(), "libraries": libraries(), **inputs}
    return _sha256(json.dumps(content, sort_keys=True, default=str).encode())


def seal_graph(model: onnx.ModelProto, key: str) -> onnx.ModelProto:
    """Write the seal into the metadata of ``model``, in place; returns it."""
    metadata = _without_seal(read_metadata(model))
    set_metadata(model, metadata | {SEAL: _seal(key, _graph_content(model))})
    return model


def read_sealed_graph(path: Path, key: str) -> onnx.ModelProto | None:
    """Return the graph at ``path`` if it bears the seal that ``key`` gives it."""
    if not path.is_file():
        return None
    try:
        model = read_graph(path)
    except GraphError:
        return None
    found = read_metadata(model).get(SEAL)
    return model if found == _seal(key, _graph_content(model)) else None


def seal_json(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return plain values with their seal, the last of them."""
    content = _without_seal(content)
    return content | {SEAL: _seal(key, json.dumps(content).encode())}


def read_sealed_json(path: Path, key: str) -> dict[str, Any] | None:
    """Return the object in the file at ``path`` if it bears the seal that ``key`` gives it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or SEAL not in content:
        return None
    return content if seal_json(content, key)[SEAL] == content[SEAL] else None


def graph_identity(graph: Graph) -> list[str]:
    """Return hashes of all that a graph hands on to those made from it: nodes, metadata."""
    metadata = _without_seal(read_metadata(graph.model))
    return [graph.sha256, _sha256(json.dumps(metadata, sort_keys=True).encode())]


def images_sha256(samples: Sequence[Sample], *, masks: bool = False) -> str:
    """Return the SHA-256 over names and contents of images, and of masks, in their order."""
    lines = []
    for sample in samples:
        files = (sample.image, sample.mask) if masks else (sample.image,)
        lines.append(" ".join([sample.name, *map(file_sha256, files)]))
    return _sha256("\n".join(lines).encode())


def _seal(key: str, content: bytes) -> str:
    return _sha256(f"{key} {_sha256(content)}".encode())


def _graph_content(model: onnx.ModelProto) -> bytes:
    """Return the serialized model without its seal; it is the same afterwards."""
    metadata = read_metadata(model)
    set_metadata(model, _without_seal(metadata))
    content: bytes = model.SerializeToString(deterministic=True)
    set_metadata(model, metadata)
    return content


def _without_seal(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if name != SEAL}


@cache
def code_sha256() -> str:
    """Return the SHA-256 of our own sources: a release's number stays while they change.

    The records of toolchains are among them.
    """
    root = Path(__file__).resolve().parent.parent
    packages = (root, root / "calibration", root / "models")  # two are links in a checkout
    files = {
        path.resolve()
        for package in packages
        for path in package.rglob("*")
        if path.suffix in SOURCES
    }
    listing = sorted(f"{path.name} {file_sha256(path)}\n" for path in files)
    return _sha256("".join(listing).encode())


@cache
def libraries() -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
