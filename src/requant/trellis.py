"""A trellis: which of two interleaved grids the next value of a row may lie on follows from the values before it.

The points of a grid are numbered, and of each number n = 2 m + b only m is stored. The parity b is the output of a
convolutional code whose input is the low bit of each m. Half of a grid's points at each place, and so one bit less a
value than all of them would take; but which half differs from path to path, and the best path of a row (Viterbi's
algorithm, `reconstruction.trellis_rounding`) lies about as close as a grid of 0.85 to 0.9 times the spacing would: the
more states the code has, the closer.

Trellis-coded quantization: Marcellin and Fischer, IEEE Transactions on Communications 38(1), 1990. The codes are
Ungerboeck's for amplitude modulation ("Trellis-Coded Modulation with Redundant Signal Sets, Part II", IEEE
Communications Magazine 25(2), 1987, table I): with D a delay of one place, h0(D) b = h1(D) u modulo 2, u the low bits,
all 0 before a row.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FEWEST = 8
CODES = {FEWEST: (0o13, 0o04), 64: (0o103, 0o024)}
"""Number of states: h0 and h1, a bit for each power of D, the lowest D^0. 8: b(t) = b(t-1) + b(t-3) + u(t-2)."""


def parity_of_states(states: int) -> NDArray[np.int64]:
    """(S,) of the next number, in each state: bits b(t), b(t+1), ... as far as they are known, the lowest first."""
    return np.arange(states) & 1


def successors(states: int) -> NDArray[np.int64]:
    """(S, 2) the state after each state and low bit."""
    h0, h1 = CODES[states]
    before = np.arange(states)
    added = np.where(before & 1, h0 >> 1, 0)  # b(t) = 1 adds D h0, a low bit of 1 D h1
    return np.stack([before >> 1 ^ added ^ low * (h1 >> 1) for low in (0, 1)], axis=1)


def stages(states: int, columns: int) -> Iterator[list[int]]:
    """Delays, stage by stage: where each makes the sum of what it is given so delayed, parities come of low bits.

    h1, and then what undoes h0 in a row of so many columns: modulo 2, h0(D) h0(D) = h0(D^2), so that h0(D) h0(D^2)
    h0(D^4) ... times h0(D) is h0(D^n) for a power of two n, which is 1 where n columns are all that there are.
    """
    h0, h1 = CODES[states]
    yield _powers(h1)
    spacing = 1
    while spacing < columns:
        yield [spacing * power for power in _powers(h0)]
        spacing *= 2


def _powers(polynomial: int) -> list[int]:
    return [power for power in range(polynomial.bit_length()) if polynomial >> power & 1]


def parities(low_bits: NDArray[np.uint8], states: int) -> NDArray[np.uint8]:
    """The parities (R, C) that belong to low bits (R, C), each 0 or 1, of R rows."""
    rows, columns = low_bits.shape
    found = np.packbits(low_bits, axis=0)  # eight rows a byte
    for delays in stages(states, columns):
        summed = np.zeros_like(found)
        for delay in delays:
            summed[:, delay:] ^= found[:, : max(0, columns - delay)]
        found = summed
    return np.unpackbits(found, axis=0, count=rows)
