"""Clusterings by a solver that sees bins: made as narrow as its squared error asks for."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import DISTINCT, Bins, intervals, summarize
from requant.clustering.cells import even_bins
from requant.clustering.starts import density_firsts, split_firsts

TOLERANCE = 1e-3  # of the squared error: what the width of bins may add to it
MOST_BINS = 1 << 16


def solved(
    values: NDArray[np.float32],
    weights: NDArray[np.float64] | None,
    clusters: int,
    solve: Callable[[Bins], tuple[NDArray[np.intp], float]],
) -> NDArray[np.float32]:
    """The least value of each cluster that `solve` finds, on bins narrow enough for its squared error.

    `solve` gives the first bin of each cluster and the squared error. It is asked with bins that are quick to make.
    Where their width may add more than a thousandth to that error, it is asked with better ones, and where that of some
    of those still may, with the values in them in their place.
    """
    by_cells = weights is None and values.size > DISTINCT
    summary = None if by_cells else summarize(values, weights, clusters)
    wanted = intervals(clusters)
    quick = _joined(summary.bins, wanted) if summary else even_bins(values, clusters, wanted, TOLERANCE)
    if quick is not None:
        firsts, error = solve(quick)
        if not _too_wide(quick, error).any():
            return quick.starts[firsts]
    summary = summary or summarize(values, weights, clusters)
    bins = summary.bins
    firsts, error = solve(bins)
    if (heavy := _too_wide(bins, error)).any():
        bins = summary.refined(values, weights, heavy).bins
        if bins.size > MOST_BINS:
            bins = bins.merged(split_firsts(bins, MOST_BINS))
        firsts, _ = solve(bins)
    return bins.starts[firsts]


def _joined(bins: Bins, wanted: int) -> Bins | None:
    """About so many bins, neighbours joined; None where there are hardly more."""
    return bins.merged(density_firsts(bins, wanted)) if bins.size > 2 * wanted else None


def _too_wide(bins: Bins, error: float) -> NDArray[np.bool_]:
    """The fewest bins without which the width of the others may add no more than the tolerance."""
    possible = bins.mass * bins.radius * bins.radius
    order = np.argsort(possible, kind="stable")
    heavy = np.zeros(bins.size, bool)
    heavy[order] = np.cumsum(possible[order]) > TOLERANCE * error
    return heavy & (bins.radius > 0)
