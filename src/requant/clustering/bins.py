"""A short sorted summary of many values: intervals with how many values they hold and their sum."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from requant.clustering.groups import group_sums

SORTED_WHOLE = 1 << 20  # up to here each distinct value is a bin of its own
QUANTILES = 1 << 16
OCTAVES = 30
STEPS_AN_OCTAVE = 128


@dataclass(frozen=True)
class Bins:
    """Non-empty half-open intervals, in order: `starts` (m,) float32, `counts` (m,), `sums` (m,) float64."""

    starts: NDArray[np.float32]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """(m,) the mean value of each bin."""
        return self.sums / self.counts

    def merged(self, firsts: NDArray[np.intp]) -> "Bins":
        """Neighbours joined: `firsts` are the positions of the first bin of each group, the first of them 0."""
        return Bins(self.starts[firsts], np.add.reduceat(self.counts, firsts), np.add.reduceat(self.sums, firsts))


def summarize(values: NDArray[np.float32]) -> Bins:
    """Exact up to 2**20 values; above, bins that follow the quantiles and, away from the median, the distance to it."""
    starts = bin_starts(values)
    counts, sums = group_sums(values, starts)
    used = counts > 0
    return Bins(starts[used], counts[used], sums[used])


def bin_starts(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m,) strictly increasing, the first the least value."""
    if values.size <= SORTED_WHOLE:
        return np.unique(values)
    sample = np.sort(values[:: values.size // SORTED_WHOLE])
    quantiles = sample[:: sample.size // QUANTILES]
    # A value so frequent that it spans quantiles gets a bin of its own.
    after_frequent = np.nextafter(quantiles[1:][quantiles[1:] == quantiles[:-1]], np.float32(np.inf))
    low, high = values.min(), values.max()
    away_from_median = _geometric(float(sample[sample.size // 2]), low, high)
    candidates = np.concatenate([[low, high], quantiles, after_frequent, away_from_median])
    return np.unique(np.clip(candidates, low, high).astype(np.float32))


def _geometric(center: float, low: np.float32, high: np.float32) -> NDArray[np.float64]:
    """Bounds whose distance to the center grows by 1/128 of its power of two: for tails that a sample misses."""
    reach = np.ldexp(1.0, int(np.frexp(max(float(high) - center, center - float(low)))[1]))
    octaves = np.ldexp(reach, -np.arange(1, OCTAVES + 1))
    distances = np.outer(octaves, 1 + np.arange(STEPS_AN_OCTAVE) / STEPS_AN_OCTAVE).reshape(-1)
    return np.concatenate([center - distances, [center], center + distances])
