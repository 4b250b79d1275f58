"""Building blocks shared by the RefineNet decoders.

Attribute names that look odd (``1_outvar_dimred``) are those of the reference checkpoints, so that
``load_state_dict(strict=True)`` works on them unchanged.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def conv1x1(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    """Return a 1x1 convolution; keeps the spatial size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1; at stride 1 it keeps the spatial size."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)


def upsample_to(x: Tensor, reference: Tensor) -> Tensor:
    """Resize ``x`` (N, C, h, w) to the size of ``reference``, bilinear, corners aligned."""
    return F.interpolate(x, size=reference.shape[2:], mode="bilinear", align_corners=True)


class ResidualConvUnits(nn.Module):
    """A chain of residual convolution units (RefineNet, section 3.2): (N, C, H, W) -> same shape.

    Each unit computes ``x + conv3x3(relu(conv3x3(relu(x)) + bias))``.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.units = units
        for i in range(1, units + 1):
            self.add_module(f"{i}_conv", conv3x3(channels, channels, bias=True))
            self.add_module(f"{i}_conv_relu_varout_dimred", conv3x3(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply every unit in turn."""
        for i in range(1, self.units + 1):
            hidden = self.get_submodule(f"{i}_conv")(F.relu(x))
            x = self.get_submodule(f"{i}_conv_relu_varout_dimred")(F.relu(hidden)) + x
        return x


class ChainedResidualPooling(nn.Module):
    """Chained residual pooling (RefineNet, section 3.2): (N, C, H, W) -> same shape.

    Every stage max-pools (5x5, stride 1) and convolves the previous stage's output and adds it to
    the running sum. ``kernel_size`` is 3 in RefineNet and 1 in Light-Weight RefineNet.
    """

    STAGES = 4

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
        conv = {1: conv1x1, 3: conv3x3}[kernel_size]
        for i in range(1, self.STAGES + 1):
            self.add_module(f"{i}_outvar_dimred", conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the output of every stage."""
        path = x
        for i in range(1, self.STAGES + 1):
            path = self.get_submodule(f"{i}_outvar_dimred")(self.pool(path))
            x = path + x
        return x
