"""Linear fits of one network's features to another's, and how much of them is not met."""

import torch
from torch import Tensor

RIDGE = 1e-2  # of the least squares, relative to the regressors' mean variance


def pursue(rows: Tensor, target: Tensor, count: int) -> list[int]:
    """Return the columns of ``rows`` (n, k) that tell most of ``target`` (n, m), best first.

    Orthogonal matching pursuit on all outputs at once: each choice is the column that lowers the
    squared error most, given those before it.
    """
    rows = rows - rows.mean(0)
    gram, product = (rows.T @ rows).double(), (rows.T @ (target - target.mean(0))).double()
    left = gram.diagonal().clone()  # variance that the chosen columns do not tell
    floor = RIDGE * float(left.mean()) + 1e-12
    factor = gram.new_zeros(len(gram), min(count, len(gram)))  # Cholesky's, of the chosen columns
    chosen: list[int] = []
    for k in range(factor.shape[1]):
        gain = product.square().sum(1) / (left + floor)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        column = gram[:, best] - factor[:, :k] @ factor[best, :k]
        factor[:, k] = column / (column[best] + floor).sqrt()
        left -= factor[:, k].square()
        product -= factor[:, k, None] * (product[best] / (column[best] + floor).sqrt())
    return chosen


def least_squares(rows: Tensor, target: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Return weight (m, k) and bias (m,) of the fit of ``target`` (n, m) by ``rows`` (n, k)."""
    mean, middle = rows.mean(0), target.mean(0)
    centred = rows - mean
    gram = (centred.T @ centred).double()
    gram.diagonal().add_(ridge * float(gram.diagonal().mean()) + 1e-12)
    product = (centred.T @ (target - middle)).double()
    weight = torch.linalg.solve(gram, product).T.float()
    return weight, middle - weight @ mean


def unexplained(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the share of the teacher's variance that is not met: 0 is equal, 1 no better than 0.

    Features are compared in the channels that both have, the leading ones.
    """
    channels = min(found.shape[1], wanted.shape[1])
    found, wanted = found[:, :channels].float(), wanted[:, :channels].float()
    spread = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    return (found - wanted).square().sum() / spread.clamp_min(1e-12)
