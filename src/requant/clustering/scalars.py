"""One table of scalars: the methods by name, and the codebook of what they find."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.assign import Members, assign
from requant.clustering.bins import distinct_values
from requant.clustering.entropy import entropy
from requant.clustering.equal_population import equal_population
from requant.clustering.exact import exact
from requant.clustering.faiss import faiss
from requant.clustering.kmeans import kmeans
from requant.clustering.linear import linear, middles
from requant.codebook import Codebook

# Each takes flat values, k and weights or None, and gives the least value of each cluster, in order.
SCALAR_METHODS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "equal_population": equal_population,
    "kmeans": kmeans,
    "exact": exact,
    "linear": linear,
    "faiss": faiss,
    "entropy": entropy,
}


def cluster_scalars(
    array: NDArray[np.float32],
    centroids: int,
    method: str,
    weights: NDArray[np.float64] | None,
    options: Mapping[str, Any],
    dtype: np.dtype[Any],
    name: str,
) -> Codebook:
    """The codebook of checked values of any shape; `weights` (n,) are flat, `dtype` is that of what it replaces."""
    flat = array.reshape(-1)
    if method != "entropy" and (starts := distinct_values(flat, weights, centroids)) is not None:
        if starts.size < centroids:
            warnings.warn(f"{name} has {starts.size} distinct values, fewer than {centroids} centroids", stacklevel=3)
        return codebook_from(array, starts, weights, dtype)
    middle = options.get("centroid") == "middle"
    counted = flat if weights is None else flat[weights > 0]
    counted_weights = None if weights is None else weights[weights > 0]
    settings = {key: value for key, value in options.items() if key != "centroid"}
    starts = SCALAR_METHODS[method](counted, centroids, counted_weights, **settings)
    return codebook_from(array, starts, weights, dtype, centroids if middle else None)


def codebook_from(
    array: NDArray[np.float32],
    starts: NDArray[np.float32],
    weights: NDArray[np.float64] | None,
    dtype: np.dtype[Any],
    cells: int | None = None,
) -> Codebook:
    """Clusters from `starts` on, their centroids the means, or the middles where a number of equal cells is given."""
    flat = array.reshape(-1)
    indices, members = assign(flat, starts, weights)
    if (members.mass == 0).any():
        starts = starts[members.mass > 0]
        indices, members = assign(flat, starts, weights)
    centroids = _means(members) if cells is None else middles(flat, starts, cells, weights)
    return Codebook(centroids, indices.reshape(array.shape), dtype)


def _means(members: Members) -> NDArray[np.float32]:
    return (members.sums / members.mass).astype(np.float32) + np.float32(0)
