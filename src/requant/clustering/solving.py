"""Clusterings by a solver that sees bins: made as narrow as its squared error asks for."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import DISTINCT, Bins, intervals, summarize
from requant.clustering.cells import even_bins
from requant.clustering.starts import split_firsts

TOLERANCE = 1e-3  # of the squared error: what the width of bins may add to it
MOST_BINS = 1 << 16


def solved(
    values: NDArray[np.float32],
    weights: NDArray[np.float64] | None,
    clusters: int,
    solve: Callable[[Bins], tuple[NDArray[np.intp], float]],
) -> NDArray[np.float32]:
    """The least value of each cluster that `solve` finds, on bins narrow enough for its squared error.

    `solve` gives the first bin of each cluster and the squared error. Where the width of the bins may add more than a
    thousandth to that, the widest are replaced by the values in them, and it is asked once more.
    """
    if weights is None and values.size > DISTINCT:
        even = even_bins(values, clusters, intervals(clusters), TOLERANCE)
        if even is not None:
            firsts, error = solve(even)
            if not _too_wide(even, error).any():
                return even.starts[firsts]
    summary = summarize(values, weights, clusters)
    bins = summary.bins
    firsts, error = solve(bins)
    if (heavy := _too_wide(bins, error)).any():
        bins = summary.refined(values, weights, heavy).bins
        if bins.size > MOST_BINS:
            bins = bins.merged(split_firsts(bins, MOST_BINS))
        firsts, _ = solve(bins)
    return bins.starts[firsts]


def _too_wide(bins: Bins, error: float) -> NDArray[np.bool_]:
    """The fewest bins without which the width of the others may add no more than the tolerance."""
    possible = bins.mass * bins.radius * bins.radius
    order = np.argsort(possible, kind="stable")
    heavy = np.zeros(bins.size, bool)
    heavy[order] = np.cumsum(possible[order]) > TOLERANCE * error
    return heavy & (bins.radius > 0)
