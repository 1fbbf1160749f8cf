"""Storage `entropy`: exact round trips by every model, sizes near the entropy, weights that are the same everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from torch import nn

from requant.archive import read, save
from requant.archive.coder import decode, encode
from requant.archive.fitting import best_model, counts_by_channel
from requant.archive.probabilities import SMOOTH, TABLE, UNIFORM, Model, exp2, from_bytes, quantized_shares
from requant.clustering import cluster
from requant.codebook import Codebook, index_dtype
from requant.errors import ArchiveError

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=7)


@st.composite
def codebooks(draw: st.DrawFn) -> Codebook:
    k = draw(st.sampled_from([1, 2, 3, 16, 256, 300]))
    values = draw(arrays.arrays(np.int64, draw(SHAPES), elements=st.integers(0, k - 1)))
    points = draw(st.lists(st.floats(-10, 10, width=32), min_size=k, max_size=k))
    return Codebook(np.sort(np.array(points, np.float32)) + np.float32(0), values.astype(index_dtype(k)))


@given(codebooks())
def test_the_model_that_is_chosen_codes_any_indices(codebook: Codebook) -> None:
    model = best_model(codebook)
    stored, rest = from_bytes(model.to_bytes() + b"more", codebook.shape, codebook.k)
    assert rest == b"more"
    if codebook.k > 1:
        words = encode(codebook.indices, model, codebook.centroids)
        assert np.array_equal(decode(words, stored, codebook.centroids, codebook.shape), codebook.indices)


@given(codebooks(), st.sampled_from([UNIFORM, SMOOTH, TABLE]), st.data())
@settings(max_examples=50)
def test_every_model_codes_any_indices(codebook: Codebook, base: int, data: st.DataObject) -> None:
    if codebook.k == 1:
        return
    axis = data.draw(st.integers(0, len(codebook.shape) - 1))
    number = data.draw(st.integers(1, 4))
    factors = st.floats(-500, 500, width=32)
    channels = codebook.shape[axis]
    model = Model(
        base,
        axis,
        data.draw(arrays.arrays(np.uint8, channels, elements=st.integers(0, number - 1)))
        if number > 1
        else np.zeros(channels, np.uint8),
        data.draw(arrays.arrays(np.float32, (number, 2), elements=factors))
        if number > 1
        else np.zeros((1, 2), np.float32),
        data.draw(arrays.arrays(np.float32, 7 if base == SMOOTH else 0, elements=factors)),
        quantized_shares(codebook.counts) if base == TABLE else np.empty(0, np.uint8),
    )
    stored, _ = from_bytes(model.to_bytes(), codebook.shape, codebook.k)
    words = encode(codebook.indices, model, codebook.centroids)
    assert np.array_equal(decode(words, stored, codebook.centroids, codebook.shape), codebook.indices)


@given(st.floats(-60, 60))
def test_our_exp2_is_exp2(x: float) -> None:
    assert exp2(np.array([x]))[0] == pytest.approx(2.0**x, rel=1e-14)


def test_weights_are_the_same_bits_on_every_machine() -> None:
    """Golden: a decoder whose weights differ in the last bit may read another network."""
    found = exp2(np.array([-60.0, -1.7, -0.3, 0.0, 0.1, 3.9, 1e9]))
    assert [value.hex() for value in found.tolist()] == [
        "0x1.0000000000000p-60",
        "0x1.3b2c47bff8329p-2",
        "0x1.9fdf8bcce533ep-1",
        "0x1.0000000000000p+0",
        "0x1.125fbee250664p+0",
        "0x1.ddb680117ab12p+3",
        "0x1.0000000000000p+60",
    ]


def laplace(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).laplace(size=n).astype(np.float32)


def bits(codebook: Codebook) -> float:
    """Of the coded indices and their model, a value."""
    model = best_model(codebook)
    words = encode(codebook.indices, model, codebook.centroids)
    return 8 * (words.nbytes + len(model.to_bytes())) / codebook.indices.size


@pytest.mark.parametrize("method", ["kmeans", "linear", "equal_population"])
@pytest.mark.parametrize(("k", "n"), [(2, 10_000), (16, 10_000), (64, 10_000), (256, 40_000)])
def test_indices_take_little_more_than_their_entropy(method: str, k: int, n: int) -> None:
    codebook = cluster(laplace(n), k, method)
    assert n * bits(codebook) / 8 <= 1.003 * n * codebook.entropy_bits / 8 + 48  # bytes


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_of_different_scale_take_less_than_the_entropy(axis: int) -> None:
    scales = np.exp(np.random.default_rng(1).normal(size=64)).astype(np.float32)
    values = laplace(64 * 64 * 9).reshape(64, 64, 3, 3) * np.expand_dims(scales, [i for i in range(4) if i != axis])
    codebook = cluster(values, 16)
    assert bits(codebook) < 0.92 * codebook.entropy_bits
    counts = counts_by_channel(codebook, axis)
    assert counts.sum(1).tolist() == [64 * 9] * 64
    assert np.array_equal(counts.sum(0), codebook.counts)


def test_equal_centroid_tables_are_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    codebook = cluster(laplace(64).reshape(8, 8), 16)
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.from_numpy(codebook.dense()))
    report = save(tmp_path / "a.h5", model, {"0.weight": codebook, "1.weight": codebook}, storage="entropy")
    assert report.parts["codebooks"] == 64
    found = read(tmp_path / "a.h5").codebooks
    assert all(np.array_equal(c.dense(), codebook.dense()) for c in found.values())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([3, 1, 0, 0]),  # no such base
        bytes([0, 0, 0, 0]),  # no class
        bytes([0, 17, 0, 0]),  # too many
        bytes([0, 1, 2, 0]),  # no such axis
        bytes([2, 1, 0, 0, 0, 0]),  # nothing has a share
        bytes([0, 2, 0, 0]) + np.full(4, np.nan, "<f4").tobytes() + bytes(4),
        bytes([0, 2, 0, 0]) + bytes(16) + bytes([0, 2, 0, 0]),  # a channel of class 2 of 2
    ],
)
def test_models_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        from_bytes(data, (4, 3), 2)
