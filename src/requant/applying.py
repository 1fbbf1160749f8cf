"""What a step of a network's list makes of the values before it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

CONSTANT = "constant"
"""In a step's meta: the tensor that it gets, where the network makes it on its way and has no such attribute."""


def applied(model: nn.Module, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """What a step makes of the values of those before it; one that gets an attribute, such as `fc.weight`, that."""
    name = str(node.target)
    if node.op == "get_attr":
        return node.meta[CONSTANT] if CONSTANT in node.meta else attribute(model, name)
    args: Any = fx.node.map_arg(node.args, value)
    kwargs: Any = fx.node.map_arg(node.kwargs, value)
    if node.op == "call_method":
        return getattr(args[0], name)(*args[1:], **kwargs)
    step: Any = model.get_submodule(name) if node.op == "call_module" else node.target
    return step(*args, **kwargs)


def attribute(model: nn.Module, name: str) -> Any:
    """`fc.weight` of a model. Raises AttributeError: it has no such."""
    owner, _, key = name.rpartition(".")
    return getattr(model.get_submodule(owner), key)


def keep(node: fx.Node, constant: Tensor, model: nn.Module) -> None:
    """Let a step get a tensor that the model does not have."""
    name = str(node.target).replace(".", "_")
    while hasattr(model, name):
        name += "_"
    node.target, node.meta[CONSTANT] = name, constant


@contextmanager
def lent(model: nn.Module, nodes: Iterable[fx.Node]) -> Iterator[None]:
    """Let a model have these steps' constants as attributes for a while, as fx.GraphModule needs them."""
    constants = {str(node.target): node.meta[CONSTANT] for node in nodes if CONSTANT in node.meta}
    for name, constant in constants.items():
        setattr(model, name, constant)
    try:
        yield
    finally:
        for name in constants:
            delattr(model, name)
