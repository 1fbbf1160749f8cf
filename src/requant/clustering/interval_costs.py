"""The squared error of any interval of sorted points about its mean, in constant time and without cancellation.

Prefix sums of squares lose everything beside one huge value. Here an interval is joined from two parts that meet at a
fixed middle, each accumulated outwards from that middle: sums of terms that only grow, so nothing is subtracted that
is large against the result. Which middle: the highest bit in which the two ends' positions differ (a disjoint sparse
table). Parts are joined by the formula of Chan, Golub and LeVeque (1983), equation 2.1.
"""

import numpy as np
from numpy.typing import NDArray


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
        tables = [_outward(padded_points, padded_weights, 1 << level) for level in range(levels)]
        self._weight, self._mean, self._cost = (np.stack(column).reshape(-1) for column in zip(*tables, strict=True))
        self._row = padded_points.size

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


def _outward(
    points: NDArray[np.float64], weights: NDArray[np.float64], half: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight, mean and cost of the points between each point and the middle of its block of 2 x `half`."""
    blocks, block_weights = points.reshape(-1, 2, half), weights.reshape(-1, 2, half)
    left = _accumulated(blocks[:, 0, ::-1], block_weights[:, 0, ::-1])
    right = _accumulated(blocks[:, 1], block_weights[:, 1])
    weight, mean, cost = (np.stack([a[:, ::-1], b], axis=1).reshape(-1) for a, b in zip(left, right, strict=True))
    return weight, mean, cost


def _accumulated(
    points: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight, mean and cost of each row's first 1, 2, ... points; padding of no weight gives zeros."""
    offsets = points - points[:, :1]
    weight = np.cumsum(weights, axis=1)
    first = np.cumsum(weights * offsets, axis=1)
    second = np.cumsum(weights * offsets * offsets, axis=1)
    shift = np.divide(first, weight, out=np.zeros_like(first), where=weight > 0)
    return weight, points[:, :1] + shift, np.maximum(second - first * shift, 0.0)
