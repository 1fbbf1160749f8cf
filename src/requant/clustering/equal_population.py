"""The paper's clustering: clusters that hold equal numbers of values.

Thonglek et al., "Retraining Quantized Neural Network Models with Unlabeled Data", IJCNN 2020, section III.
"""

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import SORTED_WHOLE, bin_starts
from requant.clustering.groups import group_sums, sorted_chunks


def equal_population(values: NDArray[np.float32], centroids: int) -> NDArray[np.float32]:
    """Sorted values cut into k runs whose sizes differ by at most one.

    Equal values that a cut would part all go to the upper of the two clusters. A cluster that this empties is dropped.

    Args:
        values: (n,) float32.
        centroids: k, not above n.

    Returns:
        (m,) the least value of each run, m up to k.

    """
    ranks = np.arange(centroids) * values.size // centroids
    if values.size <= SORTED_WHOLE:
        return np.unique(np.sort(values)[ranks])
    return np.unique(_order_statistics(values, ranks))


def _order_statistics(values: NDArray[np.float32], ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """The values at sorted positions `ranks`, without a sorted copy: only bins that hold such a position are sorted."""
    starts = bin_starts(values)
    counts, _ = group_sums(values, starts)
    bin_of_rank = np.searchsorted(np.cumsum(counts), ranks, side="right")
    kept = np.zeros(starts.size, bool)
    kept[bin_of_rank] = True
    kept &= ~_single_valued(starts)
    left_out = np.cumsum(np.where(kept, 0, counts))
    content = np.sort(_values_in_bins(values, starts, np.flatnonzero(kept)))
    found, inside = starts[bin_of_rank], kept[bin_of_rank]
    found[inside] = content[(ranks - left_out[bin_of_rank])[inside]]
    return found


def _single_valued(starts: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which bins have room for one float32 only; the last one starts at the greatest value."""
    return np.append(np.nextafter(starts[:-1], np.float32(np.inf)) == starts[1:], True)


def _values_in_bins(
    values: NDArray[np.float32], starts: NDArray[np.float32], positions: NDArray[np.intp]
) -> NDArray[np.float32]:
    pieces = [np.empty(0, np.float32)]
    for chunk in sorted_chunks(values):
        begins, ends = np.searchsorted(chunk, starts[positions]), np.searchsorted(chunk, starts[positions + 1])
        pieces += [chunk[begin:end].copy() for begin, end in zip(begins, ends, strict=True)]
    return np.concatenate(pieces)
