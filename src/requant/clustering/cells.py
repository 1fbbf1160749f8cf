"""Bins of values without far outliers, from one pass: cells of equal width, joined where fewer will do."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins
from requant.clustering.parallel import WIDE, ends, map_parts
from requant.clustering.starts import density_firsts
from requant.clustering.tallies import tallied

CELLS = 1 << 16
SIGN = np.uint32(1 << 31)


def even_bins(values: NDArray[np.float32], clusters: int, bins: int, tolerance: float) -> Bins | None:
    """About so many bins; None where cells of equal width are too wide for so many clusters.

    They are where their width may add more than `tolerance` of the squared error that is to be expected: Panter and
    Dite's integral (1951), over the cells.
    """
    cells = _Cells.of(values)
    if not cells.fit_float32:
        return None
    counts = cells.counts(values)
    used = np.flatnonzero(counts)
    width = 1 / float(cells.scale)
    mass = counts[used].astype(np.float64)
    expected = np.cbrt(mass * width * width).sum() ** 3 / (12 * clusters * clusters)
    if not mass.sum() * width * width / 4 <= tolerance * expected:
        return None
    points = np.asarray(float(cells.low) + (used + 0.5) * width, np.float64)
    found = Bins(points.astype(np.float32), points, mass, np.full(used.size, width / 2))
    firsts = density_firsts(found, min(bins, used.size))
    return replace(found.merged(firsts), starts=cells.lows(used[firsts]))


class _Cells:
    """Equal parts of the range; what cell a value is in is computed in float32, and so never falls as values rise."""

    def __init__(self, low: np.float32, high: np.float32) -> None:
        self.low, self.high = low, high
        width = float(high) - float(low)
        with np.errstate(over="ignore"):
            self.scale = np.float32(CELLS / width)
            self.fit_float32 = bool(np.isfinite(self.scale) and np.isfinite(np.float32(width)))

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "_Cells":
        return cls(*ends(values))

    def numbers(self, values: NDArray[np.float32]) -> NDArray[np.int32]:
        shifted = values - self.low
        shifted *= self.scale
        return shifted.astype(np.int32)

    def counts(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """(CELLS + 1,) as the greatest values may be rounded up."""

        def part_counts(part: slice) -> NDArray[np.int64]:
            return tallied(self.numbers(values[part]), CELLS + 1)

        total = np.zeros(CELLS + 1, np.int64)
        for counts in map_parts(part_counts, values.size, WIDE):
            total += counts
        return total

    def lows(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """The least float32 in or above each cell, by bisection from a cell below it to one above."""
        around = (np.clip(float(self.low) + (numbers + by) / float(self.scale), self.low, self.high) for by in (-1, 1))
        least, above = (_key(edge.astype(np.float32)) for edge in around)
        left = np.arange(numbers.size)
        while left.size:
            middle = least[left] + (above[left] - least[left]) // 2
            reached = self.numbers(_number(middle)) >= numbers[left]
            above[left[reached]], least[left[~reached]] = middle[reached], middle[~reached] + 1
            left = left[least[left] < above[left]]
        return _number(least)


def _key(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Unsigned numbers that rise as float32 numbers do."""
    bits = values.view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _number(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Back from the keys."""
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).view(np.float32)
