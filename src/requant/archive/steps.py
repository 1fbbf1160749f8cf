"""Tables of equal steps about 0, as grids have them: an odd number of centroids, held as the step alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.codebook import FLOAT32, Codebook, index_dtype

STEPS = "steps"
"""The name that a manifest knows."""


def table_of(step: np.float32, k: int) -> NDArray[np.float32]:
    """(k,) the multiples of the step from -(k // 2) to k // 2, each rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):  # a forged step: such centroids are refused like any
        return (np.arange(k) - k // 2).astype(np.float32) * np.float32(step)


def codebook_of(multiples: NDArray[np.integer], reach: int, step: float, dtype: np.dtype[Any] = FLOAT32) -> Codebook:
    """Values that are such multiples of a step, on a table that reaches so many to each side of 0."""
    table = table_of(np.float32(step), 2 * reach + 1)
    indices: Any = (multiples + reach).astype(index_dtype(table.size))
    return Codebook(table, indices, dtype)


def step_of(table: NDArray[np.float32]) -> np.float32 | None:
    """The step of a table that is `table_of` it, bit for bit; None: it is no such table."""
    k = table.size
    if k < 3 or k % 2 == 0:
        return None
    step: np.float32 = table[k // 2 + 1]
    same = np.array_equal(table_of(step, k).view(np.uint32), np.ascontiguousarray(table).view(np.uint32))
    return step if same and step > 0 else None
