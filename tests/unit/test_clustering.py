import subprocess
import sys

import numpy as np
import pytest
import torch

from requant.clustering import METHODS, bins, cluster, kmeans
from requant.clustering.assign import assign
from requant.clustering.interval_costs import IntervalCosts
from requant.errors import UserError

NORMAL = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)


def distributions() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    normal = random.standard_normal(30_000)
    return {
        "normal": normal,
        "laplace": random.laplace(size=normal.size),
        "heavy tails": random.standard_t(2, normal.size),
        "two far clusters": np.where(random.random(normal.size) < 0.5, normal, normal + 1e6),
        "a small far cluster": np.where(random.random(normal.size) < 0.999, normal, normal + 1e4),
        "far from zero": normal * 100 + 1e6,
        "one huge value": np.append(normal, -1e30),
        "mostly zero": np.where(random.random(normal.size) < 0.9, 0, normal),
        "many scales": normal * 10.0 ** random.integers(-6, 6, normal.size),
    }


@pytest.mark.parametrize("k", [1, 2, 7, 32, 256])
def test_equal_population_holds_equal_numbers(k: int) -> None:
    book = cluster(NORMAL[:19_999], k, "equal_population")
    assert np.ptp(book.counts) <= 1
    assert book.entropy_bits == pytest.approx(np.log2(k), abs=1e-3)


def test_equal_population_is_exactly_log2_k_bits() -> None:
    distinct = np.unique(NORMAL)[:16_384]
    assert cluster(distinct, 32, "equal_population").entropy_bits == 5.0


def test_equal_values_that_a_cut_would_part_go_up() -> None:
    values = np.array([1, 2, 2, 2, 3, 4], np.float32)
    book = cluster(values, 3, "equal_population")  # runs of two: 1 2 | 2 2 | 3 4
    assert book.indices.tolist() == [0, 1, 1, 1, 2, 2]
    assert book.centroids.tolist() == [1, 2, 3.5]


def test_linear_cells_are_equally_wide_and_empty_ones_dropped() -> None:
    book = cluster(np.array([0, 0.9, 1, 3.1, 4], np.float32), 4, "linear")
    assert book.indices.tolist() == [0, 0, 1, 2, 2]
    assert book.centroids.tolist() == pytest.approx([0.45, 1, 3.55])


def test_golden_centroids() -> None:
    """Frozen: a change here changes every compressed network."""
    values = np.float32(np.arange(-50, 50) ** 3 / 1000)
    assert cluster(values, 4).centroids.tolist() == pytest.approx(GOLDEN["kmeans"], rel=1e-6)
    assert cluster(values, 4, "equal_population").centroids.tolist() == pytest.approx(
        GOLDEN["equal_population"], rel=1e-6
    )
    assert cluster(values, 4, "linear").centroids.tolist() == pytest.approx(GOLDEN["linear"], rel=1e-6)


GOLDEN = {
    "equal_population": [-60.8, -4.225, 3.6, 56.425],
    "kmeans": [-95.3225, -37.785, 4.14, 76.44],
    "linear": [-95.3225, -26.32, 9.9015, 86.504],
}


@pytest.mark.parametrize("name", distributions())
def test_kmeans_on_many_values_is_within_a_percent_of_the_optimum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = distributions()[name].astype(np.float32)
    error = cluster(values, 24).squared_error(values)
    monkeypatch.setattr("requant.clustering.kmeans.EXACT", 1 << 20)
    assert error <= 1.01 * cluster(values, 24).squared_error(values)


