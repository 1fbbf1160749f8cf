"""Weights with which a layer makes the original's outputs of what now comes in.

Its inputs have moved, as layers before have been quantized; least squares finds the weights that make up for it as far
as a linear layer can: no learning rate, no epochs. (Layer-wise reconstruction by regression goes back to He, Zhang and
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1.)
"""

import torch
from torch import Tensor

from requant.reconstruction.moments import JointMoments


def solved(weight: Tensor, moments: JointMoments, damping: float) -> Tensor:
    """The weight W' for which E|y - W'x - b|^2 + damping * scale * |W' - W|^2 is least.

    Args:
        weight: W, the layer's weight so far, (out, ...).
        moments: with this weight.
        damping: how little the images are trusted where they say little.

    Returns:
        W', float32.

    """
    groups, size, out = moments.cross.shape
    damped = moments.second.clone()
    damped.diagonal(dim1=1, dim2=2).add_(damping * moments.scale[:, None])
    change = torch.cholesky_solve(moments.cross, torch.linalg.cholesky(damped))
    flat = weight.reshape(groups, out, size)
    return (flat + change.transpose(1, 2)).float().reshape(weight.shape)
