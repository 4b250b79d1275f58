"""What a network costs, computed from the network itself."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Return the number of learnable scalars (batch normalization statistics are not counted)."""
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, height: int = 500, width: int = 500) -> int:
    """Return the multiply-accumulates of all convolutions for one image 3 x height x width.

    One fused multiply-add counts as one; bias, batch normalization, pooling and resizing count
    nothing. Runs on the meta device: no memory, no arithmetic.
    """
    shapes = {k: torch.empty_like(v, device="meta") for k, v in module.state_dict().items()}
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(module, shapes, (image,))
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two
