"""Counts and sums of values by interval, in memory that does not grow with the number of values.

Arrays larger than a chunk are sorted chunk by chunk: a sorted chunk falls into any number of intervals by one
`searchsorted` of the interval's starts, which beats looking up the interval of each value.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 21


def sorted_chunks(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Sorted copies of consecutive parts of `values`."""
    for start in range(0, values.size, CHUNK):
        yield np.sort(values[start : start + CHUNK])


def group_sums(
    values: NDArray[np.float32], starts: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many values lie from each start up to the next one, and their sums in float64.

    Args:
        values: (n,) not below `starts[0]`.
        starts: (m,) strictly increasing.

    Returns:
        counts (m,), sums (m,).

    """
    counts, sums = np.zeros(starts.size, np.int64), np.zeros(starts.size)
    for chunk in sorted_chunks(values):
        bounds = np.append(np.searchsorted(chunk, starts), chunk.size)
        sizes = np.diff(bounds)
        used = np.flatnonzero(sizes)
        counts += sizes
        sums[used] += np.add.reduceat(chunk, bounds[used], dtype=np.float64)
    return counts, sums


def distinct_values(values: NDArray[np.float32], at_most: int) -> NDArray[np.float32] | None:
    """The distinct values, sorted; None as soon as there are more than `at_most`."""
    distinct = np.empty(0, np.float32)
    for chunk in sorted_chunks(values):
        distinct = np.union1d(distinct, chunk[np.append(True, chunk[1:] != chunk[:-1])])
        if distinct.size > at_most:
            return None
    return distinct
