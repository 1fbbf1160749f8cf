"""Indices from the words of format 1's range coder, following a probability model.

The coder is constriction's (Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems", 2022): within a
tenth of a percent of what the model's probabilities allow.
"""

from collections.abc import Iterator

import constriction
import numpy as np
from numpy.typing import NDArray

from requant.archive.probabilities import Model
from requant.codebook import index_dtype

CHUNK = 1 << 20  # symbols a call: the coder wants 4 bytes each

Indices = NDArray[np.uint8] | NDArray[np.uint16]


def decode(words: NDArray[np.uint32], model: Model, centroids: NDArray[np.float32], shape: tuple[int, ...]) -> Indices:
    """The indices of this shape. Any words give some, each below k: whether they are right, a checksum knows."""
    decoder = constriction.stream.queue.RangeDecoder(words)
    indices = np.empty(shape, index_dtype(len(centroids)))
    view = _by_channel(indices, model.axis)
    for chosen, probabilities in _classes(model, centroids):
        symbols = np.empty(view.shape[0] * int(chosen.sum()) * view.shape[2], indices.dtype)
        for start in range(0, symbols.size, CHUNK):
            part = symbols[start : start + CHUNK]
            part[:] = decoder.decode(probabilities, part.size)
        if chosen.all():
            return symbols.reshape(shape)
        view[:, chosen] = symbols.reshape(view.shape[0], -1, view.shape[2])
    return indices


def _by_channel(indices: Indices, axis: int) -> Indices:
    """A view (before, channels, after)."""
    shape = indices.shape or (1,)
    before = int(np.prod(shape[:axis], dtype=np.int64))
    return indices.reshape(before, shape[axis], int(np.prod(shape[axis + 1 :], dtype=np.int64)))


def _classes(
    model: Model, centroids: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.bool_], "constriction.stream.model.Categorical"]]:
    """For each class: which channels are in it, and the coder's probabilities."""
    for number, weights in enumerate(model.weights(centroids)):
        chosen = model.classes == number
        if chosen.any():
            yield chosen, constriction.stream.model.Categorical(weights, perfect=False)
