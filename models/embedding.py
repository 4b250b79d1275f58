"""A ResNet's stages 2 to 4 from a MobileNetV2's blocks: the same features at the start.

Both kinds of block are 1x1, 3x3, 1x1, the 3x3 of an inverted residual being a diagonal one. So a
bottleneck's narrow channels can be those of an inverted residual, the ones that tell most of its
output, and its last convolution is fitted to the teacher's output by least squares on what they
give in the new network (He, Zhang and Sun, Channel Pruning, arXiv 1707.06168; the choice is
orthogonal matching pursuit). The teacher's blocks are linear at their ends where a ResNet has a
ReLU: its features stand in the leading channels, each from 0 to SPAN, so that one scale for all of
them has steps for each when activations are rounded to 8 bits. Of the rest of a stage's channels
the shortcut's convolution, at random, makes further features, to which residuals add nothing at
first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.models.fitting import RIDGE, least_squares, pursue, unexplained
from deploy.models.mobilenetv2 import InvertedResidual
from deploy.models.refinenet import MobileRefineNet, RefineNet
from deploy.models.resnet import Bottleneck

SPAN = 8.0  # what a feature's channel ranges over
BELOW = 4.0  # standard deviations below its mean at which the ReLU may cut a feature
READING_RIDGE = 1e-1  # of the least squares on all channels of a stage, for RIDGE
CONSTANT = 0  # the channel of each stage that is SPAN everywhere; reductions have no biases
ROWS = 2**18  # pixels, spread evenly, of which a fit is made at most
CHUNK = 32  # images that pass through early layers at a time
# of the teacher: layers behind one another whose blocks become those of layer2, layer3, layer4
TEACHER_LAYERS = ((4,), (5, 6), (7, 8))


@dataclass(frozen=True)
class Signal:
    """A linear reading of a stage's output: ``weight @ x + bias`` is the teacher's feature."""

    weight: Tensor  # (channels of the feature, channels of the stage)
    bias: Tensor


@dataclass(frozen=True)
class Block:
    """An inverted residual with its normalizations folded, and where it reads and writes."""

    expand: tuple[Tensor, Tensor]  # (hidden, in), (hidden,)
    depthwise: tuple[Tensor, Tensor]  # (hidden, 3, 3), (hidden,)
    reads: int  # teacher layer
    writes: int
    wanted: Tensor  # its output on the images, (N, out, H, W)

    @property
    def hidden(self) -> int:
        """The number of channels between its convolutions."""
        return len(self.expand[1])


@torch.no_grad()
def embed(network: RefineNet, teacher: MobileRefineNet, images: Tensor) -> str:
    """Write the teacher's blocks into layer2 to layer4 of ``network``; returns what, in words.

    The first stage stays: what the blocks read is a linear fit of the teacher's features at 1/4 to
    its output, which is better the more it was trained for them.

    Args:
        network: in which ``take_over`` has put the decoder.
        teacher: in evaluation mode.
        images: (N, 3, H, W), normalized; N·H·W / 1024, which is how many pixels the last fits are
            made of, should be some ten thousands: they have up to 2,048 regressors.
    """
    network.eval()
    x = _in_chunks(lambda part: next(network.features(part)), images)
    parts = [[*teacher.features(part)] for part in torch.split(images, CHUNK)]
    known = [torch.cat(features) for features in zip(*parts, strict=True)]  # layer3 … layer8
    signals = {3: _fit_reading(x, known[0])}
    words = []
    for stage, layers in enumerate(TEACHER_LAYERS, start=2):
        blocks = _blocks(teacher, layers, known[layers[0] - 4])
        student = [*network.get_submodule(f"layer{stage}").children()]
        x, signals = _embed_stage(student, blocks, signals, x)
        _reduce(network, teacher, 5 - stage, signals)
        errors = [
            float(unexplained(_read(signals[layer], x), known[layer - 3])) for layer in layers
        ]
        words.append(f"layer{stage} " + " and ".join(f"{error:.2f}" for error in errors))
    return ", ".join(words)


def _blocks(teacher: MobileRefineNet, layers: Sequence[int], x: Tensor) -> list[Block]:
    blocks, reads = [], layers[0] - 1
    for layer in layers:
        for module in teacher.get_submodule(f"layer{layer}").children():
            assert isinstance(module, InvertedResidual)
            x = _in_chunks(module, x)
            expand, depthwise = (_folded(module.output.get_submodule(f"{i}")) for i in (0, 1))
            blocks.append(
                Block(
                    (expand[0][:, :, 0, 0], expand[1]), (depthwise[0][:, 0], depthwise[1]),
                    reads, layer, x,
                )
            )  # fmt: skip
            reads = layer
    return blocks


def _folded(part: nn.Module) -> tuple[Tensor, Tensor]:
    convolution, norm, *_ = part.children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = _statistics(norm)
    factor = norm.weight / (variance + norm.eps).sqrt()
    bias = norm.bias - factor * mean
    return convolution.weight * factor[:, None, None, None], bias


def groups_of(blocks: Sequence[Block], bottlenecks: int, width: int) -> list[list[Block]]:
    """Return which of the teacher's blocks each bottleneck stands for; [] is an identity.

    The first, of stride 2, has a bottleneck of its own. Where there are fewer bottlenecks, blocks
    that add to the same feature share one; where there are more, the largest get several.
    """
    first, *rest = [[block] for block in blocks]
    while len(rest) > bottlenecks - 1:
        sizes = [
            sum(block.hidden for block in (*a, *b)) if a[-1].reads == a[-1].writes else 1e9
            for a, b in pairwise(rest)
        ]
        at = sizes.index(min(sizes))
        rest[at : at + 2] = [rest[at] + rest[at + 1]]
    times = [1] * len(rest)
    for _ in range(bottlenecks - 1 - len(rest)):
        left = [group[0].hidden - n * width for group, n in zip(rest, times, strict=True)]
        if max(left) > 0:
            times[left.index(max(left))] += 1
    spread = [group for group, n in zip(rest, times, strict=True) for _ in range(n)]
    return [first, *spread, *([] for _ in range(bottlenecks - 1 - len(spread)))]


def _embed_stage(
    student: list[Any], blocks: list[Block], signals: dict[int, Signal], x: Tensor
) -> tuple[Tensor, dict[int, Signal]]:
    slots, own = _slots(blocks, student[0].conv3.out_channels)
    _prepare_shortcut(student[0], slots, x)
    signals = {blocks[0].reads: signals[blocks[0].reads], **own}
    used: dict[int, set[int]] = {}  # hidden channels of a block that have a place already
    width = student[0].conv1.out_channels
    for bottleneck, group in zip(student, groups_of(blocks, len(student), width), strict=True):
        x = _embed_block(bottleneck, group, signals, slots, used, x)
    wanted = {block.writes: block.wanted for block in blocks}
    # all channels together tell more of a feature than its slots, if there are images enough
    return x, {layer: _fit_reading(x, wanted[layer], READING_RIDGE) for layer in own}


def _slots(blocks: Sequence[Block], channels: int) -> tuple[dict[int, slice], dict[int, Signal]]:
    """Return where each feature stands, and how it is read; a constant is in front."""
    slots: dict[int, slice] = {}
    signals, start = {}, CONSTANT + 1
    for layer in dict.fromkeys(block.writes for block in blocks):
        low, high = _limits([block.wanted for block in blocks if block.writes == layer])
        slots[layer] = slice(start, start + len(low))
        start += len(low)
        weight = torch.zeros(len(low), channels)
        weight[:, slots[layer]] = torch.diag((high - low) / SPAN)
        signals[layer] = Signal(weight, low)
    return slots, signals


def _limits(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return each channel's least and largest value, without tails far below the mean."""
    low = [
        torch.maximum(x.amin((0, 2, 3)), x.mean((0, 2, 3)) - BELOW * x.std((0, 2, 3)))
        for x in features
    ]
    high = [x.amax((0, 2, 3)) for x in features]
    return torch.stack(low).amin(0), torch.stack(high).amax(0)


