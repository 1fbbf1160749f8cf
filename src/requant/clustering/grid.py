"""A partition of the float32 numbers into thousands of intervals that a value is placed in by one look into a table.

The upper 16 bits of a float32 (sign, exponent, 7 bits of mantissa) are a pattern; each pattern that occurs is cut
into a power of two of equal intervals by its lower bits, more where more values lie and where they lie further apart.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.parallel import WIDE, map_parts
from requant.clustering.tallies import tallied

PATTERNS = 1 << 16
LOWER_BITS = 16
UPPER = 1 if sys.byteorder == "little" else 0
DROP_BITS = 5  # of a table's entry: how many lower bits are dropped, 0 to 16


@dataclass(frozen=True)
class Grid:
    """Intervals by number; the numbers do not follow the order of the values, `order` does.

    Attributes:
        table: (65536,) int32, for each pattern the number of its first interval and how many lower bits to drop.
        lows: (m,) float32, the least number of each interval.
        highs: (m,) float32, the greatest.
        order: (m,) the intervals' numbers in rising order.

    """

    table: NDArray[np.int32]
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    order: NDArray[np.intp]

    def numbers(self, values: NDArray[np.float32]) -> NDArray[np.int32]:
        """The interval of each value of a pattern that occurs, (n,)."""
        halves = _halves(values)
        entries = self.table.take(halves[UPPER::2], mode="clip")
        lower = halves[1 - UPPER :: 2] >> (entries & ((1 << DROP_BITS) - 1))
        lower += entries >> DROP_BITS
        return lower

    def totals(self, values: NDArray[np.float32], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """(m,) how many values each interval holds, or their weights' sum."""

        def part_totals(part: slice) -> NDArray[Any]:
            return tallied(self.numbers(values[part]), self.lows.size, None if weights is None else weights[part])

        return _summed(map_parts(part_totals, values.size, WIDE), self.lows.size)

    def members(self, values: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The positions of the values in chosen intervals; `chosen` is (m,) by number."""

        def part_members(part: slice) -> NDArray[np.intp]:
            found: NDArray[np.intp] = np.flatnonzero(chosen[self.numbers(values[part])]) + part.start
            return found

        return np.concatenate(list(map_parts(part_members, values.size)))


def make_grid(values: NDArray[np.float32], weights: NDArray[np.float64] | None, intervals: int) -> Grid:
    """About so many intervals, wide where values are few and small where they are many.

    The number of intervals of a pattern follows the cube root of its weight times its squared width: the point density
    that makes the squared error of rounding to intervals least (Panter and Dite, 1951).
    """
    totals = _pattern_totals(values, weights)
    patterns = np.flatnonzero(totals)
    low, high = _ends(patterns.astype(np.uint32) << np.uint32(LOWER_BITS), np.uint32(PATTERNS - 1))
    widths = high.astype(np.float64) - low
    share = np.cbrt(totals[patterns] * widths * widths)
    with np.errstate(divide="ignore"):
        bits = np.clip(np.rint(np.log2(share * (intervals / share.sum()))), 0, LOWER_BITS).astype(np.int64)
    counts = 1 << bits
    firsts = np.cumsum(counts) - counts
    drop = LOWER_BITS - bits
    table = np.zeros(PATTERNS, np.int32)
    table[patterns] = firsts << DROP_BITS | drop
    step = np.repeat(drop, counts)
    within = np.arange(counts.sum()) - np.repeat(firsts, counts)
    base = np.repeat(patterns << LOWER_BITS, counts) | within << step
    lows, highs = _ends(base.astype(np.uint32), ((1 << step) - 1).astype(np.uint32))
    return Grid(table, lows, highs, np.argsort(lows, kind="stable"))


def _pattern_totals(values: NDArray[np.float32], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    def part_totals(part: slice) -> NDArray[Any]:
        return tallied(_halves(values[part])[UPPER::2], PATTERNS, None if weights is None else weights[part])

    return _summed(map_parts(part_totals, values.size, WIDE), PATTERNS)


def _halves(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The values' bits, upper and lower halves in turn; -0 becomes 0, which it equals."""
    return (values + np.float32(0)).view(np.uint16)


def _ends(
    bits: NDArray[np.uint32], free: np.uint32 | NDArray[np.uint32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The least and the greatest number whose bits are `bits`, apart from the lower ones that are set in `free`."""
    near, far = bits.view(np.float32), (bits | free).view(np.float32)
    return np.minimum(near, far), np.maximum(near, far)


def _summed(parts: Iterator[NDArray[Any]], size: int) -> NDArray[np.float64]:
    total = np.zeros(size)
    for part in parts:
        total += part
    return total
