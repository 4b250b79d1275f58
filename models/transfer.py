"""Starting a network from another of the family: the decoder, which all of them share, taken over.

What is taken over computes in the new network what it computed in the old one, however much wider
its convolutions are or if they are 3x3 for 1x1 (Chen, Goodfellow and Shlens, Net2Net,
arXiv 1511.05641): the old kernel stands in the leading channels and the middle of the new one.
"""

import torch
from torch import Tensor, nn

from deploy.models.layers import ChainedResidualPooling, ResidualConvUnits
from deploy.models.refinenet import MobileRefineNet, RefineNet

PATHS = range(1, 5)  # as in RefineNet's checkpoints: 1 is the deepest


def take_over_decoder(network: nn.Module, teacher: nn.Module) -> int:
    """Copy the decoder of ``teacher`` into ``network`` in place; returns how many kernels.

    A convolution that has no counterpart there (residual units, the adapting one before a fusion)
    becomes the identity. One that would have to be narrower stays as it is, a classifier of another
    number of classes too. Dimension reductions belong to their encoders: they stay.
    """
    own, other = _roles(network), _roles(teacher)
    taken = 0
    with torch.no_grad():
        for role, convolution in own.items():
            if role in other:
                taken += _place(convolution, other[role])
            elif role.startswith("adapt"):
                _become_identity(convolution)
        for module in network.modules():
            if isinstance(module, ResidualConvUnits) and not isinstance(teacher, type(network)):
                for unit in range(1, module.units + 1):
                    last = module.get_submodule(f"{unit}_conv_relu_varout_dimred")
                    last.weight.zero_()  # type: ignore[operator]
    return taken


def reduction_names(network: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the convolutions that reduce the encoder's outputs, finest path first.

    What those of a path put out is summed: (N, 256 or 512, H, W) at 1/4, 1/8, 1/16, 1/32.
    """
    if isinstance(network, MobileRefineNet):
        return (("conv3",), ("conv4",), ("conv5", "conv6"), ("conv7", "conv8"))
    return tuple((f"p_ims1d2_outl{path}_dimred",) for path in reversed(PATHS))


def _roles(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the decoder's convolutions by what they are for, in whatever network."""
    names = {}
    for path in PATHS:
        mobile = isinstance(network, MobileRefineNet)
        pooling = f"crp{5 - path}" if mobile else f"mflow_conv_g{path}_pool"
        for stage in range(1, ChainedResidualPooling.STAGES + 1):
            names[f"pooling {path}.{stage}"] = f"{pooling}.0.{stage}_outvar_dimred"
        if path < 4:
            names[f"output {path}"] = (
                f"conv_adapt{5 - path}" if mobile else f"mflow_conv_g{path}_b3_joint_varout_dimred"
            )
        if path > 1 and not mobile:
            names[f"adapt {path}"] = f"adapt_stage{path}_b2_joint_varout_dimred"
    names["classifier"] = "clf_conv" if isinstance(network, RefineNet) else "segm"
    found = {role: network.get_submodule(name) for role, name in names.items()}
    return {role: module for role, module in found.items() if isinstance(module, nn.Conv2d)}


def _place(target: nn.Conv2d, source: nn.Conv2d) -> bool:
    """Copy a kernel (and bias) into the leading channels and the middle; False if it has no room.

    From the channels before those, and from the rest of the window, nothing comes in any more.
    """
    (outputs, inputs, height, width), shape = source.weight.shape, target.weight.shape
    classifier = target.bias is not None
    if outputs > shape[0] or inputs > shape[1] or height > shape[2] or width > shape[3]:
        return False
    if classifier and outputs != shape[0]:
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
