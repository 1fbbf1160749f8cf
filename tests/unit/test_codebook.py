import numpy as np
import pytest

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
