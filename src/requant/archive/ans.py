"""Symbols to and from bytes by many rANS coders side by side ("lanes"), as numpy likes it.

Symbol i of a part goes to lane i mod W: a step codes one symbol in each lane, by operations on arrays of W numbers.
A lane's state lies in [2**16, 2**32); what does not fit is moved out, 16 bits at a time, to one list of words that all
lanes share. Frequencies sum to 2**14. Everything is whole numbers: every machine decodes the same.

Coding goes from the last symbol to the first, decoding forwards. The states with which coding begins are free, and so
hold 2 bytes a lane of anything else ("carried"); those with which it ends are stored in 20 to 35 bits each.

References: Duda, "Asymmetric numeral systems", 2013, https://arxiv.org/abs/1311.2540; Giesen, "Interleaved entropy
coders", 2014, https://arxiv.org/abs/1402.3392.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from requant.errors import ArchiveError

PRECISION = 14  # bits of a frequency
MOST_LANES = 4096
LANE, CARRIED = 0.5, 2  # bytes that a lane costs, and that it carries: where there is nothing to carry, both are lost
SHARE = 0.002  # of the coded bytes that lanes may cost
TOO_FEW = 768  # lanes: then a step costs more for being one than for what it does
ENOUGH, NOTHING = 2048, 0.00005  # and with so many little; more where they cost next to nothing of the bytes
STEPS = 256  # whose contexts are computed at a time
LOW, WORD = 1 << 16, 16

Frequencies = NDArray[np.uint32]
Contexts = Callable[[int, int], NDArray[np.uint16]]
"""From a range of positions, begin and end, the row of the frequencies that each symbol there follows."""


@dataclass(frozen=True)
class Part:
    """Symbols of one alphabet.

    Attributes:
        symbols: (n,), each below k.
        contexts: which frequencies each follows.
        frequencies: (contexts, k), each row's sum 2**PRECISION; no symbol's is 0 where it occurs.

    """

    symbols: NDArray[np.unsignedinteger]
    contexts: Contexts
    frequencies: Frequencies


@dataclass(frozen=True)
class Coded:
    """What decoding needs: the lanes' states (W,), the words (uint16), and for each part how many of them it takes."""

    states: NDArray[np.uint32]
    words: NDArray[np.uint16]
    counts: list[int]


def lanes_for(coded: float, carried: int) -> int:
    """How many lanes suit what takes so many bytes, with so many others to carry; 0: a coder of another kind does.

    More are faster, fewer are smaller.
    """
    most = min(SHARE * coded / LANE, (SHARE * coded + carried) / (LANE + CARRIED))
    return 0 if most < TOO_FEW else int(min(most, max(ENOUGH, NOTHING * coded / LANE), MOST_LANES))


