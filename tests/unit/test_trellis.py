"""Trellises: the code, codebooks on them, and the paths that rounding finds."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example as such_as
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_auto import example_grids
from test_reconstruction import images
from torch import nn

from requant.archive import STORAGES, load, read, save, shortened
from requant.auto import LEAST_BITS, entropy_bytes, in_units, step_of
from requant.codebook_trellis import TrellisCodebook
from requant.compression import check_placed, place
from requant.errors import ArchiveError, UserError
from requant.inspection import diff, inspect
from requant.parametrization import train_centroids
from requant.reconstruction import reconstruct, trellis_rounding
from requant.reconstruction.rounding import compensated_indices
from requant.reconstruction.trellis_rounding import trellis_indices
from requant.targets import fit_drop, fit_size
from requant.trellis import CODES, parities, parity_of_states, stages, successors

each_storage = pytest.mark.parametrize("storage", STORAGES)
each_code = pytest.mark.parametrize("states", CODES)
low_bits = arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(0, 40)), elements=st.integers(0, 1))


def recursive(bits: np.ndarray, states: int = 8) -> np.ndarray:
    """h0(D) b = h1(D) u, as it is written."""
    h0, h1 = CODES[states]
    found = np.zeros_like(bits)
    for t in range(bits.shape[1]):
        for delay in range(1, min(t + 1, states.bit_length())):
            found[:, t] ^= (h0 >> delay & 1) * found[:, t - delay] ^ (h1 >> delay & 1) * bits[:, t - delay]
    return found


@each_code
@given(low_bits)
def test_parities_follow_the_recursion(states: int, bits: np.ndarray) -> None:
    assert np.array_equal(parities(bits, states), recursive(bits, states))


@each_code
def test_parities_of_long_rows(states: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (9, 700)).astype(np.uint8)
    assert np.array_equal(parities(bits, states), recursive(bits, states))


def test_stages_are_the_code_and_what_undoes_it() -> None:
    assert list(stages(8, 5)) == [[2], [0, 1, 3], [0, 2, 6], [0, 4, 12]]


@each_code
@given(low_bits)
def test_states_give_the_same_parities(states: int, bits: np.ndarray) -> None:
    now, expected = np.zeros(len(bits), np.int64), recursive(bits, states)
    for t in range(bits.shape[1]):
        assert np.array_equal(parity_of_states(states)[now], expected[:, t])
        now = successors(states)[now, bits[:, t]]


@pytest.mark.parametrize(("states", "distance"), [(8, 10), (64, 14)])
def test_each_state_has_two_ways_in_and_paths_that_meet_are_far_apart(states: int, distance: int) -> None:
    """What a code is for: paths that part and meet again differ by so many squared steps, not by 1.

    Ungerboeck's table I has these distances. The code is linear, so that state 0 says it for all: the path of the
    differences' low bits and parities goes from there and comes back.
    """
    after, parity = successors(states), parity_of_states(states)
    assert (np.bincount(after.reshape(-1)) == 2).all()
    gaps = np.array([0, 1, 4, 1])[2 * np.arange(2) + parity[:, None]]  # odd points, or points two apart
    distances = np.full(states, np.inf)
    distances[after[0, 1]] = 4
    for _ in range(60):
        found = np.full(states, np.inf)
        np.minimum.at(found, after, distances[:, None] + gaps)
        distances = found
    assert distances[0] == distance


def example(shape: tuple[int, ...] = (6, 5, 3), seed: int = 0, table: int = 9) -> TrellisCodebook:
    drawn = np.random.default_rng(seed).integers(0, table - 1, shape).astype(np.uint8)
    return TrellisCodebook((np.arange(table) - table // 2).astype(np.float32), drawn)


def test_an_index_stands_for_its_entry_or_for_the_middle_above_it() -> None:
    book = TrellisCodebook(np.float32([-2, 0, 4]), np.uint8([[1, 1, 1, 0, 0, 0]]))
    assert book.k == 5
    assert book.centroids.tolist() == [-2, -1, 0, 2, 4]
    # low bits 1 1 1 0 0 0: parities 0, 0, 1, 1^0^1 = 0, 0^0^1 = 1, 1^1^0 = 0
    assert book.dense().tolist() == [[0, 0, 2, -2, -1, -2]]
    assert book.counts.tolist() == [3, 3, 0]
    assert book.entropy_bits == 1


@given(arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@such_as(np.float32([2e38, 3e38]))
def test_values_between_entries_are_their_means_rounded_once(table: np.ndarray) -> None:
    table = np.sort(table)
    found = TrellisCodebook(table, np.zeros((1, 1), np.uint8)).centroids
    assert np.array_equal(found[::2], table)
    assert np.array_equal(found[1::2], ((table[1:].astype(np.float64) + table[:-1]) / 2).astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 5, 3), (7,), (1, 40), (0, 3), (3, 0), (4, 1, 3, 3)])
def test_a_plain_codebook_has_the_same_values(shape: tuple[int, ...]) -> None:
    book = example(shape)
    assert book.plain().k == book.k == 17
    assert np.array_equal(book.plain().dense(), book.dense())
    assert book.squared_error(book.dense()) == 0
    assert book.dense().shape == shape


def test_what_is_no_trellis_is_refused() -> None:
    with pytest.raises(ValueError, match="above its table"):
        TrellisCodebook(np.float32([0, 1]), np.uint8([[1, 0, 0, 1]]))  # the last is one of 1 and what would follow
    with pytest.raises(ValueError, match="beyond the 2"):
        TrellisCodebook(np.float32([0, 1]), np.uint8([[2]]))
    with pytest.raises(ValueError, match="sorted"):
        TrellisCodebook(np.float32([1, 0]), np.uint8([[0]]))


def error(weight: torch.Tensor, found: torch.Tensor, moments: torch.Tensor) -> float:
    """The outputs' squared error, a mean over outputs."""
    difference = (weight - found).reshape(len(moments), -1, moments.shape[1]).double()
    return float(torch.einsum("gri,gij,grj->", difference, moments.double(), difference)) / len(weight)


