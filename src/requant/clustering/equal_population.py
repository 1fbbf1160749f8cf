"""The paper's clustering: clusters that hold equal numbers of values.

Thonglek et al., "Retraining Quantized Neural Network Models with Unlabeled Data", IJCNN 2020, section III.
"""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins, summarize


def equal_population(
    values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Sorted values cut into k runs whose sizes differ by at most one.

    Equal values that a cut would part all go to the upper of the two clusters. A cluster that this empties is dropped.
    With weights, a run begins at the value in which the weight of those up to it exceeds i/k of the whole.

    Args:
        values: (n,) float32.
        centroids: k.
        weights: (n,) not negative; None: all 1.

    Returns:
        (m,) the least value of each run, m up to k.

    """
    summary = summarize(values, weights, centroids)
    ranks = _ranks(summary.bins, centroids, weights is not None)
    if summary.grid is not None:
        holds_a_rank = np.zeros(summary.bins.size, bool)
        holds_a_rank[_bin_of(summary.bins, ranks)] = True
        summary = summary.refined(values, weights, holds_a_rank)
    return np.unique(summary.bins.starts[_bin_of(summary.bins, ranks)])


def _ranks(bins: Bins, centroids: int, weighted: bool) -> NDArray[np.float64]:
    """Where each run begins, in values or in weight from the least value on."""
    total = float(bins.mass.sum())
    if weighted:
        return np.linspace(0, total, centroids, endpoint=False)
    ranks: NDArray[np.float64] = (np.arange(centroids) * int(total) // centroids).astype(np.float64)
    return ranks


def _bin_of(bins: Bins, ranks: NDArray[np.float64]) -> NDArray[np.intp]:
    found = np.searchsorted(np.cumsum(bins.mass), ranks, side="right")
    return np.minimum(found, bins.size - 1)
