from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from requant.clustering import cluster
from requant.codebook import Codebook


def codebook(k: int, shape: tuple[int, ...]) -> Codebook:
    indices = np.random.default_rng(0).integers(0, k, shape).astype(np.uint8)
    return Codebook(np.linspace(-1, 1, k).astype(np.float32), indices)


def test_dense_replaces_each_index_by_its_centroid() -> None:
    book = Codebook(np.array([-1, 0.5], np.float32), np.array([[0, 1], [1, 1]], np.uint8))
    assert book.dense().tolist() == [[-1, 0.5], [0.5, 0.5]]
    assert (book.shape, book.k, book.dense().dtype) == ((2, 2), 2, np.float32)


@pytest.mark.parametrize(("k", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (32, 5), (255, 8), (256, 8)])
def test_bits_is_the_logarithm_rounded_up(k: int, bits: int) -> None:
    assert codebook(k, (3,)).bits == bits


def test_entropy_of_even_uneven_and_single_clusters() -> None:
    centroids = np.arange(4, dtype=np.float32)
    assert Codebook(centroids, np.arange(4, dtype=np.uint8)).entropy_bits == 2.0
    assert Codebook(centroids, np.array([0, 0, 0, 1], np.uint8)).entropy_bits == pytest.approx(0.8112781)
    assert Codebook(centroids, np.zeros(5, np.uint8)).entropy_bits == 0.0


def test_squared_error_is_summed_in_float64_over_all_parts() -> None:
    book = codebook(8, (700, 800))
    values = np.random.default_rng(1).normal(size=book.shape).astype(np.float32)
    expected = ((values.astype(float) - book.dense()) ** 2).sum()
    assert book.squared_error(values) == pytest.approx(expected, rel=1e-12)
    assert book.squared_error(book.dense()) == 0.0


def test_scalars_and_empty_tensors_keep_their_shape() -> None:
    for shape in ((), (0,), (3, 0)):
        assert codebook(1, shape).dense().shape == shape


@pytest.mark.parametrize(
    ("centroids", "indices", "message"),
    [
        (np.zeros(2), np.zeros(2, np.uint8), "float32"),
        (np.zeros((1, 2), np.float32), np.zeros(2, np.uint8), "shape"),
        (np.zeros(0, np.float32), np.zeros(0, np.uint8), "shape"),
        (np.array([1, 0], np.float32), np.zeros(2, np.uint8), "sorted"),
        (np.array([0, np.nan], np.float32), np.zeros(2, np.uint8), "finite"),
        (np.zeros(2, np.float32), np.zeros(2, np.int64), "uint8"),
        (np.zeros(257, np.float32), np.zeros(2, np.uint8), "uint16"),
        (np.zeros(2, np.float32), np.full(2, 2, np.uint8), "beyond"),
    ],
)
def test_malformed_codebooks_are_refused(centroids: np.ndarray, indices: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codebook(centroids, indices)


def test_squared_error_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        codebook(2, (2, 3)).squared_error(np.zeros((3, 2)))


def test_sqnr_is_ten_decibels_for_a_tenth_of_the_power() -> None:
    book = Codebook(np.array([0.0], np.float32), np.zeros(2, np.uint8))
    assert book.sqnr_db(np.float32([3, 4])) == 0.0
    values = np.float32([1, 1.5])
    halves = Codebook(np.array([1, 1.25], np.float32), np.array([0, 1], np.uint8))
    assert halves.sqnr_db(values) == pytest.approx(10 * np.log10(3.25 / 0.0625))
    assert halves.sqnr_db(halves.dense()) == np.inf


def test_every_bit_is_worth_six_decibels() -> None:
    values = np.random.default_rng(0).random(100_000, np.float32) - np.float32(0.5)
    sqnr = [cluster(values, k).sqnr_db(values) for k in (16, 32)]
    assert sqnr[0] == pytest.approx(20 * np.log10(16), abs=0.1)  # uniform values: k squared
    assert sqnr[1] - sqnr[0] == pytest.approx(20 * np.log10(2), abs=0.1)


ANY_ORDER = arrays(np.float32, st.integers(1, 300), elements=st.floats(-10, 10, width=32))


@settings(deadline=None)
@given(ANY_ORDER, st.randoms(use_true_random=False))
def test_centroids_in_any_order_become_a_codebook_of_the_same_tensor(centroids: np.ndarray, random: Random) -> None:
    indices = np.array([random.randrange(centroids.size) for _ in range(40)])
    assert (Codebook.from_unsorted(centroids, indices).dense() == centroids[indices]).all()
