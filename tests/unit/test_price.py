"""What a bit costs while indices move: where borders lie then, and how the price follows the bits that are taken."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from requant.price import PACE, Price, each, taken

centroids = st.lists(st.integers(-40, 40), min_size=2, max_size=6, unique=True).map(
    lambda values: torch.tensor(sorted(values), dtype=torch.float64)
)
shares = st.lists(st.integers(0, 1000), min_size=6, max_size=6).map(
    lambda values: torch.tensor([1 + values[0], *values[1:]])
)


def priced(at: float) -> Price:
    price = Price()
    price.price.fill_(at)
    return price


@given(centroids, shares)
def test_what_costs_nothing_has_its_border_halfway(sorted_k: torch.Tensor, counts: torch.Tensor) -> None:
    borders = priced(0.0).borders(sorted_k, counts[: len(sorted_k)])
    assert torch.equal(borders, (sorted_k[1:] + sorted_k[:-1]) / 2)


@given(centroids, shares, st.floats(0, 1))
def test_on_a_border_two_neighbours_cost_the_same(sorted_k: torch.Tensor, counts: torch.Tensor, at: float) -> None:
    """Squared distance, in the square of theirs, and price x bits."""
    counts_k = counts[: len(sorted_k)]
    borders, bits = priced(at).borders(sorted_k, counts_k), each(counts_k)
    for i in range(len(sorted_k) - 1):
        gap = sorted_k[i + 1] - sorted_k[i]
        exact = float((sorted_k[i + 1] + sorted_k[i]) / 2 + gap * at * (bits[i + 1] - bits[i]) / 2)
        inside = min(max(exact, float(sorted_k[i])), float(sorted_k[i + 1]))
        assert float(borders[i]) == pytest.approx(inside, abs=1e-9)
        if inside == exact:
            costs = [(exact - float(sorted_k[j])) ** 2 / float(gap) ** 2 + at * float(bits[j]) for j in (i, i + 1)]
            assert costs[0] == pytest.approx(costs[1], abs=1e-9)


@given(shares)
def test_bits_are_the_entropy_of_the_shares(counts: torch.Tensor) -> None:
    share = counts[counts > 0].numpy() / float(counts.sum())
    assert float(taken(counts)) == pytest.approx(-float(counts.sum()) * float((share * np.log2(share)).sum()), abs=1e-6)


def test_the_price_rises_by_the_excess_and_falls_no_lower_than_nothing() -> None:
    price = Price()
    first, second = price.enter(torch.tensor([2, 2])), price.enter(torch.tensor([8, 0]))
    assert (first, second, price.most) == (0, 1, 4.0)
    price.report(second, torch.tensor([4, 4]))  # 8 bits more: two times as much as all may take
    assert float(price.price) == pytest.approx(PACE * 2 / 2)
    price.report(second, torch.tensor([8, 0]))
    assert float(price.price) == pytest.approx(PACE)
    price.report(first, torch.tensor([4, 0]))  # four bits less
    assert float(price.price) == pytest.approx(PACE / 2)
    for _ in range(3):
        price.report(first, torch.tensor([4, 0]))
    assert float(price.price) == 0


def test_what_one_tensor_saves_another_may_take() -> None:
    price = Price()
    first, second = price.enter(torch.tensor([4, 4])), price.enter(torch.tensor([4, 4]))
    price.report(first, torch.tensor([8, 0]))
    price.report(second, torch.tensor([2, 6]))
    assert float(price.price) == 0


def test_indices_of_one_value_take_nothing_and_may_take_nothing() -> None:
    price = Price()
    place = price.enter(torch.tensor([9, 0]))
    price.report(place, torch.tensor([9, 0]))
    assert float(price.price) == 0
    price.report(place, torch.tensor([8, 1]))
    assert 0 < float(price.price) < math.inf
