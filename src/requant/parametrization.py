"""A layer that stays on its codebook while its centroids are trained.

Deep compression trains centroids by the sum of their members' gradients (Han, Mao and Dally, "Deep Compression", 2016,
section 3); the mean is offered beside it, as with the sum a cluster's size sets its step.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from requant.codebook import Codebook
from requant.errors import UserError

Reduction = Literal["mean", "sum"]


class Centroids(nn.Module):
    """A parametrization (`torch.nn.utils.parametrize`): from k centroids to the tensor of a codebook.

    What is trained is the parametrization's original, (k,); the indices are a buffer and stay. The gradient of a
    centroid is the mean or the sum over its members, 0 for a centroid that has none.

    Args:
        codebook: whose indices are kept.
        reduction: how the gradients of a centroid's members are put together.

    """

    indices: Tensor
    divisors: Tensor

    def __init__(self, codebook: Codebook, reduction: Reduction) -> None:
        super().__init__()
        self.start = torch.from_numpy(codebook.centroids.copy())
        self.register_buffer("indices", torch.from_numpy(codebook.indices.astype(np.int32)))
        divisors = np.maximum(codebook.counts, 1) if reduction == "mean" else np.ones(codebook.k)
        self.register_buffer("divisors", torch.from_numpy(divisors.astype(np.float64)))

    def forward(self, centroids_k: Tensor) -> Tensor:
        """The dense tensor."""
        dense: Tensor = _Gather.apply(centroids_k, self.indices, self.divisors)
        return dense

    def right_inverse(self, dense: Tensor) -> Tensor:
        """The centroids that training begins with: the codebook's, whatever the tensor was."""
        return self.start.to(dense, copy=True)


class _Gather(torch.autograd.Function):
    """`centroids_k[indices]`; a centroid's gradient is its members' sum, in float64, over its divisor."""

    @staticmethod
    def forward(ctx: Any, centroids_k: Tensor, indices: Tensor, divisors_k: Tensor) -> Tensor:
        ctx.save_for_backward(indices, divisors_k)
        return centroids_k[indices]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        indices, divisors_k = ctx.saved_tensors
        members = gradients[0].double().flatten()
        sums_k = torch.bincount(indices.flatten(), members, divisors_k.numel())
        return (sums_k / divisors_k).to(gradients[0].dtype), None, None


def train_centroids(model: nn.Module, name: str, codebook: Codebook, reduction: Reduction = "mean") -> nn.Parameter:
    """Put a model's parameter on a codebook whose centroids can be trained.

    Args:
        model: changed in place; the layer computes as if its parameter were `codebook.dense()`.
        name: of the parameter, as in `model.named_parameters()`.
        codebook: of the parameter's shape.
        reduction: the gradient of a centroid is the `mean` (default) or the `sum` over its members.

    Returns:
        The centroids (k,), to hand to an optimizer.

    Raises:
        UserError: for a name that is no parameter, another shape, or a parameter that is on a codebook already.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> codebook = Codebook(np.float32([-1, 2]), np.uint8([[1, 0]]))
    >>> centroids = train_centroids(layer, "weight", codebook)
    >>> layer.weight.tolist(), tuple(centroids.shape)
    ([[2.0, -1.0]], (2,))

    """
    layer, leaf = _place(model, name)
    if parametrize.is_parametrized(layer, leaf):
        raise UserError(f"{name} is on a codebook already: call trained_codebook first, which takes it off")
    parameter = dict(layer.named_parameters(recurse=False)).get(leaf)
    if parameter is None:
        raise UserError(f"{name} is no parameter of {type(layer).__name__}")
    if tuple(parameter.shape) != codebook.shape:
        raise UserError(f"{name} has shape {tuple(parameter.shape)}, and its codebook {codebook.shape}")
    parametrization = Centroids(codebook, reduction).to(parameter.device)
    parametrize.register_parametrization(layer, leaf, parametrization, unsafe=True)  # the original has another shape
    placed: Any = layer.parametrizations
    centroids: nn.Parameter = placed[leaf].original
    return centroids


def trained_codebook(model: nn.Module, name: str) -> Codebook:
    """Take a parameter off its parametrization; it becomes an ordinary one, on the codebook that is returned.

    Training may have changed the centroids' order: they are sorted again, and the indices with them.

    Raises:
        UserError: for a parameter that `train_centroids` did not put on a codebook, and centroids that are not finite.

    """
    layer, leaf = _place(model, name)
    if not parametrize.is_parametrized(layer, leaf):
        raise UserError(f"{name} is on no codebook: call train_centroids first")
    found: Any = layer.parametrizations
    centroids = found[leaf].original.detach().cpu().float().numpy()
    if not np.isfinite(centroids).all():
        raise UserError(f"the centroids of {name} are NaN or infinite: the training diverged, try a lower rate")
    codebook = Codebook.from_unsorted(centroids, found[leaf][0].indices.cpu().numpy())
    parametrize.remove_parametrizations(layer, leaf)
    return codebook


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(path), leaf
    except AttributeError as error:
        raise UserError(f"{name}: the network has no {path}") from error
