"""A clustered tensor whose indices name pairs of neighbouring points; which of the two, the indices before it say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.codebook import (
    FLOAT32,
    Codebook,
    check_centroids,
    check_dtype,
    check_indices,
    counts_of,
    dense_of,
    entropy_of,
    index_dtype,
    sqnr_of,
    squared_error_of,
)
from requant.trellis import CODES, FEWEST, parities


@dataclass(frozen=True, eq=False)
class TrellisCodebook:
    """Points of a trellis (`requant.trellis`), whose rows are the tensor's output channels in row-major order.

    Args:
        table: (K,) float32, sorted, finite; index m stands for table[m], or for the middle of it and table[m + 1].
        indices: the tensor's shape; uint8 up to 256 entries, uint16 above; each below K.
        dtype: the tensor's element type.
        states: of the trellis, one of its `CODES`.

    Raises:
        ValueError: if the arrays are not of that form, an index stands for what is above the table, or for another
            number of states.

    """

    table: NDArray[np.float32]
    indices: NDArray[np.uint8] | NDArray[np.uint16]
    dtype: np.dtype[Any] = FLOAT32
    states: int = FEWEST

    def __post_init__(self) -> None:
        if self.states not in CODES:
            raise ValueError(f"there is no trellis of {self.states} states")
        check_centroids(self.table)
        check_indices(self.indices, len(self.table))
        check_dtype(self.dtype)
        if self.indices.size and int(self._points.max()) >= self.k:
            raise ValueError("an index on the trellis stands for what is above its table")

    @property
    def k(self) -> int:
        """How many values there are: the table's and those between them."""
        return 2 * len(self.table) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.indices.shape

    @property
    def centroids(self) -> NDArray[np.float32]:
        """(k,) all values, sorted."""
        between = (self.table[:-1].astype(np.float64) + self.table[1:]) / 2
        found = np.empty(self.k, np.float32)
        found[::2], found[1::2] = self.table, between
        return found

    @cached_property
    def _points(self) -> NDArray[np.uint16]:
        """(R, C) the position of each value among `centroids`."""
        rows = self.indices.reshape(row_count(self.shape), -1)
        return 2 * rows.astype(np.uint16) + parities((rows & 1).astype(np.uint8), self.states)

    def plain(self) -> Codebook:
        """The same tensor with one centroid for each value there is."""
        points: Any = self._points.reshape(self.shape).astype(index_dtype(self.k))
        return Codebook(self.centroids, points, self.dtype)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) how often each index occurs."""
        return counts_of(self.indices, len(self.table))

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value."""
        return entropy_of(self.counts)

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        return self.centroids.astype(self.dtype)[self._points.reshape(-1)[part]]

    dense, squared_error, sqnr_db = dense_of, squared_error_of, sqnr_of


def row_count(shape: tuple[int, ...]) -> int:
    """Rows of a trellis: output channels; a vector is one."""
    return max(1, shape[0]) if len(shape) > 1 else 1
