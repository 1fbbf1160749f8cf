"""One call for our clustering methods and for the libraries that it is compared with: values in, clusters out."""

import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from requant.clustering import cluster
from requant.codebook import Codebook

Clusters: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""(k,) centroids, and (n,) indices as the library gives them."""

Clusterer: TypeAlias = Callable[[NDArray[np.float32], int], Clusters]


def _requant(method: str, values: NDArray[np.float32], k: int) -> Clusters:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a half-precision bias may have fewer values than centroids
        book = cluster(values, k, method)
    assert isinstance(book, Codebook)
    return book.centroids, book.indices


def _faiss(values: NDArray[np.float32], k: int) -> Clusters:
    """As it comes: it learns from 256 values a centroid."""
    import faiss

    kmeans = faiss.Kmeans(1, k, seed=1)
    kmeans.train(values[:, None])
    assert kmeans.index is not None
    assert kmeans.centroids is not None
    return kmeans.centroids[:, 0], kmeans.index.search(values[:, None], 1)[1][:, 0]


def _flash1dkmeans(values: NDArray[np.float32], k: int) -> Clusters:
    from flash1dkmeans import kmeans_1d

    centroids, labels = kmeans_1d(values, k, random_state=0)
    return centroids, labels


def _kmeans1d(values: NDArray[np.float32], k: int) -> Clusters:
    from kmeans1d import cluster as optimal

    found = optimal(values, k)
    return np.array(found.centroids), np.array(found.clusters)


def _scikit_learn(values: NDArray[np.float32], k: int) -> Clusters:
    from sklearn.cluster import KMeans

    fitted = KMeans(k, random_state=0).fit(values[:, None])
    return fitted.cluster_centers_[:, 0], fitted.labels_


def _coremltools(values: NDArray[np.float32], k: int) -> Clusters:
    """What its palettizers call, with their defaults: rounded to half precision and four decimals first."""
    import torch
    from coremltools.optimize.torch._utils.k_means import KMeans, KMeansConfig

    config = KMeansConfig(n_bits=(k - 1).bit_length())
    centroids, labels = KMeans._cluster_weights_1d(torch.from_numpy(values), None, config)
    return centroids.numpy(), labels.numpy()


OURS: dict[str, Clusterer] = {method: partial(_requant, method) for method in ("kmeans", "equal_population", "linear")}
PEERS: dict[str, Clusterer] = {
    "faiss": _faiss,
    "flash1dkmeans": _flash1dkmeans,
    "kmeans1d": _kmeans1d,
    "scikit-learn": _scikit_learn,
    "coremltools": _coremltools,
}
CLUSTERERS = OURS | {"exact": partial(_requant, "exact")} | PEERS
"""By the name in the table."""

MODULES = {name: name for name in PEERS} | {"scikit-learn": "sklearn"}
KMEANS1D_BYTES = 16  # a value and centroid


def why_not(name: str, largest: int, k: int) -> str | None:
    """Why a library is left out: it is not installed, or would take too much memory; None: it is not."""
    if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
        return "not installed"
    if name == "kmeans1d" and KMEANS1D_BYTES * largest * k > 4 << 30:
        return f"needs {KMEANS1D_BYTES * largest * k / 2**30:.0f} GiB"
    return None
