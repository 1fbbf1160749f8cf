"""Symbols to and from bytes by one coder, constriction's (in Rust), one after another: for what is too short for lanes.

Frequencies are those of `ans`. Symbols are coded in chunks of positions, within a chunk those of the first context,
then those of the next, so that a call codes many. Coding goes from the last symbol to the first, decoding forwards.

Reference: Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems", 2022,
https://arxiv.org/abs/2201.01741.
"""

from collections.abc import Iterator, Sequence

import constriction
import numpy as np
from numpy.typing import NDArray

from requant.archive.ans import PRECISION, Coded, Contexts, Frequencies, Part
from requant.errors import ArchiveError

CHUNK = 1 << 20  # positions
WORD = np.dtype("<u4")  # of the coder; in a file they count as two of 16 bits


def encode(parts: Sequence[Part]) -> Coded:
    """Code the parts one after another; nothing is carried, as there are no lanes."""
    coder, counts = constriction.stream.stack.AnsCoder(), []
    for part in reversed(parts):
        before, models = coder.num_words(), _Models(part.frequencies)
        for begin, end in reversed(list(_chunks(part.symbols.size))):
            symbols = part.symbols[begin:end].astype(np.int32)
            for context, places in reversed(list(_by_context(part.contexts(begin, end)))):
                if models.coded:
                    coder.encode_reverse(symbols[places], models[context])
        counts.append(2 * (coder.num_words() - before))
    words = coder.get_compressed().astype(WORD).view("<u2").astype(np.uint16)
    return Coded(np.empty(0, np.uint32), words, counts[::-1])


class Decoder:
    """Gives the parts back, one after another.

    Any words give some symbols: whether they are right, a checksum knows.
    """

    def __init__(self, words: NDArray[np.uint16]) -> None:
        if words.size % 2:
            raise ArchiveError("its payload's words are cut off")
        self.coder = constriction.stream.stack.AnsCoder(words.astype("<u2").view(WORD).astype(np.uint32))
        self.size = words.size

    @property
    def read(self) -> int:
        """How many of the words have been."""
        return self.size - 2 * int(self.coder.num_words())

    def decode(self, size: int, contexts: Contexts, frequencies: Frequencies) -> NDArray[np.uint16]:
        """The next `size` symbols (see `Part`)."""
        found, models = np.zeros(size, np.uint16), _Models(frequencies)
        for begin, end in _chunks(size if models.coded else 0):
            part = found[begin:end]
            for context, places in _by_context(contexts(begin, end)):
                part[places] = self.coder.decode(models[context], part[places].size)
        return found

    def finish(self) -> bytes:
        """Nothing, which is what was carried.

        Raises:
            ArchiveError: where something is left: then symbols are wrong.

        """
        if not self.coder.is_empty():
            raise ArchiveError("its payload's words do not belong to its probability models")
        return b""


class _Models:
    """Contexts' probabilities as the coder wants them, each made once; none where there is but one symbol."""

    def __init__(self, frequencies: Frequencies) -> None:
        self.shares = frequencies.astype(np.float32) / (1 << PRECISION)  # exact
        self.coded = frequencies.shape[1] > 1
        self.made: dict[int, constriction.stream.model.Categorical] = {}

    def __getitem__(self, context: int) -> "constriction.stream.model.Categorical":
        if context not in self.made:
            self.made[context] = constriction.stream.model.Categorical(self.shares[context], perfect=False)
        return self.made[context]


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, size, CHUNK):
        yield begin, min(begin + CHUNK, size)


def _by_context(contexts: NDArray[np.uint16]) -> Iterator[tuple[int, slice | NDArray[np.int64]]]:
    """Each context that occurs, in rising order, and where."""
    if not contexts.any():
        yield 0, slice(None)
        return
    counts = np.bincount(contexts)
    used = np.flatnonzero(counts)
    order = np.argsort(contexts, kind="stable")
    yield from zip(used.tolist(), np.split(order, np.cumsum(counts[used])[:-1]), strict=True)
