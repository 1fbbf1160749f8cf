"""The index of the interval that each of many values lies in, and what each interval holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.parallel import map_parts
from requant.clustering.search import Indices, Search
from requant.clustering.tallies import tallied
from requant.codebook import index_dtype

FEW = 1 << 14  # values


@dataclass(frozen=True)
class Members:
    """What lies in each of m intervals: counts (m,), weights (m,) and weighted sums (m,), in float64."""

    counts: NDArray[np.int64]
    mass: NDArray[np.float64]
    sums: NDArray[np.float64]


def assign(
    values: NDArray[np.float32], starts: NDArray[np.float32], weights: NDArray[np.float64] | None = None
) -> tuple[Indices, Members]:
    """The position of the last start that is not above each value; the first for values below all.

    Args:
        values: (n,) finite.
        starts: (m,) strictly increasing, m up to 65,536.
        weights: (n,) not negative; None: all 1.

    Returns:
        (n,) uint8 up to 256 starts, uint16 above, and what each interval holds.

    """
    search = Search(starts[1:]) if values.size > FEW else _bisection(starts[1:])
    indices = np.empty(values.size, index_dtype(starts.size))

    def place(part: slice) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        chunk = values[part]
        found = search(chunk)
        indices[part] = found
        counts = tallied(found, starts.size)
        part_weights = None if weights is None else weights[part]
        mass = counts if part_weights is None else tallied(found, starts.size, part_weights)
        sums = tallied(found, starts.size, chunk if part_weights is None else chunk * part_weights)
        return counts, mass, sums

    members = Members(np.zeros(starts.size, np.int64), np.zeros(starts.size), np.zeros(starts.size))
    for counts, mass, sums in map_parts(place, values.size):
        members.counts[:] += counts
        members.mass[:] += mass
        members.sums[:] += sums
    return indices, members


def _bisection(bounds: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], Indices]:
    """As `Search`, whose tables take longer to make than few values to place."""

    def search(values: NDArray[np.float32]) -> Indices:
        found: Any = np.searchsorted(bounds, values, side="right").astype(index_dtype(bounds.size + 1))
        placed: Indices = found
        return placed

    return search
