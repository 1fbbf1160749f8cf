"""What comes in from outside: arrays of any kind, made float32 and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from requant.clustering.parallel import ends
from requant.codebook import ELEMENTS, FLOAT32
from requant.errors import UserError
from requant.finite import count_not_finite

if TYPE_CHECKING:
    from typing import Any

    import torch


def checked_weights(weights: ArrayLike | torch.Tensor, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Flat weights, (n,). Raises UserError for another shape and for what no weight can be."""
    array = as_numpy(weights)
    if array.shape != shape:
        raise UserError(f"{name}: weights of shape {array.shape} for values of shape {shape}")
    flat = np.asarray(array, np.float64, order="C").reshape(-1)
    if not np.isfinite(flat).all() or (flat < 0).any():
        raise UserError(f"{name}: weights must be finite and not negative")
    if not flat.any():
        raise UserError(f"{name}: all weights are 0, so nothing says where the centroids should lie")
    return flat


def float32_array(values: ArrayLike | torch.Tensor, name: str) -> tuple[NDArray[np.float32], np.dtype[Any]]:
    """Values as float32, in their shape, and their own element type (that of integers and bfloat16: float32).

    Raises:
        UserError: for no values, NaN, infinity, and what is no real number.

    """
    array = as_numpy(values)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name}: values must be real numbers, not {array.dtype}")
    if not array.size:
        raise UserError(f"{name}: there are no values to cluster (shape {array.shape})")
    dtype = array.dtype if array.dtype in ELEMENTS else FLOAT32
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is counted below
        array = np.asarray(array, np.float32, order="C")
    if not np.isfinite(ends(array.reshape(-1))).all():
        bad = count_not_finite(array)
        raise UserError(
            f"{name}: {bad} of {array.size} values are NaN or infinite in float32; repair the weights first"
        )
    return array, dtype


def as_numpy(values: ArrayLike | torch.Tensor) -> NDArray[Any]:
    """The same numbers; bfloat16, which numpy has not, as float32."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu().resolve_neg()
    tensor = tensor.to_dense() if str(tensor.layout) != "torch.strided" else tensor
    return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
