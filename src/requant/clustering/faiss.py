"""k-means by faiss, on all values: for comparison. In one dimension `kmeans` is far nearer to the optimum."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.errors import UserError

ITERATIONS = 25
SEED = 1


def faiss(values: NDArray[np.float32], centroids: int, weights: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The least number of each cluster, (k,) or fewer, rising: the middles between faiss's centroids.

    Every value is used (faiss alone would sample 256 a centroid), 25 iterations, on the GPU where faiss-gpu is there.

    Args:
        values: (n,) float32.
        centroids: k.
        weights: (n,) not negative; None: all 1.

    Raises:
        UserError: if faiss is not installed.

    """
    centers = fitted(values[:, None], centroids, ITERATIONS, "faiss", weights)
    found = np.unique(centers[np.isfinite(centers)].astype(np.float64))
    return np.unique(np.append(values.min(), ((found[1:] + found[:-1]) / 2).astype(np.float32)))


def fitted(
    vectors: NDArray[np.float32],
    centroids: int,
    iterations: int,
    method: str,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Centroids (k, d) by faiss of vectors (n, d), all of them used; not all need be finite.

    Raises:
        UserError: if faiss is not installed; `method` is who asks.

    """
    library = imported(method)
    found = library.Kmeans(
        vectors.shape[1],
        centroids,
        niter=iterations,
        seed=SEED,
        gpu=on_gpu(library),
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    found.train(np.ascontiguousarray(vectors), weights=None if weights is None else weights.astype(np.float32))
    centers: NDArray[np.float32] = found.centroids
    return centers


def on_gpu(library: Any) -> bool:
    """Whether faiss-gpu is installed and sees a GPU; faiss-cpu knows neither."""
    return bool(library.get_num_gpus()) if hasattr(library, "get_num_gpus") else False


def imported(method: str) -> Any:
    """The library. Raises UserError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            f"clustering method {method} needs faiss: pip install 'requant[faiss]' (or faiss-gpu-cu12, never both), "
            "or take method kmeans, which needs nothing"
        ) from None
    return faiss
