"""The front door: checks what comes in, picks the method, builds the codebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from requant.clustering.assign import Members, assign
from requant.clustering.bins import distinct_values
from requant.clustering.entropy import entropy
from requant.clustering.equal_population import equal_population
from requant.clustering.exact import exact
from requant.clustering.faiss import faiss
from requant.clustering.kmeans import kmeans
from requant.clustering.linear import linear, middles
from requant.codebook import Codebook
from requant.errors import UserError
from requant.finite import count_not_finite
from requant.suggest import did_you_mean

if TYPE_CHECKING:
    import torch

MAX_CENTROIDS = 4096

# Each takes flat values, k and weights or None, and gives the least value of each cluster, in order.
_METHODS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "equal_population": equal_population,
    "kmeans": kmeans,
    "exact": exact,
    "linear": linear,
    "faiss": faiss,
    "entropy": entropy,
}

METHODS: tuple[str, ...] = tuple(_METHODS)
"""The names that `cluster` knows."""

OPTIONS: dict[str, tuple[str, ...]] = {"linear": ("centroid",), "entropy": ("bits", "lmbda")}
"""The options that a method takes; none for those left out."""


def cluster(
    values: ArrayLike | torch.Tensor,
    centroids: int,
    method: str = "kmeans",
    *,
    weights: ArrayLike | torch.Tensor | None = None,
    name: str = "values",
    **options: Any,
) -> Codebook:
    """Group values into at most `centroids` clusters, each replaced by its mean.

    Clusters are intervals: equal values always share one, so that the replacement is a function of the value.
    The result is deterministic, and the clusters do not depend on the values' order. No cluster is empty.

    Args:
        values: numbers of any shape, numpy or torch; clustered as float32.
        centroids: 1 to 4,096. Above the number of distinct values it is clamped, with a warning, and the result is
            exact.
        method: `equal_population` (the paper's), `kmeans` (squared error within a percent of the least), `exact` (the
            least), `linear` (cells of equal width), `faiss` (faiss.Kmeans, for comparison) or `entropy` (squared error
            against the bits of the entropy-coded indices).
        weights: what each value counts, the values' shape, not negative, not all 0; None: all the same.
        name: what messages call the values.
        options: of `linear`: centroid, `mean` (default) or `middle` of the cell. Of `entropy`: bits (a value, what the
            indices' entropy should be) or lmbda (the squared error that a bit is worth).

    Raises:
        UserError: for no values, NaN, infinity, an unknown method or option, or what is out of range.

    """
    _check_settings(centroids, method, options, name)
    array = _float32_array(values, name)
    flat = array.reshape(-1)
    flat_weights = None if weights is None else _checked_weights(weights, array.shape, name)
    if method != "entropy" and (starts := distinct_values(flat, flat_weights, centroids)) is not None:
        if starts.size < centroids:
            warnings.warn(f"{name} has {starts.size} distinct values, fewer than {centroids} centroids", stacklevel=2)
        return _codebook(array, starts, flat_weights)
    middle = options.get("centroid") == "middle"
    if method == "linear":
        options = {}
    counted = flat if flat_weights is None else flat[flat_weights > 0]
    counted_weights = None if flat_weights is None else flat_weights[flat_weights > 0]
    starts = _METHODS[method](counted, centroids, counted_weights, **options)
    return _codebook(array, starts, flat_weights, centroids if middle else None)


def _codebook(
    array: NDArray[np.float32],
    starts: NDArray[np.float32],
    weights: NDArray[np.float64] | None,
    cells: int | None = None,
) -> Codebook:
    """Clusters from `starts` on, their centroids the means, or the middles where a number of equal cells is given."""
    flat = array.reshape(-1)
    indices, members = assign(flat, starts, weights)
    if (members.mass == 0).any():
        starts = starts[members.mass > 0]
        indices, members = assign(flat, starts, weights)
    centroids = _means(members) if cells is None else middles(flat, starts, cells, weights)
    return Codebook(centroids, indices.reshape(array.shape))


def _means(members: Members) -> NDArray[np.float32]:
    return (members.sums / members.mass).astype(np.float32) + np.float32(0)


def _check_settings(centroids: int, method: str, options: dict[str, Any], name: str) -> None:
    if isinstance(centroids, bool) or not isinstance(centroids, int | np.integer):
        raise UserError(f"{name}: centroids must be a whole number, not {centroids!r}")
    if not 1 <= centroids <= MAX_CENTROIDS:
        raise UserError(f"{name}: centroids must be 1 to {MAX_CENTROIDS}, not {centroids}")
    if method not in METHODS:
        raise UserError(f"{name}: there is no clustering method {method!r}{did_you_mean(method, METHODS)}")
    known = OPTIONS.get(method, ())
    for option in options:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise UserError(f"{name}: method {method} {takes}, not {option!r}")
    if options.get("centroid", "mean") not in ("mean", "middle"):
        raise UserError(f"{name}: centroid must be mean or middle, not {options['centroid']!r}")


def _checked_weights(weights: ArrayLike | torch.Tensor, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    array = _as_numpy(weights)
    if array.shape != shape:
        raise UserError(f"{name}: weights of shape {array.shape} for values of shape {shape}")
    flat = np.asarray(array, np.float64, order="C").reshape(-1)
    if not np.isfinite(flat).all() or (flat < 0).any():
        raise UserError(f"{name}: weights must be finite and not negative")
    if not flat.any():
        raise UserError(f"{name}: all weights are 0, so nothing says where the centroids should lie")
    return flat


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
