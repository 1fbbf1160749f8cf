"""Storage `entropy`: exact round trips by every model, sizes near the entropy or below, the same on every machine."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import many_centroids
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from torch import nn

from requant.archive import ans, read, save
from requant.archive.entropy import _parts
from requant.archive.fitting import best_model, coded_bits
from requant.archive.levels import AXES, Levels, Model, axes_of, contexts, from_bytes
from requant.archive.probabilities import SMOOTH, TABLE, TERMS, UNIFORM, exp2, quantized_shares
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


def stored(tensors: dict[str, Codebook], folder: Path) -> dict[str, Codebook]:
    """From a file."""
    model = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(book.dense())) for name, book in tensors.items()})
    save(folder / "a.h5", model, tensors, storage="entropy")
    return read(folder / "a.h5").codebooks


def test_levels_that_all_lie_above_the_middle_come_back(tmp_path: Path) -> None:
    indices = np.zeros((2, 2, 3), np.uint8)
    indices[0, 0, 0] = indices[0, 1, 1] = 1
    book = Codebook(np.array([-1] + 15 * [0], np.float32), indices)
    assert np.array_equal(stored({"w": book}, tmp_path)["w"].dense(), book.dense())


def test_indices_that_differ_by_next_to_nothing_come_back(tmp_path: Path) -> None:
    """Beside a centroid that none has; levels would have to be infinitely far apart to tell them."""
    book = Codebook(np.array([-9, 0, 1e-42], np.float32), np.array([[1, 2, 2], [2, 1, 1]], np.uint8))
    found = stored({"w": book}, tmp_path)["w"]
    assert np.array_equal(found.indices, book.indices)


@pytest.mark.parametrize("lanes", [1, 3, 700])
def test_files_have_as_many_lanes_as_they_say(lanes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One carries dense values, three do, 700 could more than there are."""
    model, books = many_centroids()
    monkeypatch.setattr(ans, "lanes_for", lambda *_: lanes)
    save(tmp_path / "a.h5", model, books, storage="entropy")
    monkeypatch.undo()
    found = read(tmp_path / "a.h5")
    assert all(np.array_equal(found.codebooks[name].indices, book.indices) for name, book in books.items())
    assert np.array_equal(found.dense["1.bias"], model[1].bias.detach().numpy())


@given(st.lists(codebooks(), max_size=3))
@settings(max_examples=60)
def test_any_codebooks_come_back(tmp_path_factory: pytest.TempPathFactory, books: list[Codebook]) -> None:
    tensors = {str(i): book for i, book in enumerate(books)}
    found = stored(tensors, tmp_path_factory.mktemp("any"))
    for name, book in tensors.items():
        assert np.array_equal(found[name].indices, book.indices)
        assert np.array_equal(found[name].centroids, book.centroids)


@given(codebooks(), st.sampled_from([UNIFORM, SMOOTH, TABLE]), st.data())
def test_models_come_back_and_give_every_index_a_frequency(codebook: Codebook, base: int, data: st.DataObject) -> None:
    factors = st.floats(-500, 500, width=16)
    counts = arrays.arrays(np.uint8, data.draw(st.integers(1, 16)), elements=st.integers(1, 255))
    model = Model(
        base,
        data.draw(arrays.arrays(np.float16, TERMS if base == SMOOTH else 0, elements=factors)),
        quantized_shares(codebook.counts) if base == TABLE else np.empty(0, np.uint8),
        middle=data.draw(st.integers(0, 45)),
        step=float(np.float32(data.draw(st.floats(-(2.0**99), 2.0**99, width=32)))),
        shares=tuple(data.draw(counts) if data.draw(st.booleans()) else np.empty(0, np.uint8) for _ in range(AXES)),
    )
    back, rest = from_bytes(model.to_bytes() + b"more", codebook.k)
    assert rest == b"more"
    assert back.to_bytes() == model.to_bytes()
    found = back.frequencies(codebook.centroids)
    assert found.shape == (model.sums, codebook.k)
    assert (found[:, codebook.counts > 0] > 0).all()
    has = any(found.size for found in model.shares)
    assert not has or np.array_equal(found, model.frequencies(codebook.centroids))


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


def size(codebook: Codebook, folder: Path) -> int:
    """Bytes of a file's indices, models included."""
    model = nn.ParameterDict({"x": nn.Parameter(torch.from_numpy(codebook.dense()))})
    return save(folder / "a.h5", model, {"x": codebook}, storage="entropy").parts["indices"]


@pytest.mark.parametrize("method", ["kmeans", "linear", "equal_population"])
@pytest.mark.parametrize(("k", "n"), [(2, 10_000), (16, 10_000), (64, 10_000), (256, 40_000)])
def test_indices_take_little_more_than_their_entropy(method: str, k: int, n: int, tmp_path: Path) -> None:
    codebook = cluster(laplace(n), k, method)
    assert size(codebook, tmp_path) <= 1.003 * n * codebook.entropy_bits / 8 + 48


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_of_different_scale_take_less_than_the_entropy(axis: int, tmp_path: Path) -> None:
    shape = (64, 64, 9) if axis < 2 else (9, 16, 256)
    scales = np.exp(np.random.default_rng(1).normal(size=shape[axis])).astype(np.float32)
    spread = np.expand_dims(scales, [other for other in range(3) if other != axis])
    codebook = cluster(laplace(64 * 64 * 9).reshape(shape) * spread, 16)
    _, levels = best_model(codebook)
    assert [np.unique(found).size > 1 for found in levels] == [axis == other for other in range(3)]
    assert np.corrcoef(levels[axis], np.log(scales))[0, 1] > 0.8
    assert size(codebook, tmp_path) < 0.95 * codebook.indices.size * codebook.entropy_bits / 8


