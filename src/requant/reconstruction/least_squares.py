"""Weights that no codebook holds, set so that a layer makes the original's outputs of what now comes in.

The inputs have moved, as layers before have been quantized; least squares finds the weights that make up for it as far
as a linear layer can. It is one step of Gauss-Newton on a layer's squared error, which takes no learning rate and no
epochs (layer-wise reconstruction by regression goes back to He, Zhang and Sun, "Channel Pruning for Accelerating Very
Deep Neural Networks", ICCV 2017, section 3.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from requant.reconstruction.graph import Layer
from requant.reconstruction.moments import rows_a_batch, sampled_inputs, sampled_outputs


def solved(
    layer: Layer,
    weight: Tensor,
    bias: Tensor | None,
    inputs: Sequence[Tensor],
    wanted: Sequence[Tensor],
    damping: float,
    free_mean: bool,
) -> Tensor:
    """The weight W' for which E|y - W'x - b|^2 + damping * m * |W' - W|^2 is least; m is the mean of E[x_i^2].

    Args:
        layer: a convolution or a linear layer.
        weight: W, its weight so far, (out, ...).
        bias: b, (out,); None: there is none.
        inputs: batches of x.
        wanted: batches of y, the outputs that it should have.
        damping: how little the images are trusted where they say little.
        free_mean: the mean of each output will be set afterwards, so that only what departs from it counts.

    Returns:
        W', float32.

    """
    size, out = weight[0].numel(), len(weight) // layer.groups
    flat = weight.reshape(layer.groups, out, size)
    offset = 0.0 if bias is None else bias.reshape(layer.groups, 1, out)
    second = torch.zeros(layer.groups, size, size, dtype=torch.float64, device=weight.device)
    cross = torch.zeros(layer.groups, size, out, dtype=torch.float64, device=weight.device)
    mean, error_mean = torch.zeros_like(second[:, :, :1]), torch.zeros_like(cross[:, :1])
    count, rows = 0, rows_a_batch(weight, len(inputs))
    for position, (x, y) in enumerate(zip(inputs, wanted, strict=True)):
        seen = sampled_inputs(layer, weight, x, rows, position)
        errors = sampled_outputs(layer, weight, y, rows, position) - seen @ flat.transpose(1, 2) - offset
        second += seen.transpose(1, 2) @ seen
        cross += seen.transpose(1, 2) @ errors
        mean += seen.sum(1)[:, :, None]
        error_mean += errors.sum(1, keepdim=True)
        count += seen.shape[1]
    second, cross, mean, error_mean = second / count, cross / count, mean / count, error_mean / count
    floor = second.diagonal(dim1=1, dim2=2).mean(1)
    if free_mean:
        second, cross = second - mean @ mean.transpose(1, 2), cross - mean @ error_mean
    floor = torch.where(floor > 0, floor, torch.ones_like(floor))  # nothing reaches the layer: nothing to change
    second.diagonal(dim1=1, dim2=2).add_(damping * floor[:, None])
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(second))
    return (flat + change.transpose(1, 2)).float().reshape(weight.shape)
