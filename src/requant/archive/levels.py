"""How probable each index is, in format 2: one distribution, tilted by the level of the value's place in its tensor.

A tensor is taken as (output channels, input channels, places in the kernel). Each of these axes may have levels, small
whole numbers: channels differ in scale, and a kernel's middle from its corners. With L the sum of a value's levels,
index q has the weight

    base(q) 2^((L - middle) step u(q)),     u(q) = |centroid q| / max |centroid|

The base is uniform, `smooth` or a `table` (`probabilities`). Weights are computed by operations that IEEE 754 fixes to
the bit, in a fixed order, and become whole frequencies: every machine decodes the same.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from requant.archive.ans import PRECISION, Contexts, Frequencies
from requant.archive.probabilities import (
    SMOOTH,
    TABLE,
    TERMS,
    Floats,
    cell_widths,
    combined,
    distances,
    exp2,
    shares,
    smooth_terms,
)
from requant.errors import ArchiveError

AXES = 3
MOST_LEVELS = 16  # of one axis
_TERM = np.dtype("<f2")

Levels = tuple[NDArray[np.uint8], ...]
"""For each axis the level of each place along it; all 0 where an axis has none."""


@dataclass(frozen=True)
class Model:
    """What is stored of a tensor's probabilities beside the levels themselves.

    Attributes:
        base: UNIFORM, SMOOTH or TABLE.
        terms: (TERMS,) float16 of a smooth base, else empty.
        table: (k,) uint8 of a table, else empty (see `quantized_shares`).
        middle: the sum of levels that has the base's weights.
        step: a level's tilt, in octaves where u is 1; a float32 number.
        shares: for each axis how often each of its levels occurs (see `quantized_shares`); empty: it has none.

    """

    base: int
    terms: NDArray[np.float16]
    table: NDArray[np.uint8]
    middle: int = 0
    step: float = 0.0
    shares: tuple[NDArray[np.uint8], ...] = (np.empty(0, np.uint8),) * AXES

    @property
    def sums(self) -> int:
        """How many different sums of levels there may be."""
        return 1 + sum(max(0, found.size - 1) for found in self.shares)

    def base_weights(self, centroids: NDArray[np.float32]) -> Floats:
        """(k,) weights of the base, not normalised; each positive, but for a table's zeros."""
        if self.base == SMOOTH:
            return exp2(combined(self.terms.astype(np.float64), smooth_terms(centroids))) * cell_widths(centroids)
        return shares(self.table) if self.base == TABLE else np.ones(centroids.size)

    def weights(self, centroids: NDArray[np.float32]) -> Floats:
        """(sums, k) weights of the indices, not normalised; each positive, but for a table's zeros."""
        base = self.base_weights(centroids)
        if self.sums == 1 and self.middle == 0:
            return base[None]
        away = np.arange(self.sums, dtype=np.float64)[:, None] - self.middle
        found: Floats = exp2(away * (self.step * statistic(centroids))) * base
        return found

    def frequencies(self, centroids: NDArray[np.float32]) -> Frequencies:
        """(sums, k) frequencies of the indices."""
        return frequencies(self.weights(centroids))

    def level_frequencies(self, axis: int) -> Frequencies:
        """(1, levels) frequencies of an axis's levels."""
        return frequencies(shares(self.shares[axis])[None])

    def to_bytes(self) -> bytes:
        """As the file holds it."""
        has = [found.size > 0 for found in self.shares]
        head = self.base | sum(1 << 4 + axis for axis in range(AXES) if has[axis])
        parts = [bytes([head]), self.terms.astype(_TERM).tobytes(), np.diff(self.table, prepend=np.uint8(0)).tobytes()]
        if any(has):
            parts += [np.float32(self.step).astype("<f4").tobytes(), bytes([self.middle])]
        parts += [bytes([found.size]) + found.tobytes() for found in self.shares if found.size]
        return b"".join(parts)


