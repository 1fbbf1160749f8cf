"""Vectors of weights: product clustering."""

import numpy as np
import pytest
from test_codebook_forms import weights

from requant.clustering import cluster
from requant.clustering.product import default_block
from requant.codebook import Codebook
from requant.codebook_forms import VectorCodebook
from requant.errors import UserError


@pytest.mark.parametrize(
    ("shape", "block"),
    [((8, 4, 3, 3), 9), ((8, 4, 1, 1), 4), ((8, 6, 1, 1), 3), ((8, 16), 4), ((8, 7), 1), ((8, 3, 7, 7), 7),
     ((8, 1, 5, 5), 5), ((8, 4, 1, 3), 3), ((8, 2), 2)],
)  # fmt: skip
def test_the_block_follows_from_the_shape(shape: tuple[int, ...], block: int) -> None:
    assert default_block(shape) == block


@pytest.mark.parametrize("k", [1, 2, 7, 64, 300])
def test_product_gives_each_block_its_nearest_vector(k: int) -> None:
    values = weights((16, 30, 3, 3))
    book = cluster(values, k, "product")
    assert isinstance(book, VectorCodebook)
    assert (book.k, book.block, book.indices.shape) == (k, 9, (16, 30))
    assert book.indices.dtype == (np.uint8 if k <= 256 else np.uint16)
    blocks = values.reshape(-1, 9).astype(float)
    distances = ((blocks[:, None] - book.centroids[None]) ** 2).sum(-1)
    chosen = distances[np.arange(len(blocks)), book.indices.reshape(-1)]
    assert (chosen <= distances.min(1) * (1 + 1e-4) + 1e-6).all()
    assert (book.counts > 0).all()
    assert book.squared_error(values) == pytest.approx(chosen.sum(), rel=1e-6)


def test_product_is_exact_where_there_are_vectors_enough() -> None:
    values = np.tile(weights((3, 4)), (20, 6))
    with pytest.warns(UserWarning, match="3 different blocks, fewer than 16"):
        book = cluster(values, 16, "product", block=4)
    assert np.array_equal(book.dense(), values)


@pytest.mark.parametrize("scale", [1e-35, 1e-5, 1e35])
def test_product_keeps_its_quality_at_any_scale(scale: float) -> None:
    values = weights((32, 64))
    plain, scaled = (cluster(v, 16, "product") for v in (values, values * np.float32(scale)))
    assert scaled.sqnr_db(values * np.float32(scale)) == pytest.approx(plain.sqnr_db(values), abs=0.1)


def test_empty_vectors_are_repaired() -> None:
    """Two heaps of nearly equal blocks and few others: faiss alone leaves clusters without members."""
    draw = np.random.default_rng(0)
    blocks = np.concatenate([np.zeros((3000, 4)), np.ones((3000, 4)), draw.normal(size=(40, 4)) * 100])
    book = cluster(blocks.astype(np.float32), 32, "product")
    assert (book.counts > 0).all()
    assert book.k == 32


def test_product_is_repeatable_and_leaves_vectors_to_kmeans() -> None:
    values = weights((32, 64))
    first, second = (cluster(values, 32, "product").dense() for _ in range(2))
    assert np.array_equal(first, second)
    assert isinstance(cluster(values[0], 4, "product"), Codebook)
    assert isinstance(cluster(weights((8, 7)), 4, "product"), Codebook)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 5}, "block=5 does not divide the 12 values"),
        ({"block": 0}, "block=0"),
        ({"weights": np.ones((4, 12))}, "no weights"),
        ({"granularity": "channel"}, "leave granularity=channel out"),
        ({"bits": 2}, "takes block"),
    ],
)
def test_product_refuses_what_it_cannot_do(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster(weights((4, 12)), 2, "product", **settings)
    with pytest.raises(UserError, match="up to 1024"):
        cluster(weights((4, 12)), 2000, "product")
