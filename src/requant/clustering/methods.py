"""The front door: checks what comes in, picks the method, builds the codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from requant.clustering.checking import checked_weights, float32_array
from requant.clustering.granularity import Granularity, check_granularity, run_of
from requant.clustering.groups import one_scale_a_run, one_table_a_run
from requant.clustering.product import default_block, product
from requant.clustering.scalars import SCALAR_METHODS, cluster_scalars
from requant.codebook import Codebook
from requant.errors import UserError
from requant.limits import MAX_CENTROIDS
from requant.suggest import did_you_mean

if TYPE_CHECKING:
    import torch

    from requant.codebook_forms import Unsplit

METHODS: tuple[str, ...] = (*SCALAR_METHODS, "product")
"""The names that `cluster` knows."""

OPTIONS: dict[str, tuple[str, ...]] = {"linear": ("centroid",), "entropy": ("bits", "lmbda"), "product": ("block",)}
"""The options that a method takes; none for those left out."""

ScalarMethod = Literal["equal_population", "kmeans", "exact", "linear", "faiss", "entropy"]


@overload
def cluster(
    values: ArrayLike | torch.Tensor,
    centroids: int,
    method: ScalarMethod = "kmeans",
    *,
    weights: ArrayLike | torch.Tensor | None = None,
    granularity: Literal["tensor"] = "tensor",
    name: str = "values",
    **options: Any,
) -> Codebook: ...


@overload
def cluster(
    values: ArrayLike | torch.Tensor,
    centroids: int,
    method: str = "kmeans",
    *,
    weights: ArrayLike | torch.Tensor | None = None,
    granularity: str = "tensor",
    name: str = "values",
    **options: Any,
) -> Unsplit: ...


def cluster(
    values: ArrayLike | torch.Tensor,
    centroids: int,
    method: str = "kmeans",
    *,
    weights: ArrayLike | torch.Tensor | None = None,
    granularity: str = "tensor",
    name: str = "values",
    **options: Any,
) -> Unsplit:
    """Group values into at most `centroids` clusters, each replaced by its mean.

    Clusters are intervals: equal values of one table always share one: the replacement is a function of the value.
    The result is deterministic, and the clusters do not depend on the values' order. No cluster is empty.

    Args:
        values: numbers of any shape, numpy or torch; clustered as float32.
        centroids: 1 to 4,096. Above the number of distinct values it is clamped, with a warning, and the result is
            exact.
        method: `equal_population` (the paper's), `kmeans` (squared error within a percent of the least), `exact` (the
            least), `linear` (cells of equal width), `faiss` (faiss.Kmeans, for comparison) or `entropy` (squared error
            against the bits of the entropy-coded indices); or `product`: vectors of values (see
            `requant.clustering.product`; what has no input channels, as a bias, is left to `kmeans`).
        weights: what each value counts, the values' shape, not negative, not all 0; None: all the same.
        granularity: what shares a table: `tensor` (all), `channel` (the values of an output channel, dimension 0) or
            `group:n` (n values in a row); with `channel_scale` and `group_scale:n` all share one table, and each
            channel or group has a factor on it.
        name: what messages call the values.
        options: of `linear`: centroid, `mean` (default) or `middle` of the cell. Of `entropy`: bits (a value, what the
            indices' entropy should be) or lmbda (the squared error that a bit is worth). Of `product`: block, the
            values of a vector.

    Returns:
        A `Codebook`; where there are several groups a `GroupedCodebook`, of `product` a `VectorCodebook`.

    Raises:
        UserError: for no values, NaN, infinity, an unknown method or option, or what is out of range.

    """
    _check_settings(centroids, method, granularity, options, name)
    array, dtype = float32_array(values, name)
    if method == "product":
        if weights is not None:
            raise UserError(f"{name}: method product takes no weights")
        block = default_block(array.shape) if options.get("block") is None else options["block"]
        if array.ndim > 1 and block != 1:
            return product(array, centroids, block, dtype, name)
        return cluster_scalars(array, centroids, "kmeans", None, {}, dtype, name)
    flat_weights = None if weights is None else checked_weights(weights, array.shape, name)
    groups = Granularity.parse(granularity)
    if groups is None or (run := run_of(groups, array.shape)) == array.size:
        return cluster_scalars(array, centroids, method, flat_weights, options, dtype, name)
    grouped = one_scale_a_run if groups.scaled else one_table_a_run
    return grouped(array, run, centroids, method, flat_weights, options, dtype, name)


def _check_settings(centroids: int, method: str, granularity: str, options: dict[str, Any], name: str) -> None:
    if isinstance(centroids, bool) or not isinstance(centroids, int | np.integer):
        raise UserError(f"{name}: centroids must be a whole number, not {centroids!r}")
    if not 1 <= centroids <= MAX_CENTROIDS:
        raise UserError(f"{name}: centroids must be 1 to {MAX_CENTROIDS}, not {centroids}")
    if method not in METHODS:
        raise UserError(f"{name}: there is no clustering method {method!r}{did_you_mean(method, METHODS)}")
    check_granularity(granularity, method, name)
    known = OPTIONS.get(method, ())
    for option in options:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise UserError(f"{name}: method {method} {takes}, not {option!r}")
    if options.get("centroid", "mean") not in ("mean", "middle"):
        raise UserError(f"{name}: centroid must be mean or middle, not {options['centroid']!r}")
