"""Other weights for the same function, which take fewer bytes."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from requant.reconstruction.graph import LAYERS, NORMS, Layer, computed_weight, connected, nearly


@torch.no_grad()
def fold_statistics(model: nn.Module) -> None:
    """Take each batch norm's running mean and variance into its scale and shift, in place; they become 0 and 1."""
    for norm in model.modules():
        if isinstance(norm, NORMS) and norm.affine and norm.running_mean is not None:
            scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
            norm.bias.sub_(norm.running_mean * scale)
            norm.weight.copy_(scale)
            norm.running_mean.zero_()
            cast(Tensor, norm.running_var).fill_(1 - norm.eps)


@torch.no_grad()
def fold_weights(model: nn.Module, graph: fx.Graph) -> None:
    """Make weights what the network computes of them before it uses them, in place, where it then leaves them alone.

    So it is with weights that are standardised (Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and
    Weight Standardization", 2019) or have a length of their own: those of a standardised weight are the same.
    """
    for node in graph.nodes:
        step = node.args[1] if node.target in LAYERS and len(node.args) > 1 else None
        if isinstance(step, fx.Node) and step.op != "get_attr" and (found := computed_weight(model, step)):
            parameter, value = model.get_parameter(found[0]), found[1]
            before = parameter.clone()
            parameter.copy_(value)
            again = computed_weight(model, step)
            if again is None or not nearly(again[1], value):
                parameter.copy_(before)


def fold_scales(model: nn.Module, known: Mapping[fx.Node, Layer]) -> None:
    """Take batch norms' scales into the weights before them, in place, but for one common scale each (`scale_alike`).

    So the steps of all rows are one of what comes out, which suits channels that the next layer mixes. Where a layer or
    the next one is depthwise or grouped, each channel counts by its own size, and scales stay (docs/tried.md). So do
    those behind weights of 16 bits: rounding these once more would move the outputs.

    Args:
        model: whose steps these are.
        known: its layers, of `requant.reconstruction.graph.layers`.

    """
    for node, layer in known.items():
        long = torch.finfo(model.get_parameter(layer.weight).dtype).bits > 16
        if long and all(one.groups == 1 for one in (layer, *_readers(node, known))):
            scale_alike(model, layer)


def _readers(node: fx.Node, known: Mapping[fx.Node, Layer]) -> list[Layer]:
    """The layers that see a layer's outputs with no other layer between."""
    after = connected(node.users, lambda one: [] if one in known else one.users)
    return [known[one] for one in after if one in known]


@torch.no_grad()
def scale_alike(model: nn.Module, layer: Layer) -> None:
    """Take the scale of the batch norm behind a layer into its weights, but for what makes these as large as before.

    One scale is left for all channels. The batch norm's statistics must be 0 and 1 (`fold_statistics`). The steps that
    plan=auto begins with go by how large weights are (`requant.auto`).
    """
    if layer.norm is not None and not layer.transposed:
        scale, weight = model.get_parameter(f"{layer.norm}.weight"), model.get_parameter(layer.weight)
        size = float((weight * _along(scale, weight)).norm() / weight.norm())
        size = size if 0 < size < torch.inf else 1.0
        for name in filter(None, (layer.weight, layer.bias)):
            parameter = model.get_parameter(name)
            parameter.mul_(_along(scale / size, parameter))
        scale.fill_(size)


def _along(factors: Tensor, parameter: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (parameter.ndim - 1))


@torch.no_grad()
def divide(model: nn.Module, layer: Layer, by: float) -> None:
    """Divide a layer's weights, in place, and multiply the scale of the batch norm behind it.

    The batch norm's statistics must be 0 and 1 (`fold_statistics`).
    """
    assert layer.norm is not None
    for name in filter(None, (layer.weight, layer.bias)):
        model.get_parameter(name).div_(by)
    cast(_BatchNorm, model.get_submodule(layer.norm)).weight.mul_(by)


@torch.no_grad()
def shorten(parameters: Iterable[nn.Parameter]) -> None:
    """Round to the 8 significant bits of bfloat16, in place: half of the bytes of float32 then compress to nothing."""
    for parameter in parameters:
        parameter.copy_(parameter.bfloat16())
