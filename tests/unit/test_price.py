"""What a bit costs while indices move: where borders lie then, and the lowest price at which bits do not grow."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from requant.price import EVERY, HALVINGS, MOST, Price, borders, each, taken

centroids = st.lists(st.integers(-40, 40), min_size=2, max_size=6, unique=True).map(
    lambda values: torch.tensor(sorted(values), dtype=torch.float64)
)
shares = st.tuples(st.integers(1, 1000), *[st.integers(0, 1000)] * 5).map(torch.tensor)


@given(centroids, shares)
def test_what_costs_nothing_has_its_border_halfway(sorted_k: torch.Tensor, counts: torch.Tensor) -> None:
    found = borders(sorted_k, counts[: len(sorted_k)], 0.0)
    assert torch.equal(found, (sorted_k[1:] + sorted_k[:-1]) / 2)


@given(centroids, shares, st.floats(0, 1))
def test_on_a_border_two_neighbours_cost_the_same(sorted_k: torch.Tensor, counts: torch.Tensor, price: float) -> None:
    """Squared distance, in the square of theirs, and price x bits."""
    counts_k = counts[: len(sorted_k)]
    found, bits, reached = borders(sorted_k, counts_k, price), each(counts_k), -np.inf
    for i in range(len(sorted_k) - 1):
        gap = float(sorted_k[i + 1] - sorted_k[i])
        border = float((sorted_k[i + 1] + sorted_k[i]) / 2 + gap * price * (bits[i + 1] - bits[i]) / 2)
        costs = [(border - float(sorted_k[j])) ** 2 / gap**2 + price * float(bits[j]) for j in (i, i + 1)]
        assert costs[0] == pytest.approx(costs[1], abs=1e-9)
        reached = max(reached, border)  # of a cell that a neighbour's overtakes nothing is left
        assert float(found[i]) == pytest.approx(reached, abs=1e-9)


@given(shares)
def test_bits_are_the_entropy_of_the_shares(counts: torch.Tensor) -> None:
    share = counts[counts > 0].numpy() / float(counts.sum())
    assert float(taken(counts)) == pytest.approx(-float(counts.sum()) * float((share * np.log2(share)).sum()), abs=1e-6)


class Falling:
    """A tensor whose bits fall by as much as the price rises."""

    def __init__(self, bits: float, slope: float) -> None:
        self.bits, self.slope, self.charged, self.coded = bits, slope, -1.0, bits

    def bits_at(self, price: float) -> float:
        return self.bits - self.slope * price

    def coded_bits(self) -> float:
        return self.coded

    def charge(self, price: float) -> None:
        self.charged = price


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_price_is_the_lowest_at_which_bits_do_not_grow(first: float, second: float) -> None:
    price, tensors = Price(), (Falling(10, 8), Falling(10, 4))
    assert [price.enter(tensor) for tensor in tensors] == [True, False]
    for tensor, growth in zip(tensors, (first, second), strict=True):
        tensor.bits += growth
    price.settle(0.0)
    assert tensors[0].charged == tensors[1].charged
    assert tensors[0].charged == pytest.approx(min((first + second) / 12, MOST), abs=MOST / 2**HALVINGS)


def test_what_the_file_takes_more_for_the_same_shares_is_taken_off() -> None:
    price, tensor = Price(), Falling(10, 10)
    price.enter(tensor)
    for _ in range(EVERY):
        price.settle(0.0)
    assert (float(price.allowed), tensor.charged) == (10, 0)
    tensor.coded = 12.5  # its channels have become alike
    price.settle(0.0)
    assert float(price.allowed) == 8
    assert tensor.charged == pytest.approx(0.2, abs=1e-3)
    again = Price()
    again.load_state_dict(price.state_dict())
    assert (int(again.steps), float(again.allowed)) == (EVERY + 1, 8)


def test_what_one_tensor_saves_another_may_take() -> None:
    price, tensors = Price(), (Falling(10, 1), Falling(10, 1))
    for tensor in tensors:
        price.enter(tensor)
    tensors[0].bits, tensors[1].bits = 6, 14
    price.settle(0.0)
    assert tensors[1].charged == 0


def test_bits_that_no_price_holds_are_said_once() -> None:
    price, tensor = Price(), Falling(10, 1)
    price.enter(tensor)
    tensor.bits = 12
    with pytest.warns(UserWarning, match="more bits than before training"):
        price.settle(0.0)
    assert tensor.charged == MOST
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        price.settle(0.0)
