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
    """The first bin of each of so many groups, made by cutting the groups of greatest squared error at their means."""
    firsts = np.zeros(1, np.intp)
    while firsts.size < groups:
        means, errors = _means_and_errors(bins, firsts)
        most = min(groups - firsts.size, (firsts.size + 1) // 2)
        worst = np.argsort(-errors, kind="stable")[:most]
        worst = worst[errors[worst] > 0]
        if not worst.size:
            break
        # A mean may round to the group's first point: the cut still leaves something on both sides.
        cuts = np.maximum(np.searchsorted(bins.means, means[worst]), firsts[worst] + 1)
        firsts = np.union1d(firsts, cuts)
    return firsts


def _means_and_errors(bins: Bins, firsts: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    means = bins.merged(firsts).means
    sizes = np.diff(np.append(firsts, bins.counts.size))
    deviations = bins.means - np.repeat(means, sizes)
    return means, np.add.reduceat(bins.counts * deviations * deviations, firsts)


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
