"""Rounding weights to centroids so that their errors cancel in the layer's outputs.

The weights of an output are rounded one after another; the error of each is made up for, as far as the second moments
of the inputs allow, by those still to come (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", ICLR 2023; here with any sorted centroids instead of a uniform grid).

How much the moments are damped matters more than there: an input that is small on the mean of all images may decide a
few of them, which a squared error does not tell but the divergence of the outputs does.
"""

import torch
from torch import Tensor

BLOCK = 64  # values whose errors reach the ones after the block in one product


def compensated_indices(weight: Tensor, moments: Tensor, centroids: Tensor, damping: float) -> Tensor:
    """The centroid of each weight.

    Args:
        weight: (out, ...) of a layer.
        moments: (groups, C, C) of its inputs, C values an output.
        centroids: (k,) sorted.
        damping: of the mean second moment, added to each.

    Returns:
        int64, the weight's shape.

    """
    groups, size = moments.shape[:2]
    target = weight.reshape(groups, -1, size).float().clone()
    order = moments.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True, stable=True)
    factor = damped_factor(moments[:, order][:, :, order], damping)
    found = _rounded(target[:, :, order], factor, centroids.float())
    indices = torch.empty_like(found)
    indices[:, :, order] = found
    return indices.reshape(weight.shape)


def damped_factor(moments: Tensor, damping: float) -> Tensor:
    """(groups, C, C) float32, the upper Cholesky factor of the inverse of damped moments (groups, C, C).

    Row i says what an error of weight i asks of those behind it: of weight j, factor[i, j] / factor[i, i] of it.
    """
    damped = moments.double()
    damped.diagonal(dim1=1, dim2=2).add_(_floor(damped) * damping)
    if torch.linalg.cholesky_ex(damped).info.any():  # inputs that hardly vary: what is left about their mean is noise
        least = torch.linalg.eigvalsh(damped)[:, :1]
        damped.diagonal(dim1=1, dim2=2).add_(2 * least.abs() + torch.finfo(torch.float64).tiny)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _floor(moments: Tensor) -> Tensor:
    """(groups, 1) the mean second moment; where all is zero, 1: nothing reaches the outputs."""
    mean = moments.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return torch.where(mean > 0, mean, torch.ones_like(mean))


def _rounded(target: Tensor, factor: Tensor, centroids: Tensor) -> Tensor:
    """(groups, R, C) indices; `factor` is the upper Cholesky factor of the inverse moments. Changes `target`."""
    cuts = (centroids[1:] + centroids[:-1]) / 2
    size = target.shape[2]
    indices = torch.empty(target.shape, dtype=torch.int64, device=target.device)
    for begin in range(0, size, BLOCK):
        end = min(size, begin + BLOCK)
        block, errors = target[:, :, begin:end], torch.empty_like(target[:, :, begin:end])
        for place in range(begin, end):
            column = target[:, :, place].contiguous()
            chosen = torch.bucketize(column, cuts)
            indices[:, :, place] = chosen
            errors[:, :, place - begin] = (column - centroids[chosen]) / factor[:, place, place, None]
            follows = factor[:, None, place, place + 1 : end]
            block[:, :, place + 1 - begin :] -= errors[:, :, place - begin, None] * follows
        target[:, :, end:] -= errors @ factor[:, begin:end, end:]
    return indices
