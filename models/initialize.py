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
from deploy.models.nasnet import NASNetAMobile
from deploy.models.refinenet import MobileRefineNet, NASNetRefineNet, RefineNet
from deploy.models.resnet import ResNet

# What images are normalized by here (calibration/preprocess.py), and for the published NASNet.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NASNET_MEAN, NASNET_STD = 0.5, 0.5


def initialize(module: nn.Module, path: Path | None, seed: int = 0) -> str:
    """Fill a network in place with what training starts from.

    Args:
        module: A network of ``models.build``.
        path: A whole checkpoint of that network, of which the classifier is left out where it is
            for another number of classes; the parameters of its encoder alone; or an ImageNet
            backbone as published (torchvision's resnet50, resnet101, resnet152 or mobilenet_v2,
            Cadene's nasnetamobile, with their classifiers, which are left out). Everything else,
            and with None everything, gets seeded random values.
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
    published = None
    if "features.0.0.weight" in state and isinstance(module, MobileNetV2):
        published, state = "torchvision's", from_torchvision_mobilenetv2(state)
    elif "fc.weight" in state and isinstance(module, ResNet):
        published, state = "torchvision's", _without(state, "fc.")
    elif "last_linear.weight" in state and isinstance(module, NASNetAMobile):
        published, state = "the published", from_nasnetamobile(state)
    problems = find_problems(encoder, state)
    if problems:
        raise ModelError(
            f"{path} is neither a checkpoint of {type(module).__name__} nor its encoder, nor "
            f"a published backbone for it: {'; '.join(problems)}"
        )
    module.load_state_dict(state, strict=False)  # strict above: all encoder keys, and no others
    return f"{published} ImageNet backbone {path}" if published else f"the encoder of {path}"


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
    if not isinstance(module, RefineNet | MobileRefineNet | NASNetRefineNet):
        raise ModelError(f"{type(module).__name__} is no RefineNet: build it with models.build")
    first = re.compile(r"(conv[01]|bn1|layer\d|(reduction_)?cell_\w+)\.")
    return {key for key in module.state_dict() if first.match(key) is None}


def _without(state: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """Return the parameters whose names do not begin with ``first``."""
    return {key: value for key, value in state.items() if not key.startswith(first)}


def from_nasnetamobile(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's parameters of a published NASNet-A-Mobile, for images as ours are.

    It was trained on (p - 0.5) / 0.5, not on (p - mean) / std. With x ours, p = std x + mean, so
    that its first convolution sees (std x + mean - 0.5) / 0.5: a factor for each colour, which goes
    into the weight, and a shift, which the batch normalization behind takes off its mean. Nothing
    is padded there, so that the result is the same everywhere.
    """
    encoder = _without(state, "last_linear.")
    weight, mean = (encoder.get(f"conv0.{key}") for key in ("conv.weight", "bn.running_mean"))
    if weight is None or mean is None or weight.shape[1:] != (3, 3, 3):
        return encoder  # what does not fit is the caller's to say
    if mean.shape != weight.shape[:1] or not (
        weight.is_floating_point() and mean.is_floating_point()
    ):
        return encoder
    scale = torch.tensor(STD)[:, None, None] / NASNET_STD
    shift = (torch.tensor(MEAN)[:, None, None] - NASNET_MEAN) / NASNET_STD
    shifted = mean - (weight * shift).sum(dim=(1, 2, 3))
    return {**encoder, "conv0.conv.weight": weight * scale, "conv0.bn.running_mean": shifted}


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
