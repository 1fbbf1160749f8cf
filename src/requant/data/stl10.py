"""STL-10's unlabeled images (Coates, Lee and Ng, 2011)."""

import numpy as np
import torch
from torch import Tensor

from requant.data.placing import download_member, placed
from requant.errors import DataError

_URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
_MD5 = "91f7769df0f17e558f3565bffb0c7dfb"
_SHAPE = (3, 96, 96)


def read_images(root: str | None) -> Tensor:
    """Images, uint8 (N, 3, 96, 96), from `root`, the cache, or a download of 2.6 GB; paged in as they are used."""
    path = placed(root, "stl10_binary/unlabeled_X.bin", lambda path: download_member(_URL, _MD5, path))
    size = path.stat().st_size
    if not size or size % np.prod(_SHAPE):
        raise DataError(f"{path} has {size} bytes, not whole images of {np.prod(_SHAPE)}; download it again")
    columns_first = np.memmap(path, np.uint8, mode="c").reshape(-1, *_SHAPE)
    return torch.from_numpy(columns_first).transpose(2, 3)
