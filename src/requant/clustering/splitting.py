"""Outlier channel splitting: input channels that hold the largest weights are made two, each with half of them.

Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier Channel Splitting", ICML 2019. In
the paper the channel's input is duplicated too. As both copies see the same input, their weights act as their sum: so
it is the stored tensor alone that is split, and adding up gives weights of the network's own shape.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.checking import float32_array
from requant.clustering.methods import cluster
from requant.codebook_forms import AnyCodebook, SplitCodebook
from requant.errors import UserError

Floats = NDArray[np.float32]


def cluster_split(values: Any, centroids: int, method: str, split: float, *, name: str, **settings: Any) -> AnyCodebook:
    """Split outlier channels, then cluster.

    Args:
        values: (O, I, ...) weights; of fewer than two input channels they are not split.
        centroids: as for `cluster`.
        method: as for `cluster`.
        split: how many channels are added, as a share of I, rounded up; 0: none.
        name: what messages call the values.
        settings: more of `cluster`'s arguments.

    Raises:
        UserError: as `cluster`, and for a share that is not from 0 to 1.

    """
    if not 0 <= split <= 1:
        raise UserError(f"{name}: split must be from 0 to 1 (a share of the input channels), not {split}")
    shape = tuple(values.shape)
    if not split or len(shape) < 2 or shape[1] < 2:
        return cluster(values, centroids, method, name=name, **settings)
    array, dtype = float32_array(values, name)
    whole, sources = split_channels(array, ceil(split * shape[1]))
    return SplitCodebook(cluster(whole.astype(dtype), centroids, method, name=name, **settings), sources)


def split_channels(weights: Floats, extra: int) -> tuple[Floats, NDArray[np.uint32]]:
    """Halve, again and again, the input channel with the weight of greatest magnitude.

    Args:
        weights: (O, I, ...).
        extra: how many channels to add, E.

    Returns:
        (O, I + E, ...), and (E,) which of the I channels each of the last E belongs to. The parts of a channel add up
        to it exactly (but for halves of the smallest denormals): a network whose inputs are duplicated likewise
        computes what it did.

    """
    channels = weights.shape[1]
    peaks = list(np.abs(np.moveaxis(weights, 1, 0).reshape(channels, -1)).max(1).astype(np.float64))
    factors, sources = [1.0] * channels, list(range(channels))
    for _ in range(extra):
        worst = int(np.argmax(peaks))
        factors[worst] /= 2
        peaks[worst] /= 2
        factors.append(factors[worst])
        peaks.append(peaks[worst])
        sources.append(sources[worst])
    column = np.array(factors, np.float32).reshape(1, -1, *(1 for _ in weights.shape[2:]))
    return weights[:, sources] * column, np.array(sources[channels:], np.uint32)
