"""The squared error of any interval of sorted points about its mean, in constant time and without cancellation.

Prefix sums of squares lose everything beside one huge value. Here an interval is joined from two parts that meet at a
fixed middle, each accumulated outwards from that middle: sums of terms that only grow, so nothing is subtracted that
is large against the result. Which middle: the highest bit in which the two ends' positions differ (a disjoint sparse
table). Parts are joined by the formula of Chan, Golub and LeVeque (1983), equation 2.1.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Sums: TypeAlias = tuple[NDArray[np.float64], ...]


class IntervalCosts:
    """Costs of intervals of n weighted points: O(n log n) to build, O(1) each.

    Args:
        points: (n,) float64, sorted.
        weights: (n,) positive.
        block: only intervals within so many points in a row, a power of two, will be asked for; None: any.

    """

    def __init__(self, points: NDArray[np.float64], weights: NDArray[np.float64], block: int | None = None) -> None:
        levels = max(1, int((block or points.size) - 1).bit_length())
        beyond = -points.size % (1 << levels)
        padded_points = np.pad(points, (0, beyond), mode="edge")
        padded_weights = np.pad(weights, (0, beyond))
        self._row = padded_points.size
        tables = [np.empty((levels, self._row)) for _ in range(3)]
        for level in range(levels):
            _fill(tuple(table[level] for table in tables), padded_points, padded_weights, 1 << level)
        self._weight, self._mean, self._cost = (table.reshape(-1) for table in tables)

    def __call__(self, first: NDArray[np.intp], last: NDArray[np.intp]) -> NDArray[np.float64]:
        """The costs of the points `first` to `last`, both included."""
        left, right, alone = self._parts(first, last)
        weight_left, weight_right = self._weight[left], self._weight[right]
        gap = self._mean[right] - self._mean[left]
        between = gap * gap * (weight_left * weight_right / (weight_left + weight_right))
        joined: NDArray[np.float64] = self._cost[left] + self._cost[right] + between
        joined[alone] = 0.0
        return joined

    def means(self, first: NDArray[np.intp], last: NDArray[np.intp]) -> NDArray[np.float64]:
        """The means of the points `first` to `last`, both included."""
        left, right, alone = self._parts(first, last)
        weight = self._weight[right] / (self._weight[left] + self._weight[right])
        weight[alone] = 0.0
        found: NDArray[np.float64] = self._mean[left] + weight * (self._mean[right] - self._mean[left])
        return found

    def _parts(
        self, first: NDArray[np.intp], last: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Where in the tables the two parts of each interval stand, and which intervals are one point."""
        level = np.frexp(first ^ last)[1] - 1
        row = np.maximum(level, 0) * self._row
        return row + first, row + last, level < 0


def _fill(tables: Sums, points: NDArray[np.float64], weights: NDArray[np.float64], half: int) -> None:
    """Weight, mean and cost of the points between each point and the middle of its block of 2 x `half`."""
    for side, outwards in ((0, -1), (1, 1)):
        parts = (array.reshape(-1, 2, half)[:, side, ::outwards] for array in (points, weights, *tables))
        _accumulate(*parts)


def _accumulate(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    weight: NDArray[np.float64],
    mean: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> None:
    """Into the last three, of each row's first 1, 2, ... points; padding of no weight gives zeros."""
    offsets = points - points[:, :1]
    terms = weights * offsets
    first = np.cumsum(terms, axis=1)
    terms *= offsets
    second = np.cumsum(terms, axis=1)
    np.cumsum(weights, axis=1, out=weight)
    shift = np.divide(first, weight, out=np.zeros_like(first), where=weight > 0)
    np.add(points[:, :1], shift, out=mean)
    shift *= first
    second -= shift
    np.maximum(second, 0.0, out=cost)
