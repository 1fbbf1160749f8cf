"""A layer that stays on its codebook while its centroids, and which of them each value takes, are trained.

Deep compression trains centroids by the sum of their members' gradients (Han, Mao and Dally, "Deep Compression", 2016,
section 3); the mean is offered beside it, as with the sum a cluster's size sets its step. Assignments are trained
through a latent value beside each of the tensor's, which takes its nearest centroid and gets its gradient straight
through (Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013).
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

    def trained(self, centroids_k: Tensor) -> tuple[Tensor, Tensor]:
        """The centroids (k,), in any order, and the indices into them."""
        return centroids_k, self.indices


class Nearest(nn.Module):
    """A parametrization: from k centroids and a latent tensor to each latent's nearest centroid.

    Both are trained, (k,) and the tensor's shape: a centroid's gradient is the mean over the members that it has in
    this step, 0 without any; a latent's is its value's, straight through. With `together` one factor (1,) is trained in
    the centroids' place, which scales them all (a grid stays a grid); its gradient is the true one.

    Args:
        codebook: what the tensor is on.
        original: the tensor before clustering, of its shape, or None: latents begin at its values, moved into the cells
            of their centroids, or else at the centroids.
        together: keep the centroids' proportions.

    """

    grid: Tensor

    def __init__(self, codebook: Codebook, original: Tensor | None = None, together: bool = False) -> None:
        super().__init__()
        self.together = together
        centroids_k = torch.from_numpy(codebook.centroids.copy())
        self.register_buffer("grid", centroids_k)
        self.start = _within_cells(original, centroids_k, torch.from_numpy(codebook.indices.astype(np.int32)))

    def forward(self, centroids_k: Tensor, latents: Tensor) -> Tensor:
        """The dense tensor; `centroids_k` is the factor (1,) with `together`."""
        sorted_k = self._sorted(centroids_k)
        indices = nearest(latents.detach(), sorted_k.detach())
        counts = torch.bincount(indices.flatten(), minlength=len(sorted_k)).clamp(min=1)
        divisors = torch.ones_like(counts) if self.together else counts
        dense: Tensor = _Gather.apply(sorted_k, indices, divisors)
        return dense + (latents - latents.detach())  # adds nothing, and hands the gradient on

    def right_inverse(self, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Centroids and latents that training begins with."""
        first = dense.new_ones(1) if self.together else self.grid.to(dense, copy=True)
        return first, self.start.to(dense.device, dense.dtype, copy=True)

    def trained(self, centroids_k: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The centroids (k,), sorted, and the indices into them."""
        sorted_k = self._sorted(centroids_k)
        return sorted_k, nearest(latents, sorted_k)

    def _sorted(self, centroids_k: Tensor) -> Tensor:
        return (self.grid * centroids_k if self.together else centroids_k).sort().values


def nearest(values: Tensor, sorted_k: Tensor) -> Tensor:
    """The index of each value's nearest centroid, int32; halfway between two it is the lower one's."""
    return torch.bucketize(values.contiguous(), (sorted_k[1:] + sorted_k[:-1]) / 2, out_int32=True)


def _within_cells(original: Tensor | None, sorted_k: Tensor, indices: Tensor) -> Tensor:
    """The original, each value moved as little as makes the centroid of its index the nearest."""
    if original is None:
        return sorted_k[indices]
    borders = (sorted_k[1:] + sorted_k[:-1]) / 2
    lower = torch.cat([sorted_k.new_tensor([-torch.inf]), torch.nextafter(borders, borders + torch.inf)])
    upper = torch.cat([borders, sorted_k.new_tensor([torch.inf])])
    return torch.clamp(original.detach().cpu().float().contiguous(), lower[indices], upper[indices])


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
    return _put_on(model, name, codebook, Centroids(codebook, reduction))["original"]


def train_assignments(
    model: nn.Module, name: str, codebook: Codebook, original: Tensor | None = None, *, together: bool = False
) -> tuple[nn.Parameter, nn.Parameter]:
    """Put a model's parameter on a codebook whose centroids and indices can be trained.

    Args:
        model: changed in place; the layer computes as if its parameter were `codebook.dense()`.
        name: of the parameter, as in `model.named_parameters()`.
        codebook: of the parameter's shape.
        original: the parameter's values before clustering, which say how near each is to another centroid.
        together: train one factor of all centroids instead of each.

    Returns:
        The centroids (k,) (the factor, (1,)) and the latents, of the parameter's shape, to hand to an optimizer.

    Raises:
        UserError: as `train_centroids`; for an original of another shape.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> codebook = Codebook(np.float32([-1, 2]), np.uint8([[1, 0]]))
    >>> centroids, latents = train_assignments(layer, "weight", codebook, torch.tensor([[1.0, 0.25]]))
    >>> layer.weight.tolist(), latents.data.add_(0.5)
    ([[2.0, -1.0]], tensor([[1.5000, 0.7500]]))
    >>> layer.weight.tolist()
    [[2.0, 2.0]]

    """
    if original is not None and tuple(original.shape) != codebook.shape:
        raise UserError(f"the original of {name} has shape {tuple(original.shape)}, and its codebook {codebook.shape}")
    placed = _put_on(model, name, codebook, Nearest(codebook, original, together))
    return placed["original0"], placed["original1"]


def _put_on(model: nn.Module, name: str, codebook: Codebook, parametrization: nn.Module) -> dict[str, nn.Parameter]:
    layer, leaf = _place(model, name)
    if parametrize.is_parametrized(layer, leaf):
        raise UserError(f"{name} is on a codebook already: call trained_codebook first, which takes it off")
    parameter = dict(layer.named_parameters(recurse=False)).get(leaf)
    if parameter is None:
        raise UserError(f"{name} is no parameter of {type(layer).__name__}")
    if tuple(parameter.shape) != codebook.shape:
        raise UserError(f"{name} has shape {tuple(parameter.shape)}, and its codebook {codebook.shape}")
    parametrization = parametrization.to(parameter.device)
    parametrize.register_parametrization(layer, leaf, parametrization, unsafe=True)  # the originals have other shapes
    placed: Any = layer.parametrizations
    return dict(placed[leaf].named_parameters(recurse=False))


def trained_codebook(model: nn.Module, name: str) -> Codebook:
    """Take a parameter off its parametrization; it becomes an ordinary one, on the codebook that is returned.

    Training may have changed the centroids' order: they are sorted again, and the indices with them.

    Raises:
        UserError: for a parameter that is on no codebook, and for centroids or latents that are not finite.

    """
    layer, leaf = _place(model, name)
    if not parametrize.is_parametrized(layer, leaf):
        raise UserError(f"{name} is on no codebook: call train_centroids first")
    found: Any = layer.parametrizations
    originals = [original.detach() for original in found[leaf].parameters(recurse=False)]
    if not all(bool(original.isfinite().all()) for original in originals):
        raise UserError(f"the centroids of {name} are NaN or infinite: the training diverged, try a lower rate")
    centroids, indices = (tensor.cpu().numpy() for tensor in found[leaf][0].trained(*originals))
    parametrize.remove_parametrizations(layer, leaf)
    return Codebook.from_unsorted(centroids.astype(np.float32), indices, centroids.dtype)


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(path), leaf
    except AttributeError as error:
        raise UserError(f"{name}: the network has no {path}") from error
