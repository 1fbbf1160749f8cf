"""The partition of few sorted points into k intervals of least squared error, by dynamic programming.

The best last cut moves one way only as points are added, so each layer is solved by divide and conquer
(Grønlund et al., "Fast Exact k-Means, k-Medians and Bregman Divergence Clustering in 1D", 2017), here for all
intervals of one depth at once.
"""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.interval_costs import IntervalCosts


def optimal_firsts(costs: IntervalCosts, size: int, clusters: int) -> NDArray[np.intp]:
    """The position of the first point of each cluster.

    Args:
        costs: of intervals of n sorted points.
        size: n.
        clusters: 1 to n.

    Returns:
        (clusters,) strictly increasing, the first 0. Time O(clusters n log n).

    """
    ends = np.arange(size)
    best = costs(np.zeros_like(ends), ends)
    cuts = []
    for layer in range(1, clusters):
        best, cut = _next_layer(best, costs, layer)
        cuts.append(cut.astype(np.int32))
    return _trace(cuts, size - 1)


def _trace(cuts: list[NDArray[np.int32]], last: int) -> NDArray[np.intp]:
    firsts = []
    for cut in reversed(cuts):
        firsts.append(int(cut[last]))
        last = firsts[-1] - 1
    return np.array([0, *reversed(firsts)], np.intp)


def _next_layer(
    best: NDArray[np.float64], costs: IntervalCosts, layer: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """From the least cost of points 0..j in `layer` clusters to that in one more, with each last cluster's first."""
    n = best.size
    cut = np.full(n + 1, n - 1, np.intp)  # the entry beyond the end bounds the search from above
    least = np.full(n, np.inf)
    step = 1 << (n - 1).bit_length()
    while step:
        ends = np.arange(step - 1, n, 2 * step)
        ends = ends[ends >= layer]
        below, above = ends - step, np.minimum(ends + step, n)
        low = np.where(below >= layer, cut[below], layer)
        high = np.minimum(cut[above], ends)
        least[ends], cut[ends] = _best_cuts(best, costs, ends, low, high)
        step >>= 1
    return least, cut[:n]


def _best_cuts(
    best: NDArray[np.float64],
    costs: IntervalCosts,
    ends: NDArray[np.intp],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """For each end, the first of the last cluster, from `low` to `high`, that costs least, and that cost."""
    if not ends.size:
        return np.empty(0), ends
    lengths = high - low + 1
    begins = np.cumsum(lengths) - lengths
    firsts = np.arange(lengths.sum()) - np.repeat(begins - low, lengths)
    total = best[firsts - 1] + costs(firsts, np.repeat(ends, lengths))
    least = np.minimum.reduceat(total, begins)
    hits = np.flatnonzero(total == np.repeat(least, lengths))
    return least, firsts[hits[np.searchsorted(hits, begins)]]
