"""The front door: checks what comes in, picks the method, builds the codebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from requant.clustering.assign import assign
from requant.clustering.equal_population import equal_population
from requant.clustering.groups import distinct_values, group_sums
from requant.clustering.kmeans import kmeans
from requant.clustering.linear import linear
from requant.codebook import Codebook
from requant.errors import UserError
from requant.finite import count_not_finite
from requant.suggest import did_you_mean

if TYPE_CHECKING:
    import torch

MAX_CENTROIDS = 256

# Each takes flat values and k, and gives the least value of each cluster, in order.
_METHODS: dict[str, Callable[[NDArray[np.float32], int], NDArray[np.float32]]] = {
    "equal_population": equal_population,
    "kmeans": kmeans,
    "linear": linear,
}

METHODS: tuple[str, ...] = tuple(_METHODS)
"""The names that `cluster` knows."""


def cluster(
    values: ArrayLike | torch.Tensor, centroids: int, method: str = "kmeans", *, name: str = "values"
) -> Codebook:
    """Group values into at most `centroids` clusters, each replaced by its mean.

    Clusters are intervals: equal values always share one, so that the replacement is a function of the value.
    The result is deterministic, and up to 2**20 values it does not depend on their order either. No cluster is empty.

    Args:
        values: numbers of any shape, numpy or torch; clustered as float32.
        centroids: 1 to 256. Above the number of distinct values it is clamped, with a warning, and the result is exact.
        method: `equal_population` (the paper's), `kmeans` (least squared error) or `linear` (equal cells).
        name: what messages call the values.

    Raises:
        UserError: for no values, NaN, infinity, an unknown method, or `centroids` out of range.

    """
    _check_settings(centroids, method, name)
    array = _float32_array(values, name)
    flat = array.reshape(-1)
    starts = distinct_values(flat, at_most=centroids)
    if starts is None:
        starts = _METHODS[method](flat, centroids)
    elif starts.size < centroids:
        warnings.warn(f"{name} has {starts.size} distinct values, fewer than {centroids} centroids", stacklevel=2)
    return _codebook(array, starts)


def _codebook(array: NDArray[np.float32], starts: NDArray[np.float32]) -> Codebook:
    flat = array.reshape(-1)
    counts, sums = group_sums(flat, starts)
    used = counts > 0
    means = (sums[used] / counts[used]).astype(np.float32)
    return Codebook(means + np.float32(0), assign(flat, starts[used]).reshape(array.shape))


def _check_settings(centroids: int, method: str, name: str) -> None:
    if isinstance(centroids, bool) or not isinstance(centroids, int | np.integer):
        raise UserError(f"{name}: centroids must be a whole number, not {centroids!r}")
    if not 1 <= centroids <= MAX_CENTROIDS:
        raise UserError(f"{name}: centroids must be 1 to {MAX_CENTROIDS}, not {centroids}")
    if method not in METHODS:
        raise UserError(f"{name}: there is no clustering method {method!r}{did_you_mean(method, METHODS)}")


def _float32_array(values: ArrayLike | torch.Tensor, name: str) -> NDArray[np.float32]:
    array = _as_numpy(values)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name}: values must be real numbers, not {array.dtype}")
    if not array.size:
        raise UserError(f"{name}: there are no values to cluster (shape {array.shape})")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is counted below
        array = np.asarray(array, np.float32, order="C")
    if bad := count_not_finite(array):
        raise UserError(
            f"{name}: {bad} of {array.size} values are NaN or infinite in float32; repair the weights first"
        )
    return array


def _as_numpy(values: ArrayLike | torch.Tensor) -> NDArray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
