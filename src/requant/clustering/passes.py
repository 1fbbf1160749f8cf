"""What is done to a tensor before and while it is clustered, in order: low rank, pruning, split channels."""

from __future__ import annotations

from functools import partial
from typing import Any

from requant.clustering.checking import float32_array
from requant.clustering.factoring import factors
from requant.clustering.methods import cluster
from requant.clustering.pruning import cluster_pruned
from requant.clustering.splitting import cluster_split
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, Unsplit
from requant.errors import UserError


def cluster_tensor(
    values: Any,
    centroids: int,
    method: str,
    split: float = 0.0,
    *,
    name: str,
    rank: float | None = None,
    prune: float = 0.0,
    **settings: Any,
) -> AnyCodebook:
    """Cluster a tensor, or what other compressions make of it first.

    Args:
        values: the tensor.
        centroids: as for `cluster`.
        method: as for `cluster`.
        split: as for `cluster_split`.
        name: what messages call the values.
        rank: of a fully connected layer: cluster two factors of this rank (see `factors`) in its place.
        prune: the share of the values (with `rank`: of the factors') that become 0.
        settings: more of `cluster`'s arguments.

    Raises:
        UserError: as `cluster`, and for what cannot be done together.

    """
    if split and (rank is not None or prune):
        raise UserError(f"{name}: split is neither for pruned values nor for factors: leave one of them out")
    if prune and (method == "product" or settings.get("granularity", "tensor") != "tensor"):
        raise UserError(f"{name}: prune needs one table of centroids: leave granularity and method product out")
    if rank is None and not prune:
        return cluster_split(values, centroids, method, split, name=name, **settings)
    array, dtype = float32_array(values, name)
    plain: Any = partial(cluster, method=method, name=name, **settings)
    clustered = partial(cluster_pruned, share=prune, cluster=plain, name=name) if prune else plain
    if rank is None:
        found: Unsplit = clustered(array.astype(dtype), centroids)
        return found
    return FactoredCodebook(clustered(factors(array, rank, name).astype(dtype), centroids), array.shape)