def _prepare_shortcut(bottleneck: Bottleneck, slots: dict[int, slice], x: Tensor) -> None:
    """Let the first shortcut put out SPAN, 0 in the slots, and behind those what is random."""
    assert isinstance(bottleneck.downsample, nn.Sequential)
    convolution, norm = bottleneck.downsample
    assert isinstance(norm, nn.BatchNorm2d)
    _normalize(norm, convolution(x))
    stop = max(place.stop for place in slots.values())
    norm.weight[:stop] = 0.0
    norm.bias[:stop] = 0.0
    norm.bias[CONSTANT] = SPAN


def _normalize(norm: nn.BatchNorm2d, x: Tensor, start: int = 0) -> None:
    """Let the normalization of channels from ``start`` on have the statistics of its input."""
    mean, variance = _statistics(norm)
    mean[start:] = x.mean((0, 2, 3))[start:]
    variance[start:] = x.var((0, 2, 3))[start:].clamp_min(1e-4)
    norm.weight[start:], norm.bias[start:] = 1.0, 0.0


def _adopt(norm: nn.BatchNorm2d, x: Tensor, place: slice) -> None:
    """Give some channels the statistics of their input ``x``; what they put out stays."""
    mean, variance = _statistics(norm)
    new_mean = x.mean((0, 2, 3))[place]
    new_variance = x.var((0, 2, 3))[place].clamp_min(1e-4)
    slope = norm.weight[place] / (variance[place] + norm.eps).sqrt()
    norm.bias[place] += slope * (new_mean - mean[place])
    norm.weight[place] = slope * (new_variance + norm.eps).sqrt()
    mean[place], variance[place] = new_mean, new_variance


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _write(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, place: slice, weight: Tensor, bias: Tensor
) -> None:
    """Put kernels (n, in, height, width) and biases (n,) in some channels.

    Kernels get the length that fresh ones have, so that rates that suit those suit these.
    """
    length = weight.flatten(1).norm(dim=1).clamp_min(1e-6)
    convolution.weight[place] = weight * (2**0.5 / length)[:, None, None, None]
    mean, variance = _statistics(norm)
    mean[place], variance[place] = 0.0, 1.0
    norm.weight[place] = length / 2**0.5 * (1 + norm.eps) ** 0.5
    norm.bias[place] = bias


