"""The price of a bit: what keeps indices from taking more bits while training moves them.

Entropy-constrained quantization (Chou, Lookabaugh and Gray, 1989): a value takes the centroid of the least squared
distance + price x bits. The price is one for all tensors, so that each gets the bits that pay, and is found anew in
every step. A price that only followed the bits would come late: values that training pushes reach a border together.
"""

import warnings
from typing import Protocol

import torch
from torch import Tensor

MOST = 1.0
"""In squared distances between neighbouring centroids: what a bit costs at most."""
HALVINGS = 14


class Priced(Protocol):
    """A tensor whose values take their centroids at a price."""

    def bits_at(self, price: float) -> float:
        """What its indices would take."""
        ...

    def charge(self, price: float) -> None:
        """From now on."""
        ...


class Price:
    """Of all tensors that `enter`: the lowest at which they take no more bits than they do now, together."""

    def __init__(self) -> None:
        self._tensors: list[Priced] = []
        self._most = 0.0
        self._said = False

    def enter(self, tensor: Priced) -> bool:
        """One more; whether it is the first, which is to `settle` the price of all before each step."""
        self._most += tensor.bits_at(0.0)
        self._tensors.append(tensor)
        return len(self._tensors) == 1

    def settle(self) -> None:
        """Find the price and charge it."""
        price = 0.0 if self._fits(0.0) else self._lowest()
        for tensor in self._tensors:
            tensor.charge(price)

    def _lowest(self) -> float:
        low, high = 0.0, MOST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(middle) else (middle, high)
        if high == MOST and not self._said and not self._fits(MOST):
            self._said = True
            warnings.warn(
                "indices take more bits than before training even at the highest price, so the file will be larger "
                "than it was asked to be: set a lower retrain.latent_rate, or begin with retrain.start=reconstruct",
                stacklevel=2,
            )
        return high

    def _fits(self, price: float) -> bool:
        return sum(tensor.bits_at(price) for tensor in self._tensors) <= self._most


def borders(sorted_k: Tensor, counts_k: Tensor, price: Tensor | float) -> Tensor:
    """(k - 1,) where one centroid's cell ends and the next one's begins, as the bits of `counts_k` (k,) cost.

    At price 0 halfway; a centroid whose cell the next one's would overtake has none.
    """
    shift = each(counts_k).diff() * price / 2
    found = (sorted_k[1:] + sorted_k[:-1]) / 2 + shift.to(sorted_k) * sorted_k.diff()
    return found.cummax(0).values


def each(counts_k: Tensor) -> Tensor:
    """(k,) the bits of one index of each centroid, by their shares; one without values counts as half a value's."""
    counts = counts_k.double()
    return torch.log2(counts.sum() / counts.clamp(min=0.5))


def taken(counts_k: Tensor) -> Tensor:
    """The bits of all indices: their number times the entropy of their shares."""
    return (counts_k.double() * each(counts_k)).sum()