def found_on(
    table: torch.Tensor, weight: torch.Tensor, moments: torch.Tensor, damping: float, states: int = 8
) -> torch.Tensor:
    """The values of the path that is found."""
    indices = trellis_indices(weight, moments, table, damping, states)
    return torch.from_numpy(TrellisCodebook(table.numpy(), indices.numpy().astype(np.uint8), states=states).dense())


@each_code
@given(arrays(np.float32, (2, 5), elements=st.floats(-3, 3, width=32)))
def test_the_nearest_path_is_found(states: int, values: np.ndarray) -> None:
    weight, table = torch.from_numpy(values), torch.arange(-4, 5).float()
    found = found_on(table, weight, torch.eye(5)[None], 0.0, states)
    for row, made in zip(values, found.numpy(), strict=True):
        best = np.inf
        for bits in product((0, 1), repeat=5):
            parity = recursive(np.uint8([bits]), states)[0]
            residues = (2 * np.array(bits) + parity) / 2 - 4  # of points, in steps of the table; 2 apart
            nearest = np.rint((row - residues) / 2) * 2 + residues
            nearest = np.where(nearest > 4, nearest - 2, np.where(nearest < -4, nearest + 2, nearest))
            best = min(best, float(((row - nearest) ** 2).sum()))
        assert float(((row - made) ** 2).sum()) == pytest.approx(best, abs=1e-5)


def correlated(size: int, seed: int = 0) -> torch.Tensor:
    """(1, C, C) moments of inputs that are alike where they are neighbours."""
    places = torch.arange(size)
    scales = torch.rand(size, generator=torch.Generator().manual_seed(seed)) + 0.5
    return (0.9 ** (places - places[:, None]).abs() * scales * scales[:, None])[None]


@pytest.mark.parametrize("moments", [torch.eye(200)[None], correlated(200)])
def test_a_trellis_is_nearer_than_its_table_alone(moments: torch.Tensor) -> None:
    """At fine steps 8 states are worth about a decibel: 0.8 of the squared error at the same number of indices."""
    weight = torch.randn(64, 200, generator=torch.Generator().manual_seed(1))
    table = torch.arange(-40, 41) * 0.25
    plain = table[compensated_indices(weight, moments, table, 0.01)]
    found = found_on(table, weight, moments, 0.01)
    assert error(weight, found, moments) < 0.85 * error(weight, plain, moments)


def least_cost(row: np.ndarray, states: int, highest: int) -> float:
    """Of the best path for targets in units of points, by Viterbi's algorithm without a delay."""
    after, parity = successors(states), parity_of_states(states)
    costs = np.full(states, np.inf)
    costs[0] = 0
    for target in row:
        found = np.full(states, np.inf)
        for low in (0, 1):
            residue = 2 * low + parity
            points = np.clip(np.rint((target - residue) / 4) * 4 + residue, residue, highest - (highest - residue) % 4)
            np.minimum.at(found, after[:, low], costs + (target - points) ** 2)
        costs = found
    return float(costs.min())


