"""Where channels have no directions of their own: from layers to layers through nothing but sums.

So it is in the narrow ends of inverted residuals (Sandler et al., "MobileNetV2", 2018), where no activation follows.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from requant.modes import evaluating
from requant.reconstruction.graph import Layer, connected
from requant.tracing import FAILURES

SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
EXTREMES = (-1e6, -7.0, -0.5, 0.0, 0.5, 7.0, 1e6)


@dataclass(frozen=True)
class Stream:
    """Channels that some layers write and others read, and nothing else sees.

    Attributes:
        writers: whose outputs' channels they are, behind their batch norms where they have one.
        readers: whose inputs' channels they are.

    """

    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


def streams(model: nn.Module, known: Mapping[fx.Node, Layer]) -> list[Stream]:
    """All of a network, in the order of their first writers.

    Args:
        model: whose steps these are.
        known: its layers, of `requant.reconstruction.graph.layers`.

    """
    ends = {_end(node, layer): layer for node, layer in known.items()}
    found: dict[fx.Node, Stream | None] = {}
    for end in ends:
        if end not in found:
            nodes = connected([end], lambda one: _neighbours(model, one))
            found |= dict.fromkeys(nodes, _stream(model, nodes, ends, known))
    return list(dict.fromkeys(stream for stream in found.values() if stream is not None))


def _end(node: fx.Node, layer: Layer) -> fx.Node:
    """The step that gives what a layer writes: its batch norm, or itself."""
    return node if layer.norm is None else next(iter(node.users))


def _neighbours(model: nn.Module, node: fx.Node) -> list[fx.Node]:
    """What must lie in the same directions."""
    before = node.all_input_nodes if _passes(model, node) else []
    return [*before, *(user for user in node.users if _passes(model, user))]


def _passes(model: nn.Module, node: fx.Node) -> bool:
    """Whether a step turns with its inputs: a sum of steps, or nothing at all."""
    if node.op == "call_module":
        return _does_nothing(model.get_submodule(str(node.target)))
    return node.target in SUMS and len(node.all_input_nodes) == len(node.args)


def _does_nothing(module: nn.Module) -> bool:
    """Whether it gives what it gets, in eval mode: an identity, dropout or stochastic depth, of whatever package."""
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        return False
    values = torch.tensor(EXTREMES).view(1, -1, 1, 1).expand(1, -1, 3, 3)
    try:
        with evaluating(module), torch.no_grad():
            found = module(values.clone())
    except FAILURES:
        return False  # it takes something else
    return isinstance(found, Tensor) and torch.equal(found, values)


def _stream(
    model: nn.Module, nodes: set[fx.Node], ends: Mapping[fx.Node, Layer], known: Mapping[fx.Node, Layer]
) -> Stream | None:
    """Of steps that lie in the same directions; None where something else than layers that can be turned is there."""
    writers = {node: layer for node, layer in ends.items() if node in nodes}
    readers = {node: layer for node, layer in known.items() if node.args[0] in nodes}
    users = {user for node in nodes for user in node.users}
    if not users <= nodes | set(readers) or not all(_passes(model, node) for node in nodes - set(writers)):
        return None
    stream = Stream(tuple(writers.values()), tuple(readers.values()))
    return stream if readers and _alike(model, stream) else None


def _alike(model: nn.Module, stream: Stream) -> bool:
    """Whether its layers are of one kind and have the same channels, all of them, and weights of their own."""
    channels = {model.get_parameter(layer.weight).shape[0] for layer in stream.writers}
    channels |= {model.get_parameter(layer.weight).shape[1] for layer in stream.readers}
    every = [*stream.writers, *stream.readers]
    given = [step for layer in every for step in (layer.weight_step, layer.bias_step) if step is not None]
    return (
        len(channels) == len({layer.convolves for layer in every}) == 1
        and all(layer.groups == 1 and not layer.transposed for layer in every)
        and all(step.op == "get_attr" for step in given)
    )
