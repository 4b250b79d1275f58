"""Starting a network from another of the family: the decoder, and a ResNet's encoder, taken over.

What is taken over computes in the new network what it computed in the old one, however much wider
its convolutions are, or 3x3 for 1x1, and however many blocks and units are new: the old kernel
stands in the leading channels and the middle of the new one, and what is new starts as the identity
(Chen, Goodfellow and Shlens, Net2Net, arXiv 1511.05641).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from deploy.models.layers import ChainedResidualPooling
from deploy.models.refinenet import MobileRefineNet, NASNetRefineNet, RefineNet
from deploy.models.resnet import Bottleneck, ResNet

PATHS = range(1, 5)  # as in RefineNet's checkpoints: 1 is the deepest
UNITS = {"b": 2, "mflow": 3}  # residual convolution units before and after the fusion


@torch.no_grad()
def take_over(network: nn.Module, teacher: nn.Module) -> str:
    """Copy into ``network``, in place, what ``teacher`` has of it; returns what, in words.

    The decoder, and between ResNets the encoder with its dimension reductions. A convolution of the
    decoder that the teacher lacks becomes the identity. One that would have to be narrower stays as
    it is, a classifier of another number of classes too.
    """
    own, other = _roles(network), _roles(teacher)
    taken = 0
    for role, convolution in own.items():
        if role in other:
            taken += _place(convolution, other[role], whole=role == "classifier")
        elif role.startswith("adapt"):
            _become_identity(convolution)
        elif role.startswith(
            "unit"
        ):  # the last of a residual branch: nothing is added to its input
            convolution.weight.zero_()
    words = f"{taken} kernels of the decoder"
    if isinstance(network, ResNet) and isinstance(teacher, ResNet):
        new = _take_over_resnet(network, teacher)
        words += " and the encoder" + (f" ({new} blocks more, identities)" if new else "")
    return words


def reduction_names(network: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the convolutions that reduce the encoder's outputs, finest path first.

    What those of a path put out is summed: (N, 256 or 512, H, W) at 1/4, 1/8, 1/16, 1/32.
    """
    if isinstance(network, MobileRefineNet):
        return (("conv3",), ("conv4",), ("conv5", "conv6"), ("conv7", "conv8"))
    if isinstance(network, NASNetRefineNet):
        return tuple((f"dimred{path}",) for path in PATHS)
    return tuple((f"p_ims1d2_outl{path}_dimred",) for path in reversed(PATHS))


def _roles(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the decoder's convolutions by what they are for, in whatever network."""
    full = isinstance(network, RefineNet)
    chains = {} if not full or network.lightweight else UNITS
    names = {"classifier": "clf_conv" if full else "segm"}
    for path in PATHS:
        pooling = f"mflow_conv_g{path}_pool" if full else f"crp{5 - path}"
        for stage in range(1, ChainedResidualPooling.STAGES + 1):
            names[f"pooling {path}.{stage}"] = f"{pooling}.0.{stage}_outvar_dimred"
        if full:
            names |= _refinenet_only(path, chains)
        if path < 4:
            output = f"mflow_conv_g{path}_b3_joint_varout_dimred"
            names[f"output {path}"] = output if full else f"conv_adapt{5 - path}"
    found = {role: network.get_submodule(name) for role, name in names.items()}
    return {role: module for role, module in found.items() if isinstance(module, nn.Conv2d)}


def _refinenet_only(path: int, chains: Mapping[str, int]) -> dict[str, str]:
    names = {}
    if path > 1:
        names[f"adapt {path}"] = f"adapt_stage{path}_b2_joint_varout_dimred"
    for chain, units in chains.items():
        prefix = f"adapt_stage{path}_b" if chain == "b" else f"mflow_conv_g{path}_b"
        for unit in range(1, units + 1):
            names[f"inner {path}.{chain}.{unit}"] = f"{prefix}.0.{unit}_conv"
            names[f"unit {path}.{chain}.{unit}"] = f"{prefix}.0.{unit}_conv_relu_varout_dimred"
    return names


def _take_over_resnet(network: ResNet, teacher: ResNet) -> int:
    """Copy a ResNet and its dimension reductions; returns how many blocks became identities."""
    own, new = network.state_dict(), 0
    for key, value in teacher.state_dict().items():
        if key.startswith(("conv1.", "bn1.", "layer")) and key in own:
            own[key].copy_(value)
    for (name,) in reduction_names(network):
        target, source = network.get_submodule(name), teacher.get_submodule(name)
        assert isinstance(target, nn.Conv2d)
        assert isinstance(source, nn.Conv2d)
        _place(target, source)
    old = dict(teacher.named_modules())
    for name, module in network.named_modules():
        if isinstance(module, Bottleneck) and name not in old:
            # what comes in is not negative, so the ReLU behind the sum changes nothing
            module.bn3.weight.zero_()
            module.bn3.bias.zero_()
            new += 1
    return new


def _place(target: nn.Conv2d, source: nn.Conv2d, *, whole: bool = False) -> bool:
    """Copy a kernel and bias into the leading channels and the middle; False if it has no room.

    From the channels behind those, and from the rest of the window, nothing comes in any more.
    ``whole``: the number of outputs has to be the same.
    """
    (outputs, inputs, height, width), shape = source.weight.shape, target.weight.shape
    if outputs > shape[0] or inputs > shape[1] or height > shape[2] or width > shape[3]:
        return False
    if whole and outputs != shape[0]:
        return False
    top, left = (shape[2] - height) // 2, (shape[3] - width) // 2
    target.weight[:outputs].zero_()
    target.weight[:outputs, :inputs, top : top + height, left : left + width] = source.weight
    if target.bias is not None and source.bias is not None:
        target.bias[:outputs] = source.bias
    return True


def _become_identity(convolution: nn.Conv2d) -> None:
    weight: Tensor = convolution.weight
    weight.zero_()
    middle = weight.shape[2] // 2
    weight[:, :, middle, middle] = torch.eye(*weight.shape[:2])
