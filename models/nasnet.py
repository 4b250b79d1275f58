"""NASNet-A-Mobile encoder, 4 @ 1056 (Zoph et al. 2018, arXiv 1707.07012, figures 2 and 4).

Attribute names are those of the published ImageNet checkpoint (nasnetamobile), which so loads as it
is. The first convolution is not padded; all else is by "same" (nasnet_layers.py), which equals the
reference's own paddings where these fit, at sides that are multiples of 32, or one more.

Every cell and branch takes what it is given through a ReLU; here that is done once for all takers.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.models.layers import conv1x1
from deploy.models.nasnet_layers import Pool, SeparableBranch, batch_norm

FILTERS = 44  # of each sum in the first four cells: 1056 / 24
STEM_CHANNELS = 32
STAGES, CELLS = 3, 4  # a stage is so many cells of one size
FEATURE_CHANNELS = (FILTERS, 6 * FILTERS, 12 * FILTERS, 24 * FILTERS)


class FactorizedPath(nn.Module):
    """The parameters of half of a factorized reduction, which :class:`Cell` applies."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, channels)


class Cell(nn.Module):
    """What cells have in common: the input, and the one before it, brought to their channels.

    Args:
        channels: of each sum.
        in_channels: of the input.
        previous: channels of the one before it; 0: there is none.
        halve: the one before is twice as large.
    """

    def __init__(self, channels: int, in_channels: int, previous: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        if previous and not halve:
            self.conv_prev_1x1 = _projection(previous, channels)
        self.conv_1x1 = _projection(in_channels, channels)
        if halve:
            self.path_1 = FactorizedPath(previous, channels // 2)
            self.path_2 = FactorizedPath(previous, channels // 2)
            self.final_path_bn = batch_norm(channels)

    def adapt(self, previous: Tensor) -> Tensor:
        """Bring the earlier input, rectified, to the size and the channels of the cell.

        A factorized reduction takes half of the channels from even rows and columns and half from
        odd ones, by 1x1 convolutions. That is one 2x2 convolution with stride 2: the weights of the
        first half stand in the upper left of its window, those of the second in the lower right.
        """
        if not self.halve:
            adapted: Tensor = self.conv_prev_1x1(previous)
            return adapted
        first, second = self.path_1.conv.weight, self.path_2.conv.weight
        weight = torch.cat([F.pad(first, (0, 1, 0, 1)), F.pad(second, (1, 0, 1, 0))])
        height, width = previous.shape[2:]
        if height % 2 or width % 2:
            previous = F.pad(previous, (0, width % 2, 0, height % 2))
        halved: Tensor = self.final_path_bn(F.conv2d(previous, weight, stride=2))
        return halved


class NormalCell(Cell):
    """A cell that keeps the size: x, previous -> (N, 6 * channels, H, W)."""

    def __init__(
        self, channels: int, in_channels: int, previous: int, *, halve: bool = False
    ) -> None:
        super().__init__(channels, in_channels, previous, halve=halve)
        self.comb_iter_0_left = SeparableBranch(channels, channels, 5)
        self.comb_iter_0_right = SeparableBranch(channels, channels, 3)
        self.comb_iter_1_left = SeparableBranch(channels, channels, 5)
        self.comb_iter_1_right = SeparableBranch(channels, channels, 3)
        self.comb_iter_4_left = SeparableBranch(channels, channels, 3)
        self.mean = Pool("mean", 1)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Return the earlier input and the five sums, of inputs that are rectified."""
        x, previous = self.conv_1x1(x), self.adapt(previous)
        x_relu, previous_relu, mean = F.relu(x), F.relu(previous), self.mean(previous)
        sums = [
            self.comb_iter_0_left(x_relu) + self.comb_iter_0_right(previous_relu),
            self.comb_iter_1_left(previous_relu) + self.comb_iter_1_right(previous_relu),
            self.mean(x) + previous,
            mean + mean,
            self.comb_iter_4_left(x_relu) + x,
        ]
        return torch.cat([previous, *sums], dim=1)


class ReductionCell(Cell):
    """A cell that halves the size: x, previous -> (N, 4 * channels, ceil(H / 2), ceil(W / 2)).

    ``centred``: the first one's windows are centred on every second row, as the reference has them,
    which is "same" where H is odd.
    """

    def __init__(
        self,
        channels: int,
        in_channels: int,
        previous: int = 0,
        *,
        halve: bool = False,
        centred: bool = False,
    ) -> None:
        super().__init__(channels, in_channels, previous, halve=halve)
        right = channels if previous else in_channels
        self.comb_iter_0_left = SeparableBranch(channels, channels, 5, 2, centred=centred)
        self.comb_iter_0_right = SeparableBranch(right, channels, 7, 2, centred=centred)
        self.comb_iter_1_right = SeparableBranch(right, channels, 7, 2, centred=centred)
        self.comb_iter_2_right = SeparableBranch(right, channels, 5, 2, centred=centred)
        self.comb_iter_4_left = SeparableBranch(channels, channels, 3)
        self.maximum = Pool("maximum", 2, centred=centred)
        self.mean = Pool("mean", 2, centred=centred)
        self.smooth = Pool("mean", 1)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the four sums that no other takes alone, of inputs that are rectified."""
        right = x if previous is None else F.relu(self.adapt(previous))
        x = self.conv_1x1(x)
        maximum = self.maximum(x)
        first = self.comb_iter_0_left(F.relu(x)) + self.comb_iter_0_right(right)
        second = maximum + self.comb_iter_1_right(right)
        third = self.mean(x) + self.comb_iter_2_right(right)
        fourth = self.smooth(first) + second
        return torch.cat(
            [second, third, fourth, self.comb_iter_4_left(F.relu(first)) + maximum], dim=1
        )


class NASNetAMobile(nn.Module):
    """The convolutional part of NASNet-A-Mobile."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self.conv0 = nn.Sequential()
        self.conv0.add_module("conv", first)
        self.conv0.add_module("bn", batch_norm(STEM_CHANNELS))
        self.cell_stem_0 = ReductionCell(FILTERS // 4, STEM_CHANNELS, centred=True)
        self.cell_stem_1 = ReductionCell(FILTERS // 2, FILTERS, STEM_CHANNELS, halve=True)
        previous, inputs = FILTERS, 2 * FILTERS
        for stage in range(STAGES):
            channels = FILTERS * 2**stage
            if stage:
                name = f"reduction_cell_{stage - 1}"
                self.add_module(name, ReductionCell(channels, inputs, previous))
                previous, inputs = inputs, 4 * channels
            for cell in cell_names(stage):
                halve = cell == cell_names(stage)[0]
                self.add_module(cell, NormalCell(channels, inputs, previous, halve=halve))
                previous, inputs = inputs, 6 * channels

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the rectified outputs of ``cell_stem_0`` and of each stage's last cell.

        Channels 44, 264, 528, 1056. Of an image H high, conv0 has h = floor((H - 1) / 2) rows, and
        the features ceil(h / 2), ceil(h / 4), ceil(h / 8) and ceil(h / 16); H is 3 or more.
        """
        previous = F.relu(self.conv0(x))
        x = F.relu(self.cell_stem_0(previous))
        yield x
        previous, x = x, F.relu(self.cell_stem_1(x, previous))
        for stage in range(STAGES):
            reduction = [f"reduction_cell_{stage - 1}"] if stage else []
            for name in (*reduction, *cell_names(stage)):
                previous, x = x, F.relu(self.get_submodule(name)(x, previous))
            yield x


def cell_names(stage: int) -> list[str]:
    """Return the names of a stage's cells; the checkpoint counts the reductions as two cells."""
    return [f"cell_{(CELLS + 2) * stage + number}" for number in range(CELLS)]


def _projection(in_channels: int, channels: int) -> nn.Sequential:
    """Return a 1x1 convolution and its batch normalization."""
    projection = nn.Sequential()
    projection.add_module("conv", conv1x1(in_channels, channels))
    projection.add_module("bn", batch_norm(channels))
    return projection
