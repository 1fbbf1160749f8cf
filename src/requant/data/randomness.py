"""Random numbers that are a function of their place: no state, so no dependence on workers, processes or a resume."""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from requant.data.protocols import Part
from requant.errors import DataError

_SHARE = 5  # one in so many is held out
_PARTS = 1  # the seed of their order; `limit` has that of 0
_STEP = np.uint64(0x9E3779B97F4A7C15)


class Purpose(IntEnum):
    """What the numbers are for; two purposes never share them."""

    ORDER = 0
    CROP = 1
    SHIFT = 2


def uniforms(purpose: Purpose, seed: int, epochs: ArrayLike, items: ArrayLike, draws: int) -> NDArray[np.float64]:
    """Independent numbers in [0, 1), shape (items, draws), one row for each (epoch, item).

    A chain of splitmix64 finalisers over (seed, purpose, epoch, item, draw): Steele, Lea and Flood, "Fast Splittable
    Pseudorandom Number Generators", OOPSLA 2014, figure 17.
    """
    state = np.array([seed % 2**64], np.uint64)
    for coordinate in (int(purpose), epochs, items):
        state = _mixed(state, coordinate)
    bits = _mixed(state[:, None], np.arange(draws)) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def permutation(length: int, seed: int, epoch: int = 0) -> NDArray[np.int64]:
    """The numbers 0 to length - 1 in an order set by the seed and the epoch."""
    keys = uniforms(Purpose.ORDER, seed, epoch, np.arange(length), 1)[:, 0]
    return np.argsort(keys, kind="stable")


def chosen(length: int, limit: int | None, part: Part = "all") -> NDArray[np.int64]:
    """Places of the first `limit` items of one fixed order; of all items, in their own order, without a limit.

    Of those a fixed fifth is `held_out`, the others are `seen`.

    Raises:
        DataError: there are fewer than two to make parts of.
    """
    places = np.arange(length) if limit is None else permutation(length, seed=0)[:limit]
    if part == "all":
        return places
    if len(places) < 2:
        raise DataError("one unlabeled image is too few to hold any out; supply more")
    held_out = np.sort(permutation(len(places), seed=_PARTS)[: max(1, len(places) // _SHARE)])
    return places[held_out] if part == "held_out" else np.delete(places, held_out)


def _mixed(state: NDArray[np.uint64], coordinate: ArrayLike) -> NDArray[np.uint64]:
    state = state + (np.atleast_1d(np.asarray(coordinate)).astype(np.uint64) + np.uint64(1)) * _STEP
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
