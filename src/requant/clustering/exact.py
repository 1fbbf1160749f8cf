"""The least squared error there is: dynamic programming over the distinct values."""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.assign import assign
from requant.clustering.bins import DISTINCT, Bins, distinct_values
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.optimal import optimal_firsts
from requant.clustering.solving import solved
from requant.errors import UserError

MOST_CUTS = 1 << 26  # of 4 bytes each: the last cuts that the dynamic programming remembers
FINE = 512  # clusters that the bins of many values are made for, at least


def exact(values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The least value of each cluster of an optimal clustering; time O(k d log d) for d distinct values.

    Up to 65,536 values each distinct one is a point of its own. Above, so do the distinct values if they are as few;
    else the points are bins of the values, 32,000 or more, and the result is optimal for these.

    Args:
        values: (n,) float32, with more than k distinct of positive weight.
        centroids: k.
        weights: (n,) not negative; None: all 1.

    Raises:
        UserError: if k times the number of points is above 2**26, which would take more than 256 MiB.

    """

    def solve(bins: Bins) -> tuple[NDArray[np.intp], float]:
        return _optimum(bins, centroids)

    distinct = distinct_values(values, weights, DISTINCT)
    if distinct is None:
        return solved(values, weights, max(centroids, FINE), solve)
    _, members = assign(values, distinct, weights)
    firsts, _ = solve(Bins(distinct, distinct.astype(np.float64), members.mass, np.zeros(distinct.size)))
    return distinct[firsts]


def _optimum(bins: Bins, centroids: int) -> tuple[NDArray[np.intp], float]:
    if bins.size * centroids > MOST_CUTS:
        raise UserError(
            f"exact clustering of {bins.size:,} points around {centroids} centroids needs more than 256 MiB: "
            "take fewer centroids, or method kmeans, which stays within a percent of the optimum"
        )
    costs = IntervalCosts(bins.points, bins.mass)
    firsts = optimal_firsts(costs, bins.size, min(centroids, bins.size))
    return firsts, float(costs(firsts, np.append(firsts[1:], bins.size) - 1).sum())
