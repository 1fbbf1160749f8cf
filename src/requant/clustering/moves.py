"""Improve a partition of sorted points by moving all of its cuts at once, each to the best of many places.

The places of a cut: where its neighbours' cuts are, where the clusters around it would be cut in two, and points at
distances 1, 2, 4, ... from it. Dynamic programming over the cuts finds the best combination, so that one sweep takes
clusters from wherever they are worth little to wherever they are worth much, all between moving up: this leaves the
local optima that Lloyd's iteration ends in. Lloyd's iteration follows each sweep.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import Bins
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.starts import means_and_errors

Means = Callable[[NDArray[np.intp]], NDArray[np.float64]]
"""Of the parts that begin at each of the firsts (k,)."""

SWEEPS = 64
GAIN = 2e-4  # of the cost: a sweep that gains less is the last
ITERATIONS = 30  # of Lloyd's after each sweep
AWAY = 3  # clusters: how far a cut may jump
EVALUATIONS = 1 << 15  # costs computed at once: what of them is between stays in the cache


def improved_firsts(
    costs: IntervalCosts, bins: Bins, starts: Iterable[NDArray[np.intp]]
) -> tuple[NDArray[np.intp], float]:
    """A partition no worse than those given, and its cost.

    Args:
        costs: of intervals of the bins.
        bins: what is parted.
        starts: each (k,) strictly increasing, the first 0. The one that Lloyd's iteration makes best is gone on with.

    """
    points = bins.points

    def means(firsts: NDArray[np.intp]) -> NDArray[np.float64]:
        return costs.means(firsts, np.append(firsts[1:], bins.size) - 1)

    firsts = min((_lloyd(means, points, s) for s in starts), key=lambda found: _cost(costs, found, bins.size))
    cost = _cost(costs, firsts, bins.size)
    if firsts.size == 1:
        return firsts, cost
    for _ in range(SWEEPS):
        moved = _sweep(costs, _places(costs, points, firsts), bins.size)
        moved = _lloyd(means, points, moved)
        found = _cost(costs, moved, bins.size)
        if not found < cost:
            break
        gain, cost, firsts = cost - found, found, moved
        if gain <= GAIN * cost:
            break
    return firsts, cost


def _lloyd(means: Means, points: NDArray[np.float64], firsts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Lloyd's iteration: each point goes to the nearest mean, until none moves or a cluster is left empty."""
    for _ in range(ITERATIONS):
        moved: NDArray[np.intp] = np.append(0, points.searchsorted(_middles(means(firsts))))
        if (moved == firsts).all() or (moved[1:] <= moved[:-1]).any() or moved[-1] >= points.size:
            break
        firsts = moved
    return firsts


def _middles(means: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (means[1:] + means[:-1]) / 2
    return middles


def settled_firsts(bins: Bins, firsts: NDArray[np.intp]) -> tuple[NDArray[np.intp], float]:
    """What Lloyd's iteration makes of a partition (k,), and its squared error; without tables of costs."""
    firsts = _lloyd(lambda firsts: means_and_errors(bins, firsts)[0], bins.points, firsts)
    return firsts, float(means_and_errors(bins, firsts)[1].sum())


def _places(costs: IntervalCosts, points: NDArray[np.float64], firsts: NDArray[np.intp]) -> NDArray[np.intp]:
    """(k - 1, w) where each cut may go, in no order."""
    size, k = points.size, firsts.size
    ends = np.append(firsts[1:], size)
    halves = points.searchsorted(costs.means(firsts, ends - 1))
    halves = np.clip(halves, np.minimum(firsts + 1, ends - 1), ends - 1)
    marks = np.stack([firsts, halves], axis=1).reshape(-1)
    jumps = np.clip(np.arange(2, 2 * k, 2)[:, None] + np.arange(-2 * AWAY, 2 * AWAY + 1), 0, marks.size - 1)
    distances = 1 << np.arange(max(1, int(size // k).bit_length()))
    near = firsts[1:, None] + np.concatenate([-distances, distances])
    places: NDArray[np.intp] = np.clip(np.concatenate([marks[jumps], near], axis=1), 1, size - 1)
    return places


def _cost(costs: IntervalCosts, firsts: NDArray[np.intp], size: int) -> float:
    return float(costs(firsts, np.append(firsts[1:], size) - 1).sum())


def _sweep(costs: IntervalCosts, places: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    cuts, width = places.shape
    best = costs(np.zeros(width, np.intp), places[0] - 1)
    choices = []
    batch = max(1, EVALUATIONS // width**2)
    for begin in range(0, cuts - 1, batch):
        after = places[begin + 1 : begin + 1 + batch]
        for between in _between(costs, places[begin : begin + after.shape[0]], after):
            totals = best[:, None] + between
            choice = totals.argmin(axis=0)
            choices.append(choice)
            best = totals[choice, np.arange(width)]
    chosen = [int((best + costs(places[-1], np.full(width, size - 1))).argmin())]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    found: NDArray[np.intp] = np.append(0, places[np.arange(cuts), chosen[::-1]])
    return found


def _between(costs: IntervalCosts, before: NDArray[np.intp], after: NDArray[np.intp]) -> NDArray[np.float64]:
    """(cuts, w, w): the cost of the points from each place of one cut up to each place of the next; inf if none."""
    first, end = np.broadcast_arrays(before[:, :, None], after[:, None, :])
    return np.where(end > first, costs(first, np.maximum(end - 1, first)), np.inf)
