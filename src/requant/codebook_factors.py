"""A clustered tensor of low rank: what is on centroids are two factors, whose product it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from requant.codebook import sqnr_of, squared_error_of

if TYPE_CHECKING:
    from requant.codebook_forms import Indices, Unsplit


@dataclass(frozen=True, eq=False)
class FactoredCodebook:
    """A codebook of the two factors of a fully connected layer's weight, one above the other.

    Args:
        inner: of a tensor (O + I, r): the first O rows are the left factor, the last I rows the right one, transposed.
        shape: (O, I), the weight's.

    Raises:
        ValueError: if the factors do not make that shape.

    """

    inner: Unsplit
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or len(self.inner.shape) != 2 or sum(self.shape) != self.inner.shape[0]:
            raise ValueError(f"factors of shape {self.inner.shape} do not make a weight of shape {self.shape}")

    @property
    def k(self) -> int:
        """The number of centroids."""
        return self.inner.k

    @property
    def dtype(self) -> np.dtype[Any]:
        """The tensor's element type."""
        return self.inner.dtype

    @property
    def indices(self) -> Indices:
        """Of the factors."""
        return self.inner.indices

    @property
    def counts(self) -> NDArray[np.int64]:
        """(k,) how many of the factors' values each centroid stands for."""
        return self.inner.counts

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value of the weight."""
        return self.inner.entropy_bits * prod(self.inner.shape) / max(1, prod(self.shape))

    @cached_property
    def _whole(self) -> NDArray[Any]:
        factors = self.inner.dense().astype(np.float64)
        return (factors[: self.shape[0]] @ factors[self.shape[0] :].T).astype(self.dtype)

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        return np.asarray(self._whole.reshape(-1)[part])

    def dense(self) -> NDArray[Any]:
        """The weight: the factors' product, summed in float64."""
        return self._whole.copy()

    squared_error, sqnr_db = squared_error_of, sqnr_of
