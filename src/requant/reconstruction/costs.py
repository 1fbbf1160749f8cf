"""What the rounding of each layer costs the outputs, where all layers are rounded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from requant.modes import evaluating
from requant.outputs import Outputs, positions
from requant.reconstruction.graph import Layer, layers, trace

PIECE = 16  # images whose costs are one sample of how far costs scatter


@dataclass(frozen=True)
class Rounding:
    """What rounding did to a layer.

    Attributes:
        error: of the weight's shape: by how much its values are off what the layer was solved to have.
        shift: (out,) what that moved the outputs' means by, before the bias or the norm behind them took it back.

    """

    error: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Cost:
    """Nats of divergence for each time that a layer's step were e times as wide, and its standard error."""

    value: float
    error: float


def costs(
    original: nn.Module,
    student: nn.Module,
    roundings: Mapping[str, Rounding],
    batches: Sequence[Tensor],
    outputs: Outputs,
) -> tuple[float, dict[str, Cost]]:
    """The divergence of a rounded network, and what each layer's rounding adds to it.

    That is the derivative of the divergence by the logarithm of the layer's step, all others as they are: the gradient
    by the weights times their errors, as a wider step makes the same errors larger, less what the mean of the outputs
    moves by, which is set afterwards. Where the divergence is a sum of squares over the layers, half the sum of all is
    the divergence.

    Args:
        original: the network before.
        student: as `reconstruct` gives it; gradients by its layers' parameters become possible.
        roundings: as `reconstruct` gives them.
        batches: images (N, C, H, W) that reconstruction has not seen, without labels.
        outputs: what the network's outputs are.

    """
    found_layers = {layer.weight: layer for layer in layers(original, trace(original, batches[0])).values()}
    weights = {name: student.get_parameter(name) for name in roundings}
    shifted = {name: _behind(student, found_layers[name]) for name in roundings}
    parameters = [*weights.values(), *(behind[0] for behind in shifted.values() if behind is not None)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    pieces = [piece for batch in batches for piece in batch.split(PIECE)]
    total, sums = 0.0, {name: list[float]() for name in roundings}
    with evaluating(original), evaluating(student), torch.enable_grad():
        for images in pieces:
            with torch.no_grad():
                wanted = outputs.of(original, images.clone())
            found = outputs.of(student, images.clone())
            divergence = outputs.divergences(found, wanted) / positions(found)
            gradients = iter(torch.autograd.grad(divergence, parameters, allow_unused=True))
            of_weights = {name: next(gradients) for name in weights}
            of_shifts = {name: next(gradients) for name, behind in shifted.items() if behind is not None}
            for name, rounding in roundings.items():
                cost = _dot(of_weights[name], rounding.error)
                if (behind := shifted[name]) is not None:
                    cost -= _dot(of_shifts[name], behind[1] * rounding.shift)
                sums[name].append(cost)
            total += float(divergence.detach())
    count = sum(map(len, pieces))
    return total / count, {name: _mean(found, count) for name, found in sums.items()}


def _behind(student: nn.Module, layer: Layer) -> tuple[nn.Parameter, Tensor | float] | None:
    """What is set behind a layer, a norm's shift or a bias, and by how much that moves for each bit of the outputs."""
    if layer.norm is not None:
        norm = student.get_submodule(layer.norm)
        assert isinstance(norm.running_var, Tensor)
        assert isinstance(norm.eps, float)
        scale = norm.get_parameter("weight").detach() * (norm.running_var + norm.eps).rsqrt()
        return norm.get_parameter("bias"), scale
    return None if layer.bias is None else (student.get_parameter(layer.bias), 1.0)


def _dot(gradient: Tensor | None, error: Tensor) -> float:
    return 0.0 if gradient is None else float((gradient * error).sum())


def _mean(sums: Sequence[float], count: int) -> Cost:
    """An image's share, from the sums of several pieces."""
    values = torch.tensor(sums, dtype=torch.float64)
    error = float(values.std()) * len(sums) ** 0.5 / count if len(sums) > 1 else math.inf
    return Cost(float(values.sum()) / count, error)
