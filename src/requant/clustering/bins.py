"""A short sorted summary of many values: intervals with the weight they hold and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.grid import Grid, make_grid

DISTINCT = 1 << 16  # up to so many values each distinct one is a bin of its own
INTERVALS = 1 << 11
INTERVALS_A_CLUSTER = 64
SAMPLE = 1 << 13
CHUNK = 1 << 18


@dataclass(frozen=True)
class Bins:
    """Non-empty intervals, in order; a clustering is a choice of which bins begin a cluster.

    Attributes:
        starts: (m,) float32, strictly increasing: no value of an earlier bin reaches it, none of this one is below.
        points: (m,) float64, where the bin's weight is taken to lie.
        mass: (m,) float64, how many values it holds, or their weight; positive.
        radius: (m,) float64, how far a value may be from the point; 0: all equal it.

    """

    starts: NDArray[np.float32]
    points: NDArray[np.float64]
    mass: NDArray[np.float64]
    radius: NDArray[np.float64]

    @property
    def size(self) -> int:
        """How many bins there are."""
        return self.starts.size

    def merged(self, firsts: NDArray[np.intp]) -> Bins:
        """Neighbours joined: `firsts` are the positions of the first bin of each group, the first of them 0."""
        mass = np.add.reduceat(self.mass, firsts)
        points = np.add.reduceat(self.mass * self.points, firsts) / mass
        ends = np.append(firsts[1:], self.size) - 1
        reach = np.maximum(points - self.points[firsts], self.points[ends] - points)
        return Bins(self.starts[firsts], points, mass, reach + np.maximum.reduceat(self.radius, firsts))


def distinct_values(
    values: NDArray[np.float32], weights: NDArray[np.float64] | None, at_most: int
) -> NDArray[np.float32] | None:
    """The distinct values that have a weight, sorted; None if there are more than `at_most`."""
    step = max(1, values.size // SAMPLE)
    if weights is None and np.unique(values[::step]).size > at_most:
        return None
    distinct = np.empty(0, np.float32)
    for start in range(0, values.size, CHUNK):
        part = slice(start, start + CHUNK)
        distinct = np.union1d(distinct, values[part] if weights is None else values[part][weights[part] > 0])
        if distinct.size > at_most:
            return None
    return distinct + np.float32(0)


def distinct_bins(values: NDArray[np.float32], weights: NDArray[np.float64] | None) -> Bins:
    """Each distinct value a bin, apart from those of no weight."""
    starts, inverse = np.unique(values + np.float32(0), return_inverse=True)
    mass: NDArray[Any] = np.bincount(inverse, weights=np.ones(values.size) if weights is None else weights)
    used = mass > 0
    return Bins(starts[used], starts[used].astype(np.float64), mass[used], np.zeros(np.count_nonzero(used)))


def intervals(clusters: int) -> int:
    """How many bins so many clusters of ordinary values ask for."""
    return max(INTERVALS, INTERVALS_A_CLUSTER * clusters)


@dataclass(frozen=True)
class Summary:
    """Bins of values, and the grid they come from; None where each bin is a distinct value."""

    bins: Bins
    grid: Grid | None

    def refined(
        self, values: NDArray[np.float32], weights: NDArray[np.float64] | None, heavy: NDArray[np.bool_]
    ) -> Summary:
        """The same with the distinct values in place of the bins that `heavy` (m,) marks."""
        if self.grid is None:
            return self
        members = self.grid.members(values, np.isin(self.grid.lows, self.bins.starts[heavy]))
        inside = distinct_bins(values[members], None if weights is None else weights[members])
        columns = {
            name: np.concatenate([getattr(self.bins, name)[~heavy], getattr(inside, name)])
            for name in ("starts", "points", "mass", "radius")
        }
        order = np.argsort(columns["starts"])
        return Summary(Bins(**{name: column[order] for name, column in columns.items()}), None)


def summarize(values: NDArray[np.float32], weights: NDArray[np.float64] | None, clusters: int) -> Summary:
    """The distinct values where they are few; above, bins fine enough for so many clusters of ordinary values."""
    if values.size <= DISTINCT:
        return Summary(distinct_bins(values, weights), None)
    grid = make_grid(values, weights, intervals(clusters))
    mass = grid.totals(values, weights)[grid.order]
    used = mass > 0
    lows, highs = grid.lows[grid.order][used], grid.highs[grid.order][used]
    points = (lows.astype(np.float64) + highs) / 2
    return Summary(Bins(lows, points, mass[used], points - lows), grid)
