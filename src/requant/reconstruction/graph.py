"""A network as a list of steps, so that teacher and student can be computed side by side, one step after another."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from requant.applying import CONSTANT, applied, attribute
from requant.errors import UserError, first_line
from requant.tracing import FAILURES, steps

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH_NORM = ("input", "running_mean", "running_var", "weight")
LAYERS = (torch.conv2d, torch.conv_transpose2d, F.linear)
NEARLY = 1e-3  # of the greatest weight
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer as the network calls it.

    A transposed convolution is here the convolution that it is of its inputs with zeros between them (`spread`), with
    its kernel turned by 180 degrees (Dumoulin and Visin, "A guide to convolution arithmetic", 2016, section 4).

    Attributes:
        weight: the tensor's name in the state dict: (out, in / groups, height, width), or (out, in); of a transposed
            convolution (in, out / groups, height, width), see `as_rows`.
        bias: its name; None: there is none, or the network computes it.
        norm: name of the batch norm that alone sees the output; None: there is no such.
        stride, dilation: of a convolution, (height, width) each.
        padding: of a convolution, (before, after) in height, then in width.
        groups: of a convolution.
        convolves: whether it is one.
        spread: how far apart its inputs are once there are zeros between them, (height, width).
        transposed: whether it is a transposed convolution.
        weight_step, bias_step: the steps that give the weight and the bias as they are used.

    """

    weight: str
    bias: str | None
    norm: str | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    convolves: bool = False
    spread: tuple[int, int] = (1, 1)
    transposed: bool = False
    weight_step: fx.Node | None = field(default=None, compare=False)
    bias_step: fx.Node | None = field(default=None, compare=False)

    def channel_axis(self, outputs: Tensor) -> int:
        """Of its outputs: (N, C, H, W), or (..., C) of a linear layer."""
        return 1 if self.convolves else outputs.ndim - 1

    def as_rows(self, weight: Tensor) -> Tensor:
        """The weight as (out, ...), each row what one output is computed with; of a transposed convolution a copy."""
        return self._turned(weight) if self.transposed else weight

    def as_stored(self, rows: Tensor) -> Tensor:
        """Back from `as_rows`; also of what else there is for each weight."""
        return self._turned(rows) if self.transposed else rows

    def _turned(self, weight: Tensor) -> Tensor:
        """(in, out / groups, ...) as (out, in / groups, ...) and back, the kernels by 180 degrees: its own inverse."""
        first, second, *kernel = weight.shape
        grouped = weight.reshape(self.groups, first // self.groups, second, *kernel).transpose(1, 2)
        return grouped.flip(-2, -1).reshape(self.groups * second, first // self.groups, *kernel)


def trace(model: nn.Module, example: Tensor | None = None) -> fx.Graph:
    """The steps of a network; convolutions and linear layers as the functions that they call.

    Args:
        model: left as it is.
        example: images (N, C, H, W), for networks whose path depends on their size.

    Raises:
        UserError: if its path depends on what it computes.

    """
    try:
        graph = steps(model, into=(nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention), example=example)
    except FAILURES as error:
        raise UserError(
            f"the network's steps cannot be listed ({first_line(error)}), which layer by layer work needs: "
            "retrain=proposed takes any network"
        ) from error
    for node in graph.nodes:
        if node.op == "call_function" and node.target in LAYERS and len(node.args) < 2:
            _give_by_place(node)
    return graph


def _give_by_place(node: fx.Node) -> None:
    """Input and weight as a layer's first two arguments, where the network names them: F.linear(input=x, weight=w)."""
    given = dict(zip(_CONVOLUTION, node.args, strict=False)) | node.kwargs
    node.args = tuple(given.pop(name) for name in _CONVOLUTION[:2])
    node.kwargs = given


def layers(model: nn.Module, graph: fx.Graph) -> dict[fx.Node, Layer]:
    """The layers whose weights are the network's own, in the order of their calls; those called twice are left out."""
    found = {node: layer for node in graph.nodes if (layer := _layer(model, node)) is not None}
    calls = [layer.weight for layer in found.values()]
    return {node: layer for node, layer in found.items() if calls.count(layer.weight) == 1}


def idle(model: nn.Module, graph: fx.Graph) -> list[str]:
    """The parameters that no step has anything to do with: of heads for training, of stages that are left out."""
    used: set[int] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            used |= {id(parameter) for parameter in model.get_submodule(str(node.target)).parameters()}
        elif node.op == "get_attr" and CONSTANT not in node.meta:
            used.add(id(attribute(model, str(node.target))))
    return [name for name, parameter in model.named_parameters() if id(parameter) not in used]


def _layer(model: nn.Module, node: fx.Node) -> Layer | None:
    if node.op != "call_function" or node.target not in LAYERS:
        return None
    transposed = node.target is torch.conv_transpose2d
    given = dict(zip(_TRANSPOSED if transposed else _CONVOLUTION, node.args, strict=False)) | node.kwargs
    inputs, weight, bias = (_step(given.get(key)) for key in ("input", "weight", "bias"))
    name = weight and _own(model, weight)
    if not name or not inputs or not _sees_images(inputs) or (bias and _sees_images(bias)):
        return None
    more = _pair(given.get("output_padding", 0))
    if not all(isinstance(count, int) for count in more):
        return None  # computed for the size of what the network has elsewhere
    assert weight
    stride, dilation = (_pair(given.get(key, 1)) for key in ("stride", "dilation"))
    height, width = model.get_parameter(name).shape[2:] or (1, 1)
    padding = _padding(given.get("padding", 0), (height, width), dilation)
    if transposed:
        reach = (dilation[0] * (height - 1), dilation[1] * (width - 1))
        (top, bottom), (left, right) = padding
        padding = (reach[0] - top, reach[0] - bottom + more[0]), (reach[1] - left, reach[1] - right + more[1])
    return Layer(
        name,
        str(bias.target) if bias and bias.op == "get_attr" else None,
        _norm(model, node) if weight.op == "get_attr" else None,
        stride=(1, 1) if transposed else stride,
        padding=padding,
        dilation=dilation,
        groups=cast(int, given.get("groups", 1)),
        convolves=node.target is not F.linear,
        spread=stride if transposed else (1, 1),
        transposed=transposed,
        weight_step=weight,
        bias_step=bias,
    )


def _step(given: Any) -> fx.Node | None:
    return given if isinstance(given, fx.Node) else None


def _own(model: nn.Module, step: fx.Node) -> str | None:
    """The parameter that a step gives as it is, or as good as."""
    if step.op == "get_attr":
        return str(step.target)
    name, value = computed_weight(model, step) or (None, None)
    return name if name and value is not None and nearly(model.get_parameter(name), value) else None


def computed_weight(model: nn.Module, step: fx.Node) -> tuple[str, Tensor] | None:
    """The one parameter of its shape that a weight is computed from, and that weight; None: there is no such."""
    if _sees_images(step):
        return None
    with torch.no_grad():
        value = _constant(model, step)
    behind = {str(node.target) for node in connected([step], lambda one: one.all_input_nodes)}
    names = [key for key, found in model.named_parameters() if key in behind and found.shape == value.shape]
    return (names[0], value) if len(names) == 1 else None


def nearly(one: Tensor, other: Tensor) -> bool:
    """Whether two weights differ by far less than rounding will do."""
    return torch.allclose(one, other, rtol=NEARLY, atol=NEARLY * float(other.abs().max()))


def _sees_images(node: fx.Node) -> bool:
    return any(found.op == "placeholder" for found in connected([node], lambda one: one.all_input_nodes))


def connected(nodes: Iterable[fx.Node], neighbours: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """These steps and all that they lead to."""
    found = set(nodes)
    waiting = list(found)
    while waiting:
        fresh = set(neighbours(waiting.pop())) - found
        found |= fresh
        waiting += fresh
    return found


def _constant(model: nn.Module, node: fx.Node) -> Any:
    """What a step gives that sees no images."""
    return applied(model, node, lambda used: _constant(model, used))


def _pair(value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value,)
    return (pair * 2)[:2]


def _padding(value: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(before, after) in height, then in width; "same" puts what is odd at the end, as PyTorch does."""
    if value == "same":
        height, width = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return (height // 2, height - height // 2), (width // 2, width - width // 2)
    height, width = (0, 0) if value == "valid" else _pair(value)
    return (height, height), (width, width)


def _norm(model: nn.Module, node: fx.Node) -> str | None:
    return norm_of(model, next(iter(node.users))) if len(node.users) == 1 else None


def norm_of(model: nn.Module, node: fx.Node) -> str | None:
    """The name of the batch norm with scale, shift and statistics that a step is; None: it is none, or is used twice.

    Modules that do more than to normalise (timm's, with an activation behind) are there as the functions they call.
    """
    name = _module_of(node)
    module = model.get_submodule(name) if name is not None else None
    ours = isinstance(module, NORMS) and module.affine and module.running_mean is not None
    return name if ours and sum(_module_of(other) == name for other in node.graph.nodes) == 1 else None


def _module_of(node: fx.Node) -> str | None:
    """The module that a step is, or, where it normalises, the one whose scale it takes."""
    if node.op == "call_module":
        return str(node.target)
    if node.target is not F.batch_norm:
        return None
    weight = _step((dict(zip(_BATCH_NORM, node.args, strict=False)) | node.kwargs).get("weight"))
    return str(weight.target).rpartition(".")[0] if weight and weight.op == "get_attr" else None


class Walk:
    """Computes a network for many batches at once, a step at a time; what no later step needs is forgotten.

    Args:
        model: in eval mode.
        graph: its steps.
        batches: of images, (N, C, H, W) each.

    """

    def __init__(self, model: nn.Module, graph: fx.Graph, batches: Sequence[Tensor]) -> None:
        self.model = model
        self.graph = graph
        self.batches = batches
        self.values: dict[fx.Node, Any] = {}
        self._last_use = {used: node for node in graph.nodes for used in node.all_input_nodes}
        self._constants = set(graph.nodes) - connected(
            (node for node in graph.nodes if node.op == "placeholder"), lambda node: node.users
        )

    def compute(self, node: fx.Node) -> None:
        """Do a step whose inputs are there."""
        self.values[node] = self._outputs(node, self.values, len(self.batches))

    def inputs(self, node: fx.Node) -> list[Tensor]:
        """What comes into a layer."""
        return cast(list[Tensor], self.values[cast(fx.Node, node.args[0])])

    def renew(self, weight_step: fx.Node) -> None:
        """Compute again what follows from the network's parameters, which have changed."""
        self.values[weight_step] = _constant(self.model, weight_step)

    def forget(self, node: fx.Node) -> None:
        """Drop what `node` was the last to use."""
        self._drop(node, self.values)

    def take_in(self, batches: Sequence[Tensor], done: fx.Node) -> None:
        """Add batches, computed as far as the others are: up to `done`, the last step whose inputs were forgotten."""
        other = Walk(self.model, self.graph, batches)
        for node in self.graph.nodes:
            other.compute(node)
            other.forget(node)
            if node is done:
                break
        for node, found in self.values.items():
            if isinstance(found, list):
                found.extend(other.values[node])
        self.batches = [*self.batches, *batches]

    def live_bytes(self) -> int:
        """What the values that are kept take, for all batches."""
        lists = (found for found in self.values.values() if isinstance(found, list))
        return sum(value.nbytes for found in lists for value in found if isinstance(value, Tensor))

    def with_weight(self, node: fx.Node, weight: Tensor, last: int) -> list[Tensor]:
        """The outputs of a layer whose inputs are there, if it had another weight, for the last batches alone."""
        values = _last(self.values, last) | {cast(fx.Node, node.args[1]): weight}
        return cast(list[Tensor], self._outputs(node, values, last))

    def ended(self, node: fx.Node, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The network's outputs for the last batches, if those of `node`, which is due, were these."""
        values = _last(self.values, len(outputs)) | {node: list(outputs)}
        steps = list(self.graph.nodes)
        for later in steps[steps.index(node) + 1 :]:
            values[later] = self._outputs(later, values, len(outputs))
            self._drop(later, values)
        return cast(list[Tensor], values[steps[-1]])

    def _drop(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        for used in node.all_input_nodes:
            if self._last_use[used] is node:
                values.pop(used, None)
        if not node.users and node.op != "output":
            values.pop(node, None)

    @torch.no_grad()
    def _outputs(self, node: fx.Node, values: Mapping[fx.Node, Any], count: int) -> Any:
        """A list, one entry a batch; of what does not depend on the images the thing itself."""
        if node.op == "placeholder":
            return [batch.clone() for batch in self.batches]  # a network may write over its input
        if node.op == "output":
            return values[node.all_input_nodes[0]]
        if node in self._constants:
            return applied(self.model, node, values.__getitem__)
        return [applied(self.model, node, partial(_entry, values, position)) for position in range(count)]


def _entry(values: Mapping[fx.Node, Any], position: int, node: fx.Node) -> Any:
    found = values[node]
    return found[position] if isinstance(found, list) else found


def _last(values: Mapping[fx.Node, Any], count: int) -> dict[fx.Node, Any]:
    return {node: found[-count:] if isinstance(found, list) else found for node, found in values.items()}


def channels_last(batches: Sequence[Tensor]) -> list[Tensor]:
    """Batches as convolutions are fastest on; what is not (N, C, H, W) as it is."""
    return [b.contiguous(memory_format=torch.channels_last) if b.ndim == 4 else b for b in batches]


def side_by_side(
    teacher: Walk, student: Walk, waiting: Sequence[Tensor], room: Mapping[fx.Node, int]
) -> Iterator[fx.Node]:
    """Each step of a graph that both share, when the teacher's values are there but only the inputs of the student's.

    Whoever iterates may change the student's weights, and has to call `student.compute(node)`. Batches that `waiting`
    holds are taken in, one after another, as soon as there is room for so many (`batches_that_fit`).
    """
    for node in student.graph.nodes:
        teacher.compute(node)
        yield node
        for walk in (teacher, student):
            walk.forget(node)
        count = min(len(waiting), room[node] - len(teacher.batches))
        for batch in waiting[: max(0, count)]:
            for walk in (teacher, student):
                walk.take_in([batch], node)
        waiting = waiting[max(0, count) :]


def batches_that_fit(model: nn.Module, graph: fx.Graph, batch: Tensor, most_bytes: int) -> dict[fx.Node, int]:
    """For each step, how many such batches two walks can hold from there to the end in `most_bytes`; 1 at least.

    Early steps have the largest activations.
    """
    walk, held = Walk(model, graph, [batch]), {}
    for node in graph.nodes:
        walk.compute(node)
        held[node] = walk.live_bytes()
        walk.forget(node)
    room, peak = {}, 1
    for node in reversed(list(graph.nodes)):
        room[node] = max(1, most_bytes // (2 * peak))
        peak = max(peak, held[node])
    return room
