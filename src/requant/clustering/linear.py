"""Cells of equal width between the least and the greatest value."""

import numpy as np
from numpy.typing import NDArray


def linear(values: NDArray[np.float32], centroids: int) -> NDArray[np.float32]:
    """The lower ends of the cells; cells that no value falls into are dropped by the caller.

    Args:
        values: (n,) float32.
        centroids: how many cells.

    Returns:
        (m,) strictly increasing, the first the least value; m < k where cells are narrower than float32 resolves.

    """
    low, high = float(values.min()), float(values.max())
    return np.unique(np.float32(low + (high - low) * (np.arange(centroids) / centroids)))
