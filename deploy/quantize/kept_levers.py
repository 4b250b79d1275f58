"""What the levers made of weights and biases, kept on disk: the next target need not pull again.

Targets that round weights on the same grid get the same integers and biases, whatever they do to
activations; a search over images is done once for all of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph, graph_sha256
from deploy.graph.profile import Profile
from deploy.quantize.int8 import QuantizedWeight
from deploy.quantize.weights import ImprovedWeights, improve_weights
from deploy.store.files import replacing
from deploy.store.reuse import stage_key

Arrays = dict[str, NDArray[Any]]
METADATA = "deploy"  # one entry: the order of several is not the same in every file
WEIGHT, BIAS = "weight:", "bias:"  # before a node's name


class LeversFolder:
    """The levers' results in the folder of a network; use :meth:`improve` for improve_weights.

    Args:
        folder: of the network.
        profile: names the file that is written; those of all profiles are looked through.
        force: make anew what is there.
    """

    def __init__(self, folder: Path, profile: Profile, *, force: bool = False) -> None:
        grid = "channel" if profile.per_channel else "tensor"
        power = "-pow2" if profile.power_of_two else ""
        name = f"levers-{profile.weight_max}-{grid}{power}-{profile.bias}"
        self.path, self.force = folder / f"{name}.safetensors", force

    def improve(
        self,
        graph: Graph,
        weights: Mapping[str, QuantizedWeight],
        images: Sequence[Float32Array],
        **settings: Any,
    ) -> ImprovedWeights:
        """Return what improve_weights does, from disk if it was done before."""
        key = stage_key(
            "levers",
            graph=graph_sha256(graph.model),
            weights=_weights_sha256(weights),
            images=_sha256(images),
            **settings,
        )
        paths = [] if self.force else sorted(self.path.parent.glob("levers-*.safetensors"))
        for path in paths:
            found = _read(path, key, weights)
            if found is not None:
                return found
        improved = improve_weights(graph, weights, images, **settings)
        _write(self.path, key, weights, improved)
        return improved


def _read(path: Path, key: str, weights: Mapping[str, QuantizedWeight]) -> ImprovedWeights | None:
    """Return what is in a file if it is of that key and whole."""
    from safetensors import SafetensorError, safe_open

    arrays: Arrays = {}
    with suppress(OSError, SafetensorError, ValueError), safe_open(path, "np") as file:
        metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        if metadata.get("key") != key:
            return None
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["content_sha256"] != _arrays_sha256(arrays):
            return None
        gains = metadata["gain_db"]
        changed = _named(arrays, WEIGHT)
        return ImprovedWeights(
            weights={
                name: QuantizedWeight(q=changed.get(name, weights[name].q), scale=weight.scale)
                for name, weight in weights.items()
                if name in gains
            },
            biases=_named(arrays, BIAS),
            gain_db=gains,
        )
    return None


def _write(
    path: Path, key: str, nearest: Mapping[str, QuantizedWeight], improved: ImprovedWeights
) -> None:
    """Keep what is another than the nearest integers, and the biases."""
    from safetensors.numpy import save_file

    arrays: Arrays = {
        f"{WEIGHT}{name}": weight.q
        for name, weight in improved.weights.items()
        if not np.array_equal(weight.q, nearest[name].q)
    }
    arrays |= {f"{BIAS}{name}": bias for name, bias in improved.biases.items()}
    content = _arrays_sha256(arrays)
    metadata = {"key": key, "content_sha256": content, "gain_db": improved.gain_db}
    with replacing(path) as temporary:
        save_file(arrays, temporary, {METADATA: json.dumps(metadata)})


def _named(arrays: Arrays, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _weights_sha256(weights: Mapping[str, QuantizedWeight]) -> str:
    parts = {f"{name}.q": weight.q for name, weight in weights.items()}
    scales = {f"{name}.scale": weight.scale for name, weight in weights.items()}
    return _arrays_sha256({**parts, **scales})


def _arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    names = sorted(arrays)
    text = " ".join([*names, _sha256([arrays[name] for name in names])])
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {np.shape(array)} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
