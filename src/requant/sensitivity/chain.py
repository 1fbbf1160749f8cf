"""A network as a chain of pieces, cut where a single tensor passes: what comes before a piece need not be repeated."""

import warnings
from collections.abc import Collection, Mapping, Sequence

from torch import fx, nn
from torch.fx.passes.split_module import split_module
from torch.fx.proxy import TraceError


def as_chain(model: nn.Module, starts: Collection[str]) -> list[nn.Module]:
    """Pieces that share the tensors of `model` and, one after the other, compute what it computes, bit for bit.

    A piece begins as late as possible before each module of `starts`, where nothing but one tensor passes: right
    before a layer of VGG, at the beginning of a block of ResNet. A model whose control flow torch.fx cannot trace is
    one piece, with a warning. Modules that work in place are set not to, so that a piece leaves its input as it was.

    Args:
        model: in evaluation mode; its `inplace` flags are cleared.
        starts: names of modules that are called once.

    """
    for module in model.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - a flag that nn.Module's type does not know
    try:
        traced = fx.symbolic_trace(model)
    except (TraceError, TypeError, RuntimeError) as error:
        warnings.warn(f"the network cannot be cut ({error}): each point evaluates the whole of it", stacklevel=2)
        return [model]
    pieces = _piece_of_each(list(traced.graph.nodes), starts)
    split = split_module(traced, model, pieces.__getitem__)
    return [piece for _, piece in sorted(split.named_children(), key=lambda item: int(item[0].rpartition("_")[2]))]


def _piece_of_each(nodes: Sequence[fx.Node], starts: Collection[str]) -> dict[fx.Node, int]:
    """The number of the piece that each node belongs to, from 0."""
    allowed = _narrow_places(nodes)
    begins = {_latest(allowed, place) for place, node in enumerate(nodes) if node.target in starts}
    numbers, piece = {}, 0
    for place, node in enumerate(nodes):
        piece += place in begins and place > allowed[0]
        numbers[node] = piece
    return numbers


def _latest(allowed: Sequence[int], place: int) -> int:
    return max((position for position in allowed if position <= place), default=allowed[0])


def _narrow_places(nodes: Sequence[fx.Node]) -> list[int]:
    """Positions before which one value passes: all that earlier nodes hand to this node and later ones."""
    position = {node: place for place, node in enumerate(nodes)}
    last_use = [max((position[user] for user in node.users), default=place) for place, node in enumerate(nodes)]
    alive: set[int] = set()
    places = []
    for place in range(len(nodes)):
        alive = {earlier for earlier in alive if last_use[earlier] >= place}
        if len(alive) == 1:
            places.append(place)
        alive.add(place)
    return places


def holders(chain: Sequence[nn.Module], model: nn.Module) -> Mapping[str, int]:
    """For each parameter and buffer of `model`, by name, the first piece of its chain that has it."""
    owned = [{id(tensor) for tensor in (*piece.parameters(), *piece.buffers())} for piece in chain]
    named = (*model.named_parameters(), *model.named_buffers())
    found = {name: [i for i, ids in enumerate(owned) if id(tensor) in ids] for name, tensor in named}
    return {name: pieces[0] for name, pieces in found.items() if pieces}
