"""A clustered tensor: a few centroids, and for each value the index of its own."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 1 << 18
FLOAT32 = np.dtype(np.float32)
ELEMENTS = (np.float16, np.float32, np.float64)
"""Element types that a clustered tensor can have."""


def index_dtype(centroids: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """The smallest unsigned type whose values can index so many centroids."""
    return np.dtype(np.uint8) if centroids <= 256 else np.dtype(np.uint16)


@dataclass(frozen=True, eq=False)
class Codebook:
    """What `cluster` makes of a tensor, and what an archive stores of it.

    Args:
        centroids: (k,) float32, sorted, finite.
        indices: the tensor's shape; uint8 up to 256 centroids, uint16 above; each below k.
        dtype: the tensor's element type, float16, float32 or float64; a centroid is rounded to it where it stands.

    Raises:
        ValueError: if the arrays are not of that form.

    """

    centroids: NDArray[np.float32]
    indices: NDArray[np.uint8] | NDArray[np.uint16]
    dtype: np.dtype[Any] = FLOAT32

    def __post_init__(self) -> None:
        check_centroids(self.centroids)
        check_indices(self.indices, self.k)
        check_dtype(self.dtype)

    @classmethod
    def from_unsorted(
        cls, centroids: NDArray[np.float32], indices: NDArray[Any], dtype: np.dtype[Any] = FLOAT32
    ) -> Self:
        """The codebook of centroids (k,) in any order, with the indices, integers of any type, that go with them."""
        order = np.argsort(centroids, kind="stable")
        ranks: NDArray[Any] = np.argsort(order, kind="stable").astype(index_dtype(centroids.size))
        return cls(centroids[order], ranks[indices], dtype)

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
        return counts_of(self.indices, self.k)

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value: what an ideal entropy coder would need."""
        return entropy_of(self.counts)

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        return self.centroids.astype(self.dtype)[self.indices.reshape(-1)[part]]

    def dense(self) -> NDArray[Any]:
        """The tensor with each value replaced by its centroid."""
        return dense_of(self)

    def squared_error(self, values: ArrayLike) -> float:
        """Sum of squared differences to `values` (the tensor's shape), in float64."""
        return squared_error_of(self, values)

    def sqnr_db(self, values: ArrayLike) -> float:
        """Signal to quantization noise in decibels: 10 log10 of the values' squares over the squared error.

        Infinite where nothing is lost; `values` has the tensor's shape.
        """
        return sqnr_of(self, values)


class Tensorlike(Protocol):
    """What gives the values of a tensor part by part."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""

    def part(self, part: slice) -> NDArray[Any]:
        """Some of its values, flat."""


def dense_of(book: Tensorlike) -> NDArray[Any]:
    """All values, in the tensor's shape."""
    values = np.empty(math.prod(book.shape), book.dtype)
    for part in parts(values.size):  # numpy widens indices to 8 bytes each
        values[part] = book.part(part)
    return values.reshape(book.shape)


def squared_error_of(book: Tensorlike, values: ArrayLike) -> float:
    """Sum of squared differences to `values` (the tensor's shape), in float64."""
    array = np.asarray(values)
    if array.shape != book.shape:
        raise ValueError(f"values of shape {array.shape} against a codebook of shape {book.shape}")
    flat = array.reshape(-1)
    return sum((_squared_error(flat[part], book.part(part)) for part in parts(flat.size)), 0.0)


def sqnr_of(book: Tensorlike, values: ArrayLike) -> float:
    """Signal to quantization noise in decibels."""
    error = squared_error_of(book, values)
    flat = np.asarray(values).reshape(-1)
    power = sum((_squared_error(flat[part], np.float32(0)) for part in parts(flat.size)), 0.0)
    return 10 * math.log10(power / error) if error else math.inf


def counts_of(indices: NDArray[Any], k: int) -> NDArray[np.int64]:
    """(k,) how often each index occurs."""
    flat = indices.reshape(-1)
    counts = np.zeros(k, np.int64)
    for part in parts(flat.size):
        counts += np.bincount(flat[part], minlength=k)
    return counts


def entropy_of(counts: NDArray[np.int64]) -> float:
    """Zero-order entropy of indices that occur so often, in bits an index."""
    used = counts[counts > 0]
    share = used / used.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def parts(size: int) -> Iterator[slice]:
    """So many values in parts whose intermediate results stay in a core's cache."""
    return (slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))


def _squared_error(values: NDArray[Any], centroids: NDArray[Any] | np.float32) -> float:
    difference = values.astype(np.float64) - centroids
    return float(difference @ difference)


def check_centroids(centroids: NDArray[np.float32]) -> None:
    """Raise ValueError for what is no sorted table (k,) of finite float32 numbers."""
    if centroids.dtype != np.float32 or centroids.ndim != 1 or not centroids.size:
        raise ValueError(f"centroids must be float32 of shape (k,), not {centroids.dtype} of shape {centroids.shape}")
    check_finite(centroids)
    if (centroids[1:] < centroids[:-1]).any():
        raise ValueError("centroids must be sorted")


def check_finite(centroids: NDArray[np.float32]) -> None:
    """Raise ValueError for NaN and infinity."""
    if not np.isfinite(centroids).all():
        raise ValueError("centroids must be finite")


def check_indices(indices: NDArray[np.uint8] | NDArray[np.uint16], k: int) -> None:
    """Raise ValueError for another type than `index_dtype` gives, and for an index beyond the centroids."""
    if indices.dtype != index_dtype(k):
        raise ValueError(f"indices into {k} centroids must be {index_dtype(k)}, not {indices.dtype}")
    if indices.size and int(indices.max()) >= k:
        raise ValueError(f"index {indices.max()} is beyond the {k} centroids")


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise ValueError for an element type that a clustered tensor cannot have."""
    if dtype not in ELEMENTS:
        raise ValueError(f"a clustered tensor is float16, float32 or float64, not {dtype}")
