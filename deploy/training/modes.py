"""What of a network learns, how fast, and in which arithmetic."""

import math
from typing import Any

import torch
from torch import nn

from deploy.models.initialize import decoder_keys
from deploy.training.config import TrainConfig, TrainError


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype:
    """Return the type in which convolutions are computed; "auto" is what the hardware is fast at.

    That is bfloat16 on GPUs that have it (float16 on others) and on CPUs with AVX-512 or AMX
    instructions for it: two and more times as fast there, where others are slower.
    """
    if precision != "auto":
        return {"float32": torch.float32, "float16": torch.float16}.get(precision, torch.bfloat16)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def schedule_factor(config: TrainConfig, step: int) -> float:
    """Return the share of the highest learning rate at ``step``: a linear warm-up, then decay."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    if config.schedule == "poly":
        return math.pow(1 - done, 0.9)  # Chen et al., DeepLab, arXiv 1606.00915
    return 0.5 + 0.5 * math.cos(math.pi * done)  # Loshchilov and Hutter, arXiv 1608.03983


def parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return encoder and decoder parameters by rate; only kernels decay."""
    decoder = decoder_keys(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        peak = config.decoder_rate if name in decoder else config.encoder_rate
        decay = config.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in groups.items()
    ]


def freeze_stages(network: nn.Module, stages: int) -> None:
    """Take the encoder's first ``stages`` layers, and what stands before, out of training.

    Raises:
        TrainError: the encoder has fewer layers.
    """
    parts = [
        name for name, _ in network.named_children() if name.startswith(("conv1", "bn1", "layer"))
    ]
    if stages and f"layer{stages}" not in parts:
        raise TrainError(f"frozen_stages is {stages}: the encoder's last stage is {parts[-1]}")
    for name in parts[: parts.index(f"layer{stages}") + 1 if stages else 0]:
        network.get_submodule(name).requires_grad_(False)


def set_training_mode(network: nn.Module, config: TrainConfig) -> None:
    """Turn on what training changes: statistics that are not frozen, and dropout if wanted."""
    network.train()
    for module in network.modules():
        frozen = config.freeze_statistics or not all(p.requires_grad for p in module.parameters())
        silent = isinstance(module, nn.Dropout) and not config.dropout
        if silent or (frozen and isinstance(module, nn.BatchNorm2d)):
            module.eval()


def keep_zeros(network: nn.Module) -> None:
    """Let the zeros of kernels stay zero: a fixed mask, as in Han et al., arXiv 1506.02626.

    Thousands of weights that begin at zero all move in Adam's first steps, and what they sum up to
    undoes what was fitted; those that stay small are lost where INT8 rounds them.
    """
    for parameter in network.parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            mask = parameter.detach() != 0
            parameter.register_hook(mask.mul)  # type: ignore[no-untyped-call] # not in stubs
