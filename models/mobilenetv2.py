"""MobileNetV2 encoder (Sandler et al. 2018, arXiv 1801.04381)."""

from collections.abc import Iterator

from torch import Tensor, nn

# expansion, output channels, repeats, stride of the first repeat: table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution without bias and its batch normalization."""
    padding = kernel_size // 2
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (linear), plus the input where the shapes agree.

    The expansion convolution exists even where the expansion is 1.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.output = nn.Sequential(
            nn.Sequential(*conv_bn(in_channels, hidden), nn.ReLU6()),
            nn.Sequential(*conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()),
            nn.Sequential(*conv_bn(hidden, out_channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.output(x)
        return x + output if self.residual else output


class MobileNetV2(nn.Module):
    """The convolutional part of MobileNetV2, ``layer1`` to the 320-channel ``layer8``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(*conv_bn(3, 32, 3, stride=2), nn.ReLU6())
        in_channels = 32
        for i, (expansion, out_channels, repeats, stride) in enumerate(STAGES, start=2):
            blocks = []
            for repeat in range(repeats):
                block_stride = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(in_channels, out_channels, expansion, block_stride))
                in_channels = out_channels
            self.add_module(f"layer{i}", nn.Sequential(*blocks))

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of ``layer3`` to ``layer8``, finest first.

        Channels 24, 32, 64, 96, 160, 320 at 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 of the input's size.
        """
        for i in range(1, 9):
            x = self.get_submodule(f"layer{i}")(x)
            if i >= 3:
                yield x
