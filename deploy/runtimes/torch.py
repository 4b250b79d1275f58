"""Torch on the CPU."""

import torch
from torch import nn

from deploy.calibration.preprocess import Float32Array
from deploy.runtimes.runner import Runner


class TorchRunner:
    """A torch module on the CPU, in the memory layout in which torch is fastest there."""

    def __init__(self, module: nn.Module) -> None:
        self.name = type(module).__name__
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.module = module.eval()
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the module on one image."""
        with torch.inference_mode():
            logits: Float32Array = self.module(torch.from_numpy(image))[0].contiguous().numpy()
        return logits

    def execution(self) -> None:
        """Return None: it computes in float."""
