import pytest
from hypothesis import given
from hypothesis import strategies as st

from requant.archive.naming import folded, unfolded

NAMES = st.lists(st.text("ab.", max_size=5), max_size=8, unique=True)


@given(NAMES)
def test_names_come_back_in_their_order(names: list[str]) -> None:
    assert unfolded(folded(names)) == names


@pytest.mark.parametrize(
    ("names", "tree"),
    [
        (["0.weight", "0.bias", "1.weight"], {"0": {"weight": 0, "bias": 0}, "1": {"weight": 0}}),
        (["a.x", "b", "a.y"], None),  # in another order
        (["a", "a.b"], None),
        (["a.b", "a"], None),
        ([], {}),
    ],
)
def test_a_tree_where_it_gives_the_same(names: list[str], tree: object) -> None:
    assert folded(names) == (names if tree is None else tree)