def from_bytes(data: bytes, k: int) -> tuple[Model, bytes]:
    """The model of k indices at the start of `data`, and what follows it.

    Raises:
        ArchiveError: if it is not one.

    """
    reader = _Reader(data)
    (head,) = reader.take(1)
    base, mask = head & 15, head >> 4
    if base > TABLE or mask >> AXES:
        raise ArchiveError("its payload holds a probability model of no known form")
    terms = np.frombuffer(reader.take(_TERM.itemsize * TERMS if base == SMOOTH else 0), _TERM)
    table = np.cumsum(np.frombuffer(reader.take(k if base == TABLE else 0), np.uint8), dtype=np.uint8)
    step, middle = 0.0, 0
    if mask:
        step = float(np.frombuffer(reader.take(4), "<f4")[0])
        (middle,) = reader.take(1)
    found = tuple(_read_shares(reader) if mask >> axis & 1 else np.empty(0, np.uint8) for axis in range(AXES))
    model = Model(base, terms, table, middle, step, found)
    finite = np.isfinite(terms).all() and np.isfinite(step)
    if not finite or (base == TABLE and not table.any()) or model.sums * k > MOST_WEIGHTS:
        raise ArchiveError("its payload holds a probability model that is out of range")
    return model, reader.data


MOST_WEIGHTS = 1 << 16  # sums x k


def _read_shares(reader: "_Reader") -> NDArray[np.uint8]:
    (size,) = reader.take(1)
    found = np.frombuffer(reader.take(size), np.uint8)
    if not 1 <= size <= MOST_LEVELS or not found.any():
        raise ArchiveError("its payload holds levels of no known form")
    return found


class _Reader:
    """Bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if len(self.data) < size:
            raise ArchiveError("its payload is cut off within a probability model")
        part, self.data = self.data[:size], self.data[size:]
        return part


def statistic(centroids: NDArray[np.float32]) -> Floats:
    """(k,) what a level multiplies: the centroids' magnitudes, the greatest 1."""
    return distances(centroids)[1]


def axes_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Output channels, input channels, places in the kernel; a tensor of one dimension is one output channel."""
    if len(shape) < 2:
        return 1, prod(shape), 1
    return shape[0], shape[1], prod(shape[2:])


def contexts(levels: Levels) -> Contexts:
    """The sum of levels at each place of a tensor in row-major order."""
    if not any(found.any() for found in levels):
        return no_contexts
    rows = levels[0].astype(np.uint16)
    columns = (levels[1].astype(np.uint16)[:, None] + levels[2]).reshape(-1)

    def between(begin: int, end: int) -> NDArray[np.uint16]:
        first, last = begin // columns.size, -(-end // columns.size)
        block = (rows[first:last, None] + columns).reshape(-1)
        return block[begin - first * columns.size : end - first * columns.size]

    return between


def no_contexts(begin: int, end: int) -> NDArray[np.uint16]:
    """All follow the first frequencies."""
    return np.zeros(end - begin, np.uint16)


def frequencies(weights: Floats) -> Frequencies:
    """(n, k) whole numbers in proportion to the weights: rows sum to 2**PRECISION, and only a weight of 0 gives 0."""
    total = 1 << PRECISION
    sums = np.cumsum(weights, axis=1)[:, -1:]  # added one by one: a sum's order depends on the machine
    needed = weights > 0
    found = np.maximum(np.rint(weights / sums * total).astype(np.int64), needed)
    rows, largest = np.arange(len(found)), found.argmax(1)
    found[rows, largest] += total - found.sum(1)
    short = found[rows, largest] < 1  # the many that must have a place leave none to the largest
    if short.any():
        spare = total - needed.sum(1, keepdims=True)
        least = (needed + np.floor(weights / sums * spare)).astype(np.int64)
        least[rows, least.argmax(1)] += total - least.sum(1)
        found[short] = least[short]
    return found.astype(np.uint32)
