"""ResNet encoder (He et al. 2015, arXiv 1512.03385), bottleneck blocks, stride in the 3x3 conv."""

from collections.abc import Iterator

from torch import Tensor, nn

from deploy.models.layers import conv1x1, conv3x3

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGE_CHANNELS = (256, 512, 1024, 2048)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, plus shortcut: (N, C, H, W) -> (N, 4·width, h, w)."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(shortcut(x) + residual(x))``."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.relu(residual + shortcut)
        return output


class ResNet(nn.Module):
    """The convolutional part of ResNet-50, -101 or -152."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        in_channels = 64
        for i, (blocks, out_channels) in enumerate(zip(BLOCKS[depth], STAGE_CHANNELS, strict=True)):
            first = Bottleneck(in_channels, out_channels // 4, stride=1 if i == 0 else 2)
            rest = (Bottleneck(out_channels, out_channels // 4, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            in_channels = out_channels

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the four stages' outputs, finest first.

        Shapes (N, 256·2^i, ceil(H / 2^(i+2)), ceil(W / 2^(i+2))) for i = 0…3.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            yield x
