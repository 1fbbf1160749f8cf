"""The index of the interval that each of many values lies in."""

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18


def assign(values: NDArray[np.float32], starts: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The position of the last start that is not above the value.

    The upper 16 bits of a float32 (sign, exponent, 7 bits of mantissa) settle most values by one look into a table;
    only those that share these bits with a start are searched.

    Args:
        values: (n,) finite, not below `starts[0]`.
        starts: (m,) strictly increasing, m up to 256.

    Returns:
        (n,) uint8.

    """
    table, ambiguous = _upper_half_table(starts[1:])
    indices = np.empty(values.size, np.uint8)
    for begin in range(0, values.size, CHUNK):
        chunk = values[begin : begin + CHUNK]
        upper_half = (chunk.view(np.uint32) >> 16).astype(np.uint16)
        found = table[upper_half]
        unsettled = np.flatnonzero(ambiguous[upper_half])
        found[unsettled] = np.searchsorted(starts[1:], chunk[unsettled], side="right")
        indices[begin : begin + CHUNK] = found
    return indices


def _upper_half_table(bounds: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """For each pattern of upper bits: the index, and whether it depends on the lower bits. NaN's rows mean nothing."""
    pattern = np.arange(1 << 16, dtype=np.uint32) << 16
    of_smallest = np.searchsorted(bounds, pattern.view(np.float32), side="right")
    of_largest = np.searchsorted(bounds, (pattern | 0xFFFF).view(np.float32), side="right")
    return of_smallest.astype(np.uint8), of_smallest != of_largest
