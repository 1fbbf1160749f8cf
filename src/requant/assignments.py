"""A layer that stays on its codebook while its centroids, and which of them each value takes, are trained.

Beside each value of the tensor there is a latent one, which takes its nearest centroid and gets its gradient straight
through (Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from requant.archive.fitting import coded_bits
from requant.codebook import Codebook, index_dtype
from requant.errors import UserError
from requant.parametrization import Gather, put_on
from requant.price import Price, borders, taken

SAMPLE = 131_072
"""Of larger tensors every second, third, ... value says how many bits they take."""


class Nearest(nn.Module):
    """A parametrization: from k centroids and a latent tensor to each latent's nearest centroid.

    Both are trained, (k,) and the tensor's shape: a centroid's gradient is the mean over the members that it has in
    this step, 0 without any and at 0 itself, where pruned values are; a latent's is its value's, straight through. With
    `together` one factor (1,) is trained in the centroids' place, which scales them all (a grid stays a grid); its
    gradient is the true one, and latents stay in the units that they begin in.

    Args:
        codebook: what the tensor is on.
        original: the tensor before clustering, of its shape, or None: latents begin half of the way from the centroids
            to its values, moved into the cells of their centroids, or else at the centroids.
        together: keep the centroids' proportions.

    Attributes:
        price: of a bit of an index (`requant.price`): what `counts` cost counts beside the distance, at 0 not at all.
        of_all: finds the price of all tensors before each step of training; None: another one does, or none.

    """

    grid: Tensor
    counts: Tensor
    price: Tensor

    def __init__(self, codebook: Codebook, original: Tensor | None = None, together: bool = False) -> None:
        super().__init__()
        self.together = together
        self.dtype = codebook.dtype
        centroids_k = torch.from_numpy(codebook.centroids.copy())
        self.unit, grid_k = _in_steps(centroids_k) if together else (1.0, centroids_k)
        self.register_buffer("grid", grid_k)
        indices = torch.from_numpy(codebook.indices.astype(np.int32))
        self.register_buffer("counts", torch.bincount(indices.flatten(), minlength=codebook.k))
        self.register_buffer("price", torch.zeros(()))
        self.of_all: Price | None = None
        self.start = _begin(original, centroids_k, indices)

    def forward(self, centroids_k: Tensor, latents: Tensor) -> Tensor:
        """The dense tensor; `centroids_k` is the factor (1,) with `together`."""
        if self.of_all is not None and torch.is_grad_enabled():
            self.of_all.settle(float(self.price))
        sorted_k = self._sorted(centroids_k)
        indices = self._taken(latents.detach(), centroids_k.detach())
        counts = torch.bincount(indices.flatten(), minlength=len(sorted_k))
        if torch.is_grad_enabled():  # evaluation leaves what training does as it is
            self.counts.copy_(counts)
        members = counts.double().clamp(min=1)
        divisors = torch.ones_like(members) if self.together else members.masked_fill(sorted_k == 0, torch.inf)
        dense: Tensor = Gather.apply(sorted_k, indices, divisors)
        return dense + (latents - latents.detach())  # adds nothing, and hands the gradient on

    def right_inverse(self, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Centroids and latents that training begins with."""
        first = dense.new_ones(1) if self.together else self.grid.to(dense, copy=True)
        return first, self.start.to(dense.device, dense.dtype, copy=True)

    def trained(self, centroids_k: Tensor, latents: Tensor) -> Codebook:
        """The codebook of such centroids and latents."""
        sorted_k = self._sorted(centroids_k)
        indices: Any = self._taken(latents, centroids_k).cpu().numpy().astype(index_dtype(len(sorted_k)))
        return Codebook(sorted_k.cpu().float().numpy(), indices, self.dtype)

    def bits_at(self, price: float, centroids_k: Tensor, latents: Tensor) -> float:
        """What indices would take at a price, by a sample of large tensors."""
        every = max(1, latents.numel() // SAMPLE)
        ends = borders(self._places(centroids_k.detach()), self.counts, price)
        indices = torch.bucketize(latents.detach().flatten()[::every].contiguous(), ends, out_int32=True)
        return every * float(taken(torch.bincount(indices, minlength=len(self.grid))))

    def _taken(self, latents: Tensor, centroids_k: Tensor) -> Tensor:
        """The index of the centroid that each latent takes, int32; halfway between two it is the lower one's."""
        ends = borders(self._places(centroids_k), self.counts, self.price)
        return torch.bucketize(latents.contiguous(), ends, out_int32=True)

    def _places(self, centroids_k: Tensor) -> Tensor:
        """Where latents look for the nearest: a grid that shrinks leaves all indices as they are."""
        return self.grid * self.unit if self.together else centroids_k.sort().values

    def _sorted(self, centroids_k: Tensor) -> Tensor:
        return self.grid * (centroids_k.abs() * self.unit) if self.together else centroids_k.sort().values


def _in_steps(sorted_k: Tensor) -> tuple[float, Tensor]:
    """A grid as its step and whole numbers, so that at any factor it is a grid to the bit; else 1 and what it is."""
    positive = sorted_k[sorted_k > 0]
    if not len(positive):
        return 1.0, sorted_k
    whole = (sorted_k / positive[0]).round()
    return (float(positive[0]), whole) if torch.equal(whole * positive[0], sorted_k) else (1.0, sorted_k)


@dataclass(frozen=True)
class _Held:
    """A tensor that has a price (`requant.price.Priced`), with what it is made from."""

    nearest: Nearest
    centroids_k: Tensor
    latents: Tensor

    def bits_at(self, price: float) -> float:
        return self.nearest.bits_at(price, self.centroids_k, self.latents)

    def coded_bits(self) -> float:
        return coded_bits(self.nearest.trained(self.centroids_k.detach(), self.latents.detach()))

    def charge(self, price: float) -> None:
        self.nearest.price.fill_(price)


def _begin(original: Tensor | None, sorted_k: Tensor, indices: Tensor) -> Tensor:
    """Half of the way from the centroid of each value's index to the original, or to the border of its cell.

    Where a value was given another centroid than the nearest one, as in making up for errors, its original lies
    outside the cell. A latent on the border would leave in the first step, and a fifth to a half of them are there.
    """
    centroids = sorted_k[indices]
    return centroids if original is None else centroids + (_within_cells(original, sorted_k, indices) - centroids) / 2


def _within_cells(original: Tensor, sorted_k: Tensor, indices: Tensor) -> Tensor:
    """The original, each value moved as little as makes the centroid of its index the nearest."""
    halfway = (sorted_k[1:] + sorted_k[:-1]) / 2
    lower = torch.cat([sorted_k.new_tensor([-torch.inf]), torch.nextafter(halfway, halfway + torch.inf)])
    upper = torch.cat([halfway, sorted_k.new_tensor([torch.inf])])
    return torch.clamp(original.detach().cpu().float().contiguous(), lower[indices], upper[indices])


def train_assignments(
    model: nn.Module,
    name: str,
    codebook: Codebook,
    original: Tensor | None = None,
    *,
    together: bool = False,
    price: Price | None = None,
) -> tuple[nn.Parameter, nn.Parameter]:
    """Put a model's parameter on a codebook whose centroids and indices can be trained.

    Args:
        model: changed in place; the layer computes as if its parameter were `codebook.dense()`.
        name: of the parameter, as in `model.named_parameters()`.
        codebook: of the parameter's shape.
        original: the parameter's values before clustering, which say how near each is to another centroid.
        together: train one factor of all centroids instead of each.
        price: of a bit, shared by the tensors whose bits are held, together; None: as many as come.

    Returns:
        The centroids (k,) (the factor, (1,)) and the latents, of the parameter's shape, to hand to an optimizer.

    Raises:
        UserError: as `train_centroids`; for an original of another shape.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> codebook = Codebook(np.float32([-1, 2]), np.uint8([[1, 0]]))
    >>> centroids, latents = train_assignments(layer, "weight", codebook, torch.tensor([[1.0, 0.25]]))
    >>> layer.weight.tolist(), latents.data.add_(1)
    ([[2.0, -1.0]], tensor([[2.5000, 0.6250]]))
    >>> layer.weight.tolist()
    [[2.0, 2.0]]

    """
    if original is not None and tuple(original.shape) != codebook.shape:
        raise UserError(f"the original of {name} has shape {tuple(original.shape)}, and its codebook {codebook.shape}")
    nearest = Nearest(codebook, original, together)
    centroids, latents = put_on(model, name, codebook, nearest)
    if price is not None and price.enter(_Held(nearest, centroids, latents)):
        nearest.of_all = price
    return centroids, latents
