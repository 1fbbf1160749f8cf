from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from requant.data.protocols import Part
from requant.data.randomness import Purpose, chosen, permutation, uniforms
from requant.errors import DataError

SEEDS = st.integers(-(2**70), 2**70)


@given(SEEDS, st.integers(0, 10**6), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_number_depends_on_its_place_alone(seed: int, epoch: int, items: list[int]) -> None:
    together = uniforms(Purpose.CROP, seed, epoch, items, 7)
    alone = [uniforms(Purpose.CROP, seed, [epoch], [item], 7)[0] for item in items]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[:, :3], uniforms(Purpose.CROP, seed, [epoch] * len(items), items, 3))
    assert together.min() >= 0
    assert together.max() < 1


@pytest.mark.parametrize("seed", [0, 1, -1, 12345])
@pytest.mark.parametrize("epoch", [0, 1, 99])
def test_numbers_are_uniform(seed: int, epoch: int) -> None:
    draws = uniforms(Purpose.CROP, seed, epoch, np.arange(20_000), 4)
    counts = np.histogram(draws, 64, (0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-4


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numbers at neighbouring places along each axis."""
    items = np.arange(50_000)

    def numbers(purpose: Purpose = Purpose.CROP, seed: int = 3, epoch: int = 5, shift: int = 0) -> np.ndarray:
        return uniforms(purpose, seed, epoch, items + shift, 2)

    base = numbers()
    return {
        "draw": (base[:, 0], base[:, 1]),
        "item": (base[:, 0], numbers(shift=1)[:, 0]),
        "epoch": (base[:, 0], numbers(epoch=6)[:, 0]),
        "seed": (base[:, 0], numbers(seed=4)[:, 0]),
        "purpose": (base[:, 0], numbers(Purpose.SHIFT)[:, 0]),
        "seed against epoch": (base[:, 0], numbers(seed=5, epoch=3)[:, 0]),
        "epoch against item": (base[:, 0], numbers(epoch=6, shift=-1)[:, 0]),
    }


@pytest.mark.parametrize("axis", list(pairs()))
def test_neighbours_are_independent(axis: str) -> None:
    first, second = pairs()[axis]
    counts = np.histogram2d(first, second, 16, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def splitmix64(seed: int, count: int) -> int:
    """The count-th number that a generator of that seed gives, in plain integers."""
    state = (seed + count * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_the_reference_gives_the_published_numbers() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64(1234567, count) for count in (1, 2, 3)] == published


@given(SEEDS, st.integers(0, 10**6), st.integers(0, 10**9))
def test_numbers_are_a_chain_of_splitmix64(seed: int, epoch: int, item: int) -> None:
    state = seed % 2**64
    for coordinate in (Purpose.SHIFT, epoch, item):
        state = splitmix64(state, coordinate + 1)
    expected = [(splitmix64(state, draw + 1) >> 11) / 2**53 for draw in range(3)]
    assert uniforms(Purpose.SHIFT, seed, epoch, [item], 3).tolist() == [expected]


@given(st.integers(0, 300), SEEDS, st.integers(0, 1000))
def test_a_permutation_holds_each_number_once(length: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(length, seed, epoch).tolist()) == list(range(length))


def test_every_number_comes_to_every_place_equally_often() -> None:
    orders = np.array([permutation(6, seed=1, epoch=epoch) for epoch in range(3000)])
    counts = [(orders[:, place] == number).sum() for place in range(6) for number in range(6)]
    assert stats.chisquare(counts).pvalue > 1e-4


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_lower_limit_chooses_the_first_of_a_higher_one(length: int, limit: int) -> None:
    many = chosen(length, limit + 1)
    assert chosen(length, limit).tolist() == many[:limit].tolist()
    assert len(set(many.tolist())) == min(limit + 1, length)
    assert chosen(length, None).tolist() == list(range(length))


@given(st.integers(2, 200), st.none() | st.integers(2, 200))
def test_a_fifth_is_held_out_and_the_others_are_seen(length: int, limit: int | None) -> None:
    every, seen, held_out = (chosen(length, limit, part).tolist() for part in get_args(Part))
    assert sorted(seen + held_out) == sorted(every)
    assert len(held_out) == max(1, len(every) // 5)
    assert held_out == chosen(length, limit, "held_out").tolist()


def test_what_is_held_out_is_not_the_end_of_the_order() -> None:
    assert chosen(500, None, "held_out").min() < 50


@pytest.mark.parametrize("part", ["seen", "held_out"])
def test_of_one_image_none_can_be_held_out(part: Part) -> None:
    with pytest.raises(DataError, match="supply more"):
        chosen(1, None, part)
