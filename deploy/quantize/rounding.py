"""Which integers a convolution's weights become, given what its inputs look like.

Rounding each weight to the nearest integer minimizes the error of the weights. What matters is the
error of the convolution's result, E|(w - s q) x|² = (w - s q)ᵀ H (w - s q) for each output channel,
with H the second moment of the input patches x: roundings that cancel each other cost nothing.
Where the bias is corrected afterwards, the mean of the error costs nothing either, and H is the
covariance.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Rounder = Callable[[Float64, Float64, int], Float64]

DAMPING = 0.01  # of H's mean diagonal, added to it: inputs that hardly vary make it singular
BLOCK = 128  # columns rounded between two updates of all that follow
LEARNING_RATE = 0.1
REGULARIZER = 0.1  # its weight, relative to a squared error of one step in one input
LEARNING_FLOPS = 1e11  # of AdaRound's products, for one convolution: its bound in time
ITERATIONS = (200, 2000)  # of AdaRound, at least and at most
STRETCH = (-0.1, 1.1)  # AdaRound's ζ and γ: the sigmoid reaches 0 and 1


def error(weight: Float64, q: Float64, second: Float64) -> float:
    """Return Σ (w - q)ᵀ H (w - q) over all output channels, all in units of the scale."""
    difference = weight - q
    return float(np.einsum("grk,grk->", difference @ second, difference))


def round_second_order(weight: Float64, second: Float64, limit: int) -> Float64:
    """Round one input after another; those not rounded yet make up for the error so far.

    Optimal Brain Quantization with a fixed order, known as GPTQ: Frantar et al. 2022, arXiv
    2210.17323, algorithm 1; inputs of large energy come first. No learning: one Cholesky
    decomposition and one pass.

    Args:
        weight: (G, R, K), groups, output channels of each, patch values, in units of the scale.
        second: (G, K, K), H.
        limit: the largest magnitude of an integer.

    Returns:
        Integers (G, R, K).
    """
    size = weight.shape[2]
    order = np.argsort(-np.diagonal(second, axis1=1, axis2=2), axis=1, kind="stable")
    left = np.take_along_axis(weight, order[:, None, :], axis=2)
    h = np.take_along_axis(second, order[:, None, :], axis=2)
    h = np.take_along_axis(h, order[:, :, None], axis=1)
    # the rows of U, with H⁻¹ = Uᵀ U, say how the inputs that follow make up for an error
    upper = _factor_inverse(h).transpose(0, 2, 1)
    q = np.empty_like(left)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty((*left.shape[:2], stop - start))
        for i in range(start, stop):
            q[:, :, i] = np.rint(left[:, :, i]).clip(-limit, limit)
            e = (left[:, :, i] - q[:, :, i]) / upper[:, None, i, i]
            left[:, :, i + 1 : stop] -= e[:, :, None] * upper[:, None, i, i + 1 : stop]
            errors[:, :, i - start] = e
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    result = np.empty_like(q)
    np.put_along_axis(result, order[:, None, :], q, axis=2)
    return result


def round_learned(weight: Float64, second: Float64, limit: int) -> Float64:
    """Learn for each weight whether to round it up or down.

    :func:`round_second_order`, which may move an integer further than to its neighbours, is the
    better of the two on the networks measured (docs/accuracy.md).

    AdaRound: Nagel et al. 2020, arXiv 2004.10568: equation 13's local loss with the regularizer of
    equation 24, whose exponent falls from 20 to 2. The loss needs H alone, so that every step sees
    all calibration patches at once. The number of steps follows from LEARNING_FLOPS.

    Args and result: as of :func:`round_second_order`.
    """
    rows, size = weight.shape[0] * weight.shape[1], weight.shape[2]
    steps = int(np.clip(LEARNING_FLOPS / (4 * rows * size**2), *ITERATIONS))
    h = torch.from_numpy(_damped(second)).float()
    h /= h.diagonal(dim1=1, dim2=2).mean()
    target = torch.from_numpy(weight).float()
    floor = target.floor()
    low, high = STRETCH
    start = ((target - floor - low) / (high - low)).clamp(1e-3, 1 - 1e-3)
    gate = torch.logit(start).requires_grad_()
    optimizer = torch.optim.Adam([gate], lr=LEARNING_RATE)
    for step in range(steps):
        done = max(0.0, (step / steps - 0.2) / 0.8)  # the first fifth is free of the regularizer
        up = (torch.sigmoid(gate) * (high - low) + low).clamp(0, 1)
        difference = floor + up - target
        loss = ((difference @ h) * difference).sum()
        if done:
            beta = 2 + 18 * (1 - done)
            loss = loss + REGULARIZER * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    q: Float64 = (floor + (gate.detach() >= 0)).clamp(-limit, limit).double().numpy()
    return q


def _factor_inverse(h: Float64) -> Float64:
    """Return the lower triangular L with L Lᵀ = H⁻¹, after damping, (G, K, K)."""
    try:
        return np.linalg.cholesky(np.linalg.inv(_damped(h)))
    except np.linalg.LinAlgError:
        # inputs of large mean and next to no variance: what E[x xᵀ] - E[x] E[x]ᵀ loses in digits
        # can leave negative eigenvalues beyond the damping
        values, vectors = np.linalg.eigh(h)
        possible = (vectors * values.clip(0)[:, None, :]) @ vectors.transpose(0, 2, 1)
        return np.linalg.cholesky(np.linalg.inv(_damped(possible)))


def _damped(second: Float64) -> Float64:
    """Return H with a small multiple of its mean diagonal added to the diagonal."""
    diagonal = np.diagonal(second, axis1=1, axis2=2).mean(axis=1)
    damping = np.where(diagonal > 0, DAMPING * diagonal, 1.0)
    damped: Float64 = second + damping[:, None, None] * np.eye(second.shape[1])
    return damped
