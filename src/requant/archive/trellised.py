"""Indices on a trellis as storage `entropy` codes them from format 6 on: low bits first, then what is left.

Index m stands for point 2 m + b (`requant.trellis`), and b follows from the low bits of the indices before it. So that
a decoder of many lanes knows b where it needs it, the low bits of a whole tensor are coded first, eight to a symbol, as
if each were drawn by itself. Then a point's remainder modulo 4 is known, 2 u + b with u the low bit, and point // 4 is
coded by the shares of the points that have this remainder: points of even and of odd numbers are not as likely as each
other, which one distribution of indices for both would have to average.
"""

import numpy as np
from numpy.typing import NDArray

from requant.archive import ans, sequential
from requant.archive.ans import MOST_PLACES, Contexts, Frequencies, Part
from requant.archive.levels import Levels, Model, contexts, frequencies, no_contexts
from requant.archive.manifest import Entry
from requant.archive.probabilities import Floats
from requant.codebook import Codebook, index_dtype
from requant.codebook_trellis import TrellisCodebook, row_count
from requant.errors import ArchiveError
from requant.trellis import parities

REMAINDERS = 4
BITS = 8  # low bits a symbol
SHARES = 1 << 8  # of low bits that are set, in how many parts
_UNIFORM = frequencies(np.ones((1, SHARES)))
_ONES = np.array([int(symbol).bit_count() for symbol in range(1 << BITS)])


def with_points(codebook: Codebook, states: int) -> Codebook:
    """The indices of a trellis as points."""
    return TrellisCodebook(codebook.centroids, codebook.indices, states=states).plain()


def point_count(k: int) -> int:
    """How many points a table of k entries has."""
    return 2 * k - 1


def parts(points: Codebook, model: Model, levels: Levels) -> list[Part]:
    """What is coded of the points of a tensor beside its levels: the share of low bits, low bits, the rest."""
    found = points.indices.reshape(-1)
    low = (found >> 1 & 1).astype(np.uint8)
    share = round(float(low.mean()) * SHARES) if low.size else 0
    shares = np.array([min(max(share, 1), SHARES - 1)], np.uint8)
    follows = _following(levels, (found % REMAINDERS).astype(np.uint8))
    return [
        Part(shares, no_contexts, _UNIFORM),
        Part(np.packbits(low, bitorder="little"), no_contexts, _low(int(shares[0]))),
        Part(found // REMAINDERS, follows, _rest(model.weights(points.centroids))),
    ]


def decoded(
    decoder: ans.Decoder | sequential.Decoder,
    model: Model,
    levels: Levels,
    table: NDArray[np.float32],
    entry: Entry,
) -> NDArray[np.uint16]:
    """The indices."""
    points = TrellisCodebook(table, np.zeros(0, index_dtype(len(table)))).centroids
    size = entry.values
    share = int(decoder.decode(1, no_contexts, _UNIFORM)[0])
    packed = decoder.decode(-(-size // BITS), no_contexts, _low(share)).astype(np.uint8)
    low = np.unpackbits(packed, count=size, bitorder="little")
    remainders = low << np.uint8(1) | parities(low.reshape(row_count(entry.shape), -1), entry.states).reshape(-1)
    rest = decoder.decode(size, _following(levels, remainders), _rest(model.weights(points)))
    return (rest << np.uint16(1) | low).reshape(entry.shape)


def _following(levels: Levels, remainders: NDArray[np.uint8]) -> Contexts:
    """The row of `_rest` for each place."""
    of_levels = contexts(levels)

    def between(begin: int, end: int) -> NDArray[np.uint16]:
        return of_levels(begin, end) * np.uint16(REMAINDERS) + remainders[begin:end]

    return between


def _low(share: int) -> Frequencies:
    """(1, 256) frequencies of eight low bits, of which `share` in 256 are set."""
    found = np.ones((1, 1 << BITS))
    for bit in range(BITS):
        found *= np.where(bit < _ONES, share, SHARES - share)
    return frequencies(found)


def _rest(weights: Floats) -> Frequencies:
    """(sums x 4, a quarter of the points) frequencies of the rest by sum of levels and remainder, which runs first."""
    sums, k = weights.shape
    quarters = -(-k // REMAINDERS)
    padded = np.zeros((sums, quarters * REMAINDERS))
    padded[:, :k] = weights
    rows = np.ascontiguousarray(padded.reshape(sums, quarters, REMAINDERS).transpose(0, 2, 1)).reshape(-1, quarters)
    rows[~rows.any(1), 0] = 1  # no point has this remainder
    if rows.size > MOST_PLACES:
        raise ArchiveError("its payload holds a probability model that is out of range")
    return frequencies(rows)
