"""The binary form of CIFAR-10 and CIFAR-100: records of some label bytes, then 3072 bytes of pixels."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from requant.errors import DataError

_PIXELS = 3 * 32 * 32


def read_records(path: Path, label_bytes: int) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 3, 32, 32), and their labels, uint8 (N, label_bytes).

    Raises:
        DataError: the file is not a whole number of records.
    """
    content = np.fromfile(path, np.uint8)
    record = label_bytes + _PIXELS
    if not len(content) or len(content) % record:
        raise DataError(f"{path} has {len(content)} bytes, not whole records of {record}; download it again")
    records = torch.from_numpy(content.reshape(-1, record))
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, :label_bytes]
