"""Biases, and batch norms' scales and shifts, on grids as coarse as the noise of the rounded weights lets them be.

A number or two a channel take few bits together, but as many as ten weights each. Their steps are a share of the noise
that the weights have left in the outputs anyway: what that adds is the same small part of it at any size.
"""

import numpy as np
import torch
from torch import Tensor

from requant.archive.steps import codebook_of
from requant.codebook import Codebook
from requant.limits import MAX_CENTROIDS

LEAST = 64  # numbers: for fewer a table and a model take more than they save
REACHES = tuple((1 << bits) - 1 for bits in range(1, 12) if 2 * (1 << bits) - 1 <= MAX_CENTROIDS)
"""Steps to each side of 0: few, so that tensors' forms are alike."""


def on_steps(values: Tensor, step: float) -> Codebook | None:
    """A vector rounded to multiples of `step`; None: it has too few numbers, or needs more steps than a table holds."""
    plain = values.detach().float().cpu().numpy()
    if plain.size < LEAST or not 0 < step < np.inf:
        return None
    multiples = np.rint(plain.astype(np.float64) / step)
    needed = np.abs(multiples).max()
    reach = next((reach for reach in REACHES if reach >= needed), None)
    if reach is None:
        return None
    return codebook_of(multiples.astype(np.int64), reach, step, np.dtype(str(values.dtype).removeprefix("torch.")))


def values_of(book: Codebook, like: Tensor) -> Tensor:
    """A codebook's values, where and as `like` is."""
    return torch.from_numpy(book.dense()).to(like)
