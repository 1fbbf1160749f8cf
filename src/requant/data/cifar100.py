"""CIFAR-100's training images (Krizhevsky, 2009), without their labels."""

from torch import Tensor

from requant.data.cifar_binary import read_records
from requant.data.placing import download_member, placed

_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
_MD5 = "03b5dce01913d631647c71ecec9e9cb8"


def read_images(root: str | None) -> Tensor:
    """Images, uint8 (N, 3, 32, 32), from `root`, the cache, or a download of 161 MB."""
    path = placed(root, "cifar-100-binary/train.bin", lambda path: download_member(_URL, _MD5, path))
    return read_records(path, label_bytes=2)[0]
