"""A network's steps as torch.export finds them: by running it, whatever Python it is made of."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree

from requant.applying import applied, attribute, keep
from requant.modes import evaluating
from requant.outputs import main

ATEN = torch.ops.aten
LAYERS: dict[Any, Callable[..., Any]] = {
    ATEN.conv2d.default: torch.conv2d,
    ATEN.conv2d.padding: torch.conv2d,
    ATEN.conv_transpose2d.input: torch.conv_transpose2d,
    ATEN.linear.default: F.linear,
}
"""The functions by which layers are known elsewhere; they take the same arguments."""

IMAGES = 2  # of one, torch.export would take it that there is always one
OTHERS = (1, 3)
NEARLY = 1e-4  # of the greatest output


def exported(model: nn.Module, example: Tensor) -> fx.Graph:
    """The steps, in eval mode, of a network that is given images and nothing else, in batches of any number.

    torch.fx lists what a network's Python would do with anything; this runs it with images. So inputs may be checked,
    options read and outputs be of classes of their own, as in Hugging Face's networks. Every step is a function, and
    knows the module that it is of (`module_of`).

    Args:
        model: left as it is.
        example: images (N, C, H, W), of the model's device and precision; the steps are those for images as large.

    Raises:
        RuntimeError: or what else the network or torch.export raises, if its path depends on what is computed.
        ValueError: if it depends on how many images there are.

    """
    with evaluating(model), torch.no_grad():
        images = torch.cat([example[:1]] * IMAGES)
        graph = _listed(model, _program(model, images))
        for count in OTHERS:
            _require_same(model, graph, torch.cat([example[:1]] * count))
    return graph


def _program(model: nn.Module, images: Tensor) -> ExportedProgram:
    try:
        return torch.export.export(model, (images,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    except RuntimeError as error:
        if "data-dependent" in str(error):
            raise RuntimeError("its path depends on values that it computes") from error
        raise


def _listed(model: nn.Module, program: ExportedProgram) -> fx.Graph:
    """The program's steps, of which those that get an attribute get one of the model's."""
    module = program.module()
    _sizes_from_nearby(module.graph)
    for node in list(module.graph.nodes):
        checks_sizes = node.op == "call_module"  # as the caller's images have them
        if checks_sizes or (node.op == "get_attr" and not node.users):
            module.graph.erase_node(node)
        elif node.op == "get_attr":
            _on_model(model, module, node)
            _where_it_is_used(node)
        elif node.op == "call_function":
            _as_known(node)
        elif node.op == "output":
            node.args = (_pytree.tree_unflatten(list(node.args[0]), program.call_spec.out_spec),)
    with_one_output(module.graph)
    return module.graph


def with_one_output(graph: fx.Graph) -> None:
    """Where a network gives its outputs by name, let the graph give those that count."""
    output, as_value = graph.output_node(), cast(Any, fx.Proxy)
    with graph.inserting_before(output):
        found = main(fx.node.map_arg(output.args[0], as_value))
    if isinstance(found, fx.Proxy):
        output.args = (found.node,)


def module_of(node: fx.Node) -> str | None:
    """The name of the module that a step is; of functions that `exported` lists, of the innermost one around it."""
    if node.op == "call_module":
        return str(node.target)
    around = list(node.meta.get("nn_module_stack", {}).values())
    return str(around[-1][0]) if around and node.op == "call_function" else None


def _require_same(model: nn.Module, graph: fx.Graph, images: Tensor) -> None:
    """Raise unless the steps compute what the network does, for other numbers of images than they were listed with."""
    wanted = main(model(images.clone()))
    try:
        found = _computed(model, graph, images.clone())
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"they depend on how many images there are: {error}") from error
    if isinstance(wanted, Tensor) and not _nearly_equal(found, wanted):
        raise ValueError(f"they depend on how many images there are, and are others for {len(images)}, or on chance")


def _computed(model: nn.Module, graph: fx.Graph, images: Tensor) -> Any:
    """What the steps make of images."""
    values: dict[fx.Node, Any] = {}
    *steps, output = graph.nodes
    for node in steps:
        values[node] = images if node.op == "placeholder" else applied(model, node, values.__getitem__)
    return fx.node.map_arg(output.args[0], values.__getitem__)


def _nearly_equal(found: Tensor, wanted: Tensor) -> bool:
    """Of outputs that may be broken where the network's are."""
    atol = NEARLY * float(wanted.nan_to_num().abs().max())
    return found.shape == wanted.shape and torch.allclose(found, wanted, atol=atol, equal_nan=True)


def _sizes_from_nearby(graph: fx.Graph) -> None:
    """Let each step take the number of images from the last tensor before it that has one, not from the images.

    torch.export computes each size once, which would keep it at hand from the first step to the last.
    """
    having: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if _is_size(node):
            continue
        for size in filter(_is_size, node.all_input_nodes):
            with graph.inserting_before(node):
                node.replace_input_with(size, _again(size, having))
        value = node.meta.get("val")
        first: Any = value.shape[0] if isinstance(value, Tensor) and value.ndim else None
        if isinstance(first, torch.SymInt):
            having[first.node.expr] = node
    for node in reversed(list(graph.nodes)):
        if _is_size(node) and not node.users:
            graph.erase_node(node)


def _is_size(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.meta.get("val"), torch.SymInt)


def _again(size: fx.Node, having: Mapping[Any, fx.Node]) -> fx.Node:
    """A size computed anew where the graph is being written, from the tensors that have it as their first."""
    expression = size.meta["val"].node.expr
    if expression in having:
        return size.graph.call_function(ATEN.sym_size.int, (having[expression], 0))
    return size.graph.node_copy(size, lambda used: _again(used, having) if _is_size(used) else used)


def _on_model(model: nn.Module, module: fx.GraphModule, node: fx.Node) -> None:
    """Let the step get the model's own tensor; what the model makes on its way is the exported module's alone."""
    name = str(node.target)
    given = attribute(module, name)
    if not isinstance(given, Tensor):
        raise ValueError(f"a part of it, {name}, is no list of steps")
    try:
        own = attribute(model, name)
    except AttributeError:
        own = None
    if own is not given:
        keep(node, given, model)


def _where_it_is_used(node: fx.Node) -> None:
    """Move a step down to the first that uses it, so that nothing is at hand for longer than it is needed."""
    following = node.next
    while following not in node.users:
        following = following.next
    following.prepend(node)


def _as_known(node: fx.Node) -> None:
    """Layers and batch norms as the functions of PyTorch that they were."""
    if node.target is ATEN.batch_norm.default:
        images, weight, bias, mean, variance, training, momentum, eps, _ = node.args
        node.target, node.args = F.batch_norm, (images, mean, variance, weight, bias, training, momentum, eps)
    elif node.target in LAYERS:
        node.target = LAYERS[node.target]
