import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from requant.clustering import METHODS, bins, cluster, starts
from requant.clustering.assign import assign
from requant.clustering.cells import even_bins
from requant.clustering.grid import make_grid
from requant.clustering.interval_costs import IntervalCosts
from requant.clustering.search import Search
from requant.codebook import Codebook
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
def test_kmeans_on_distinct_values_is_within_a_percent_of_the_optimum(name: str) -> None:
    values = distributions()[name].astype(np.float32)
    for k in (24, 100):
        assert cluster(values, k).squared_error(values) <= 1.01 * cluster(values, k, "exact").squared_error(values)


@pytest.fixture
def few_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with millions of values, done with thousands."""
    for module in ("bins", "exact", "solving"):
        monkeypatch.setattr(f"requant.clustering.{module}.DISTINCT", 1 << 10)
    monkeypatch.setattr("requant.clustering.parallel.CHUNK", 1 << 12)


@pytest.mark.parametrize("name", distributions())
def test_binned_values_cluster_as_well_as_distinct_ones(name: str, request: pytest.FixtureRequest) -> None:
    values = distributions()[name].astype(np.float32)
    error = cluster(values, 24, "exact").squared_error(values)
    quantiles = cluster(values, 24, "equal_population")
    request.getfixturevalue("few_bins")
    assert cluster(values, 24).squared_error(values) <= 1.01 * error
    assert cluster(values, 24, "exact").squared_error(values) <= 1.005 * error
    binned = cluster(values, 24, "equal_population")
    assert (binned.indices == quantiles.indices).all()
    assert binned.centroids == pytest.approx(quantiles.centroids, rel=1e-5)


@pytest.mark.usefixtures("few_bins")
@pytest.mark.parametrize("method", ["kmeans", "equal_population", "linear", "entropy"])
def test_neither_order_nor_threads_change_the_clusters(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = distributions()["laplace"].astype(np.float32)
    order = np.random.default_rng(2).permutation(values.size)
    options = {"bits": 3.0} if method == "entropy" else {}
    expected = cluster(values, 20, method, **options)
    assert (cluster(values[order], 20, method, **options).indices == expected.indices[order]).all()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threaded = cluster(values, 20, method, **options)
    assert (threaded.indices == expected.indices).all()
    assert (threaded.centroids == expected.centroids).all()


@pytest.mark.parametrize("binned", [False, True])
@pytest.mark.parametrize("method", ["kmeans", "exact", "equal_population", "linear"])
def test_a_weight_of_three_is_as_good_as_three_values(
    method: str, binned: bool, request: pytest.FixtureRequest
) -> None:
    if binned:
        request.getfixturevalue("few_bins")
    values, times = NORMAL[:5000], np.random.default_rng(3).integers(0, 4, 5000)
    times[values == values.min()] = 1  # values below all that count may be of any cluster
    weighted = cluster(values, 10, method, weights=times * 0.5)
    repeated = cluster(np.repeat(values, times), 10, method)
    if binned and method == "kmeans":  # bins of values and bins of their weights lie elsewhere
        found, expected = (np.repeat(weighted.dense(), times), repeated.dense())
        errors = [float(np.square(clustered - np.repeat(values, times)).sum()) for clustered in (found, expected)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-3)
        assert (np.repeat(weighted.indices, times) == repeated.indices).mean() > 0.99
        return
    assert weighted.centroids == pytest.approx(repeated.centroids, rel=1e-5)
    assert (np.repeat(weighted.indices, times) == repeated.indices).mean() > 0.999


def test_values_of_no_weight_are_placed_but_have_no_say() -> None:
    values = np.float32([-9, 1, 2, 5, 10, 11, 99])
    book = cluster(values, 2, weights=[0, 1, 1, 0, 1, 1, 0])
    assert book.centroids.tolist() == [1.5, 10.5]
    assert book.indices.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert cluster(values, 3, "linear", weights=[0, 1, 1, 0, 1, 1, 0]).centroids.tolist() == [1.5, 10.5]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"weights of shape \(2,\) for values of shape \(3,\)"),
        ([1.0, -1.0, 1.0], "not negative"),
        ([1.0, -1e-9, 1.0], "not negative"),
        ([1.0, np.nan, 1.0], "finite"),
        ([0.0, 0.0, 0.0], "all weights are 0"),
    ],
)
def test_bad_weights_are_named(weights: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster(np.float32([1, 2, 3]), 2, weights=weights)


@pytest.mark.parametrize("bits", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("name", ["normal", "laplace", "heavy tails"])
def test_entropy_meets_its_bits_with_less_error_than_equal_cells(name: str, bits: float) -> None:
    values = distributions()[name].astype(np.float32)
    book = cluster(values, 256, "entropy", bits=bits)
    assert book.entropy_bits == pytest.approx(bits, abs=0.02)
    assert book.squared_error(values) <= 1.02 * error_of_equal_cells(values, book.entropy_bits)


def error_of_equal_cells(values: np.ndarray, bits: float) -> float:
    """Of cells so wide that their entropy is `bits`, each replaced by its mean."""
    low, high = 1e-4, 1e4
    for _ in range(60):
        width = np.sqrt(low * high)
        _, cells, counts = np.unique(np.rint(values / width), return_inverse=True, return_counts=True)
        share = counts / values.size
        low, high = (width, high) if -(share * np.log2(share)).sum() > bits else (low, width)
    means = np.bincount(cells, values) / counts
    return float(((values - means[cells]) ** 2).sum())


@pytest.mark.parametrize("price", [0.0, 1e-3, 0.1, 10.0])
def test_entropy_at_a_price_is_a_fixed_point_that_no_method_beats(price: float) -> None:
    def total(book: Codebook) -> float:
        return book.squared_error(NORMAL) + price * NORMAL.size * book.entropy_bits

    book = cluster(NORMAL, 64, "entropy", lmbda=price)
    share = book.counts / NORMAL.size
    costs = (NORMAL[:500, None] - book.centroids) ** 2 - price * np.log2(share)
    assert (costs.argmin(axis=1) == book.indices[:500]).mean() > 0.995  # ties and rounding at the cuts
    others = [cluster(NORMAL, k, method) for k in (1, 8, 64) for method in ("kmeans", "linear", "equal_population")]
    assert total(book) <= min(map(total, others)) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("entropy", {}, "needs either bits"),
        ("entropy", {"bits": 2.0, "lmbda": 1.0}, "needs either bits"),
        ("entropy", {"bits": 3.5}, "8 centroids give up to 3"),
        ("entropy", {"bits": 0.0}, "above 0"),
        ("entropy", {"lmbda": -1.0}, "from 0"),
        ("entropy", {"lmbda": np.nan}, "from 0"),
        ("entropy", {"lmbda": np.inf}, "from 0"),
        ("kmeans", {"bits": 2.0}, "kmeans takes no options, not 'bits'"),
        ("linear", {"bits": 2.0}, "linear takes centroid, not 'bits'"),
        ("linear", {"centroid": "median"}, "mean or middle"),
    ],
)
def test_bad_options_are_named(method: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster(NORMAL[:100], 8, method, **options)


def test_as_many_bits_as_the_centroids_give_can_be_asked_for() -> None:
    values = np.repeat(np.arange(8, dtype=np.float32), 10)
    book = cluster(values, 8, "entropy", bits=3.0)
    assert (book.entropy_bits, book.squared_error(values)) == (3.0, 0.0)


def test_linear_centroids_can_be_the_middles_of_the_cells() -> None:
    book = cluster(np.array([0, 0.9, 1, 3.1, 4], np.float32), 4, "linear", centroid="middle")
    assert book.centroids.tolist() == [0.5, 1.5, 3.5]


def test_exact_refuses_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requant.clustering.exact.MOST_CUTS", 10_000)
    with pytest.raises(UserError, match=r"20,000 points around 9 centroids.*kmeans"):
        cluster(np.unique(np.random.default_rng(0).random(25_000, np.float32))[:20_000], 9, "exact")


def test_faiss_gives_a_clustering_that_kmeans_beats() -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra faiss)")
    book = cluster(NORMAL, 16, "faiss")
    assert 14 <= book.k <= 16
    assert cluster(NORMAL, 16).squared_error(NORMAL) <= book.squared_error(NORMAL) <= NORMAL.size * 0.02
    assert (cluster(NORMAL, 16, "faiss").indices == book.indices).all()


def test_without_faiss_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"requant\[faiss\]"):
        cluster(NORMAL, 16, "faiss")


def test_more_than_256_centroids_have_two_byte_indices() -> None:
    book = cluster(NORMAL, 1000)
    assert book.k == 1000
    assert book.indices.dtype == np.uint16
    assert book.squared_error(NORMAL) < cluster(NORMAL, 256).squared_error(NORMAL) / 8


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("entropy", "faiss", "product")])
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
        ([1.0], 0, "kmeans", "1 to 4096, not 0"),
        ([1.0], 4097, "kmeans", "1 to 4096, not 4097"),
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


@pytest.mark.parametrize("bounds", [1, 3, 200, 255, 256, 5000])
def test_assign_agrees_with_a_plain_search(bounds: int) -> None:
    values = np.concatenate([NORMAL, NORMAL * np.float32(1e-42), [0.0, -0.0, 3e38, -3e38]]).astype(np.float32)
    cuts = np.concatenate([[values.min(), 0.0, 1e-45, -1e-45], NORMAL[:bounds]])
    starts = np.unique(cuts.astype(np.float32))[: bounds + 1]
    indices, members = assign(values, starts)
    expected = np.searchsorted(starts[1:], values, side="right")
    assert (indices == expected).all()
    assert (members.counts == np.bincount(expected, minlength=starts.size)).all()
    assert members.sums == pytest.approx(np.bincount(expected, values, starts.size))


def test_a_grid_finds_the_interval_of_each_value() -> None:
    values = np.concatenate([NORMAL, NORMAL * np.float32(1e-41), [0.0, -0.0, 3e38]]).astype(np.float32)
    found = make_grid(values, None, 1000)
    numbers = found.numbers(values)
    assert (found.lows[numbers] <= values).all()
    assert (values <= found.highs[numbers]).all()
    assert (found.highs[found.order][:-1] <= found.lows[found.order][1:]).all()  # -0 and 0 are equal
    assert found.totals(values, None).sum() == values.size
    chosen = np.zeros(found.lows.size, bool)
    chosen[numbers[:5]] = True
    assert (found.members(values, chosen) == np.flatnonzero(np.isin(numbers, numbers[:5]))).all()


@pytest.mark.parametrize("offset", [0.0, 5.0, -1e4])
def test_even_bins_hold_what_they_say(offset: float) -> None:
    values = (NORMAL + np.float32(offset)).astype(np.float32)
    found = even_bins(values, 24, 500, 1e-2)
    assert found is not None
    assert found.size <= 500
    assert found.starts[0] == values.min()
    assert (np.diff(found.starts) > 0).all()
    places = np.searchsorted(found.starts, values, side="right") - 1
    assert (np.bincount(places) == found.mass).all()
    assert (np.abs(values - found.points[places]) <= found.radius[places] * (1 + 1e-3) + 1e-7 * np.abs(values)).all()


@pytest.mark.parametrize("far", [1e6, 3e38])
def test_there_are_no_even_bins_beside_an_outlier_and_none_outside_float32(far: float) -> None:
    assert even_bins(np.append(NORMAL, [-far, far]).astype(np.float32), 24, 500, 1e-2) is None
    assert even_bins(NORMAL * np.float32(1e-42), 24, 500, 1e-2) is None


def test_interval_costs_survive_a_huge_value_beside_small_ones() -> None:
    points = np.array([-1e30, 0.0, 1.0, 3.0, 1e20])
    costs = IntervalCosts(points, np.array([1.0, 2.0, 1.0, 1.0, 5.0]))
    assert costs(np.array([1]), np.array([3]))[0] == pytest.approx(6.0)  # 0 0 1 3 about their mean, 1
    assert costs(np.array([2]), np.array([2]))[0] == 0.0


@pytest.mark.parametrize("first", [starts.split_firsts, starts.density_firsts])
@pytest.mark.parametrize("name", distributions())
def test_clusters_of_the_first_guess_all_hold_something(first: Callable, name: str) -> None:
    summary = bins.distinct_bins(distributions()[name].astype(np.float32), None)
    for k in (1, 2, 1000, summary.size - 1, summary.size):
        firsts = first(summary, k)
        assert firsts.size == k
        assert firsts[0] == 0
        assert (np.diff(firsts) > 0).all()
        assert firsts[-1] < summary.size


def test_torch_is_not_imported() -> None:
    code = "import sys, requant.clustering, requant.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BOUNDS = {
    "even": np.linspace(-1, 1, 300),
    "crowded": np.append(np.linspace(0, 1e-6, 200), [1.0, 1e30]),
    "one": np.array([0.5]),
    "none": np.empty(0),
    "zero": np.array([0.0, 1e-45, 1.0]),
    "huge": np.array([-3e38, 0.0, 3e38]),
    "neighbours": np.nextafter(np.float32(1), np.float32([0, 2])),
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_search_finds_what_bisection_finds(bounds: np.ndarray) -> None:
    bounds = np.sort(bounds.astype(np.float32))
    draw = np.random.default_rng(0)
    near = (np.nextafter(bounds, np.float32(side)) for side in (-np.inf, np.inf))
    ends = np.float32([-3.4e38, 3.4e38, 0.0, -0.0, 1e-45, -1e-45])
    any_bits = draw.integers(0, 2**32, 5000, np.uint32).view(np.float32)
    any_bits = any_bits[np.isfinite(any_bits)]
    values = np.concatenate([bounds, *near, ends, draw.normal(size=5000).astype(np.float32), any_bits])
    values = values[np.isfinite(values)]
    assert np.array_equal(Search(bounds)(values), np.searchsorted(bounds, values, side="right"))


def test_tensors_of_other_layouts_are_clustered_by_their_values() -> None:
    sparse = torch.eye(3).to_sparse()
    assert np.array_equal(cluster(sparse, 2).dense(), np.eye(3, dtype=np.float32))
    conjugate = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert conjugate.is_neg()
    assert cluster(conjugate, 2).dense().tolist() == [-2, -4]
