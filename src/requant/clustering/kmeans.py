"""Least squared error, to within a percent, in time that hardly grows with the number of values."""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.moves import improved_firsts, settled_firsts
from requant.clustering.optimal import optimal_firsts, optimal_firsts_of_rows
from requant.clustering.solving import solved
from requant.clustering.starts import density_firsts, split_firsts

COARSE = 4  # groups of bins a cluster, at least, among which an optimum is sought first
CELLS = 1 << 12  # groups times centroids, where that makes more groups
WHOLE = 1 << 14  # bins times centroids, where so few bins are not grouped
FEW = 128  # centroids up to which it is
AT_ONCE = 1 << 16  # bins of several sets


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
    """The first bin of each cluster, and the squared error of the bins' points; fewer bins are a cluster each."""
    centroids = min(centroids, bins.size)
    if centroids > FEW and bins.size > 4 * COARSE * centroids:
        return _many(bins, centroids)
    costs = IntervalCosts(bins.points, bins.mass)
    if centroids <= FEW and bins.size <= _whole(centroids):
        firsts = optimal_firsts(costs, bins.size, centroids)
        return firsts, float(costs(firsts, np.append(firsts[1:], bins.size) - 1).sum())
    return improved_firsts(costs, bins, _starts(bins, centroids))


def _many(bins: Bins, centroids: int) -> tuple[NDArray[np.intp], float]:
    """As `least_error_firsts`, of many clusters: sought among groups of bins, then each cut put where it is best."""
    groups = np.union1d(density_firsts(bins, COARSE * centroids), split_firsts(bins, COARSE * centroids))
    coarse = bins.merged(groups)
    found, _ = improved_firsts(IntervalCosts(coarse.points, coarse.mass), coarse, _starts(coarse, centroids))
    return settled_firsts(bins, groups[found])


def kmeans_of_rows(rows: list[Bins], centroids: int) -> list[NDArray[np.float32]]:
    """As `kmeans`, of many small sets of values at once, given as bins: `at_once` of them.

    Returns:
        For each set the least value of each cluster, (k,).

    """
    stride = 1 << (max(bins.size for bins in rows) - 1).bit_length()
    points, mass = (
        np.concatenate([np.pad(getattr(bins, part), (0, stride - bins.size), mode="edge") for bins in rows])
        for part in ("points", "mass")
    )
    costs = IntervalCosts(points, mass, stride)
    firsts = optimal_firsts_of_rows(costs, stride, np.array([bins.size for bins in rows]), centroids)
    return [bins.starts[first] for bins, first in zip(rows, firsts, strict=True)]


def at_once(bins: int, centroids: int) -> int:
    """How many sets of so many bins `kmeans_of_rows` may be given; 0: it cannot solve them."""
    return max(1, AT_ONCE // bins) if centroids <= FEW and centroids < bins <= _whole(centroids) else 0


def _whole(centroids: int) -> int:
    """Up to so many bins are solved to the optimum."""
    return max(COARSE * centroids, WHOLE // centroids)


def _groups(centroids: int) -> int:
    """How many groups of more bins dynamic programming looks at first."""
    return max(COARSE * centroids, CELLS // centroids)


def _starts(bins: Bins, centroids: int) -> tuple[NDArray[np.intp], ...]:
    """First guesses; few clusters are found by dynamic programming, as local optima can then lie far apart."""
    if centroids > FEW:
        return split_firsts(bins, centroids), density_firsts(bins, centroids)
    groups = split_firsts(bins, _groups(centroids))
    coarse = bins.merged(groups)
    return (groups[optimal_firsts(IntervalCosts(coarse.points, coarse.mass), coarse.size, centroids)],)
