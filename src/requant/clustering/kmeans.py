"""Least squared error, to within a percent, in time that hardly grows with the number of values."""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.moves import improved_firsts
from requant.clustering.optimal import optimal_firsts
from requant.clustering.solving import solved
from requant.clustering.starts import density_firsts, split_firsts

EXACT = 1 << 17  # bins times centroids up to which the optimum itself is found


def kmeans(values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The least value of each cluster of a k-means clustering.

    Args:
        values: (n,) float32, with more than k distinct of positive weight.
        centroids: k.
        weights: (n,) not negative; None: all 1.

    Returns:
        (k,) strictly increasing.

    """
    return solved(values, weights, centroids, lambda bins: least_error_firsts(bins, centroids))


def least_error_firsts(bins: Bins, centroids: int) -> tuple[NDArray[np.intp], float]:
    """The first bin of each cluster, (k,), and the squared error of the bins' points."""
    costs = IntervalCosts(bins.points, bins.mass)
    if bins.size * centroids <= EXACT:
        firsts = optimal_firsts(costs, bins.size, centroids)
        return firsts, float(costs(firsts, np.append(firsts[1:], bins.size) - 1).sum())
    starts = (split_firsts(bins, centroids), density_firsts(bins, centroids))
    return min((improved_firsts(costs, bins, start) for start in starts), key=lambda found: found[1])
