"""Finding, reading and checking parameters."""

import hashlib
import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from deploy.models.classes import count_classes
from deploy.models.errors import ModelError
from deploy.models.sources import WeightsSource, find_weights
from deploy.models.unpickle import load_inert
from deploy.models.variants import VOC_CLASSES, build

# Keys under which training scripts store the parameters; the first that is there counts.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "segmenter", "net", "network", "params"),
    *("state_dict_ema", "model_ema", "ema"),
)
# What DataParallel, torch.compile, Lightning and others put before all keys of a module.
PREFIXES = ("module", "_orig_mod", "model", "segmenter", "net", "network")


def build_with_weights(
    variant_id: str, weights: Path | None = None, num_classes: int | None = None
) -> tuple[nn.Module, WeightsSource]:
    """Build a network and fill it from where :func:`find_weights` points to.

    Args:
        variant_id: the network.
        weights: a checkpoint of the user's.
        num_classes: what the parameters must be for; by default the checkpoint's own number, or 21
            for random ones.

    Raises:
        ModelError: as :func:`find_weights` and :func:`load_checkpoint`, or the checkpoint is for
            another number of classes.
    """
    source = find_weights(variant_id, weights)
    if source.path is None:
        module = build(variant_id, num_classes or VOC_CLASSES)
        fill_random(module)
        return module, source
    state = read_state_dict(source.path)
    found = count_classes(state)
    if num_classes and found and found != num_classes:
        raise ModelError(
            f"{source.path} has {found} classes, but the data has {num_classes}: pass --weights "
            "with a checkpoint for these, such as 'deploy train' writes"
        )
    module = build(variant_id, found or num_classes or VOC_CLASSES)
    return module, replace(source, stored_as=fill(module, state, source.path))


def load_checkpoint(module: nn.Module, path: Path | str) -> str | None:
    """Fill ``module`` in place, strictly, with the parameters in ``path``.

    Reads safetensors, and torch files, without running code in them: a plain state dict, or one
    under one of WRAPPERS; of PREFIXES, what is before all keys is dropped.

    Returns:
        The floating-point types in the file where they are not float32 alone, else None.

    Raises:
        ModelError: the file cannot be read, has an entry both with and without that prefix, or has
            missing, unexpected, wrongly shaped, non-finite entries or such of integers; the message
            names the first few and the counts.
    """
    return fill(module, read_state_dict(Path(path)), Path(path))


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> str | None:
    """Fill ``module`` in place with what was read from ``path``: see :func:`load_checkpoint`."""
    problems = find_problems(module.state_dict(), state)
    if problems:
        raise ModelError(f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(_with_counters(module, state), strict=True)
    return other_types(state)


def other_types(state: Mapping[str, Tensor]) -> str | None:
    """Return the floating-point types of parameters if any is not float32, else None."""
    types = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()}
    return ", ".join(sorted(types)) if types - {"float32"} else None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the parameters in ``path`` by name; raises ModelError as :func:`load_checkpoint`."""
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            _check_archive(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what matters becomes an error below
                content = _load_torch(path)
    except ModelError:
        raise
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {path}: pass the path of an existing file") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is no readable safetensors file: {_one_line(error)}") from None
    except Exception as error:  # torch.load raises anything, from KeyError to UnpicklingError
        raise ModelError(
            f"{path} is no torch checkpoint that can be read without running code in it "
            f"({_one_line(error)}): save a plain state dict, or safetensors"
        ) from None
    return _unwrap(content, path)


def _load_torch(path: Path) -> Any:
    """Return what a torch file holds; nothing in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds more than tensors and containers
        return load_inert(path)


