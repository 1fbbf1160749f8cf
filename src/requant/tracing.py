"""A network as a list of steps, from its images to its outputs."""

import inspect

from torch import fx, nn

FAILURES = (fx.proxy.TraceError, TypeError, RuntimeError)
"""What torch.fx raises for loops and branches on what a network computes."""


class _Tracer(fx.Tracer):
    def __init__(self, into: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._into = into

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = super().is_leaf_module(module, name) or not any(True for _ in module.children())
        return whole and not isinstance(module, self._into)


def steps(model: nn.Module, into: tuple[type[nn.Module], ...] = ()) -> fx.Graph:
    """The steps of a network that is given images and nothing else: other inputs keep their defaults.

    PyTorch's own modules and those without children are one step each; of the types `into`, the functions they call.

    Raises:
        TraceError, TypeError or RuntimeError (`FAILURES`): if the path depends on what is computed.

    """
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {given.name: given.default for given in parameters if given.default is not given.empty}
    return _of_images_alone(_Tracer(into).trace(model, concrete_args=defaults or None))


def _of_images_alone(graph: fx.Graph) -> fx.Graph:
    """Without the inputs that keep their defaults, and the steps by which fx checks that they do."""
    others = {node for node in graph.nodes if node.op == "placeholder"} - {next(iter(graph.nodes))}
    for node in graph.nodes:
        if node.all_input_nodes and others.issuperset(node.all_input_nodes):
            others.add(node)
    for node in reversed(graph.nodes):
        if node in others and not node.users:
            graph.erase_node(node)
    return graph