def lanes_before_5(symbols: int) -> int:
    """How many lanes a file of format 2 to 4 has, which does not say so."""
    return min(MOST_LANES, 1 << max(0, (symbols // 2048).bit_length() - 1))


def encode(parts: Sequence[Part], carried: bytes) -> Coded:
    """Code the parts one after another; `carried` is 2 bytes for each of the lanes there shall be."""
    states = np.frombuffer(carried, "<u2").astype(np.int64) + LOW
    moved: list[NDArray[np.uint16]] = []
    counts = []
    for part in reversed(parts):
        before = sum(map(len, moved))
        for frequency, start in _steps_backwards(part, states.size):
            moved.append(_push(states[: frequency.size], frequency, start))
        counts.append(sum(map(len, moved)) - before)
    words = np.concatenate([np.empty(0, np.uint16), *reversed(moved)])
    return Coded(states.astype(np.uint32), words, counts[::-1])


def _steps_backwards(part: Part, lanes: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each step, the last first, the frequencies of its symbols and the sums of those below them."""
    starts = (np.cumsum(part.frequencies, axis=1) - part.frequencies).astype(np.int64).reshape(-1)
    frequencies, k = part.frequencies.astype(np.int64).reshape(-1), part.frequencies.shape[1]
    size, chunk = part.symbols.size, lanes * STEPS
    for begin in reversed(range(0, size, chunk)):
        end = min(begin + chunk, size)
        places = part.contexts(begin, end).astype(np.int64) * k + part.symbols[begin:end]
        f, c = frequencies[places], starts[places]
        for at in reversed(range(0, end - begin, lanes)):
            yield f[at : at + lanes], c[at : at + lanes]


def _push(states: NDArray[np.int64], frequency: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Code a symbol in each of these lanes, in place; returns the words that are moved out, in the lanes' order."""
    full = np.flatnonzero(states >= frequency << (2 * WORD - PRECISION))
    words = (states[full] & (LOW - 1)).astype(np.uint16)
    states[full] >>= WORD
    whole = states // frequency
    states += (whole << PRECISION) - whole * frequency + start
    return words


class Decoder:
    """Gives the parts back, one after another.

    Raises:
        ArchiveError: where the words end too early.

    """

    def __init__(self, states: NDArray[np.uint32], words: NDArray[np.uint16]) -> None:
        self.states, self.words, self.read = states.copy(), words.astype(np.uint32), 0

    def decode(self, size: int, contexts: Contexts, frequencies: Frequencies) -> NDArray[np.uint16]:
        """The next `size` symbols (see `Part`)."""
        tables = _Tables(frequencies)
        found, lanes, k = np.empty(size, np.uint16), self.states.size, np.uint16(frequencies.shape[1])
        for begin in range(0, size, lanes * STEPS):
            part = found[begin : begin + lanes * STEPS]
            rows = contexts(begin, begin + part.size)
            slots = rows.astype(np.int64) << PRECISION
            for at in range(0, part.size, lanes):
                self._pop(slots[at : at + lanes], tables, part[at : at + lanes])
            part -= rows * k
        return found

    def _pop(self, slots: NDArray[np.int64], tables: "_Tables", out: NDArray[np.uint16]) -> None:
        """A symbol from each lane, as its place in the tables; operations in place, since they are most of the time."""
        states = self.states[: out.size]
        slot = states & _MASK
        slots += slot
        tables.places.take(slots, out=out, mode="clip")
        packed = tables.packed.take(out, mode="clip")
        states >>= _SHIFT
        states *= packed >> _SHIFT
        packed &= _MASK
        slot -= packed
        states += slot
        short = (states < LOW).nonzero()[0]
        end = self.read + short.size
        if end > self.words.size:
            raise ArchiveError("its payload's words end too early")
        states[short] = states[short] << _WORD | self.words[self.read : end]
        self.read = end

    def finish(self) -> bytes:
        """What the lanes carried.

        Raises:
            ArchiveError: where something is left, or the states are none to begin with: then symbols are wrong.

        """
        if self.read != self.words.size or (self.states >> _WORD != 1).any():
            raise ArchiveError("its payload's words do not belong to its probability models")
        return (self.states & np.uint32(LOW - 1)).astype("<u2").tobytes()


_MASK, _SHIFT, _WORD = np.uint32((1 << PRECISION) - 1), np.uint32(PRECISION), np.uint32(WORD)
MOST_PLACES = 1 << 16  # contexts x k


class _Tables:
    """Frequencies as decoding looks them up.

    Attributes:
        places: (contexts x 2**PRECISION,) for each value of a state's low bits, context x k + symbol.
        packed: (contexts x k,) a symbol's frequency and, in the low bits, the sum of those below it.

    """

    def __init__(self, frequencies: Frequencies) -> None:
        assert frequencies.size <= MOST_PLACES
        starts = np.cumsum(frequencies, axis=1, dtype=np.uint32) - frequencies
        self.places = np.repeat(np.arange(frequencies.size, dtype=np.uint16), frequencies.reshape(-1))
        self.packed = (frequencies << _SHIFT | starts & _MASK).reshape(-1)


def states_to_bytes(states: NDArray[np.uint32]) -> bytes:
    """Each state's low 16 bits; how many of its upper 16 follow the first that is set, 4 bits each; those bits."""
    upper = states >> _WORD
    lengths = _lengths(upper)
    bits = np.unpackbits(upper.astype(">u2").view(np.uint8)).reshape(-1, WORD)
    nibbles = np.pad(lengths, (0, states.size % 2)).reshape(-1, 2)
    packed = nibbles[:, 0] | nibbles[:, 1] << 4
    low = (states & np.uint32(LOW - 1)).astype("<u2")
    return low.tobytes() + packed.astype(np.uint8).tobytes() + np.packbits(bits[_below(lengths)]).tobytes()


def states_from(take: Callable[[int], NDArray[np.uint8]], lanes: int) -> NDArray[np.uint32]:
    """The states, from what `take` gives: the next so many bytes."""
    low = take(2 * lanes).view("<u2")
    pairs = take((lanes + 1) // 2)
    lengths = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:lanes].astype(np.int64)
    total = int(lengths.sum())
    bits = np.zeros((lanes, WORD), np.uint8)
    bits[_below(lengths)] = np.unpackbits(take((total + 7) // 8))[:total]
    bits[np.arange(lanes), WORD - 1 - lengths] = 1
    upper = np.packbits(bits, axis=1).view(">u2").reshape(-1).astype(np.uint32)
    found: NDArray[np.uint32] = upper << _WORD | low
    return found


def _lengths(upper: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bits below the first that is set."""
    return np.frexp(upper.astype(np.float64))[1].astype(np.int64) - 1


def _below(lengths: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(W, 16) which bits, the highest first, lie below the first that is set."""
    found: NDArray[np.bool_] = np.arange(WORD) >= WORD - lengths[:, None]
    return found
