"""The price of a bit: what keeps indices from taking more bits while training moves them.

Entropy-constrained quantization (Chou, Lookabaugh and Gray, 1989): a value takes the centroid of the least squared
distance + price x bits. The price is one for all tensors, so that each gets the bits that pay, and is found anew in
every step. A price that only followed the bits would come late: values that training pushes reach a border together.
"""

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

MOST = 1.0
"""In squared distances between neighbouring centroids: what a bit costs at most."""
HALVINGS = 14
EVERY = 32
"""Steps after which it is counted as in a file, which takes about as long as one of them."""


class Priced(Protocol):
    """A tensor whose values take their centroids at a price."""

    def bits_at(self, price: float) -> float:
        """What its indices would take by their shares."""
        ...

    def coded_bits(self) -> float:
        """What they take in a file, at the price that is charged."""
        ...

    def charge(self, price: float) -> None:
        """From now on."""
        ...


class Price(nn.Module):
    """Of all tensors that `enter`: the lowest at which they take no more bits in a file than they do then, together.

    In every step they are counted by the shares of the indices. The file's coder knows channels too, which training
    makes more alike, so that it needs more for the same shares: how many they may be is found anew every `EVERY` steps.

    Attributes:
        steps: that were settled (buffers, so that a resumed training goes on to the same bits).
        allowed: bits by the shares.

    """

    steps: Tensor
    allowed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("allowed", torch.zeros((), dtype=torch.float64))
        self._tensors: list[Priced] = []
        self._coded = 0.0
        self._said = False

    def enter(self, tensor: Priced) -> bool:
        """One more; whether it is the first, which is to `settle` the price of all before each step."""
        self._coded += tensor.coded_bits()
        self.allowed += tensor.bits_at(0.0)
        self._tensors.append(tensor)
        return len(self._tensors) == 1

    def settle(self, charged: float) -> None:
        """Find the price and charge it in the place of the one that is."""
        if self.steps > 0 and self.steps % EVERY == 0:
            coded = sum(tensor.coded_bits() for tensor in self._tensors)
            self.allowed.fill_(self._bits_at(charged) * self._coded / coded)
        self.steps += 1
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
        return self._bits_at(price) <= float(self.allowed)

    def _bits_at(self, price: float) -> float:
        return sum(tensor.bits_at(price) for tensor in self._tensors)


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