def test_levels_of_two_axes_add_up(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    scales = np.exp(chance.normal(size=(96, 1), scale=0.5) + chance.normal(size=(1, 96), scale=0.5)).astype(np.float32)
    codebook = cluster(laplace(96 * 96).reshape(96, 96) * scales, 32)
    model, _ = best_model(codebook)
    assert all(found.size for found in model.shares[:2])
    assert size(codebook, tmp_path) < codebook.indices.size * codebook.entropy_bits / 8


def test_a_base_is_chosen_with_its_levels() -> None:
    """Clusters of equal population are uniform by themselves; levels on another base tell channels apart better."""
    scales = np.exp(np.random.default_rng(1).normal(size=(64, 1), scale=0.8)).astype(np.float32)
    model, _ = best_model(cluster(laplace(64 * 256).reshape(64, 256) * scales, 32, "equal_population"))
    assert model.base != UNIFORM


@given(st.tuples(*[st.integers(1, 6)] * 3), st.data())
def test_contexts_are_the_sums_of_levels(sizes: tuple[int, int, int], data: st.DataObject) -> None:
    levels: Levels = tuple(data.draw(arrays.arrays(np.uint8, n, elements=st.integers(0, 15))) for n in sizes)
    whole = (levels[0][:, None, None] + levels[1][:, None] + levels[2].astype(int)).reshape(-1)
    begin = data.draw(st.integers(0, whole.size))
    end = data.draw(st.integers(begin, whole.size))
    assert contexts(levels)(begin, end).tolist() == whole[begin:end].tolist()


def test_axes_are_outputs_inputs_and_places() -> None:
    assert [axes_of(shape) for shape in ((), (7,), (5, 3), (5, 3, 2, 2), (0, 3))] == [
        (1, 1, 1),
        (1, 7, 1),
        (5, 3, 1),
        (5, 3, 4),
        (0, 3, 1),
    ]


def test_equal_centroid_tables_are_stored_once(tmp_path: Path) -> None:
    codebook = cluster(laplace(64).reshape(8, 8), 16)
    model = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(codebook.dense())) for name in "ab"})
    report = save(tmp_path / "a.h5", model, {"a": codebook, "b": codebook}, storage="entropy")
    assert report.parts["codebooks"] == 64
    found = read(tmp_path / "a.h5").codebooks
    assert all(np.array_equal(c.dense(), codebook.dense()) for c in found.values())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([3]),  # no such base
        bytes([0x80]),  # no such axis
        bytes([2, 0, 0]),  # nothing has a share
        bytes([1]) + np.full(TERMS, np.inf, "<f2").tobytes(),
        bytes([0x10]) + np.array(np.nan, "<f4").tobytes() + bytes([0, 1, 255]),
        bytes([0x10]) + bytes(4) + bytes([0, 0]),  # an axis of no levels
        bytes([0x10]) + bytes(4) + bytes([0, 17]) + bytes([255] * 17),  # too many
        bytes([0x10]) + bytes(4) + bytes([0, 2, 0, 0]),  # none of them occurs
        bytes([0x10]) + bytes(4) + bytes([0, 9, 255]),  # cut off
    ],
)
def test_models_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        from_bytes(data, 2)


def test_models_of_more_weights_than_memory_should_hold_are_refused() -> None:
    levels = bytes([16]) + bytes([255] * 16)
    data = bytes([0x70]) + np.float32(0.1).tobytes() + bytes([20]) + 3 * levels  # 46 sums of levels
    assert from_bytes(data, 1024)[0].sums == 46
    with pytest.raises(ArchiveError, match="out of range"):
        from_bytes(data, 4096)


def test_300_tensors_cost_at_most_2_kib_beside_their_content(tmp_path: Path) -> None:
    blocks = [
        nn.ModuleDict({"conv": nn.Conv2d(8, 8, 1, bias=False), "norm": nn.BatchNorm2d(8)}).requires_grad_(False)
        for _ in range(50)
    ]
    model = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
    names = [name for name in model.state_dict() if name.endswith("conv.weight")]
    books = {name: cluster(model.state_dict()[name], 8, name=name) for name in names}
    for name, book in books.items():
        model.state_dict()[name].copy_(torch.from_numpy(book.dense()))
    for block in blocks:
        block["norm"].weight.normal_()
        block["norm"].bias.normal_()
    assert len(model.state_dict()) == 300
    provenance = {"hash": "69865ee9756403f3", "teacher": "93" * 32, "methods": "kmeans"}
    report = save(tmp_path / "a.h5", model, books, storage="entropy", architecture={"name": "x"}, provenance=provenance)
    assert report.parts["overhead"] <= 2048


@given(st.integers(0, 10_000))
def test_coded_bits_are_what_a_file_takes(seed: int) -> None:
    """Of indices that differ by channel, to what the coder and whole bytes add."""
    random = np.random.default_rng(seed)
    k, shape = int(random.integers(2, 20)), (int(random.integers(1, 40)), int(random.integers(1, 40)), 3, 3)
    spread = random.uniform(0.05, 1.5, (shape[0], 1, 1, 1)) * random.uniform(0.5, 1.0, (1, shape[1], 1, 1))
    steps = np.clip(np.rint(random.normal(size=shape) * spread), -(k // 2), k - 1 - k // 2) + k // 2
    book = Codebook(np.arange(k, dtype=np.float32) - k // 2, steps.astype(np.uint8))
    model, levels = best_model(book)
    coded = ans.encode(list(_parts(book, model, levels)), bytes(2 * 8))
    taken = 8 * len(ans.states_to_bytes(coded.states)) - 16 * coded.states.size + 16 * coded.words.size
    assert abs(taken + 8 * len(zlib.compress(model.to_bytes())) - coded_bits(book)) <= 0.01 * coded_bits(book) + 64
