"""A trellis: which of two interleaved grids the next value of a row may lie on follows from the values before it.

The points of a grid are numbered, and of each number n = 2 m + b only m is stored. The parity b is the output of a
convolutional code of 8 states whose input is the low bit of each m. Half of a grid's points at each place, and so one
bit less a value than all of them would take; but which half differs from path to path, and the best path of a row
(Viterbi's algorithm, `reconstruction.trellis_rounding`) lies about as close as a grid of 0.9 times the spacing would.

Trellis-coded quantization: Marcellin and Fischer, IEEE Transactions on Communications 38(1), 1990. The code is
Ungerboeck's of 8 states, h0 = 13, h1 = 04 (octal; "Channel Coding with Multilevel/Phase Signals", IEEE Transactions on
Information Theory 28(1), 1982, table I): b(t) = b(t-1) + b(t-3) + u(t-2) modulo 2, u the low bits, all 0 before a row.
"""

import numpy as np
from numpy.typing import NDArray

STATES = 8
PARITY = np.arange(STATES) & 1
"""(8,) of the next number, in each state: bits b(t), b(t+1) and b(t+2) as far as known, the lowest first."""
PERIOD = 7  # of the code's response: 1 + D^7 = (1 + D + D^3)(1 + D + D^2 + D^4)
TAPS = 2, 3, 4, 6  # of the low bits: D^2 (1 + D + D^2 + D^4)


def successors() -> NDArray[np.int64]:
    """(8, 2) the state after each state and low bit."""
    states = np.arange(STATES)
    b, known_1, known_2 = states & 1, states >> 1 & 1, states >> 2
    return np.stack([(known_1 ^ b) | (known_2 ^ u) << 1 | b << 2 for u in (0, 1)], axis=1)


def parities(low_bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The parities (R, C) that belong to low bits (R, C), each 0 or 1, of R rows."""
    rows, columns = low_bits.shape
    periods = -(-columns // PERIOD)
    padded = np.zeros((rows, periods * PERIOD), np.uint8)
    for delay in TAPS:
        padded[:, delay:columns] ^= low_bits[:, : max(0, columns - delay)]
    by_period = padded.reshape(rows, periods, PERIOD)
    np.bitwise_xor.accumulate(by_period, axis=1, out=by_period)
    return padded[:, :columns]
