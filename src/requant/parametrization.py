"""A layer that stays on its codebook while its centroids are trained.

Deep compression trains centroids by the sum of their members' gradients (Han, Mao and Dally, "Deep Compression", 2016,
section 3); the mean is offered beside it, as with the sum a cluster's size sets its step.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import (
    AnyCodebook,
    GroupedCodebook,
    SplitCodebook,
    Unsplit,
    VectorCodebook,
    table_of,
    with_table,
)
from requant.codebook_trellis import TrellisCodebook
from requant.errors import UserError

Reduction = Literal["mean", "sum"]


class Centroids(nn.Module):
    """A parametrization (`torch.nn.utils.parametrize`): from centroids to the tensor of a codebook.

    What is trained is the parametrization's original, of the table's shape: (k,), (G, k) of groups, (k, d) of vectors.
    The indices are a buffer and stay, and so do the factors of groups that have them. The gradient of a centroid is the
    mean or the sum over its members, 0 for a centroid that has none, and for one of several that is 0 itself: pruned
    values stay pruned.

    Args:
        codebook: whose indices are kept.
        reduction: how the gradients of a centroid's members are put together.

    """

    places: Tensor
    divisors: Tensor
    factors: Tensor | None

    def __init__(self, codebook: Unsplit, reduction: Reduction) -> None:
        super().__init__()
        self.codebook = codebook
        places, table = _places(codebook), table_of(codebook)
        self.register_buffer("places", torch.from_numpy(places.astype(np.int32)))
        counts = np.bincount(places.reshape(-1), minlength=table.size)
        divisors = np.maximum(counts, 1.0) if reduction == "mean" else np.ones(table.size)
        if table.size > 1:
            divisors[table.reshape(-1) == 0] = np.inf
        self.register_buffer("divisors", torch.from_numpy(divisors))
        self.register_buffer("factors", _factors(codebook))

    def forward(self, table: Tensor) -> Tensor:
        """The dense tensor."""
        dense: Tensor = Gather.apply(table, self.places, self.divisors)
        return dense if self.factors is None else dense * self.factors

    def right_inverse(self, dense: Tensor) -> Tensor:
        """The centroids that training begins with: the codebook's, whatever the tensor was."""
        return torch.from_numpy(table_of(self.codebook)).to(dense, copy=True)

    def trained(self, table: Tensor) -> Unsplit:
        """The codebook of such centroids."""
        return with_table(self.codebook, table.cpu().float().numpy())


def _places(book: Unsplit) -> NDArray[np.int64]:
    """Where in the flat table each value of the tensor stands."""
    indices = book.indices.astype(np.int64)
    if isinstance(book, VectorCodebook):
        return (indices[..., None] * book.block + np.arange(book.block)).reshape(book.shape)
    if isinstance(book, GroupedCodebook) and book.scales is None:
        return indices + (np.arange(indices.size) // book.run * book.k).reshape(book.shape)
    return indices


def _factors(book: Unsplit) -> Tensor | None:
    """What the centroid of each value is multiplied with."""
    if not isinstance(book, GroupedCodebook) or book.scales is None:
        return None
    return torch.from_numpy(np.repeat(book.scales, book.run)[: book.indices.size].reshape(book.shape))


class Gather(torch.autograd.Function):
    """`table.flatten()[places]`; a centroid's gradient is its members' sum, in float64, over its divisor."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor, divisors: Tensor) -> Tensor:
        """The value at each place."""
        ctx.save_for_backward(places, divisors)
        ctx.shape = table.shape
        return table.flatten()[places]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Of the table."""
        places, divisors = ctx.saved_tensors
        members = gradients[0].double().flatten()
        sums = torch.bincount(places.flatten(), members, divisors.numel())
        return (sums / divisors).to(gradients[0].dtype).reshape(ctx.shape), None, None


def train_centroids(model: nn.Module, name: str, codebook: AnyCodebook, reduction: Reduction = "mean") -> nn.Parameter:
    """Put a model's parameter on a codebook whose centroids can be trained.

    Args:
        model: changed in place; the layer computes as if its parameter were `codebook.dense()`.
        name: of the parameter, as in `model.named_parameters()`.
        codebook: of the parameter's shape; not of split channels or of low rank.
        reduction: the gradient of a centroid is the `mean` (default) or the `sum` over its members.

    Returns:
        The centroids, (k,), (G, k) of groups or (k, d) of vectors, to hand to an optimizer.

    Raises:
        UserError: for a name that is no parameter, another shape, or a parameter that is on a codebook already.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> from requant.codebook import Codebook
    >>> codebook = Codebook(np.float32([-1, 2]), np.uint8([[1, 0]]))
    >>> centroids = train_centroids(layer, "weight", codebook)
    >>> layer.weight.tolist(), tuple(centroids.shape)
    ([[2.0, -1.0]], (2,))

    """
    if isinstance(codebook, SplitCodebook | FactoredCodebook):
        what = "split channels" if isinstance(codebook, SplitCodebook) else "factors of low rank"
        raise UserError(f"{name} has {what}, whose centroids cannot be trained: cluster it without split and rank")
    if isinstance(codebook, TrellisCodebook):
        raise UserError(f"{name} is on a trellis, whose centroids cannot be trained: set plan.trellis=false")
    (centroids,) = put_on(model, name, codebook, Centroids(codebook, reduction))
    return centroids


def put_on(model: nn.Module, name: str, codebook: AnyCodebook, parametrization: nn.Module) -> tuple[nn.Parameter, ...]:
    """Parametrize a model's parameter, which is on the codebook; returns what is trained. Errors: `train_centroids`."""
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
    return tuple(placed[leaf].parameters(recurse=False))


def trained_codebook(model: nn.Module, name: str) -> Unsplit:
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
    codebook: Unsplit = found[leaf][0].trained(*originals)
    parametrize.remove_parametrizations(layer, leaf)
    with torch.no_grad():  # of double precision the table is rounded
        layer.get_parameter(leaf).copy_(torch.from_numpy(codebook.dense()))
    return codebook


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(path), leaf
    except AttributeError as error:
        raise UserError(f"{name}: the network has no {path}") from error
