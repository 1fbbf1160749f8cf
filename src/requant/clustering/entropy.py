"""Rate-constrained clustering: least squared error for the bits that the indices take once they are entropy coded.

Entropy-constrained scalar quantization (Chou, Lookabaugh and Gray, "Entropy-Constrained Vector Quantization", 1989):
Lloyd's iteration on squared error + lambda times the ideal code length of a value's cluster, -log2 of its share.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.kmeans import least_error_firsts
from requant.clustering.solving import solved
from requant.errors import UserError

ITERATIONS = 300
MOST_LIKELY = 512  # clusters in use that the bins of many values are made for
ATTEMPTS = 32
NEWTON = 6  # attempts that follow the slope; the others halve the range
NEAR = 1e-3  # bits a value that a target may be missed by
RANGE = 1e6  # of lambda about the variance, in both directions


def entropy(
    values: NDArray[np.float32],
    centroids: int,
    weights: NDArray[np.float64] | None,
    *,
    bits: float | None = None,
    lmbda: float | None = None,
) -> NDArray[np.float32]:
    """The least value of each cluster, (m,) rising, m up to k.

    Args:
        values: (n,) float32.
        centroids: k, the most there may be; many can stay unused.
        weights: (n,) not negative; None: all 1.
        bits: what the entropy of the indices should be, bits a value, or
        lmbda: what a bit is worth, in squared error.

    Raises:
        UserError: unless one of bits and lmbda is given, and in its range.

    """
    if (bits is None) == (lmbda is None):
        raise UserError("entropy clustering needs either bits (a value, on average) or lmbda (squared error a bit)")
    if centroids == 1:
        return np.array([values.min()], np.float32)
    if bits is not None and not 0 < bits <= math.log2(centroids):
        raise UserError(f"bits={bits}: must be above 0, and {centroids} centroids give up to {math.log2(centroids):g}")
    if lmbda is not None and not 0 <= lmbda < math.inf:
        raise UserError(f"lmbda={lmbda}: must be a number from 0")

    def solve(bins: Bins) -> tuple[NDArray[np.intp], float]:
        partitions = _Partitions(bins, centroids)
        firsts = partitions.at_bits(bits) if bits is not None else partitions.at_price(lmbda or 0.0)
        return firsts, partitions.error(firsts)

    return solved(values, weights, min(centroids, MOST_LIKELY), solve)


class _Partitions:
    """The best partitions of bins found, for any price of a bit; a partition is the first bin of each cluster."""

    def __init__(self, bins: Bins, centroids: int) -> None:
        self.bins = bins
        self.centroids = centroids
        self.costs = IntervalCosts(bins.points, bins.mass)
        self.center = float(np.average(bins.points, weights=bins.mass))
        self.offsets = bins.points - self.center
        self.mass = np.append(0.0, np.cumsum(bins.mass))
        self.moment = np.append(0.0, np.cumsum(bins.mass * self.offsets))
        self.least_error, _ = least_error_firsts(bins, min(centroids, bins.size))

    def at_bits(self, bits: float) -> NDArray[np.intp]:
        """The partition of least error among those of no more bits."""
        found = self.at_price(0.0)
        if self.bits(found) <= bits:
            return found
        best = np.zeros(1, np.intp)
        variance = self.error(best) / self.mass[-1]
        low, high = math.log(variance / RANGE), math.log(variance * RANGE)
        price = math.log(variance) - 2 * math.log(2) * bits
        for attempt in range(ATTEMPTS):
            found = self.at_price(math.exp(price))
            spent = self.bits(found)
            if spent <= bits + NEAR and self.error(found) <= self.error(best):
                best = found
            if abs(spent - bits) <= NEAR:
                break
            low, high = (price, high) if spent > bits else (low, price)
            price += 2 * math.log(2) * (spent - bits)  # small cells: four times the price, one bit less
            if attempt > NEWTON or not low < price < high:
                price = (low + high) / 2
        return best

    def at_price(self, price: float) -> NDArray[np.intp]:
        """The partition of least squared error + price * bits, of those that several starts lead to."""
        ends = (self._iterated(start, price) for start in self._starts(price))
        return min(ends, key=lambda firsts: self.error(firsts) + price * self.mass[-1] * self.bits(firsts))

    def error(self, firsts: NDArray[np.intp]) -> float:
        """Squared error."""
        return float(self.costs(firsts, np.append(firsts[1:], self.bins.size) - 1).sum())

    def bits(self, firsts: NDArray[np.intp]) -> float:
        """Entropy of the clusters, bits a value."""
        share = self._weights(firsts) / self.mass[-1]
        return float(-(share * np.log2(share)).sum()) + 0.0

    def _weights(self, firsts: NDArray[np.intp]) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = self.mass[np.append(firsts[1:], self.bins.size)] - self.mass[firsts]
        return weights

    def _starts(self, price: float) -> Iterator[NDArray[np.intp]]:
        """Least error; and equal cells, of the width that is right for this price where cells are small."""
        yield self.least_error
        width = math.sqrt(6 * price / math.log(2))  # dD/dR of uniform cells: D = width^2 / 12, R = h - log2 width
        span = self.offsets[-1] - self.offsets[0]
        if not span / 2**52 < width:
            return
        for phase in (0.0, 0.5):
            cells = np.floor((self.offsets / width) + phase)
            firsts = np.append(0, np.flatnonzero(np.diff(cells)) + 1)
            if firsts.size <= self.centroids:
                yield firsts

    def _iterated(self, firsts: NDArray[np.intp], price: float) -> NDArray[np.intp]:
        for _ in range(ITERATIONS):
            weights = self._weights(firsts)
            means = (self.moment[np.append(firsts[1:], self.bins.size)] - self.moment[firsts]) / weights
            lengths = -np.log2(weights / self.mass[-1])
            moved = np.append(0, np.searchsorted(self.offsets, _cuts(means, price * lengths)))
            moved = np.unique(moved[moved < self.bins.size])
            if np.array_equal(moved, firsts):
                break
            firsts = moved
        return firsts


def _cuts(means: NDArray[np.float64], prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where one cluster stops being the cheapest and the next begins; clusters that are nowhere cheapest have no cut.

    The cost of x in cluster i is (x - means[i])^2 + prices[i]: lower envelope of parabolas of one shape.
    """
    while True:
        gaps = np.diff(means)
        cuts = (means[1:] + means[:-1]) / 2 + np.divide(
            np.diff(prices), 2 * gaps, out=np.zeros_like(gaps), where=gaps > 0
        )
        nowhere = np.append(np.flatnonzero(np.diff(cuts) <= 0) + 1, np.flatnonzero(gaps <= 0))
        if not nowhere.size:
            found: NDArray[np.float64] = cuts
            return found
        nowhere = np.unique(nowhere)
        alone = np.append(True, np.diff(nowhere) > 1)  # of neighbours, one at a time: removing it may save the other
        means, prices = np.delete(means, nowhere[alone]), np.delete(prices, nowhere[alone])
