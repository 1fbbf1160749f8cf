"""Format 2: numbers of 16 bits where they hold the values exactly, and more than 256 centroids."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import CENTROIDS, network, quantize, saved
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from requant.archive import STORAGES, load, read, save, shortened
from requant.archive.halves import HALVES, exact_half, from_bits, rounded, to_bits
from requant.clustering import cluster
from requant.codebook import Codebook
from requant.errors import ArchiveError

each_half = pytest.mark.parametrize("half", HALVES)
each_storage = pytest.mark.parametrize("storage", STORAGES)
FLOATS = arrays.arrays(np.float32, 7, elements=st.floats(width=32))


@each_half
@given(FLOATS)
def test_rounding_is_torchs(half: str, values: np.ndarray) -> None:
    values = np.nan_to_num(values, nan=1.5)
    expected = torch.from_numpy(values).to(getattr(torch, half)).float().numpy()
    assert np.array_equal(from_bits(to_bits(values, half), half), expected)


@each_half
@given(arrays.arrays(np.uint16, 9))
def test_what_a_half_holds_is_found_to_be_exact(half: str, bits: np.ndarray) -> None:
    values = from_bits(bits, half)
    values = values[np.isfinite(values)]
    assert np.array_equal(to_bits(values, half), bits[np.isfinite(from_bits(bits, half))])
    found = exact_half(values)
    assert found is not None
    assert np.array_equal(rounded(values, found), values)
    assert exact_half(np.append(values, np.float32(1 + 2**-20))) is None


def test_beyond_the_range_is_refused_by_name() -> None:
    with pytest.raises(ArchiveError, match=r"0\.bias has values up to 7e\+04, beyond float16: use float32"):
        rounded(np.array([7e4], np.float32), "float16", "0.bias")


def test_what_is_infinite_already_stays_so() -> None:
    for half in HALVES:
        assert rounded(np.float32([1, -np.inf]), half).tolist() == [1, -np.inf]


@pytest.mark.parametrize(("values", "expected"), [(8, 1), (9, 2)])
def test_short_numbers_are_held_where_they_save_more_than_it_takes_to_say_so(
    values: int, expected: int, tmp_path: Path
) -> None:
    save(tmp_path / "a.h5", nn.ParameterDict({"x": nn.Parameter(torch.ones(values))}), {})
    assert version(tmp_path / "a.h5") == expected


def version(path: Path) -> int:
    return struct.unpack_from("<I", path.read_bytes(), 8)[0]


@each_storage
@pytest.mark.parametrize("k", [257, 1000, 4096])
def test_up_to_4096_centroids_come_back(storage: str, k: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(90, 90))
    values = np.random.default_rng(k).normal(size=(90, 90)).astype(np.float32)
    codebook = cluster(values, k)
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(codebook.dense()))
    report = save(tmp_path / "a.h5", model, {"0.weight": codebook}, storage=storage)
    assert version(tmp_path / "a.h5") == (5 if storage == "entropy" else 2)
    found = read(tmp_path / "a.h5").codebooks["0.weight"]
    assert np.array_equal(found.indices, codebook.indices)
    assert np.array_equal(found.centroids, codebook.centroids)
    assert torch.equal(load(tmp_path / "a.h5", nn.Sequential(nn.Linear(90, 90)))[0].weight, model[0].weight)
    if storage == "packed":
        assert report.parts["indices"] == -(-8100 * codebook.bits // 8)


@each_storage
def test_files_that_need_nothing_new_are_of_version_1(storage: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.h5", storage)
    assert version(tmp_path / "a.h5") == (5 if storage == "entropy" else 1)
    if storage != "entropy":
        golden = Path(__file__).parents[1] / "golden" / f"archive_{storage}_1.h5"
        assert (tmp_path / "a.h5").read_bytes() == golden.read_bytes()


@pytest.mark.parametrize("storage", ["packed", "entropy"])
@each_half
def test_short_numbers_take_two_bytes_and_come_back_exactly(half: str, storage: str, tmp_path: Path) -> None:
    model = nn.Sequential(*network(), nn.Linear(7, 90))
    codebooks = quantize(model, CENTROIDS)
    before = save(tmp_path / "a.h5", model, codebooks, storage=storage)
    short, books = shortened(model, codebooks, centroids=half, dense=half)
    after = save(tmp_path / "b.h5", short, books, storage=storage)
    versions = version(tmp_path / "a.h5"), version(tmp_path / "b.h5")
    assert versions == ((5, 5) if storage == "entropy" else (1, 2))
    assert after.parts["codebooks"] == before.parts["codebooks"] - 2 * 16  # those of 0.weight; the others have too few
    if storage == "packed":
        assert after.parts["dense"] == before.parts["dense"] - 2 * 90 * (7 + 1)
    assert after.parts["dense"] < before.parts["dense"]
    loaded = load(tmp_path / "b.h5", nn.Sequential(*network(1), nn.Linear(7, 90)))
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in short.state_dict().items())
    assert all(np.array_equal(read(tmp_path / "b.h5").codebooks[n].centroids, b.centroids) for n, b in books.items())


@each_half
def test_only_what_was_asked_for_is_shortened(half: str) -> None:
    model = network()
    codebooks = quantize(model, CENTROIDS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    short, books = shortened(model, codebooks, centroids=half)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    changed = {name for name, tensor in short.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(CENTROIDS)
    assert all(np.array_equal(book.indices, codebooks[name].indices) for name, book in books.items())
    assert all(np.array_equal(book.centroids, rounded(codebooks[name].centroids, half)) for name, book in books.items())
    changed = {
        name
        for name, tensor in shortened(model, codebooks, dense=half)[0].state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"1.weight", "1.bias", "3.bias"}  # not what is of another type, or exact already


def test_nothing_asked_for_is_nothing_done() -> None:
    model, codebooks = network(), {"x": Codebook(np.ones(1, np.float32), np.zeros(3, np.uint8))}
    assert shortened(model, codebooks) == (model, codebooks)
