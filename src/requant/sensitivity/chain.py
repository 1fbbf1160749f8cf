"""A network as a chain of pieces, cut where a single tensor passes: what comes before a piece need not be repeated."""

import operator
import warnings
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from requant.applying import lent
from requant.exported import ATEN, module_of
from requant.tracing import FAILURES, steps

MAKERS = (operator.add, torch.add, ATEN.add.Tensor, torch.conv2d, F.linear, F.batch_norm)


def as_chain(model: nn.Module, starts: Collection[str], example: Tensor | None = None) -> list[nn.Module]:
    """Pieces that share the tensors of `model` and, one after the other, compute what it computes, bit for bit.

    A piece begins as late as possible before each module of `starts`, where nothing but one tensor passes: right
    before a layer of VGG, at the beginning of a block of ResNet. A model whose steps cannot be listed is
    one piece, with a warning. Modules that work in place keep to it only where a layer or a sum has just made what
    they overwrite, and pieces with other steps that work in place begin with a copy, so that a piece leaves its input
    as it was.

    Args:
        model: in evaluation mode; some of its `inplace` flags are cleared.
        starts: names of modules that are called once.
        example: images (N, C, H, W), for networks whose path depends on their size.

    """
    try:
        graph = steps(model, example=example)
    except FAILURES as error:
        warnings.warn(f"the network cannot be cut ({error}): each point evaluates the whole of it", stacklevel=2)
        return [model]
    _spare_inputs(model, graph)
    nodes = list(graph.nodes)
    passing = _passing(nodes)
    cuts = sorted({_latest(passing, place) for place, node in enumerate(nodes) if module_of(node) in starts})
    bounds = [0, *(cut for cut in cuts if cut > min(passing)), len(nodes)]
    return [_piece(model, nodes[begin:end], passing.get(begin), passing.get(end)) for begin, end in pairwise(bounds)]


def _piece(model: nn.Module, nodes: Sequence[fx.Node], given: fx.Node | None, wanted: fx.Node | None) -> nn.Module:
    """These steps as a network of one input and one output; None: the whole network's own."""
    graph, copies = fx.Graph(), {}
    if given is not None:
        copies[given] = graph.placeholder(given.name)
        modules = dict(model.named_modules())
        made = {node for node in nodes if _makes_its_output(node, modules)}
        if any(_works_in_place(node, modules) and node.args[0] not in made for node in nodes):
            copies[given] = graph.call_method("clone", (copies[given],))
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    if wanted is not None:
        graph.output(copies[wanted])
    with lent(model, graph.nodes):
        return fx.GraphModule(model, graph)


def _spare_inputs(model: nn.Module, graph: fx.Graph) -> None:
    """Clear the `inplace` flag of modules that may overwrite a piece's input."""
    modules = dict(model.named_modules())
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if getattr(module, "inplace", False) and not _makes_its_output(node.args[0], modules):
            setattr(module, "inplace", False)  # noqa: B010 - a flag that nn.Module's type does not know


def _makes_its_output(node: Any, modules: Mapping[str, nn.Module]) -> bool:
    """Whether what a node gives is a tensor of its own, and never one that it was given."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    return node.target in MAKERS


def _works_in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    name = str(node.target)
    if isinstance(node.target, OpOverload):
        return bool(node.target._schema.is_mutable)
    if node.op == "call_module":
        return bool(getattr(modules[name], "inplace", False))
    if node.op == "call_method":
        return name.endswith("_") and not name.endswith("__")
    return node.target is operator.setitem or bool(node.kwargs.get("inplace"))


def _latest(passing: Mapping[int, fx.Node], place: int) -> int:
    return max((position for position in passing if position <= place), default=min(passing))


def _passing(nodes: Sequence[fx.Node]) -> dict[int, fx.Node]:
    """By position, where it is but one: the value that earlier nodes hand to this node and later ones."""
    position = {node: place for place, node in enumerate(nodes)}
    last_use = [max((position[user] for user in node.users), default=place) for place, node in enumerate(nodes)]
    alive: set[int] = set()
    found = {}
    for place in range(len(nodes)):
        alive = {earlier for earlier in alive if last_use[earlier] >= place}
        if len(alive) == 1:
            found[place] = nodes[min(alive)]
        alive.add(place)
    return found


def holders(chain: Sequence[nn.Module], model: nn.Module) -> Mapping[str, int]:
    """For each parameter and buffer of `model`, by name, the first piece of its chain that has it."""
    owned = [{id(tensor) for tensor in (*piece.parameters(), *piece.buffers())} for piece in chain]
    named = (*model.named_parameters(), *model.named_buffers())
    found = {name: [i for i, ids in enumerate(owned) if id(tensor) in ids] for name, tensor in named}
    return {name: pieces[0] for name, pieces in found.items() if pieces}
