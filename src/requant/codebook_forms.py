"""Clustered tensors of other forms than one table of scalars: groups, vectors, split channels; all forms together.

Each has what `Codebook` has: k, indices, shape, dtype, dense(), the squared error, the entropy of the indices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from requant.codebook import (
    FLOAT32,
    Codebook,
    check_dtype,
    check_finite,
    check_indices,
    counts_of,
    dense_of,
    entropy_of,
    sqnr_of,
    squared_error_of,
)
from requant.codebook_factors import FactoredCodebook
from requant.codebook_trellis import TrellisCodebook
from requant.errors import UserError

Indices: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class GroupedCodebook:
    """Runs of values, each with a table of its own, or with a scale of its own on one table.

    Args:
        tables: (G, k) float32, one a run, or (1, k) with scales; finite.
        indices: the tensor's shape; each below k.
        run: how many values, one after another in row-major order, are a group; the last may be shorter.
        scales: (G,) float32, each the factor of its run's centroids; None: the runs have tables.
        dtype: the tensor's element type.

    Raises:
        ValueError: if the arrays are not of that form.

    """

    tables: NDArray[np.float32]
    indices: Indices
    run: int
    scales: NDArray[np.float32] | None = None
    dtype: np.dtype[Any] = FLOAT32

    def __post_init__(self) -> None:
        if self.tables.dtype != np.float32 or self.tables.ndim != 2 or not self.tables.size:
            raise ValueError(f"tables must be float32 of shape (G, k), not {self.tables.dtype} {self.tables.shape}")
        if len(self.tables) != (1 if self.scales is not None else self.groups):
            raise ValueError(f"{len(self.tables)} tables for {self.groups} groups")
        if self.scales is not None and (self.scales.dtype != np.float32 or self.scales.shape != (self.groups,)):
            raise ValueError(f"scales must be float32 of shape ({self.groups},)")
        check_finite(self.tables)
        check_finite(self.tables if self.scales is None else self.scales)
        check_indices(self.indices, self.k)
        check_dtype(self.dtype)

    @property
    def k(self) -> int:
        """The number of centroids of a table."""
        return int(self.tables.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.indices.shape

    @property
    def groups(self) -> int:
        """How many runs there are."""
        return group_count(self.shape, self.run)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(k,) how often each index occurs."""
        return counts_of(self.indices, self.k)

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value, all groups together."""
        return entropy_of(self.counts)

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        group, indices = np.arange(part.start, part.stop) // self.run, self.indices.reshape(-1)[part]
        values = self.tables[group, indices] if self.scales is None else self.tables[0][indices] * self.scales[group]
        return np.asarray(values, self.dtype)

    dense, squared_error, sqnr_db = dense_of, squared_error_of, sqnr_of


def group_count(shape: tuple[int, ...], run: int) -> int:
    """How many runs of so many values a tensor has."""
    return -(-prod(shape) // run)


@dataclass(frozen=True, eq=False)
class VectorCodebook:
    """Blocks of values, one after another in row-major order, each replaced by one of k vectors.

    Args:
        centroids: (k, d) float32, finite, in any order.
        indices: one a block, of the shape `blocks_shape`; each below k.
        shape: the tensor's.
        dtype: the tensor's element type.

    Raises:
        ValueError: if the arrays are not of that form.

    """

    centroids: NDArray[np.float32]
    indices: Indices
    shape: tuple[int, ...]
    dtype: np.dtype[Any] = FLOAT32

    def __post_init__(self) -> None:
        if self.centroids.dtype != np.float32 or self.centroids.ndim != 2 or not self.centroids.size:
            raise ValueError(f"centroids must be float32 of shape (k, d), not {self.centroids.dtype}")
        if self.indices.shape != blocks_shape(self.shape, self.block):
            raise ValueError(f"indices of shape {self.indices.shape} for blocks of {self.block} in {self.shape}")
        check_finite(self.centroids)
        check_indices(self.indices, self.k)
        check_dtype(self.dtype)

    @property
    def k(self) -> int:
        """The number of vectors."""
        return int(self.centroids.shape[0])

    @property
    def block(self) -> int:
        """How many values a block has."""
        return int(self.centroids.shape[1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """(k,) how many blocks each vector stands for."""
        return counts_of(self.indices, self.k)

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value (not a block)."""
        return entropy_of(self.counts) / self.block

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        first = part.start // self.block
        blocks = self.indices.reshape(-1)[first : -(-part.stop // self.block)]
        values = self.centroids.astype(self.dtype)[blocks].reshape(-1)
        return values[part.start - first * self.block :][: part.stop - part.start]

    dense, squared_error, sqnr_db = dense_of, squared_error_of, sqnr_of


def row_values(shape: tuple[int, ...]) -> int:
    """Values of an output channel: all of a vector."""
    return prod(shape[1:]) if len(shape) > 1 else prod(shape)


def blocks_shape(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """(output channels, blocks in each).

    Raises:
        ValueError: if the block does not divide an output channel's values.

    """
    row = row_values(shape)
    if block < 1 or row % block:
        raise ValueError(f"blocks of {block} do not divide the {row} values of an output channel of {shape}")
    return prod(shape) // row if row else 0, row // block


Unsplit: TypeAlias = Codebook | GroupedCodebook | VectorCodebook


@dataclass(frozen=True, eq=False)
class SplitCodebook:
    """A codebook of a tensor some of whose input channels were split in parts, which add up where it is used.

    Args:
        inner: of the split tensor (O, I + E, ...): its last E input channels are parts of others.
        sources: (E,) uint32, which of the first I each of the last E belongs to.

    Raises:
        ValueError: if the arrays are not of that form.

    """

    inner: Unsplit
    sources: NDArray[np.uint32]

    def __post_init__(self) -> None:
        if self.sources.dtype != np.uint32 or self.sources.ndim != 1 or not self.sources.size:
            raise ValueError("sources must be uint32 of shape (E,)")
        if len(self.inner.shape) < 2 or int(self.sources.max()) >= self.shape[1]:
            raise ValueError(f"a tensor of shape {self.inner.shape} cannot have these sources")

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape, before it was split."""
        out, channels, *rest = self.inner.shape
        return (out, channels - self.sources.size, *rest)

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
        """Of the split tensor: more than the tensor has values."""
        return self.inner.indices

    @property
    def counts(self) -> NDArray[np.int64]:
        """(k,) how often each index occurs."""
        return self.inner.counts

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy of the indices, in bits a value of the tensor before it was split."""
        return self.inner.entropy_bits * prod(self.inner.shape) / max(1, prod(self.shape))

    @cached_property
    def _whole(self) -> NDArray[Any]:
        return merged(self.inner.dense(), self.sources)

    def part(self, part: slice) -> NDArray[Any]:
        """Some of the values of `dense`, flat."""
        return np.asarray(self._whole.reshape(-1)[part])

    def dense(self) -> NDArray[Any]:
        """The tensor, the parts of each input channel added up, in their order."""
        return self._whole.copy()

    squared_error, sqnr_db = squared_error_of, sqnr_of


def merged(split: NDArray[Any], sources: NDArray[np.uint32]) -> NDArray[Any]:
    """A split tensor (O, I + E, ...) with each of its last E input channels added to its source: (O, I, ...)."""
    channels = split.shape[1] - sources.size
    whole = split[:, :channels].copy()
    for extra, source in enumerate(sources.tolist()):
        whole[:, source] += split[:, channels + extra]
    return whole


AnyCodebook: TypeAlias = Unsplit | SplitCodebook | FactoredCodebook | TrellisCodebook
"""A clustered tensor of any form."""


def table_of(book: Unsplit) -> NDArray[np.float32]:
    """The centroids: (k,), (G, k) of groups, (k, d) of vectors."""
    return book.tables if isinstance(book, GroupedCodebook) else book.centroids


def with_table(book: Unsplit, table: NDArray[np.float32]) -> Unsplit:
    """The same codebook with another table of the same shape; of (k,) centroids they are sorted, indices with them."""
    if isinstance(book, GroupedCodebook):
        return replace(book, tables=table)
    if isinstance(book, VectorCodebook):
        return replace(book, centroids=table)
    return Codebook.from_unsorted(table, book.indices, book.dtype)


def with_mapped_table(book: AnyCodebook, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> AnyCodebook:
    """The same codebook with what `function` makes of its centroids."""
    if isinstance(book, SplitCodebook | FactoredCodebook):
        return replace(book, inner=with_table(book.inner, function(table_of(book.inner))))
    if isinstance(book, TrellisCodebook):
        return replace(book, table=function(book.table))
    return with_table(book, function(table_of(book)))


def scalars(codebooks: Mapping[str, AnyCodebook], what: str) -> dict[str, Codebook]:
    """The same codebooks, by name, if each is one table of scalars.

    Raises:
        UserError: which says that `what` cannot work with others.

    """
    return {name: _scalar(name, book, what) for name, book in codebooks.items()}


def _scalar(name: str, book: AnyCodebook, what: str) -> Codebook:
    if isinstance(book, Codebook):
        return book
    kinds = {
        GroupedCodebook: "a table or a scale for each group of its values",
        VectorCodebook: "a table of vectors (method product)",
        SplitCodebook: "split channels",
        FactoredCodebook: "factors of low rank",
        TrellisCodebook: "a trellis",
    }
    raise UserError(
        f"{what} needs one table of centroids a tensor, and {name} has {kinds[type(book)]}: "
        "cluster it with granularity tensor, without split, rank and plan.trellis, and not by product"
    )