@pytest.mark.parametrize("name", distributions())
def test_binned_values_cluster_as_well_as_sorted_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = distributions()[name].astype(np.float32)
    errors = cluster(values, 24).squared_error(values)
    quantiles = cluster(values, 24, "equal_population")
    monkeypatch.setattr("requant.clustering.bins.SORTED_WHOLE", 1 << 14)
    monkeypatch.setattr("requant.clustering.bins.QUANTILES", 1 << 12)
    monkeypatch.setattr("requant.clustering.equal_population.SORTED_WHOLE", 1 << 14)
    monkeypatch.setattr("requant.clustering.groups.CHUNK", 1 << 12)
    assert cluster(values, 24).squared_error(values) <= 1.01 * errors
    binned = cluster(values, 24, "equal_population")
    assert (binned.indices == quantiles.indices).all()
    assert binned.centroids == pytest.approx(quantiles.centroids, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_shape_and_values_are_kept_whatever_the_input_is(method: str) -> None:
    values = NORMAL[:120].reshape(2, 3, 20)
    expected = cluster(values, 5, method)
    assert expected.shape == (2, 3, 20)
    forms = [torch.from_numpy(values), torch.nn.Parameter(torch.from_numpy(values)), values.astype(np.float64)]
    forms += [np.asfortranarray(values), torch.from_numpy(values).to(memory_format=torch.contiguous_format)]
    for form in forms:
        assert (cluster(form, 5, method).indices == expected.indices).all()
    assert (cluster(values.transpose(2, 0, 1), 5, method).indices == expected.indices.transpose(2, 0, 1)).all()


def test_half_precision_scalars_and_whole_numbers_are_taken() -> None:
    assert cluster(torch.tensor([1.5, 2.5], dtype=torch.bfloat16), 2).centroids.tolist() == [1.5, 2.5]
    assert cluster(np.float32(3), 1).dense().shape == ()
    assert cluster(np.array([1, 2, 3]), 3).centroids.tolist() == [1, 2, 3]


def test_more_centroids_than_distinct_values_are_clamped_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"fc\.bias has 2 distinct values, fewer than 4"):
        book = cluster(np.float32([1, 1, 2]), 4, name="fc.bias")
    assert book.centroids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "k", "method", "message"),
    [
        ([1.0, np.nan, np.inf], 2, "kmeans", "conv1: 2 of 3 values are NaN or infinite"),
        ([1e300], 1, "kmeans", "1 of 1 values"),
        ([], 2, "kmeans", "no values"),
        ([1.0], 0, "kmeans", "1 to 256, not 0"),
        ([1.0], 257, "kmeans", "1 to 256, not 257"),
        ([1.0], True, "kmeans", "whole number"),
        ([1.0], 2.0, "kmeans", "whole number"),
        ([1.0], 2, "kmean", "did you mean 'kmeans'"),
        ([1j], 2, "kmeans", "real numbers"),
        (["a"], 2, "kmeans", "real numbers"),
    ],
)
def test_bad_input_is_named(values: list, k: int, method: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster(values, k, method, name="conv1")


def test_assign_agrees_with_a_plain_search() -> None:
    values = np.concatenate([NORMAL, NORMAL * np.float32(1e-42), [0.0, -0.0, 3e38, -3e38]]).astype(np.float32)
    starts = np.unique(np.concatenate([[values.min()], NORMAL[:200], [0.0, 1e-45, -1e-45]]).astype(np.float32))
    assert (assign(values, starts) == np.searchsorted(starts[1:], values, side="right")).all()


def test_interval_costs_survive_a_huge_value_beside_small_ones() -> None:
    points = np.array([-1e30, 0.0, 1.0, 3.0, 1e20])
    costs = IntervalCosts(points, np.array([1.0, 2.0, 1.0, 1.0, 5.0]))
    assert costs(np.array([1]), np.array([3]))[0] == pytest.approx(6.0)  # 0 0 1 3 about their mean, 1
    assert costs(np.array([2]), np.array([2]))[0] == 0.0


def test_groups_of_the_first_guess_all_hold_something() -> None:
    summary = bins.summarize(NORMAL)
    firsts = kmeans._coarse_firsts(summary, 1000)
    assert firsts.size == 1000
    assert firsts[0] == 0
    assert (np.diff(firsts) > 0).all()


def test_torch_is_not_imported() -> None:
    code = "import sys, requant.clustering, requant.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
