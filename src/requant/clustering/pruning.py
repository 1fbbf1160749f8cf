"""Pruning before clustering: the smallest magnitudes become 0, and one centroid is theirs.

(Magnitude pruning: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.) An entropy
coder then gets the zeros nearly free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.codebook import Codebook, index_dtype
from requant.codebook_forms import Unsplit
from requant.errors import UserError

Cluster = Callable[[NDArray[Any], int], Unsplit]


def cluster_pruned(values: NDArray[Any], centroids: int, share: float, cluster: Cluster, name: str) -> Codebook:
    """Set the values of smallest magnitude to 0, and cluster the others around `centroids` - 1 centroids.

    Args:
        values: of any shape; those that are 0 are pruned in any case.
        centroids: 0 among them.
        share: of the values, which are pruned; of equal magnitudes all or none are.
        cluster: values (n,) and a number of centroids in, a codebook of one table out.
        name: what messages call the values.

    Raises:
        UserError: for fewer than two centroids.

    """
    if centroids < 2:
        raise UserError(f"{name}: prune needs a centroid besides 0: set two centroids at least")
    flat = values.reshape(-1)
    magnitudes = np.abs(flat)
    kept = magnitudes > _threshold(magnitudes, share)
    if not kept.any():
        return Codebook(np.zeros(1, np.float32), np.zeros(values.shape, np.uint8), flat.dtype)
    found = cluster(flat[kept], centroids - 1)
    assert isinstance(found, Codebook)
    table = np.concatenate([found.centroids, np.zeros(1, np.float32)])
    indices = np.full(flat.size, found.k, index_dtype(table.size))
    indices[kept] = found.indices
    return Codebook.from_unsorted(table, indices.reshape(values.shape), found.dtype)


def _threshold(magnitudes: NDArray[Any], share: float) -> float:
    """What is not above it is pruned: at most the share of the values, but for those that are 0."""
    count = int(share * magnitudes.size)
    ordered = np.sort(magnitudes)
    if not count or count == magnitudes.size:
        return float(ordered[-1]) if count else 0.0
    below, next_one = float(ordered[count - 1]), float(ordered[count])
    if below < next_one:
        return below
    smaller = ordered[ordered < below]
    return float(smaller[-1]) if smaller.size else 0.0
