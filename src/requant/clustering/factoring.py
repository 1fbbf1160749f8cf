"""Low rank before clustering: a fully connected layer's weight as the product of two thin factors.

The factors are those of the singular value decomposition, which of all products of their rank is nearest to the weight
(Eckart and Young, 1936). Both get the root of the singular values and then the same mean square, so that one table of
centroids serves both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from requant.errors import UserError


def rank_of(singular: NDArray[np.float64], rank: float) -> int:
    """How many singular values to keep: `rank` of them, or as many as hold that share (below 1) of their squares."""
    if rank >= 1:
        return min(int(rank), singular.size)
    energy = np.cumsum(singular**2)
    return int(np.searchsorted(energy, rank * energy[-1])) + 1


def factors(weight: NDArray[np.float32], rank: float, name: str) -> NDArray[np.float32]:
    """The factors one above the other.

    Args:
        weight: (O, I).
        rank: columns of a factor, or the share of the weight's squares that they should hold, below 1.
        name: what messages call the weight.

    Returns:
        (O + I, r); the product of the first O rows with the transposed last I is near the weight.

    Raises:
        UserError: for a weight that has not two dimensions, and for factors that are not smaller than it.

    """
    if weight.ndim != 2:
        raise UserError(f"{name}: rank is for fully connected layers (two dimensions), not for shape {weight.shape}")
    left, singular, right = _decomposed(weight)
    r = rank_of(singular, rank)
    if r * sum(weight.shape) >= weight.size:
        raise UserError(
            f"{name}: factors of rank {r} have as many values as the {weight.shape} weight: "
            f"set a rank below {weight.size / sum(weight.shape):.0f}"
        )
    root = np.sqrt(singular[:r])
    above, below = left[:, :r] * root, right[:r].T * root
    balance = (np.square(below).mean() / max(np.square(above).mean(), np.finfo(np.float64).tiny)) ** 0.25
    balance = balance if balance > 0 else 1.0
    return np.concatenate([above * balance, below / balance]).astype(np.float32)


def _decomposed(weight: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    import torch  # late: plans are read without it

    parts = torch.linalg.svd(torch.from_numpy(weight.astype(np.float64)), full_matrices=False)
    return (part.numpy() for part in parts)
