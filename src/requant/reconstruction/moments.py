"""Second moments of what a layer's weights are multiplied with: how errors of the weights add up in its outputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from requant.reconstruction.graph import Layer
from requant.reconstruction.sampling import places

ROWS_A_VALUE = 40  # products that a moment is the mean of, for each value that an output is made of
LEAST_ROWS = 8192


def second_moments(layer: Layer, weight: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """E[x x^T] for the C values x that one output of a layer is computed from.

    Positions of the output are sampled in an even grid where there are more than it takes.

    Args:
        layer: a convolution or a linear layer.
        weight: its weights, for their shape; as rows (`Layer.as_rows`), here and below.
        inputs: batches of what comes in.

    Returns:
        (groups, C, C), C = in / groups * height * width.

    """
    values = weight[0].numel()
    total, count = torch.zeros(layer.groups, values, values, device=weight.device), 0
    for position, batch in enumerate(inputs):
        rows = sampled_inputs(layer, weight, batch, rows_a_batch(weight, len(inputs)), position)
        total.baddbmm_(rows.transpose(1, 2), rows)
        count += rows.shape[1]
    return total / count


@dataclass(frozen=True)
class JointMoments:
    """Of what a layer sees, x, and of what its outputs lack, e.

    Attributes:
        second: (groups, C, C) E[x x^T], float64.
        cross: (groups, C, out / groups) E[x e^T], float64.
        scale: (groups,) the mean over C of E[x^2]; 1 where nothing comes in.
        mean: (groups, C) E[x], float64.

    """

    second: Tensor
    cross: Tensor
    scale: Tensor
    mean: Tensor

    def means_of(self, weight: Tensor) -> Tensor:
        """(out,) the means of what weights (out, ...) make of x."""
        groups, size = self.mean.shape
        flat = weight.reshape(groups, -1, size)
        return (flat @ self.mean.to(flat)[:, :, None]).reshape(-1)


def joint_moments(
    layer: Layer, weight: Tensor, bias: Tensor | None, inputs: Sequence[Tensor], wanted: Sequence[Tensor], centred: bool
) -> JointMoments:
    """Moments of a layer's inputs together with the outputs' errors, e = y - W x - b, at sampled positions.

    Args:
        layer: a convolution or a linear layer.
        weight: W, (out, ...).
        bias: b, (out,); None: there is none.
        inputs: batches of what comes in.
        wanted: batches of y, the outputs that there should be.
        centred: moments about the means (but for `scale`), for a layer whose outputs' means will be set afterwards.

    """
    size, out = weight[0].numel(), len(weight) // layer.groups
    flat = weight.reshape(layer.groups, out, size)
    offset = 0.0 if bias is None else bias.reshape(layer.groups, 1, out)
    second = torch.zeros(layer.groups, size, size, dtype=torch.float64, device=weight.device)
    cross = torch.zeros(layer.groups, size, out, dtype=torch.float64, device=weight.device)
    mean, lacking = torch.zeros_like(second[:, :, :1]), torch.zeros_like(cross[:, :1])
    count, rows = 0, rows_a_batch(weight, len(inputs))
    for position, (x, y) in enumerate(zip(inputs, wanted, strict=True)):
        seen = sampled_inputs(layer, weight, x, rows, position)
        errors = sampled_outputs(layer, weight, y, rows, position) - seen @ flat.transpose(1, 2) - offset
        second += seen.transpose(1, 2) @ seen
        cross += seen.transpose(1, 2) @ errors
        mean += seen.sum(1)[:, :, None]
        lacking += errors.sum(1, keepdim=True)
        count += seen.shape[1]
    second, cross, mean, lacking = second / count, cross / count, mean / count, lacking / count
    scale = second.diagonal(dim1=1, dim2=2).mean(1)
    if centred:
        second, cross = second - mean @ mean.transpose(1, 2), cross - mean @ lacking
    return JointMoments(second, cross, torch.where(scale > 0, scale, torch.ones_like(scale)), mean[:, :, 0])


def rows_a_batch(weight: Tensor, batches: int) -> int:
    """How many outputs' inputs are looked at in each of so many batches."""
    return max(1, max(LEAST_ROWS, ROWS_A_VALUE * weight[0].numel()) // batches)


def sampled_outputs(layer: Layer, weight: Tensor, outputs: Tensor, wanted: int, position: int) -> Tensor:
    """(groups, rows, out / groups) of what a layer made of a batch, where `sampled_inputs` has what it was made of."""
    if weight.ndim == 2:
        rows = outputs.reshape(1, -1, len(weight))
        step = max(1, rows.shape[1] // wanted)
        return rows[:, position % step :: step]
    n, channels, height, width = outputs.shape
    taken = outputs[:, :, *places(n, height, width, wanted, position, math.prod(layer.spread))]
    grouped = taken.reshape(n, layer.groups, channels // layer.groups, *taken.shape[2:])
    return grouped.permute(1, 0, 3, 4, 2).reshape(layer.groups, -1, channels // layer.groups)


def sampled_inputs(layer: Layer, weight: Tensor, images: Tensor, wanted: int, position: int) -> Tensor:
    """(groups, rows, C) the values that about so many outputs are computed from, in an even grid of their places.

    The grid moves with the batch's `position`.
    """
    if weight.ndim == 2:
        rows = images.reshape(1, -1, weight.shape[1])
        step = max(1, rows.shape[1] // wanted)
        return rows[:, position % step :: step]
    height, width = layer.padding
    patches = _spread(images, layer.spread)
    patches = F.pad(patches, (*width, *height)) if any(height + width) else patches
    for axis, kernel, stride, dilation in zip((2, 3), weight.shape[2:], layer.stride, layer.dilation, strict=True):
        patches = patches.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    n, channels, rows_there, columns_there = patches.shape[:4]
    patches = patches[:, :, *places(n, rows_there, columns_there, wanted, position, math.prod(layer.spread))]
    rest = patches.shape[2:]
    grouped = patches.reshape(n, layer.groups, channels // layer.groups, *rest)
    return grouped.permute(1, 0, 3, 4, 2, 5, 6).reshape(layer.groups, -1, weight[0].numel())


def _spread(images: Tensor, apart: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) with zeros between their values."""
    if apart == (1, 1):
        return images
    n, channels, height, width = images.shape
    found = images.new_zeros(n, channels, (height - 1) * apart[0] + 1, (width - 1) * apart[1] + 1)
    found[:, :, :: apart[0], :: apart[1]] = images
    return found
