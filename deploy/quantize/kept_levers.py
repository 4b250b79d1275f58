"""What the levers made of weights and biases, kept on disk: the next target need not pull again.

Targets that round weights on the same grid get the same integers and biases, whatever they do to
activations; a search over images is done once for all of them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph
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
        make: does what is not there; None: improve_weights itself, else a cluster in its place.
    """

    def __init__(
        self,
        folder: Path,
        profile: Profile,
        *,
        force: bool = False,
        make: Callable[..., ImprovedWeights] | None = None,
    ) -> None:
        grid = "channel" if profile.per_channel else "tensor"
        power = "-pow2" if profile.power_of_two else ""
        name = f"levers-{profile.weight_max}-{grid}{power}-{profile.bias}"
        self.path, self.force = folder / f"{name}.safetensors", force
        self.make = make or improve_weights

    def improve(
        self,
        graph: Graph,
        weights: Mapping[str, QuantizedWeight],
        images: Sequence[Float32Array],
        **settings: Any,
    ) -> ImprovedWeights:
        """Return what improve_weights does, from disk what was done before."""
        circumstances = stage_key("levers", graph=graph.sha256, images=_sha256(images), **settings)
        keys = {
            name: f"{circumstances} {_sha256([weight.q, weight.scale])}"
            for name, weight in weights.items()
        }
        known = ImprovedWeights(weights={}, biases={}, gain_db={})
        for path in [] if self.force else sorted(self.path.parent.glob("levers-*.safetensors")):
            known = _joined(known, _read(path, keys, weights))
        lacking = keys.keys() - known.weights.keys()
        if not lacking:
            return known
        made = self.make(graph, weights, images, **settings, only=lacking)
        improved = _joined(known, made)
        _write(self.path, keys, weights, improved)
        return improved


def _joined(one: ImprovedWeights, other: ImprovedWeights) -> ImprovedWeights:
    return ImprovedWeights(
        weights=one.weights | other.weights,
        biases=one.biases | other.biases,
        gain_db=one.gain_db | other.gain_db,
    )


def _read(
    path: Path, keys: Mapping[str, str], weights: Mapping[str, QuantizedWeight]
) -> ImprovedWeights:
    """Return what a file has of the convolutions with these keys; nothing if it is not whole."""
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, SafetensorError, ValueError, KeyError), safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()[METADATA])
        gains = {
            n: metadata["gain_db"][n] for n, key in metadata["keys"].items() if keys.get(n) == key
        }
        arrays = {name: file.get_tensor(name) for name in file.keys()} if gains else {}  # noqa: SIM118
        if gains and metadata["content_sha256"] == _arrays_sha256(arrays):
            changed, biases = _named(arrays, WEIGHT), _named(arrays, BIAS)
            return ImprovedWeights(
                weights={
                    name: QuantizedWeight(
                        q=changed.get(name, weights[name].q), scale=weights[name].scale
                    )
                    for name in gains
                },
                biases={name: bias for name, bias in biases.items() if name in gains},
                gain_db=gains,
            )
    return ImprovedWeights(weights={}, biases={}, gain_db={})


def _write(
    path: Path,
    keys: Mapping[str, str],
    nearest: Mapping[str, QuantizedWeight],
    improved: ImprovedWeights,
) -> None:
    """Keep what is another than the nearest integers, and the biases."""
    from safetensors.numpy import save_file

    arrays: Arrays = {
        f"{WEIGHT}{name}": weight.q
        for name, weight in improved.weights.items()
        if not np.array_equal(weight.q, nearest[name].q)
    }
    arrays |= {f"{BIAS}{name}": bias for name, bias in improved.biases.items()}
    metadata = {
        "content_sha256": _arrays_sha256(arrays),
        "keys": {name: keys[name] for name in sorted(improved.weights)},
        "gain_db": {name: improved.gain_db[name] for name in sorted(improved.weights)},
    }
    with replacing(path) as temporary:
        save_file(arrays, temporary, {METADATA: json.dumps(metadata)})


def _named(arrays: Arrays, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


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