@each_code
def test_deciding_after_a_delay_costs_next_to_nothing(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the best path of rows of several delays: nothing where the delay is as long as they are."""
    weight = torch.randn(4, 400, generator=torch.Generator().manual_seed(2)) * 5
    table, moments = torch.arange(-12, 13).float(), torch.eye(400)[None]
    best = sum(least_cost(2 * (row + 12), states, 48) for row in weight.double().numpy()) / 4

    def cost() -> float:
        return float((found_on(table, weight, moments, 0.0, states) - weight).double().square().sum())

    assert cost() <= 1.012 * best
    monkeypatch.setattr(trellis_rounding, "DELAY", 400)
    assert cost() == pytest.approx(best, rel=1e-6)


def test_paths_do_not_depend_on_how_many_are_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, table = torch.randn(6, 90, generator=torch.Generator().manual_seed(4)), torch.arange(-9, 10) * 0.4
    moments = torch.cat([correlated(90, seed) for seed in range(3)])
    expected = trellis_indices(weight, moments, table, 0.1, 64)
    for survivors in (1, 64, 64 * 4):
        monkeypatch.setattr(trellis_rounding, "AT_ONCE", survivors)
        assert torch.equal(trellis_indices(weight, moments, table, 0.1, 64), expected)


def test_outliers_end_at_the_ends_of_the_table() -> None:
    weight, table = torch.tensor([[9.0, -9.0, 9.0, -9.0, 0.2]]), torch.arange(-2, 3).float()
    with pytest.raises(ValueError, match="3 entries"):
        trellis_indices(weight, torch.eye(5)[None], table[:2], 0.01, 8)
    found = found_on(table, weight, torch.eye(5)[None], 0.01)
    assert found[0, :4].abs().min() >= 0.5
    assert (found[0, :4].sign() == weight[0, :4].sign()).all()


def test_paths_are_the_same_as_ever() -> None:
    """Golden: two groups, more weights than a block, moments that are not diagonal."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 70, generator=generator)
    moments = torch.cat([correlated(70, 5), torch.eye(70)[None]])
    table = torch.arange(-4, 5).float()
    found = trellis_indices(weight, moments, table, 0.1, 8)
    assert found[:, :12].tolist() == GOLDEN
    assert found[:, 63:].sum(1).tolist() == GOLDEN_SUMS


GOLDEN = [
    [4, 5, 3, 4, 4, 4, 5, 2, 4, 3, 5, 3],
    [3, 5, 4, 4, 3, 3, 3, 3, 2, 2, 4, 4],
    [4, 4, 4, 3, 3, 4, 5, 4, 5, 1, 3, 3],
    [4, 4, 5, 5, 3, 4, 3, 4, 3, 3, 6, 4],
]
GOLDEN_SUMS = [27, 23, 25, 28]


class Two(nn.Module):
    """A convolution, a linear layer and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(10, 5)


def two(seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(seed)
    model = Two()
    books: dict[str, Any] = {
        "conv.weight": example((6, 3, 3, 3), seed),
        "fc.weight": example((5, 10), seed + 1, table=300 // 2),
        "fc.bias": example((5,), seed + 2),
    }
    place(model, books)
    return model, books


@each_storage
def test_archives_hold_trellises(storage: str, tmp_path: Path) -> None:
    model, books = two()
    report = save(tmp_path / "a.h5", model, books, storage=storage)
    version = {"gzip": 3, "packed": 4, "entropy": 6}  # from 4 on tables of equal steps are held as their step
    assert (tmp_path / "a.h5").read_bytes()[8] == version[storage]
    found = read(tmp_path / "a.h5")
    assert report.bytes == (tmp_path / "a.h5").stat().st_size
    for name, book in books.items():
        made = found.codebooks[name]
        assert isinstance(made, TrellisCodebook)
        assert np.array_equal(made.table, book.table)
        assert np.array_equal(made.indices, book.indices)
        assert np.array_equal(made.dense(), model.state_dict()[name].numpy())


def test_trellises_are_named_and_compared_by_their_values(tmp_path: Path) -> None:
    model, books = two()
    save(tmp_path / "a.h5", model, books, provenance={"methods": "grid"})
    save(tmp_path / "b.h5", model, {name: book.plain() for name, book in books.items()})
    found = inspect(tmp_path / "a.h5")
    assert {tensor.method for tensor in found.tensors if tensor.centroids} == {"grid, trellis"}
    assert {t.name: t.centroids for t in found.tensors} == {
        "conv.weight": 17, "conv.bias": None, "fc.weight": 299, "fc.bias": 17,
    }  # fmt: skip
    compared = diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert compared.equal
    assert {tensor.indices_changed for tensor in compared.tensors if tensor.name != "conv.bias"} == {0.0}


def test_a_trellis_takes_a_bit_less_than_all_its_points(tmp_path: Path) -> None:
    layer, book = nn.Linear(300, 50, bias=False), example((50, 300), table=33)
    place(layer, {"weight": book})
    sizes = [save(tmp_path / "a.h5", layer, {"weight": b}, storage="entropy").bytes for b in (book, book.plain())]
    assert sizes[1] - sizes[0] == pytest.approx(50 * 300 / 8, rel=0.1)


def test_a_trellis_in_parts_or_beyond_its_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, book = nn.Linear(4, 1, bias=False), TrellisCodebook(np.float32([0, 1]), np.uint8([[1, 0, 0, 0]]))
    place(layer, {"weight": book})
    object.__setattr__(book, "indices", np.uint8([[1, 0, 0, 1]]))  # past the check, as a forger is
    monkeypatch.setattr(TrellisCodebook, "squared_error", lambda *_: 0)
    save(tmp_path / "a.h5", layer, {"weight": book})
    with pytest.raises(ArchiveError, match="above its table"):
        read(tmp_path / "a.h5")


def test_centroids_on_a_trellis_are_not_trained() -> None:
    model, books = two()
    with pytest.raises(UserError, match=r"plan\.trellis=false"):
        train_centroids(model, "conv.weight", books["conv.weight"])
    with pytest.raises(UserError, match=r"has a trellis.*plan\.trellis"):
        reconstruct(model, books, [torch.zeros(1, 3, 3, 3)])


def test_networks_are_reconstructed_on_trellises(tmp_path: Path) -> None:
    """Layers with bits enough go on one, the others stay on their grid; the file is the network."""
    found, batches = example_grids(), [images(16)]
    plain = found.at(step_of(found, 150))
    chosen = found.for_trellis(plain.codebooks)
    assert chosen
    assert chosen == {name for name, book in plain.codebooks.items() if book.entropy_bits >= LEAST_BITS}
    model, books = reconstruct(found.base, plain.codebooks, batches, 0.1, chosen)
    check_placed(model, books)
    assert {name for name, book in books.items() if isinstance(book, TrellisCodebook)} == chosen
    units, in_file = in_units(found, model, books)
    check_placed(units, in_file)
    assert torch.allclose(units(images(4)), model(images(4)), atol=0.01)
    save(tmp_path / "a.h5", units, in_file, storage="entropy")
    state = units.state_dict()
    assert all(np.array_equal(b.dense(), state[n].numpy()) for n, b in read(tmp_path / "a.h5").codebooks.items())


def test_sizes_and_drops_are_met_on_trellises() -> None:
    found, batches = example_grids(), [images(16)]
    made = fit_size(found, lambda compressed: round(entropy_bytes(compressed)) + 500, 700, batches, 0.1, trellis=True)
    assert abs(entropy_bytes(made) + 500 - 700) <= 8
    assert any(isinstance(book, TrellisCodebook) for book in made.codebooks.values())
    dropped = fit_drop(found, 0.3, [images(80, seed=7)], lambda made: made.model, batches, 0.1, trellis=True)
    check_placed(dropped.model, dropped.codebooks)


def test_gzip_refuses_a_trellis_whose_entries_it_cannot_tell_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = np.arange(-300, 301, dtype=np.float32)
    book = TrellisCodebook(table, random.integers(0, 600, (8, 40)).astype(np.uint16))
    model = nn.Linear(40, 8, bias=False)
    model.weight.data = torch.from_numpy(book.dense())
    short, books = shortened(model, {"weight": book}, centroids="bfloat16")
    for storage in ("packed", "entropy"):
        save(tmp_path / "a.h5", short, books, storage=storage)
        assert torch.equal(load(tmp_path / "a.h5", nn.Linear(40, 8, bias=False)).weight, short.weight)
    with pytest.raises(ArchiveError, match=r"weight's trellis has equal entries.* use storage=packed"):
        save(tmp_path / "a.h5", short, books, storage="gzip")
