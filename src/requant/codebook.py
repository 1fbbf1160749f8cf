"""A clustered tensor: a few centroids, and for each value the index of its own."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 1 << 18


def index_dtype(centroids: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """The smallest unsigned type whose values can index so many centroids."""
    return np.dtype(np.uint8) if centroids <= 256 else np.dtype(np.uint16)


@dataclass(frozen=True, eq=False)
class Codebook:
    """What `cluster` makes of a tensor, and what an archive stores of it.

    Args:
        centroids: (k,) float32, sorted, finite.
        indices: the tensor's shape; uint8 up to 256 centroids, uint16 above; each below k.

    Raises:
        ValueError: if the arrays are not of that form.

    """

    centroids: NDArray[np.float32]
    indices: NDArray[np.uint8] | NDArray[np.uint16]

    def __post_init__(self) -> None:
        _check_centroids(self.centroids)
        _check_indices(self.indices, self.k)

    @classmethod
    def from_unsorted(cls, centroids: NDArray[np.float32], indices: NDArray[Any]) -> Self:
        """The codebook of centroids (k,) in any order, with the indices, integers of any type, that go with them."""
        order = np.argsort(centroids, kind="stable")
        ranks: NDArray[Any] = np.argsort(order, kind="stable").astype(index_dtype(centroids.size))
        return cls(centroids[order], ranks[indices])

    @property
    def k(self) -> int:
        """The number of centroids."""
        return int(self.centroids.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.indices.shape

    @property
    def bits(self) -> int:
        """Whole bits that an index takes: log2 k, rounded up."""
        return (self.k - 1).bit_length()

    @property
    def counts(self) -> NDArray[np.int64]:
        """(k,) how many values each centroid stands for."""
        flat = self.indices.reshape(-1)
        counts = np.zeros(self.k, np.int64)
        for part in _parts(flat.size):
            counts += np.bincount(flat[part], minlength=self.k)
        return counts

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value: what an ideal entropy coder would need."""
        used = self.counts[self.counts > 0]
        share = used / used.sum()
        return float(-(share * np.log2(share)).sum()) + 0.0

    def dense(self) -> NDArray[np.float32]:
        """The tensor with each value replaced by its centroid."""
        flat = self.indices.reshape(-1)
        values = np.empty(flat.size, np.float32)
        for part in _parts(flat.size):  # numpy widens indices to 8 bytes each
            values[part] = self.centroids[flat[part]]
        return values.reshape(self.shape)

    def squared_error(self, values: ArrayLike) -> float:
        """Sum of squared differences to `values` (the tensor's shape), in float64."""
        flat = np.asarray(values)
        if flat.shape != self.shape:
            raise ValueError(f"values of shape {flat.shape} against a codebook of shape {self.shape}")
        flat, indices = flat.reshape(-1), self.indices.reshape(-1)
        errors = (_squared_error(flat[part], self.centroids[indices[part]]) for part in _parts(flat.size))
        return sum(errors, 0.0)

    def sqnr_db(self, values: ArrayLike) -> float:
        """Signal to quantization noise in decibels: 10 log10 of the values' squares over the squared error.

        Infinite where nothing is lost; `values` has the tensor's shape.
        """
        error = self.squared_error(values)
        flat = np.asarray(values).reshape(-1)
        power = sum((_squared_error(flat[part], np.float32(0)) for part in _parts(flat.size)), 0.0)
        return 10 * math.log10(power / error) if error else math.inf


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))


def _squared_error(values: NDArray, centroids: NDArray[np.float32] | np.float32) -> float:
    difference = values.astype(np.float64) - centroids
    return float(difference @ difference)


def _check_centroids(centroids: NDArray[np.float32]) -> None:
    if centroids.dtype != np.float32 or centroids.ndim != 1 or not centroids.size:
        raise ValueError(f"centroids must be float32 of shape (k,), not {centroids.dtype} of shape {centroids.shape}")
    if not np.isfinite(centroids).all():
        raise ValueError("centroids must be finite")
    if (centroids[1:] < centroids[:-1]).any():
        raise ValueError("centroids must be sorted")


def _check_indices(indices: NDArray[np.uint8] | NDArray[np.uint16], k: int) -> None:
    if indices.dtype != index_dtype(k):
        raise ValueError(f"indices into {k} centroids must be {index_dtype(k)}, not {indices.dtype}")
    if indices.size and int(indices.max()) >= k:
        raise ValueError(f"index {indices.max()} is beyond the {k} centroids")
