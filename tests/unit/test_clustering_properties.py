"""Properties of every clustering method, on arrays that hypothesis makes up."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from requant.clustering import METHODS, cluster
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.optimal import optimal_firsts, optimal_firsts_of_rows
from requant.clustering.tallies import tallied
from requant.codebook import Codebook

ORDINARY = st.floats(-100, 100, width=32)
ANY = st.floats(allow_nan=False, allow_infinity=False, width=32)
REPEATED = st.sampled_from([0.0, -0.0, 1.0, 1.5, -3.0, 1e-45, 1e30, 1e6, 1e6 + 0.0625])
VALUES = arrays(np.float32, st.integers(1, 60), elements=ORDINARY | ANY | REPEATED)
K = st.integers(1, 12)
EXACT_WHERE_IT_CAN = [name for name in METHODS if name not in ("entropy", "faiss")]  # faiss has tests of its own
METHOD = st.sampled_from([*EXACT_WHERE_IT_CAN, "entropy"])
EXACT_METHOD = st.sampled_from(EXACT_WHERE_IT_CAN)
DENORMAL = 2.0**-149
quick = settings(deadline=None, max_examples=60)  # a loaded machine is no failure


def quiet_cluster(values: np.ndarray, k: int, method: str = "kmeans") -> Codebook:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cluster(values, k, method, **({"bits": np.log2(max(k, 2)) * 0.6} if method == "entropy" else {}))


@quick
@given(VALUES, K, METHOD)
def test_no_cluster_is_empty_and_centroids_rise_within_the_range(values: np.ndarray, k: int, method: str) -> None:
    book = quiet_cluster(values, k, method)
    assert 1 <= book.k <= k
    assert (np.diff(book.centroids) > 0).all()
    assert (book.counts > 0).all()
    assert values.min() <= book.centroids[0]
    assert book.centroids[-1] <= values.max()


@quick
@given(VALUES, K, METHOD)
def test_clusters_are_intervals_and_centroids_their_means(values: np.ndarray, k: int, method: str) -> None:
    book = quiet_cluster(values, k, method)
    assert (np.diff(book.indices[np.argsort(values)].astype(int)) >= 0).all()
    for position, centroid in enumerate(book.centroids):
        members = values[book.indices == position].astype(np.float64)
        assert centroid == pytest.approx(members.mean(), rel=1e-6, abs=1e-6 * np.abs(members).max() + DENORMAL)


@quick
@given(VALUES, K, METHOD)
def test_equal_values_share_a_cluster(values: np.ndarray, k: int, method: str) -> None:
    book = quiet_cluster(np.concatenate([values, values]), k, method)
    assert (book.indices[: values.size] == book.indices[values.size :]).all()


@quick
@given(VALUES, K, METHOD, st.randoms(use_true_random=False))
def test_permuting_the_values_permutes_the_indices(values: np.ndarray, k: int, method: str, random) -> None:
    order = np.array(random.sample(range(values.size), values.size))
    book, permuted = quiet_cluster(values, k, method), quiet_cluster(values[order], k, method)
    assert (book.indices[order] == permuted.indices).all()
    assert (book.centroids == permuted.centroids).all()


@quick
@given(arrays(np.float32, st.integers(1, 60), elements=st.integers(-1000, 1000)), K, METHOD, st.integers(-20, 20))
def test_a_power_of_two_scales_the_centroids_exactly(values: np.ndarray, k: int, method: str, power: int) -> None:
    book, scaled = quiet_cluster(values, k, method), quiet_cluster(np.ldexp(values, power), k, method)
    assert (np.ldexp(book.centroids, power) == scaled.centroids).all()
    assert (book.indices == scaled.indices).all()


@quick
@given(VALUES, EXACT_METHOD)
def test_as_many_centroids_as_distinct_values_are_exact(values: np.ndarray, method: str) -> None:
    distinct = np.unique(values)
    book = cluster(values, distinct.size, method)
    assert (book.dense() == values).all()
    assert (book.centroids == distinct).all()


@quick
@given(VALUES, K, EXACT_METHOD)
def test_clustering_what_is_clustered_changes_nothing(values: np.ndarray, k: int, method: str) -> None:
    once = quiet_cluster(values, k, method).dense()
    assert (quiet_cluster(once, k, method).dense() == once).all()


@quick
@given(VALUES, K)
def test_kmeans_is_never_worse_than_the_other_methods(values: np.ndarray, k: int) -> None:
    error = quiet_cluster(values, k).squared_error(values)
    others = [quiet_cluster(values, k, method).squared_error(values) for method in EXACT_WHERE_IT_CAN]
    assert error <= min(others) * (1 + 1e-6) + rounding(values)


@quick
@given(arrays(np.float32, st.integers(1, 24), elements=ORDINARY | ANY | REPEATED), st.integers(1, 6))
def test_kmeans_is_optimal_on_few_values(values: np.ndarray, k: int) -> None:
    error = quiet_cluster(values, k).squared_error(values)
    assert error <= 1.01 * least_squared_error(values, k) + rounding(values)


@quick
@given(VALUES, K)
def test_more_centroids_never_raise_the_error_of_exact(values: np.ndarray, k: int) -> None:
    fewer, more = (quiet_cluster(values, count, "exact").squared_error(values) for count in (k, k + 1))
    assert more <= fewer * (1 + 1e-6) + rounding(values)


def rounding(values: np.ndarray) -> float:
    """What rounding centroids to float32 may add to a squared error."""
    return values.size * (float(np.abs(values).max()) * 2.0**-23 + DENORMAL) ** 2


def least_squared_error(values: np.ndarray, k: int) -> float:
    """By dynamic programming over all cuts, with each interval's error from its own values."""
    ordered = np.sort(values).astype(np.float64)
    n = ordered.size
    costs = np.zeros((n + 1, n + 1))
    for first in range(n):
        for end in range(first + 1, n + 1):
            part = ordered[first:end] - ordered[first]
            costs[first, end] = ((part - part.mean()) ** 2).sum()
    best = costs[0].copy()
    for _ in range(1, k):
        best = np.array([min(best[: end + 1] + costs[: end + 1, end]) for end in range(n + 1)])
    return float(best[n])


@quick
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-100, 100)), K)
def test_looking_at_all_cuts_costs_what_divide_and_conquer_costs(points: np.ndarray, k: int) -> None:
    points, k = np.sort(points), min(k, points.size)
    costs = IntervalCosts(points, np.ones(points.size))
    found = (
        optimal_firsts(costs, points.size, k),
        optimal_firsts_of_rows(costs, points.size, np.array([points.size]), k)[0],
    )
    totals = [costs(firsts, np.append(firsts[1:], points.size) - 1).sum() for firsts in found]
    assert totals[0] == pytest.approx(totals[1], rel=1e-9, abs=1e-12)
    assert (np.diff(found[0]) > 0).all()


@pytest.mark.parametrize("few", [0, 1000])
@quick
@given(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.intp]),
    st.lists(st.tuples(st.integers(0, 99), st.floats(-1e6, 1e6))),
)
def test_tallies_are_those_of_numpy(few: int, kind: type, rows: list[tuple[int, float]]) -> None:
    numbers, weights = np.array([n for n, _ in rows], kind), np.array([w for _, w in rows])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("requant.clustering.tallies.FEW", few)
        counts, sums = tallied(numbers, 100), tallied(numbers, 100, weights)
    assert (counts == np.bincount(numbers, minlength=100)).all()
    assert (sums == np.bincount(numbers, weights, 100)).all()