def _check_archive(path: Path) -> None:
    """Look into a torch file that is a ZIP archive before torch does, which trusts it.

    Raises:
        ModelError: it holds code, unpacks to more than it is, or its checksums do not hold.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's older format, or none of torch's
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = [e for e in entries if e.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ModelError(
                    f"{path} unpacks to more than it is: torch.save writes no such file"
                )
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                raise ModelError(
                    f"{path} is a TorchScript archive, which holds code: save the module's "
                    "state_dict()"
                )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is damaged ({_one_line(error)}): copy or save it anew") from None
    if damaged:
        raise ModelError(f"{path} is damaged (the checksum of {damaged}): copy or save it anew")


def state_dict_hash(module: nn.Module) -> str:
    """Return the SHA-256 of names, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue  # plays no part in inference
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fill_random(module: nn.Module, seed: int = 0) -> None:
    """Fill ``module`` in place with seeded random parameters, alike on every machine.

    Convolutions get He et al.'s normal initialization (arXiv 1502.01852, fan in); what is added to
    a shortcut is scaled down so that activations neither vanish nor grow with depth.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict().items()):
            if tensor.dim() == 4:
                std = math.sqrt(2 / tensor[0].numel())
                tensor.normal_(0, std, generator=generator).mul_(_residual_scale(name))
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("weight"):  # of a batch normalization
                tensor.uniform_(0.5, 1.5, generator=generator).mul_(_residual_scale(name))


def _residual_scale(name: str) -> float:
    """Return 0.25 for the last parameters of a residual branch, 1 for all others.

    Of NASNet's, whose sums have no shortcut, it is what makes a branch's result as large as its
    input: a depthwise convolution with no ReLU behind it keeps the variance by half of He's.
    """
    last = ("_outvar_dimred.weight", "_conv_relu_varout_dimred.weight", "bn3.weight")
    if name.endswith((*last, "output.2.1.weight")):
        return 0.25
    return 0.5 if name.endswith(("depthwise_conv2d.weight", "bn_sep_2.weight")) else 1.0


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict inside a loaded torch file."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and _has_tensors(content.get(key)):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{path} holds {type(content).__name__}, not a state dict: save model.state_dict(), "
            f"plain or under one of {', '.join(WRAPPERS)}"
        )
    foreign = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ModelError(
            f"{path} holds {len(foreign)} entries that are no tensors ({_first(foreign)}): save "
            "model.state_dict()"
        )
    content = _without_prefixes({str(key): value for key, value in content.items()})
    state = {key.removeprefix("module."): value for key, value in content.items()}
    twice = [key for key in state if key in content and f"module.{key}" in content]
    if twice:  # else the later one would win, and nobody would know
        raise ModelError(
            f"{path} holds {len(twice)} entries both with and without the prefix 'module.' "
            f"({_first(twice)}): save one network's state dict"
        )
    return state


def _has_tensors(value: Any) -> bool:
    """Say whether a value is a dictionary with tensors in it."""
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the names that wrappers put before all keys."""
    while len(first := {key.partition(".")[0] for key in state}) == 1 and first <= {*PREFIXES}:
        if any("." not in key for key in state):
            break
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def find_problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return what keeps ``found`` from being loaded, a phrase for each kind of problem.

    Only counters of batches may be missing.
    """
    optional = {key for key in expected if key.endswith("num_batches_tracked")}
    shared = expected.keys() & found.keys()
    fitting = {key for key in shared - optional if found[key].shape == expected[key].shape}
    plain = {key for key in fitting if _is_plain_float(found[key])}
    kinds = {
        "missing": expected.keys() - found.keys() - optional,
        "unexpected": found.keys() - expected.keys(),
        "wrongly shaped": {
            f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
            for key in shared
            if found[key].shape != expected[key].shape
        },
        "of no floating-point type": {
            f"{key} {str(found[key].dtype).removeprefix('torch.')}" for key in fitting - plain
        },
        # in the type that computes: a float64 may be beyond float32
        "NaN or infinite": {
            key for key in plain if not bool(found[key].to(expected[key].dtype).isfinite().all())
        },
    }
    return [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds.items() if keys]


def _is_plain_float(tensor: Tensor) -> bool:
    """Say whether a tensor holds floats one by one: not sparse, quantized or without values."""
    is_dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    return is_dense and tensor.is_floating_point()


def _with_counters(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the ``num_batches_tracked`` counters that old torch versions did not write."""
    counters = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
    return {**counters, **state}


def _first(names: Any, count: int = 3) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:count]) + (", …" if len(ordered) > count else "")


def _one_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # torch colours its messages
    lines = text.strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
