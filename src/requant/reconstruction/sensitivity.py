"""How far the outputs move when one layer alone is rounded: what a layer's precision is worth, measured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from requant.codebook import Codebook
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs, positions
from requant.progress import bar
from requant.reconstruction.graph import Layer, Walk, channels_last, layers, trace
from requant.reconstruction.moments import second_moments
from requant.reconstruction.rounding import compensated_indices
from requant.reconstruction.statistics import correction

# Of the moments: less than in `reconstruct`, where the layers behind make up for errors too, as one alone cannot.
DAMPING = 0.01


def divergences(
    model: nn.Module,
    codebooks: Mapping[str, Codebook],
    batches: Sequence[Tensor],
    held_out: int,
    outputs: Outputs = SOFTMAX,
) -> dict[str, float]:
    """For each layer the mean divergence (KL in nats) of outputs with it alone rounded, by the weight's name.

    A layer is rounded as in `reconstruct`: errors made up for, then its outputs' statistics corrected. Everything
    before it is computed once for all layers; what follows, for each.

    Args:
        model: left as it is.
        codebooks: of the layers to measure.
        batches: images (N, C, H, W), without labels.
        held_out: how many of the last batches to measure on; the weights are rounded to suit the others.
        outputs: what the network's outputs are.

    """
    graph = trace(model, batches[0])
    known = {node: layer for node, layer in layers(model, graph).items() if layer.weight in codebooks}
    walk, found = Walk(model, graph, channels_last(batches)), {}
    with evaluating(model), _nothing_in_place(model), bar() as progress, torch.no_grad():
        task = progress.add_task("measure layers", total=len(known))
        wanted = [outputs.of(model, batch.clone()) for batch in walk.batches[-held_out:]]
        for node in graph.nodes:
            if (layer := known.get(node)) is not None:
                changed = _outputs_if_rounded(walk, node, layer, codebooks[layer.weight], held_out)
                found[layer.weight] = mean_divergence(outputs, changed, wanted)
                progress.advance(task)
            walk.compute(node)
            walk.forget(node)
    return found


def _outputs_if_rounded(walk: Walk, node: fx.Node, layer: Layer, codebook: Codebook, held_out: int) -> list[Tensor]:
    """The network's outputs if this layer were rounded."""
    weight = walk.model.get_parameter(layer.weight)
    rows = layer.as_rows(weight)
    moments = second_moments(layer, rows, walk.inputs(node)[:-held_out])
    centroids = torch.from_numpy(codebook.centroids).to(weight.device)
    indices = layer.as_stored(compensated_indices(rows, moments, centroids, DAMPING))
    rounded = torch.empty_like(weight).copy_(centroids[indices])
    changed = walk.with_weight(node, rounded, held_out)
    axis = layer.channel_axis(changed[0])
    plain = walk.with_weight(node, weight, held_out)
    scale, shift = correction(changed, plain, deviations=layer.norm is not None, axis=axis)
    shape = (-1, *[1] * (changed[0].ndim - 1 - axis))
    return walk.ended(node, [values * scale.reshape(shape) + shift.reshape(shape) for values in changed])


def outputs_on(outputs: Outputs, model: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """A network's outputs (N, C, ...), in eval mode, for each batch."""
    with evaluating(model), torch.inference_mode():
        return [outputs.of(model, batch) for batch in batches]


def mean_divergence(outputs: Outputs, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Of found outputs (N, C, ...) from wanted ones, over all batches."""
    pairs = zip(found, wanted, strict=True)
    total = sum(float(outputs.divergences(*pair)) / positions(pair[0]) for pair in pairs)
    return total / sum(len(batch) for batch in wanted)


@contextmanager
def _nothing_in_place(model: nn.Module) -> Iterator[None]:
    """Modules that overwrite their input would spoil what several walks share."""
    changed: list[Any] = [module for module in model.modules() if getattr(module, "inplace", False)]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True