def _embed_block(
    bottleneck: Bottleneck, group: list[Block], signals: dict[int, Signal],
    slots: dict[int, slice], used: dict[int, set[int]], x: Tensor,
) -> Tensor:  # fmt: skip
    width = bottleneck.conv1.out_channels
    shortcut = x if bottleneck.downsample is None else bottleneck.downsample(x)
    wanted = {block.writes: block.wanted for block in group}
    residuals = {
        layer: (feature - _read(signals[layer], shortcut)) / _deviation(feature)
        for layer, feature in wanted.items()
    }
    count = 0
    if group:
        chosen = _choose(bottleneck.conv2.stride[0], group, signals, used, x, residuals, width)
        expand, depthwise = chosen
        count = len(expand[1])
        own = slice(count)
        _write(bottleneck.conv1, bottleneck.bn1, own, expand[0][:, :, None, None], expand[1])
        kernel = torch.zeros(count, width, 3, 3)
        kernel[torch.arange(count), torch.arange(count)] = depthwise[0]
        _write(bottleneck.conv2, bottleneck.bn2, own, kernel, depthwise[1])
    hidden = bottleneck.conv1(x)
    _adopt(bottleneck.bn1, hidden, slice(count))
    _normalize(bottleneck.bn1, hidden, count)
    hidden = bottleneck.conv2(bottleneck.relu(bottleneck.bn1(hidden)))
    _adopt(bottleneck.bn2, hidden, slice(count))
    _normalize(bottleneck.bn2, hidden, count)
    hidden = bottleneck.relu(bottleneck.bn2(hidden))
    _fit_output(bottleneck, hidden, residuals, slots)
    output: Tensor = bottleneck.relu(bottleneck.bn3(bottleneck.conv3(hidden)) + shortcut)
    return output


