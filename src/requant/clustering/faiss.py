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
    try:
        import faiss as library
    except ImportError:
        raise UserError(
            "clustering method faiss needs faiss: pip install 'requant[faiss]' (or faiss-gpu-cu12, never both), "
            "or take method kmeans, which is nearer to the optimum"
        ) from None
    fitted = library.Kmeans(
        1,
        centroids,
        niter=ITERATIONS,
        seed=SEED,
        gpu=library.get_num_gpus() > 0 if hasattr(library, "get_num_gpus") else False,
        min_points_per_centroid=1,
        max_points_per_centroid=values.size,
    )
    fitted.train(values[:, None], weights=None if weights is None else weights.astype(np.float32))
    centers: Any = fitted.centroids
    found = np.unique(centers[np.isfinite(centers)].astype(np.float64))
    return np.unique(np.append(values.min(), ((found[1:] + found[:-1]) / 2).astype(np.float32)))
