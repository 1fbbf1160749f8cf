"""First partitions of bins, for others to improve."""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins


def split_firsts(bins: Bins, clusters: int) -> NDArray[np.intp]:
    """The intervals of greatest squared error are cut in two until there are enough.

    Returns:
        The first bin of each, (clusters,) strictly increasing, the first 0; there must be as many bins at least.

    """
    firsts = np.zeros(1, np.intp)
    while firsts.size < clusters:
        means, errors = means_and_errors(bins, firsts)
        sizes = np.diff(np.append(firsts, bins.size))
        errors[sizes == 1] = -1.0  # nothing to cut, whatever rounding says
        most = min(clusters - firsts.size, (firsts.size + 1) // 2)
        worst = np.argsort(-errors, kind="stable")[:most]
        worst = worst[sizes[worst] > 1]
        # A mean may round to the interval's first or last point: the cut still leaves something on both sides.
        cuts = np.searchsorted(bins.points, means[worst])
        firsts = np.union1d(firsts, np.clip(cuts, firsts[worst] + 1, firsts[worst] + sizes[worst] - 1))
    return firsts


def means_and_errors(bins: Bins, firsts: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each part: (k,) and (k,)."""
    means = np.add.reduceat(bins.mass * bins.points, firsts) / np.add.reduceat(bins.mass, firsts)
    deviations = bins.points - np.repeat(means, np.diff(np.append(firsts, bins.size)))
    return means, np.add.reduceat(bins.mass * deviations * deviations, firsts)


def density_firsts(bins: Bins, clusters: int) -> NDArray[np.intp]:
    """Equal parts of the integral of the cube root of the values' density: right for many clusters of smooth values.

    Panter and Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels", 1951.

    Returns:
        The first bin of each, (clusters,) strictly increasing, the first 0; there must be as many bins at least.

    """
    widths = np.maximum(np.diff(bins.points, append=bins.points[-1]), 2 * bins.radius)
    reached = np.cumsum(np.cbrt(bins.mass * widths * widths))
    ideal = np.searchsorted(reached, reached[-1] * np.arange(clusters) / clusters)
    # Clusters that begin in one bin are spread over those that follow it, and over those before where they end.
    rising = np.maximum.accumulate(ideal - np.arange(clusters)) + np.arange(clusters)
    rising = np.minimum(rising, bins.size - clusters + np.arange(clusters))
    return np.append(0, rising[1:])
