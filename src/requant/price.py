"""The price of a bit: what keeps indices from taking more bits while training moves them.

Entropy-constrained quantization (Chou, Lookabaugh and Gray, 1989): a value takes the centroid of the least squared
distance + price x bits. The price is found by dual ascent, one for all tensors, so that each gets the bits that pay.
"""

import torch
from torch import Tensor, nn

PACE = 0.3
"""How much the price changes in a step in which indices take twice the bits that they may."""


class Price(nn.Module):
    """What a bit costs, in squared distances between neighbouring centroids: 0 while tensors take no more than before.

    Tensors `enter` with the bits that they take, whose sum is what they may take together, and `report` what they take
    from then on. The price rises while that is more, and falls to 0 while it is less. It is a buffer, as are the bits:
    a training that goes on has both.
    """

    price: Tensor
    bits_n: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.most = 0.0
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        self.register_buffer("bits_n", torch.zeros(0, dtype=torch.float64))

    def enter(self, counts_k: Tensor) -> int:
        """One tensor more, of so many values at each centroid; its place, by which it reports."""
        self.bits_n = torch.cat([self.bits_n, taken(counts_k).reshape(1).to(self.bits_n)])
        self.most = float(self.bits_n.sum())
        return len(self.bits_n) - 1

    def report(self, place: int, counts_k: Tensor) -> None:
        """What a tensor takes now; the price follows."""
        self.bits_n[place] = taken(counts_k)
        excess = self.bits_n.sum() / max(self.most, 1.0) - 1
        self.price.add_(excess, alpha=PACE / len(self.bits_n)).clamp_(min=0)

    def borders(self, sorted_k: Tensor, counts_k: Tensor) -> Tensor:
        """(k - 1,) where one centroid's cell ends and the next one's begins, as the bits of `counts_k` (k,) cost.

        At price 0 halfway; never beyond a centroid, so that a value on its centroid keeps it.
        """
        shift = (each(counts_k).diff() * self.price).clamp(-1, 1) / 2
        borders = (sorted_k[1:] + sorted_k[:-1]) / 2 + shift.to(sorted_k) * sorted_k.diff()
        return borders.cummax(0).values


def each(counts_k: Tensor) -> Tensor:
    """(k,) the bits of one index of each centroid, by their shares; one without values counts as half a value's."""
    counts = counts_k.double()
    return torch.log2(counts.sum() / counts.clamp(min=0.5))


def taken(counts_k: Tensor) -> Tensor:
    """The bits of all indices: their number times the entropy of their shares."""
    return (counts_k.double() * each(counts_k)).sum()
