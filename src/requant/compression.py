"""Cluster a network's weights: rules in, the quantized network and its codebooks out."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from requant.clustering import cluster
from requant.codebook import Codebook
from requant.errors import UserError
from requant.layers import TensorInfo, describe
from requant.plan import Assignment, Rule, resolve


@dataclass(frozen=True)
class Compressed:
    """A network whose chosen tensors lie on their codebooks."""

    model: nn.Module
    codebooks: dict[str, Codebook]
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
    clusterer: Callable[..., Codebook] = cluster,
) -> Compressed:
    """Cluster the tensors that `rules` choose; `model` itself is left as it is.

    `example` is one input (1, C, H, W), which finds the layers' order. `method`, with its `options` (see `cluster`), is
    for rules that name none. `clusterer` is called as `cluster` would be.
    Raises PlanError for rules that match nothing, UserError for values that are not finite.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> student = compress(network, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 1, 4, 4))
    >>> len(student.model[1].weight.unique())
    4
    """
    tensors = describe(model, example)
    parsed = [r if isinstance(r, Rule) else Rule.from_mapping(r, i) for i, r in enumerate(rules, start=1)]
    assignments = resolve(parsed, tensors, method)
    state = model.state_dict()
    _check_untied(model, [a.tensor.name for a in assignments])
    codebooks = {}
    for a in assignments:
        settings = dict(options or {}) if a.method == method else {}
        name = a.tensor.name
        codebooks[name] = clusterer(state[name], a.centroids, a.method, name=name, **settings)
    student = copy.deepcopy(model)
    place(student, codebooks)
    return Compressed(student, codebooks, assignments, tensors)


def _check_untied(model: nn.Module, names: Sequence[str]) -> None:
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if tensor.numel()}
    for name in names:
        for other, place_ in places.items():
            if other != name and place_ == places.get(name):
                raise UserError(f"{name} and {other} are one tensor (tied): leave it out of the rules, or untie it")


@torch.no_grad()
def place(model: nn.Module, codebooks: Mapping[str, Codebook]) -> None:
    """Set the tensors that have a codebook to its values, in place."""
    state = model.state_dict()
    for name, codebook in codebooks.items():
        state[name].copy_(torch.from_numpy(codebook.dense()))


def check_placed(model: nn.Module, codebooks: Mapping[str, Codebook]) -> None:
    """Raise UserError naming the first tensor that has left its codebook."""
    state = model.state_dict()
    for name, codebook in codebooks.items():
        if not torch.equal(state[name].cpu(), torch.from_numpy(codebook.dense())):
            raise UserError(f"{name} has left its centroids: it was trained or overwritten although it is quantized")
