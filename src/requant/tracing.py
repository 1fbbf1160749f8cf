"""A network as a list of steps, from its images to its outputs."""

import inspect
import operator
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from requant.applying import applied, keep
from requant.exported import exported, with_one_output
from requant.modes import evaluating

FAILURES = (fx.proxy.TraceError, TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
"""What comes of a network that branches on what it computes, or does else what torch.fx cannot follow."""

CHECKS = ("_assert", "_assert_is_none")  # PyTorch's, and fx's of an input's default
READS = (getattr, operator.getitem, "size", "dim")
BATCHES = 2, 3  # images: a size that differs between the two is the batch's


class _Tracer(fx.Tracer):
    def __init__(self, into: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._into = into

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = super().is_leaf_module(module, name) or not any(True for _ in module.children())
        opened = isinstance(module, self._into) and not isinstance(module, nn.MultiheadAttention)
        return whole and not opened

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(m, self._into) and isinstance(m, nn.MultiheadAttention) and _attends_to_itself(m, args, kwargs):
            return _attention(m, args[0] if args else kwargs["query"]), None
        return super().call_module(m, forward, args, kwargs)


def _attends_to_itself(module: nn.MultiheadAttention, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is that of plain self-attention, all of whose weights lie in two matrices."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    alone = all(given[name] is given["query"] for name in ("key", "value"))
    masked = any(given.get(name) is not None for name in ("key_padding_mask", "attn_mask"))
    plain = module.batch_first and module.bias_k is None and not module.add_zero_attn
    return alone and plain and module.kdim == module.embed_dim and not masked and not given.get("need_weights", True)


def _attention(module: nn.MultiheadAttention, tokens: Any) -> Any:
    """(N, T, C) what it makes of tokens (N, T, C), as the functions that have its weights."""
    packed = F.linear(tokens, module.in_proj_weight, module.in_proj_bias)
    heads = packed.unflatten(2, (3, module.num_heads, module.head_dim)).permute(2, 0, 3, 1, 4)
    found = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    return F.linear(found.transpose(1, 2).flatten(2), module.out_proj.weight, module.out_proj.bias)


class _SizingTracer(_Tracer):
    """Computes each step for batches of two sizes as it is listed, so that a network may branch on other sizes."""

    def __init__(self, into: tuple[type[nn.Module], ...], example: Tensor) -> None:
        super().__init__(into)
        self._images = tuple(torch.cat([example[:1]] * count) for count in BATCHES)
        self._computing = False
        self.found: dict[fx.Node, tuple[Any, ...]] = {}

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        first = not self.found
        node = super().create_node(kind, target, *args, **kwargs)
        self.found[node] = self._images
        if not first:
            self._computing = True  # what fx puts in the place of modules' calls and attributes stands aside
            self.found[node] = tuple(self._computed(node, batch) for batch in range(len(BATCHES)))
            self._computing = False
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **named: Any) -> Any:
        if kind == "call_function" and self._into and _takes_weights(target, [*args, *kwargs.values()]):
            return target(*args, **kwargs)
        return super().create_proxy(kind, target, args, kwargs, *others, **named)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def _computed(self, node: fx.Node, batch: int) -> Any:
        if node.op in ("placeholder", "output") or _checks(node):
            return None
        return applied(self.root, node, lambda used: self.found[used][batch])


class _Sized(fx.Proxy):
    """A value of a network whose sizes are numbers, but for the batch's."""

    def size(self, dim: int | None = None) -> Any:
        if dim is None:
            return self.shape
        one, other = (found.shape[dim] for found in self._found)
        return one if one == other else self.tracer.create_proxy("call_method", "size", (self, dim), {})

    @property
    def shape(self) -> Sequence[Any]:
        sizes = tuple(self.size(dim) for dim in range(self.ndim))
        return torch.Size(sizes) if all(isinstance(size, int) for size in sizes) else sizes

    @property
    def ndim(self) -> int:
        return int(self._found[0].ndim)

    def dim(self) -> int:
        return self.ndim

    @property
    def device(self) -> Any:
        return self._found[0].device

    @property
    def dtype(self) -> Any:
        return self._found[0].dtype

    def __bool__(self) -> bool:
        one, other = self._found
        if isinstance(one, bool | int) and bool(one) == bool(other):
            return bool(one)
        return super().__bool__()

    def __setitem__(self, place: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, place, value), {})

    @property
    def _found(self) -> tuple[Any, ...]:
        tracer = self.tracer
        assert isinstance(tracer, _SizingTracer)
        return tracer.found[self.node]


def steps(model: nn.Module, into: tuple[type[nn.Module], ...] = (), example: Tensor | None = None) -> fx.Graph:
    """The steps, in eval mode, of a network that is given images and nothing else: other inputs keep their defaults.

    PyTorch's own modules and those without children are one step each; of the types `into`, the functions they call. Of
    a network that torch.fx cannot follow, all steps are functions: `requant.exported`.

    Args:
        model: left as it is.
        into: modules to look into; where there are any, and an example, also functions that are given weights.
        example: images (N, C, H, W), taken to the model's device and precision; with them a path may depend on sizes,
            and the steps are those for images as large.

    Raises:
        FAILURES: one of them, if the path depends on what is computed.

    """
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {given.name: given.default for given in parameters if given.default is not given.empty} or None
    if example is not None:
        first = next(model.parameters(), example)
        example = example.to(first.device, first.dtype)
    with evaluating(model), torch.no_grad():
        try:
            graph = _listed(_Tracer(into), model, defaults)
        except FAILURES:
            if example is None:
                raise
            try:
                return _listed(_SizingTracer(into, example), model, defaults)
            except FAILURES:
                return exported(model, example)
        if example is None or not into or not _hides_weights(graph):
            return graph
        try:
            return _listed(_SizingTracer(into, example), model, defaults)
        except FAILURES:
            return graph


def _listed(tracer: _Tracer, model: nn.Module, defaults: dict[str, Any] | None) -> fx.Graph:
    before = set(vars(model))
    try:
        graph = tracer.trace(model, concrete_args=defaults)
        made = {name: vars(model)[name] for name in set(vars(model)) - before}
    finally:
        for name in set(vars(model)) - before:  # torch.fx leaves what the network makes on its way as attributes
            delattr(model, name)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in made:
            keep(node, made[str(node.target)], model)
    _leave_out_checks(graph)
    with_one_output(graph)
    return graph


def _hides_weights(graph: fx.Graph) -> bool:
    return any(node.op == "call_function" and _takes_weights(node.target, node.all_input_nodes) for node in graph.nodes)


def _takes_weights(function: Any, given: Iterable[Any]) -> bool:
    """Whether it is a function in Python that is not PyTorch's, and computes with attributes of a network."""
    ours = isinstance(function, FunctionType) and not function.__module__.startswith("torch.")
    nodes = (found.node if isinstance(found, fx.Proxy) else found for found in given)
    return ours and any(isinstance(node, fx.Node) and node.op == "get_attr" for node in nodes)


def _checks(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") in CHECKS


def _leave_out_checks(graph: fx.Graph) -> None:
    """Assertions, and what only they need or nothing does: sizes, inputs that keep their defaults."""
    _, *others = graph.nodes
    dead: set[fx.Node] = set()
    for node in reversed(others):
        spare = not node.users and (node.op == "placeholder" or node.target in READS)
        checked_alone = bool(node.users) and dead.issuperset(node.users)
        if spare or checked_alone or _checks(node):
            dead.add(node)
    for node in reversed(others):
        if node in dead:
            graph.erase_node(node)
