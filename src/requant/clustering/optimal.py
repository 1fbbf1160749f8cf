"""The partition of few sorted points into k intervals of least squared error, by dynamic programming.

The best last cut moves one way only as points are added, so each layer is solved by divide and conquer
(Grønlund et al., "Fast Exact k-Means, k-Medians and Bregman Divergence Clustering in 1D", 2017), here for all
intervals of one depth at once, and for many sets of points at once. Few points of one set are quicker to solve by
looking at all cuts.
"""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.interval_costs import IntervalCosts

FEW = 256  # points


def optimal_firsts(costs: IntervalCosts, size: int, clusters: int) -> NDArray[np.intp]:
    """The position of the first point of each cluster.

    Args:
        costs: of intervals of n sorted points.
        size: n.
        clusters: 1 to n.

    Returns:
        (clusters,) strictly increasing, the first 0. Time O(clusters n log n).

    """
    if size <= FEW:
        return _by_all_cuts(costs, size, clusters)
    firsts: NDArray[np.intp] = optimal_firsts_of_rows(costs, size, np.array([size]), clusters)[0]
    return firsts


def _by_all_cuts(costs: IntervalCosts, size: int, clusters: int) -> NDArray[np.intp]:
    """O(clusters n^2), in as many steps of numpy as there are clusters."""
    first, last = np.broadcast_arrays(np.arange(size), np.arange(size)[:, None])
    whole = np.where(first <= last, costs(np.minimum(first, last), last), np.inf)  # (last, first)
    best, cuts = whole[:, 0], []
    for _ in range(1, clusters):
        totals = whole[:, 1:] + best[:-1]
        cut = totals.argmin(axis=1)
        best = totals[np.arange(size), cut]
        cuts.append(cut + 1)
    firsts, end = [], size - 1
    for cut in reversed(cuts):
        firsts.append(int(cut[end]))
        end = firsts[-1] - 1
    return np.array([0, *reversed(firsts)], np.intp)


def optimal_firsts_of_rows(
    costs: IntervalCosts, stride: int, sizes: NDArray[np.intp], clusters: int
) -> NDArray[np.intp]:
    """The same for many sets of points: set i are the `sizes[i]` points from `i * stride` on.

    Args:
        costs: of intervals of all sets' points, one set after another.
        stride: points from one set's first to the next one's: each set sorted, what fills it up weightless.
        sizes: (B,) how many points a set has, `clusters` at least.
        clusters: of each set.

    Returns:
        (B, clusters) positions within the sets.

    """
    offsets = np.arange(sizes.size)[:, None] * stride
    width = int(sizes.max())
    best = np.full((sizes.size, stride), np.inf)
    best[:, :width] = costs(np.broadcast_to(offsets, (sizes.size, width)), offsets + np.arange(width))
    cuts = []
    for layer in range(1, clusters):
        best, cut = _next_layer(best, costs, layer, offsets, width)
        cuts.append(cut.astype(np.int32))
    return _trace(cuts, sizes - 1)


def _trace(cuts: list[NDArray[np.int32]], lasts: NDArray[np.intp]) -> NDArray[np.intp]:
    rows, firsts = np.arange(lasts.size), []
    for cut in reversed(cuts):
        firsts.append(cut[rows, lasts].astype(np.intp))
        lasts = firsts[-1] - 1
    return np.stack([np.zeros(rows.size, np.intp), *reversed(firsts)], axis=1)


def _next_layer(
    best: NDArray[np.float64], costs: IntervalCosts, layer: int, offsets: NDArray[np.intp], n: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """From the least cost of points 0..j in `layer` clusters to that in one more, with each last cluster's first."""
    cut = np.full((len(best), n + 1), n - 1, np.intp)  # the entry beyond the end bounds the search from above
    least = np.full(best.shape, np.inf)
    step = 1 << (n - 1).bit_length()
    while step:
        ends = np.arange(step - 1, n, 2 * step)
        ends = ends[ends >= layer]
        below, above = ends - step, np.minimum(ends + step, n)
        low = np.where(below >= layer, cut[:, below], layer)
        high = np.minimum(cut[:, above], ends)
        if ends.size:
            found, firsts = _best_cuts(best.reshape(-1), costs, offsets, ends, low, high)
            least[:, ends], cut[:, ends] = found.reshape(low.shape), firsts.reshape(low.shape)
        step >>= 1
    return least, cut[:, :n]


def _best_cuts(
    best: NDArray[np.float64],
    costs: IntervalCosts,
    offsets: NDArray[np.intp],
    ends: NDArray[np.intp],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """For each end, the first of the last cluster, from `low` to `high`, that costs least, and that cost."""
    lengths = (high - low + 1).reshape(-1)
    begins = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(begins - (low + offsets).reshape(-1), lengths)
    total = best[places - 1] + costs(places, np.repeat((offsets + ends).reshape(-1), lengths))
    least = np.minimum.reduceat(total, begins)
    hits = np.flatnonzero(total == np.repeat(least, lengths))
    found = places[hits[np.searchsorted(hits, begins)]]
    return least, (found.reshape(low.shape) - offsets).reshape(-1)
