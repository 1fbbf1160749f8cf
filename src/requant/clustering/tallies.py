"""How often each number occurs in an array, and what lies on it.

Where there are many, by torch, which lets threads work beside each other meanwhile (numpy's counting does not);
imported late, as plans are read without it. Few are left to numpy: torch would wake its own threads for them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 1 << 18  # a whole part of what threads share (`parallel.CHUNK`) is not few
WIDER = {np.dtype(np.uint16): np.int32}  # torch does not count these


def tallied(numbers: NDArray[Any], size: int, weights: NDArray[Any] | None = None) -> NDArray[Any]:
    """(size,) how often 0, 1, ... size - 1 occur in numbers (n,), int64; with weights (n,) their sums, float64."""
    if numbers.size < FEW:
        return np.bincount(numbers, weights, size)
    import torch

    counted = torch.from_numpy(np.ascontiguousarray(numbers, WIDER.get(numbers.dtype, numbers.dtype)))
    summed = None if weights is None else torch.from_numpy(np.ascontiguousarray(weights, np.float64))
    totals: NDArray[Any] = torch.bincount(counted, summed, minlength=size).numpy()
    return totals
