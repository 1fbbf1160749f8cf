"""Vectors of weights: product quantization, by faiss.

Gong et al., "Compressing Deep Convolutional Networks using Vector Quantization", 2014, for fully connected layers;
blocks of convolutions as in Stock et al., "And the Bit Goes Down: Revisiting the Quantization of Neural Networks",
2020: a block is a kernel (its height x width values of one input channel), or a few input channels of a 1 x 1
convolution or linear layer. All of these are values in a row in PyTorch's order of dimensions.
"""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.clustering.faiss import fitted, imported
from requant.codebook import index_dtype
from requant.codebook_forms import VectorCodebook, blocks_shape, row_values
from requant.errors import UserError

ITERATIONS = 40
KERNEL = 9  # values: a 3 x 3 kernel is a block
CHANNELS = 4  # input channels in a block of a linear layer or a 1 x 1 convolution
MAX_VECTORS = 1024
REPAIRS = 10  # rounds of giving empty clusters something to do


def product(array: NDArray[np.float32], centroids: int, block: int, dtype: np.dtype[Any], name: str) -> VectorCodebook:
    """Cluster blocks of values around at most so many vectors.

    Vectors that stand for no block are put where blocks are worst off, in at most ten rounds; what is still empty then
    is dropped. The same threads give the same bits.

    Args:
        array: float32 of any shape.
        centroids: 1 to 1,024; above the number of different blocks the result is exact.
        block: values of a vector, a divisor of those in an output channel.
        dtype: the element type of what is replaced.
        name: what messages call it.

    Raises:
        UserError: for a block that divides no output channel, too many vectors, or if faiss is not installed.

    """
    if centroids > MAX_VECTORS:
        raise UserError(f"{name}: method product has up to {MAX_VECTORS} centroids, not {centroids}")
    _check_block(block, array.shape, name)
    vectors = array.reshape(-1, block)
    different = np.unique(vectors + np.float32(0), axis=0)
    if len(different) <= centroids:
        if len(different) < centroids:
            warnings.warn(f"{name} has {len(different)} different blocks, fewer than {centroids}", stacklevel=3)
        table = different
    else:
        table = _repaired(vectors, _fitted(vectors, centroids))
    indices, _ = _nearest(vectors, table)
    used = np.flatnonzero(np.bincount(indices, minlength=len(table)))
    numbers: NDArray[Any] = np.searchsorted(used, indices).astype(index_dtype(used.size))
    return VectorCodebook(table[used], numbers.reshape(blocks_shape(array.shape, block)), array.shape, dtype)


def default_block(shape: tuple[int, ...]) -> int:
    """A kernel up to 3 x 3 (of greater ones the largest divisor up to 9), else 4 input channels or a divisor less."""
    kernel = prod(shape[2:])
    if kernel > 1:
        return _largest_divisor(kernel, KERNEL)
    return _largest_divisor(row_values(shape), CHANNELS)


def _largest_divisor(size: int, at_most: int) -> int:
    return max(d for d in range(1, at_most + 1) if size % d == 0)


def _check_block(block: int, shape: tuple[int, ...], name: str) -> None:
    if isinstance(block, bool) or not isinstance(block, int) or block < 1 or row_values(shape) % block:
        raise UserError(
            f"{name}: block={block} does not divide the {row_values(shape)} values of an output channel of {shape}: "
            "give a divisor, or leave it out"
        )


def _fitted(vectors: NDArray[np.float32], centroids: int) -> NDArray[np.float32]:
    scale = np.float32(np.abs(vectors).max())  # faiss squares in float32: tiny or huge weights would leave its range
    return np.nan_to_num(fitted(vectors / scale, centroids, ITERATIONS, "product")) * scale


def _repaired(vectors: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every cluster with members, its vector their mean; one that has none goes to the block that is worst off."""
    for _ in range(REPAIRS):
        indices, errors = _nearest(vectors, table)
        counts = np.bincount(indices, minlength=len(table))
        table = _means(vectors, indices, table)
        empty = np.flatnonzero(counts == 0)
        if not empty.size:
            break
        table[empty] = _worst(vectors, errors, empty.size)
    return table


def _worst(vectors: NDArray[np.float32], errors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """So many different blocks, those of the greatest errors first; the last is repeated where there are fewer."""
    order = np.argsort(-errors, kind="stable")[: 64 * count]
    _, first = np.unique(vectors[order], axis=0, return_index=True)
    chosen = order[np.sort(first)[:count]]
    return vectors[np.pad(chosen, (0, count - chosen.size), mode="edge")]


def _means(vectors: NDArray[np.float32], indices: NDArray[np.int64], table: NDArray[np.float32]) -> NDArray[np.float32]:
    counts = np.bincount(indices, minlength=len(table))
    found = table.copy()
    for position in range(vectors.shape[1]):
        sums = np.bincount(indices, vectors[:, position], len(table))
        found[:, position] = np.where(counts > 0, sums / np.maximum(counts, 1), table[:, position])
    return found


def _nearest(vectors: NDArray[np.float32], table: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each block the nearest vector (the first of several), and its squared distance."""
    scale = np.float32(max(float(np.abs(vectors).max()), float(np.finfo(np.float32).tiny)))
    library = imported("product")
    index = library.IndexFlatL2(vectors.shape[1])
    index.add(np.ascontiguousarray(table / scale))
    distances, found = index.search(np.ascontiguousarray(vectors / scale), 1)
    return found[:, 0], distances[:, 0]
