"""Least squared error: exact on few distinct values, within a percent of it on many."""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins, summarize
from requant.clustering.optimal import optimal_firsts

EXACT = 4096  # distinct values up to which the optimum itself is found
COARSE = 1024  # bins that the first guess is optimal on, at least
BINS_A_CLUSTER = 8
ITERATIONS = 200


def kmeans(values: NDArray[np.float32], centroids: int) -> NDArray[np.float32]:
    """The least value of each cluster of a k-means clustering.

    Args:
        values: (n,) float32, with more than k distinct.
        centroids: k.

    Returns:
        (k,) strictly increasing.

    """
    bins = summarize(values)
    if bins.counts.size <= EXACT:
        return bins.starts[optimal_firsts(bins.means, bins.counts, centroids)]
    groups = _coarse_firsts(bins, max(COARSE, BINS_A_CLUSTER * centroids))
    coarse = bins.merged(groups)
    firsts = groups[optimal_firsts(coarse.means, coarse.counts, centroids)]
    return bins.starts[_lloyd(bins, firsts)]


def _coarse_firsts(bins: Bins, groups: int) -> NDArray[np.intp]:
    """Cuts half by the number of values, half by the cube root of the density.

    The cube root is how the centroids of many clusters lie (Panter and Dite, 1951); where one far value takes it all,
    the number of values still resolves the rest.
    """
    widths = np.gradient(bins.means)
    widths = np.ldexp(widths, -int(np.frexp(widths.max())[1]))  # exact, so that a power of two in the values cancels
    by_density = np.cbrt(bins.counts * widths * widths)
    return np.union1d(_even_cuts(by_density, groups // 2), _even_cuts(bins.counts.astype(np.float64), groups // 2))


def _even_cuts(mass: NDArray[np.float64], pieces: int) -> NDArray[np.intp]:
    cumulative = np.cumsum(mass)
    return np.unique(np.searchsorted(cumulative, cumulative[-1] * (np.arange(pieces) / pieces)))


def _lloyd(bins: Bins, firsts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Lloyd's iteration on the bins: each bin goes to the nearest mean, until none moves."""
    points = bins.means
    for _ in range(ITERATIONS):
        means = bins.merged(firsts).means
        moved = np.append(0, np.searchsorted(points, (means[1:] + means[:-1]) / 2))
        if (moved == firsts).all() or (moved[1:] <= moved[:-1]).any() or moved[-1] >= points.size:
            break
        firsts = moved
    return firsts
