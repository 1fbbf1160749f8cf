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

from functools import cache

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


@cache
def response(states: int) -> tuple[int, tuple[int, ...]]:
    """A period P and delays: that of the low bits, each delayed so, the sum is (1 + D^P) b.

    1 + D^P is the first of its kind that h0 divides; the quotient times h1 are the delays.
    """
    h0, h1 = CODES[states]
    period = 1
    while _divided(1 | 1 << period, h0)[1]:
        period += 1
    product, quotient = 0, _divided(1 | 1 << period, h0)[0]
    for power in range(h1.bit_length()):
        product ^= quotient << power if h1 >> power & 1 else 0
    return period, tuple(power for power in range(product.bit_length()) if product >> power & 1)


def _divided(number: int, by: int) -> tuple[int, int]:
    """Quotient and remainder of polynomials modulo 2, a bit for each coefficient."""
    quotient = 0
    while number.bit_length() >= by.bit_length():
        shift = number.bit_length() - by.bit_length()
        quotient, number = quotient | 1 << shift, number ^ by << shift
    return quotient, number


def parities(low_bits: NDArray[np.uint8], states: int) -> NDArray[np.uint8]:
    """The parities (R, C) that belong to low bits (R, C), each 0 or 1, of R rows."""
    rows, columns = low_bits.shape
    period, delays = response(states)
    low = np.packbits(low_bits, axis=0)  # eight rows a byte
    periods = -(-columns // period)
    padded = np.zeros((len(low), periods * period), np.uint8)
    for delay in delays:
        padded[:, delay:columns] ^= low[:, : max(0, columns - delay)]
    by_period = padded.reshape(len(low), periods, period)
    np.bitwise_xor.accumulate(by_period, axis=1, out=by_period)
    return np.unpackbits(padded[:, :columns], axis=0, count=rows)