def _fit_output(
    bottleneck: Bottleneck, hidden: Tensor, residuals: dict[int, Tensor], slots: dict[int, slice]
) -> None:
    """Fit the last convolution to what the slots lack; to all else nothing is added."""
    convolution, norm = bottleneck.conv3, bottleneck.bn3
    _normalize(norm, convolution(hidden))
    norm.weight.zero_()
    for layer, residual in residuals.items():
        place = slots[layer]
        weight, bias = least_squares(_rows(hidden), _rows(residual))
        _write(convolution, norm, place, weight[:, :, None, None], bias)
        _adopt(norm, convolution(hidden), place)
    first = min(place.start for place in slots.values())
    convolution.weight[:first] = 0.0


def _choose(
    stride: int, group: list[Block], signals: dict[int, Signal], used: dict[int, set[int]],
    x: Tensor, residuals: dict[int, Tensor], width: int,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:  # fmt: skip
    """Return the ``width`` hidden channels of the blocks that tell most of what is lacking."""
    kernels, biases, depthwise, shifts, owners = [], [], [], [], []
    for block in group:
        signal = signals[block.reads]
        left = [i for i in range(block.hidden) if i not in used.setdefault(id(block), set())]
        kernels.append(block.expand[0][left] @ signal.weight)
        biases.append((block.expand[1] + block.expand[0] @ signal.bias)[left])
        depthwise.append(block.depthwise[0][left])
        shifts.append(block.depthwise[1][left])
        owners += [(id(block), i) for i in left]
    weight, bias = torch.cat(kernels), torch.cat(biases)
    kernel, shift = torch.cat(depthwise), torch.cat(shifts)

    def convolved(part: Tensor) -> Tensor:
        wide = F.relu(F.conv2d(part, weight[:, :, None, None], bias))
        return F.relu(F.conv2d(wide, kernel[:, None], shift, stride, 1, groups=len(kernel)))

    hidden = _in_chunks(convolved, x)
    target = torch.cat([_rows(residual) for residual in residuals.values()], dim=1)
    order = pursue(_rows(hidden), target, width)
    for i in order:
        owner, channel = owners[i]
        used[owner].add(channel)
    return (weight[order], bias[order]), (kernel[order], shift[order])


def _fit_reading(x: Tensor, feature: Tensor, ridge: float = RIDGE) -> Signal:
    return Signal(*least_squares(_rows(x), _rows(feature), ridge))


def _reduce(
    network: RefineNet, teacher: MobileRefineNet, path: int, signals: dict[int, Signal]
) -> None:
    """Let a dimension reduction read the teacher's features and do with them what it did."""
    target = network.get_parameter(f"p_ims1d2_outl{path}_dimred.weight")
    total = torch.zeros(())
    for layer, signal in signals.items():
        kernel = teacher.get_parameter(f"conv{layer}.weight")[:, :, 0, 0]
        weight = kernel @ signal.weight
        weight[:, CONSTANT] += kernel @ signal.bias / SPAN
        total = total + weight
    middle = target.shape[2] // 2  # RefineNet's own has 3x3 kernels
    target[: len(total)] = 0.0
    target[: len(total), :, middle, middle] = total


def _read(signal: Signal, x: Tensor) -> Tensor:
    return F.conv2d(x, signal.weight[:, :, None, None], signal.bias)


def _deviation(feature: Tensor) -> Tensor:
    return feature.std((0, 2, 3), keepdim=True)


def _rows(x: Tensor) -> Tensor:
    """Return pixels (n, C), ROWS at most: the same ones of all features of one size."""
    count = x.numel() // x.shape[1]
    at = torch.arange(0, count, max(1, -(-count // ROWS)))
    columns = x.shape[2] * x.shape[3]
    return x.flatten(2).transpose(1, 2)[at // columns, at % columns]


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, CHUNK)])
