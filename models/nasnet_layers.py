"""Layers of NASNet-A (Zoph et al. 2018, arXiv 1707.07012, appendix A), padded as TensorFlow pads.

By "same" there are ceil(size / stride) results; the odd row or column of zeros comes at the end.
Attribute names are those of the published checkpoint.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from deploy.models.layers import conv1x1


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch normalization with the epsilon that the network was trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Return how many zeros come before and after an axis for ceil(size / stride) results."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel_size - size)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with "same" padding: (N, C, H, W) -> (N, M, ceil(H / s), ceil(W / s))."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        rows, columns = (
            same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[2:]
        )
        padding = (rows[0], columns[0])
        if padding != (rows[1], columns[1]):
            x, padding = F.pad(x, (*columns, *rows)), (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


class Pool(nn.Module):
    """Maximum or mean of 3x3 windows, "same" padding: (N, C, H, W) -> (N, C, ceil(H / s), …).

    The mean is over what lies in the image. ``centred`` windows begin one before the image whatever
    its size is.
    """

    def __init__(self, kind: str, stride: int, *, centred: bool = False) -> None:
        super().__init__()
        self.kind, self.stride, self.centred = kind, stride, centred

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        padding = [same_padding(size, 3, self.stride)[0] for size in x.shape[2:]]
        beyond = not self.centred  # windows may reach beyond the end where padding is "same"
        padding = padding if beyond else [1, 1]
        if self.kind == "maximum":
            return F.max_pool2d(x, 3, self.stride, padding, ceil_mode=beyond)
        return F.avg_pool2d(x, 3, self.stride, padding, beyond, count_include_pad=False)


class SeparableConv(nn.Module):
    """A depthwise and a 1x1 convolution: (N, C, H, W) -> (N, M, ceil(H / s), ceil(W / s))."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, stride: int, *, centred: bool
    ) -> None:
        super().__init__()
        padding, kind = (kernel_size // 2, nn.Conv2d) if centred else (0, SameConv2d)
        self.depthwise_conv2d = kind(
            in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False
        )
        self.pointwise_conv2d = conv1x1(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel, then across channels."""
        convolved: Tensor = self.pointwise_conv2d(self.depthwise_conv2d(x))
        return convolved


class SeparableBranch(nn.Module):
    """Two separable convolutions, the first with the stride, on what is rectified already."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.separable_1 = SeparableConv(
            in_channels, channels, kernel_size, stride, centred=centred
        )
        self.bn_sep_1 = batch_norm(channels)
        self.separable_2 = SeparableConv(channels, channels, kernel_size, 1, centred=centred)
        self.bn_sep_2 = batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, M, ceil(H / stride), ceil(W / stride))."""
        x = F.relu(self.bn_sep_1(self.separable_1(x)))
        result: Tensor = self.bn_sep_2(self.separable_2(x))
        return result
