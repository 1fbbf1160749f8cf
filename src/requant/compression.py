"""Cluster a network's weights: rules in, the quantized network and its codebooks out."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from requant.clustering import cluster_tensor
from requant.codebook_forms import AnyCodebook
from requant.errors import UserError
from requant.layers import TensorInfo, describe
from requant.plan import Assignment, Rule, resolve
from requant.progress import bar


@dataclass(frozen=True)
class Compressed:
    """A network whose chosen tensors lie on their codebooks."""

    model: nn.Module
    codebooks: Mapping[str, AnyCodebook]
    assignments: list[Assignment]
    tensors: list[TensorInfo]

    def last_layer(self) -> set[str]:
        """Names of the tensors of the layer with the highest number."""
        last = max(tensor.layer for tensor in self.tensors)
        return {tensor.name for tensor in self.tensors if tensor.layer == last}


def compress(
    model: nn.Module,
    rules: Sequence[Rule | Mapping[str, Any]],
    example: Tensor,
    method: str = "kmeans",
    options: Mapping[str, Any] | None = None,
    granularity: str = "tensor",
    split: float = 0.0,
    clusterer: Callable[..., AnyCodebook] = cluster_tensor,
) -> Compressed:
    """Cluster the tensors that `rules` choose; `model` itself is left as it is.

    `example` is one input (1, C, H, W), which finds the layers' order. `method`, with its `options` (see `cluster`),
    `granularity` and `split` (the share of outlier channels that are split) are for rules that name none. `clusterer`
    is called as `requant.clustering.cluster_tensor` would be.
    Raises PlanError for rules that match nothing, UserError for values that are not finite.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> student = compress(network, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 1, 4, 4))
    >>> len(student.model[1].weight.unique())
    4
    """
    tensors = describe(model, example)
    parsed = [r if isinstance(r, Rule) else Rule.from_mapping(r, i) for i, r in enumerate(rules, start=1)]
    assignments = resolve(parsed, tensors, method, granularity, split)
    state = model.state_dict()
    _check_untied(model, [a.tensor.name for a in assignments])
    codebooks = {}
    with bar() as progress:
        for a in progress.track(assignments, description="cluster"):
            settings = dict(options or {}) if a.method == method else {}
            codebooks[a.tensor.name] = _clustered(clusterer, state[a.tensor.name], a, settings)
    student = copy.deepcopy(model)
    place(student, codebooks)
    return Compressed(student, codebooks, assignments, tensors)


def _clustered(
    clusterer: Callable[..., AnyCodebook], values: Tensor, a: Assignment, options: dict[str, Any]
) -> AnyCodebook:
    if a.block is not None:
        options["block"] = a.block
    if a.rank is not None:
        options["rank"] = a.rank
    if a.prune:
        options["prune"] = a.prune
    return clusterer(values, a.centroids, a.method, a.split, name=a.tensor.name, granularity=a.granularity, **options)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Of its state, without what modules keep beside (`get_extra_state`)."""
    return ((name, found) for name, found in model.state_dict().items() if isinstance(found, Tensor))


def _check_untied(model: nn.Module, names: Sequence[str]) -> None:
    places = {name: tensor.data_ptr() for name, tensor in _tensors(model) if tensor.numel()}
    for name in names:
        for other, place_ in places.items():
            if other != name and place_ == places.get(name):
                raise UserError(f"{name} and {other} are one tensor (tied): leave it out of the rules, or untie it")


@torch.no_grad()
def place(model: nn.Module, codebooks: Mapping[str, AnyCodebook]) -> None:
    """Set the tensors that have a codebook to its values, in place."""
    state = model.state_dict()
    for name, codebook in codebooks.items():
        state[name].copy_(torch.from_numpy(codebook.dense()))


def check_placed(model: nn.Module, codebooks: Mapping[str, AnyCodebook]) -> None:
    """Raise UserError naming the first tensor that has left its codebook."""
    state = model.state_dict()
    for name, codebook in codebooks.items():
        if not torch.equal(state[name].cpu(), torch.from_numpy(codebook.dense()).to(state[name].dtype)):
            raise UserError(f"{name} has left its centroids: it was trained or overwritten although it is quantized")
