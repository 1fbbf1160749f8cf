"""How many of some rising bounds are not above each of many values."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from requant.codebook import index_dtype

Indices: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
CELLS = 1 << 16


class Search:
    """The search, by tables made for these bounds.

    A number of 16 bits that never falls as values rise settles most values by one look into a table. Where a bound
    shares it, the table holds the complement, and more looks find that bound to compare with; only where several do is
    there a search. The number is that of a cell of equal width between the bounds or, where several would share one,
    the upper half of the float32.
    """

    def __init__(self, bounds: NDArray[np.float32]) -> None:
        self.bounds = bounds
        self.cells = _Cells.of(bounds)
        below, inside = _cell_tables(bounds, self.cells) if self.cells else _pattern_tables(bounds)
        if self.cells and (inside > 1).any():
            self.cells = None
            below, inside = _pattern_tables(bounds)
        self.dtype = index_dtype(bounds.size + 1)
        self.below: NDArray[Any] = below.astype(np.int16 if self.dtype == np.uint8 else np.int32)
        self.table = np.where(inside > 0, ~self.below, self.below)
        self.bound = np.append(bounds, np.float32(np.inf))[np.where(inside > 0, below, bounds.size)]
        self.several = inside > 1
        self.any_several = bool(self.several.any())

    def __call__(self, values: NDArray[np.float32]) -> Indices:
        """(n,) uint8 or uint16 of finite values (n,)."""
        numbers = self.cells.numbers(values) if self.cells else (values.view(np.uint32) >> 16).astype(np.uint16)
        found: Any = self.table.take(numbers, mode="clip")
        unsettled = np.flatnonzero(found < 0)
        found[unsettled] = self._settled(values[unsettled], numbers[unsettled])
        indices: Indices = found.astype(self.dtype)
        return indices

    def _settled(self, values: NDArray[np.float32], numbers: NDArray[np.uint16]) -> NDArray[Any]:
        """What is found for values whose number a bound shares."""
        found: NDArray[Any] = self.below[numbers] + (values >= self.bound[numbers])
        if self.any_several:
            several = np.flatnonzero(self.several[numbers])
            found[several] = np.searchsorted(self.bounds, values[several], side="right")
        return found


@dataclass(frozen=True)
class _Cells:
    """Equal parts of the range from `low`, `scale` of them a unit; what lies outside is in the first or last."""

    low: np.float32
    scale: np.float32

    @classmethod
    def of(cls, bounds: NDArray[np.float32]) -> "_Cells | None":
        """From the least to the greatest bound; None where float32 cannot tell them apart."""
        if not bounds.size:
            return None
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale = np.float32(CELLS - 1) / (bounds[-1] - bounds[0])
        return cls(bounds[0], scale) if np.isfinite(scale) and scale > 0 else None

    def numbers(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        """(n,) the cell of each value, computed in float32, and so never falling as values rise."""
        with np.errstate(over="ignore"):
            shifted = values - self.low
            shifted *= self.scale
        return np.clip(shifted, 0, CELLS - 1, out=shifted).astype(np.uint16)


def _cell_tables(bounds: NDArray[np.float32], cells: _Cells) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each cell, how many bounds lie in cells below, and in it."""
    inside = np.bincount(cells.numbers(bounds), minlength=CELLS)
    return np.cumsum(inside) - inside, inside


def _pattern_tables(bounds: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each upper half of a float32, how many bounds are below all numbers that have it, and among them."""
    pattern = np.arange(CELLS, dtype=np.uint32) << 16
    least, greatest = pattern.view(np.float32), (pattern | 0xFFFF).view(np.float32)
    positive = pattern < 1 << 31
    low, high = np.where(positive, least, greatest), np.where(positive, greatest, least)
    # -0 is a pattern's greatest number and equals 0; of NaN patterns nothing is asked.
    below = np.searchsorted(bounds, low, side="right")
    inside = np.searchsorted(bounds, high, side="right") - below
    return below, np.where(np.isnan(least) | np.isnan(greatest), 0, inside)
