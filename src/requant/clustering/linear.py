"""Cells of equal width between the least and the greatest value."""

import numpy as np
from numpy.typing import NDArray


def linear(values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The lower ends of the cells; cells that no value falls into are dropped by the caller.

    Args:
        values: (n,) float32.
        centroids: how many cells.
        weights: (n,) not negative; values of no weight do not widen the range. None: all 1.

    Returns:
        (m,) strictly increasing, the first the least value; m < k where cells are narrower than float32 resolves.

    """
    low, width = _cells(values, centroids, weights)
    return np.unique(np.float32(low + width * np.arange(centroids)))


def middles(
    values: NDArray[np.float32], starts: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """(m,) the middles of the cells that begin at `starts` (m,), some of those that `linear` gives."""
    low, width = _cells(values, centroids, weights)
    cells = np.rint((starts.astype(np.float64) - low) / width)
    found: NDArray[np.float32] = (low + width * (cells + 0.5)).astype(np.float32)
    return found


def _cells(values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None) -> tuple[float, float]:
    """Where the first cell begins, and how wide each is."""
    counted = values if weights is None else values[weights > 0]
    low, high = float(counted.min()), float(counted.max())
    return low, (high - low) / centroids
