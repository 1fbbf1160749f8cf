"""How many values are NaN or infinite, without a mask as large as the array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18


def count_not_finite(array: NDArray[Any]) -> int:
    """The number of NaN and infinite values; the array is contiguous."""
    flat = array.reshape(-1)
    parts = (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))
    return sum(part.size - int(np.count_nonzero(np.isfinite(part))) for part in parts)
