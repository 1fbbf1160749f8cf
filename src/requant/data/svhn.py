"""Street View House Numbers (Netzer et al., 2011), the training images without their labels."""

import numpy as np
import torch
from torch import Tensor

from requant.data.download import download
from requant.data.placing import placed
from requant.errors import DataError

_URL = "http://ufldl.stanford.edu/housenumbers/train_32x32.mat"
_MD5 = "e26dedcc434d2e4c54c9b2d4a06d8373"


def read_images(root: str | None) -> Tensor:
    """Images, uint8 (N, 3, 32, 32), from `root`, the cache, or a download of 182 MB."""
    from scipy.io import loadmat  # slow to import

    path = placed(root, "svhn/train_32x32.mat", lambda path: download(_URL, _MD5, path))
    try:
        pixels = loadmat(path, variable_names=["X"])["X"]
    except Exception as error:  # scipy raises many kinds on damaged files
        raise DataError(f"{path} cannot be read ({error}); delete it and download it again") from error
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
