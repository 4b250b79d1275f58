"""Where training starts: a published ImageNet backbone, an encoder, or a whole network."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from deploy.models.checkpoint import fill, fill_random, find_problems, read_state_dict
from deploy.models.classes import CLASSIFIERS, count_classes
from deploy.models.errors import ModelError
from deploy.models.mobilenetv2 import STAGES, MobileNetV2
from deploy.models.refinenet import MobileRefineNet, RefineNet
from deploy.models.resnet import ResNet


def initialize(module: nn.Module, path: Path | None, seed: int = 0) -> str:
    """Fill a network in place with what training starts from.

    Args:
        module: A network of ``models.build``.
        path: A whole checkpoint of that network, of which the classifier is left out where it is
            for another number of classes; the parameters of its encoder alone; or
            torchvision's ImageNet backbone as published (resnet50, resnet101, resnet152 or
            mobilenet_v2, with their classifiers, which are left out). Everything else, and with
            None everything, gets seeded random values.
        seed: Of the random values.

    Returns:
        What was loaded, in words.

    Raises:
        ModelError: the file cannot be read or is none of these; the message names the first keys.
    """
    fill_random(module, seed)
    if path is None:
        return "random parameters"
    state = read_state_dict(path)
    encoder = encoder_parameters(module)
    if not decoder_keys(module).isdisjoint(state):
        return _load_whole(module, state, path)
    published = "features.0.0.weight" in state or "fc.weight" in state
    if "features.0.0.weight" in state and isinstance(module, MobileNetV2):
        state = from_torchvision_mobilenetv2(state)
    elif "fc.weight" in state and isinstance(module, ResNet):
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    problems = find_problems(encoder, state)
    if problems:
        raise ModelError(
            f"{path} is neither a checkpoint of {type(module).__name__} nor its encoder, nor "
            f"torchvision's backbone for it: {'; '.join(problems)}"
        )
    module.load_state_dict(state, strict=False)  # strict above: all encoder keys, and no others
    return f"torchvision's ImageNet backbone {path}" if published else f"the encoder of {path}"


def _load_whole(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> str:
    """Load a whole checkpoint, without its classifier where that is for other classes."""
    own = module.state_dict()
    found, wanted = count_classes(state), count_classes(own)
    if found in (None, wanted):
        fill(module, state, path)
        return f"all parameters of {path}"
    classifier = {name: value for name, value in own.items() if name.startswith(CLASSIFIERS)}
    fill(module, {**state, **classifier}, path)
    return f"{path} but for its classifier of {found} classes: that of {wanted} starts anew"


def encoder_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the part of the state dict that is the encoder's."""
    decoder = decoder_keys(module)
    return {key: value for key, value in module.state_dict().items() if key not in decoder}


def decoder_keys(module: nn.Module) -> set[str]:
    """Return the state dict's names that are not the encoder's."""
    if not isinstance(module, RefineNet | MobileRefineNet):
        raise ModelError(f"{type(module).__name__} is no RefineNet: build it with models.build")
    first = re.compile(r"(conv1|bn1|layer\d)\.")
    return {key for key in module.state_dict() if first.match(key) is None}


def from_torchvision_mobilenetv2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of torchvision's ``mobilenet_v2`` to those of our encoder.

    Its last convolution (``features.18``) and ``classifier`` are left out. Its first block
    (``features.1``) has no expansion convolution; ours becomes the identity. Unknown names are
    kept, for the caller to find.
    """
    names = {"features.0.0": "layer1.0", "features.0.1": "layer1.1"}
    parts = {"conv.0.0": "0.0", "conv.0.1": "0.1", "conv.1.0": "1.0", "conv.1.1": "1.1"}
    expanded = {**parts, "conv.2": "2.0", "conv.3": "2.1"}
    unexpanded = {"conv.0.0": "1.0", "conv.0.1": "1.1", "conv.1": "2.0", "conv.2": "2.1"}
    number = 1
    for layer, (expansion, _, repeats, _) in enumerate(STAGES, start=2):
        for block in range(repeats):
            for theirs, ours in (unexpanded if expansion == 1 else expanded).items():
                names[f"features.{number}.{theirs}"] = f"layer{layer}.{block}.output.{ours}"
            number += 1
    renamed = identity_expansion("layer2.0.output.0", channels=32)
    for key, value in state.items():
        if key.startswith((f"features.{number}.", "classifier.")):
            continue
        module_name, _, tensor_name = key.rpartition(".")
        renamed[f"{names.get(module_name, module_name)}.{tensor_name}"] = value
    return renamed


def identity_expansion(prefix: str, channels: int, eps: float = 1e-5) -> dict[str, Tensor]:
    """Return the parameters of a 1x1 convolution and a batch normalization that change nothing."""
    return {
        f"{prefix}.0.weight": torch.eye(channels)[:, :, None, None],
        # (x - 0) / sqrt(1 + eps) * sqrt(1 + eps) + 0 = x
        f"{prefix}.1.weight": torch.full((channels,), math.sqrt(1 + eps)),
        f"{prefix}.1.bias": torch.zeros(channels),
        f"{prefix}.1.running_mean": torch.zeros(channels),
        f"{prefix}.1.running_var": torch.ones(channels),
    }
