"""A trained network of the family as teacher: its logits and its reduced features are imitated.

Hinton, Vinyals and Dean, arXiv 1503.02531 (logits); Romero et al., FitNets, arXiv 1412.6550
(features, here those that enter the decoder, which all networks of the family have).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.models import build_with_weights, count_classes
from deploy.models.fitting import unexplained
from deploy.models.transfer import reduction_names
from deploy.training.config import TeacherChoice

TEMPERATURE = 2.0  # of both networks' softmax


class Answer(NamedTuple):
    """What a network makes of a batch: features (N, C, H, W) at 1/4, 1/8, …; logits at 1/4."""

    features: tuple[Tensor, ...]
    logits: Tensor | None  # None where only the first stages were run


def load_teacher(choice: TeacherChoice) -> nn.Module:
    """Return the teacher in evaluation mode, its parameters fixed.

    Raises:
        ModelError: it has no trained parameters here, or its file cannot be read.
    """
    network, source = build_with_weights(choice.variant, choice.weights)
    if not source.trained:
        raise choice.random()
    return network.eval().requires_grad_(False)


def classes_of(teacher: nn.Module) -> int | None:
    """Return how many classes the teacher knows."""
    return count_classes(teacher.state_dict())


def answer(network: nn.Module, images: Tensor, stages: int) -> Answer:
    """Run a network and keep its features; with ``stages`` above 0 only so many of the encoder's.

    Args:
        network: of ``models.build``.
        images: (N, 3, H, W), normalized.
        stages: 0 for the whole network, else 1 to 4: up to 1/4, 1/8, 1/16, 1/32 of the input.
    """
    if stages:
        return Answer(tuple(_first_features(network, images, stages)), None)
    kept: dict[str, Tensor] = {}
    names = reduction_names(network)
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: kept.__setitem__(name, output)
        )
        for group in names
        for name in group
    ]
    try:
        logits = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return Answer(tuple(_total([kept[name] for name in group]) for group in names), logits)


def _first_features(network: nn.Module, images: Tensor, stages: int) -> Iterator[Tensor]:
    outputs = network.features(images)  # type: ignore[operator] # an iterator, run step by step
    for group in reduction_names(network)[:stages]:
        yield _total([network.get_submodule(name)(next(outputs)) for name in group])


def _total(outputs: list[Tensor]) -> Tensor:
    return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """Return Kullback-Leibler of softened logits (N, classes, H, W), a pixel's mean, times T²."""
    soft = (wanted.float() / TEMPERATURE).softmax(1)
    log = (found.float() / TEMPERATURE).log_softmax(1)
    return TEMPERATURE**2 * F.kl_div(log, soft, reduction="none").sum(1).mean()


def imitation_losses(found: Answer, wanted: Answer) -> dict[str, Tensor]:
    """Return the parts of the loss: "1/4" … "1/32" for features, and "logits"."""
    pairs = zip(found.features, wanted.features, strict=True)
    losses = {f"1/{4 * 2**i}": unexplained(*pair) for i, pair in enumerate(pairs)}
    if found.logits is not None and wanted.logits is not None:
        losses["logits"] = divergence(found.logits, wanted.logits)
    return losses
