"""Codebooks of runs of values: a table for each, or one table and a factor for each.

A table for each output channel: coremltools' and SqueezeLLM's (Kim et al., 2024) granularity; a factor for each run, as
in QLoRA (Dettmers et al., 2023), whose factors are greatest magnitudes. Here the factors are fitted to the squared
error, in turn with the table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.bins import distinct_bins
from requant.clustering.kmeans import at_once, kmeans_of_rows
from requant.clustering.scalars import cluster_scalars, codebook_from
from requant.codebook import FLOAT32, Codebook, index_dtype
from requant.codebook_forms import GroupedCodebook, group_count

ROUNDS = 4  # of factors fitted to the table, and a table fitted to them
SMALLEST = np.finfo(np.float32).tiny  # of a factor: below it numbers are coarser
BY_RANK = ("equal_population",)  # methods for which a value's weight is a number of values


def one_table_a_run(
    array: NDArray[np.float32],
    run: int,
    centroids: int,
    method: str,
    weights: NDArray[np.float64] | None,
    options: Mapping[str, Any],
    dtype: np.dtype[Any],
    name: str,
) -> GroupedCodebook:
    """Each run of values clustered alone; where runs have fewer distinct values, their last centroid is repeated."""
    flat = array.reshape(-1)
    books = []
    parts = [flat[start : start + run] for start in range(0, flat.size, run)]
    found = _starts_at_once(parts, centroids) if method == "kmeans" and weights is None else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*distinct values, fewer than.*")
        for number, part in enumerate(parts):
            if number in found:
                books.append(codebook_from(part, found[number], None, FLOAT32))
                continue
            counted = None if weights is None else weights[number * run :][: part.size]
            counted = counted if counted is not None and counted.any() else None
            books.append(cluster_scalars(part, centroids, method, counted, options, FLOAT32, name))
    k = max(book.k for book in books)
    if k < centroids:
        warnings.warn(f"{name}: its groups have up to {k} distinct values, fewer than {centroids}", stacklevel=3)
    tables = np.stack([np.pad(book.centroids, (0, k - book.k), mode="edge") for book in books])
    indices = np.concatenate([book.indices.astype(index_dtype(k)) for book in books])
    return GroupedCodebook(tables, indices.reshape(array.shape), run, None, dtype)


def _starts_at_once(parts: Sequence[NDArray[np.float32]], centroids: int) -> dict[int, NDArray[np.float32]]:
    """The clusters' least values, by the position of the part, of those few enough in values to be solved together."""
    if not at_once(len(parts[0]), centroids):
        return {}
    binned = {number: distinct_bins(part, None) for number, part in enumerate(parts)}
    todo = [number for number, bins in binned.items() if bins.size > centroids]
    batch = at_once(len(parts[0]), centroids)
    found: dict[int, NDArray[np.float32]] = {}
    for begin in range(0, len(todo), batch):
        numbers = todo[begin : begin + batch]
        found |= dict(zip(numbers, kmeans_of_rows([binned[n] for n in numbers], centroids), strict=True))
    return found


def one_scale_a_run(
    array: NDArray[np.float32],
    run: int,
    centroids: int,
    method: str,
    weights: NDArray[np.float64] | None,
    options: Mapping[str, Any],
    dtype: np.dtype[Any],
    name: str,
) -> GroupedCodebook:
    """One table for all runs, each run with a factor: at first its root mean square, then what fits the table best.

    The factors have the 8 significant bits of bfloat16, in which an archive holds them.
    """
    runs = _Runs(array.reshape(-1), run, weights)
    scales, best, least = runs.first_scales(), None, np.inf
    for _ in range(ROUNDS):
        values, counted = runs.divided(scales, by_rank=method in BY_RANK)
        book = cluster_scalars(values, centroids, method, counted, options, FLOAT32, name)
        found = GroupedCodebook(book.centroids[None], book.indices.reshape(array.shape), run, scales, dtype)
        error = runs.error(found)
        if not error < least:
            break
        best, least = found, error
        scales = runs.fitted_scales(book, scales)
    assert best is not None
    return best


class _Runs:
    """Flat values in runs, padded with weightless zeros to whole ones."""

    def __init__(self, flat: NDArray[np.float32], run: int, weights: NDArray[np.float64] | None) -> None:
        self.size, self.run, self.flat = flat.size, run, flat
        self.weights = weights
        self.groups = group_count(flat.shape, run)
        self.rows = self._rows(flat.astype(np.float64))
        self.mass = self._rows(np.ones(flat.size) if weights is None else weights)

    def _rows(self, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.pad(flat, (0, self.groups * self.run - self.size)).reshape(self.groups, self.run)

    def first_scales(self) -> NDArray[np.float32]:
        """Root mean squares; 1 where all is 0."""
        mass = self.mass.sum(1)
        squares = (self.mass * self.rows**2).sum(1) / np.where(mass > 0, mass, 1)
        return _rounded(np.where(squares > 0, np.sqrt(squares), 1.0))

    def divided(self, scales: NDArray[np.float32], by_rank: bool) -> tuple[NDArray[np.float32], Any]:
        """The values over their runs' factors, and what an error in each counts: the factor's square."""
        values = (self.rows / scales[:, None]).reshape(-1)[: self.size].astype(np.float32)
        if by_rank:
            return values, self.weights
        greatest = float(scales.max())
        counted = self.mass * ((scales / np.float64(greatest)) ** 2)[:, None]
        return values, counted.reshape(-1)[: self.size]

    def error(self, book: GroupedCodebook) -> float:
        """The squared error, weighted."""
        if self.weights is None:
            return book.squared_error(self.flat.reshape(book.shape))
        difference = self.flat - book.dense().reshape(-1).astype(np.float64)
        return float(self.weights @ difference**2)

    def fitted_scales(self, book: Codebook, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """Least squares: sum(value x centroid) / sum(centroid^2) in each run; the old one where that says nothing."""
        chosen = self._rows(book.dense().reshape(-1).astype(np.float64))
        both, squares = (self.mass * self.rows * chosen).sum(1), (self.mass * chosen**2).sum(1)
        fitted = np.divide(both, squares, out=np.zeros(self.groups), where=squares > 0)
        return np.where(fitted > 0, _rounded(np.maximum(fitted, SMALLEST)), scales)


def _rounded(scales: NDArray[np.float64]) -> NDArray[np.float32]:
    """To the nearest numbers of bfloat16, not below `SMALLEST`."""
    bits = np.maximum(scales, SMALLEST).astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
