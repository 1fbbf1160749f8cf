"""Storage `entropy` of format 6: low bits of a trellis first, then the rest by the points that they leave possible."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_archive_damage import rewrite
from torch import nn

from requant.archive import ans, read, save, trellised
from requant.archive.ans import PRECISION, Part
from requant.archive.fitting import best_model
from requant.archive.levels import MOST_WEIGHTS, Model
from requant.archive.probabilities import UNIFORM
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook
from requant.errors import ArchiveError
from requant.reconstruction.trellis_rounding import trellis_indices
from requant.trellis import CODES, parities


@st.composite
def trellises(draw: st.DrawFn) -> TrellisCodebook:
    """Of any size, some with points that none has, or with as many as there may be."""
    k, seed = draw(st.sampled_from([1, 2, 3, 4, 5, 9, 150, 2048])), draw(st.integers(0, 999))
    shape = draw(st.sampled_from([(), (1,), (7,), (0, 4), (3, 0), (5, 33), (9, 4, 3, 3)]))
    random = np.random.default_rng(seed)
    spread = 1 + draw(st.integers(0, 3)) * random.random((*shape[:1], *[1] * (len(shape) - 1)))
    drawn = np.rint(random.normal(size=shape) * spread * k / 8) + k // 2
    indices = np.clip(drawn, 0, max(0, k - 2)).astype(np.uint16 if k > 256 else np.uint8)
    table = np.sort(random.normal(size=k)).astype(np.float32)
    return TrellisCodebook(table, indices, states=draw(st.sampled_from(list(CODES))))


@given(st.lists(trellises(), max_size=3), st.sampled_from([0, 1, 5]))
@settings(max_examples=80)
def test_any_trellises_come_back(
    tmp_path_factory: pytest.TempPathFactory, books: list[TrellisCodebook], lanes: int
) -> None:
    """By one coder, and by lanes."""
    tensors = {str(i): book for i, book in enumerate(books)}
    model = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(book.dense())) for name, book in tensors.items()})
    path = tmp_path_factory.mktemp("any") / "a.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ans, "lanes_for", lambda *_: lanes)
        save(path, model, tensors, storage="entropy")
    found = read(path)
    assert found.format == (6 if books else 5)
    for name, book in tensors.items():
        made = found.codebooks[name]
        assert isinstance(made, TrellisCodebook)
        assert made.states == book.states
        assert np.array_equal(made.indices, book.indices)


def rounded(seed: int = 0) -> TrellisCodebook:
    """Laplace values on a trellis of about two bits a value, output channels of two scales."""
    weight = torch.from_numpy(np.random.default_rng(seed).laplace(size=(256, 128))).float()
    weight[::2] *= 2
    table = torch.arange(-31, 32).float()
    indices = trellis_indices(weight / 1.5, torch.eye(128)[None], table, 0.01, 8)
    return TrellisCodebook(table.numpy(), indices.numpy().astype(np.uint8))


def entropy(symbols: NDArray[np.integer]) -> float:
    """Bits of all symbols, by their own shares."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def coded(parts: list[Part]) -> list[float]:
    """Bits of each part by its frequencies."""
    found = []
    for part in parts:
        rows = part.contexts(0, part.symbols.size).astype(np.int64)
        taken = part.frequencies[rows, part.symbols.astype(np.int64)] / (1 << PRECISION)
        found.append(float(-np.log2(taken).sum()))
    return found


def test_parts_take_what_the_halves_of_a_trellis_have_of_entropy() -> None:
    """Low bits what they have by themselves; the rest what it has by remainder; both less than indices all alike."""
    book = rounded()
    low = (book.indices & 1).astype(np.uint8)
    remainders = 2 * low + parities(low, 8)
    by_remainder = sum(entropy((book.indices >> 1)[remainders == r]) for r in range(4))
    points = trellised.with_points(Codebook(book.table, book.indices), 8)
    model, levels = best_model(points)
    share, bits, rest = coded(trellised.parts(points, model, levels))
    assert share == 8
    assert bits == pytest.approx(entropy(low), rel=0.001)
    assert rest < by_remainder  # levels of channels are worth more than what the model is short of
    assert bits + rest < 0.98 * entropy(book.indices)


def test_eight_low_bits_are_as_likely_as_each_by_itself() -> None:
    frequencies = trellised._low(64)[0] / (1 << PRECISION)
    assert frequencies[0b00000000] == pytest.approx(0.75**8, rel=0.01)
    assert frequencies[0b00010000] == frequencies[0b00000001] == pytest.approx(0.25 * 0.75**7, rel=0.02)
    assert trellised._low(128).tolist() == [[64] * 256]
    assert (trellised._low(1) > 0).all()


def test_rows_follow_remainders_and_points_that_are_not_there_have_no_share() -> None:
    rows = trellised._rest(np.array([[1.0, 2, 3, 4, 3, 6, 0], [1, 1, 1, 1, 1, 1, 1]])) / (1 << PRECISION)
    assert rows.shape == (8, 2)
    assert rows[:4].tolist() == [[0.25, 0.75], [0.25, 0.75], [1, 0], [1, 0]]
    assert rows[4:].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1, 0]]
    assert trellised._rest(np.ones((1, 2)))[3].tolist() == [1 << PRECISION]  # of no point: never asked for


def test_models_of_too_many_points_are_refused() -> None:
    """What fills them up to a multiple of four counts."""
    sums, k = 17, 3855
    assert sums * k <= MOST_WEIGHTS < sums * (k + 1)
    with pytest.raises(ArchiveError, match="out of range"):
        trellised._rest(np.ones((sums, k)))


def test_a_header_of_another_version_is_refused(tmp_path: Path) -> None:
    """5 is one that a trellis may have: what is in the file is then read as something else."""
    book = rounded()
    layer = nn.Linear(128, 256, bias=False)
    layer.weight.data = torch.from_numpy(book.dense())
    path = tmp_path / "a.h5"
    save(path, layer, {"weight": book}, storage="entropy")
    for version in range(1, 6):
        rewrite(path, lambda _: None, version)
        with pytest.raises(ArchiveError):
            read(path)
    rewrite(path, lambda _: None, 6)
    assert np.array_equal(read(path).codebooks["weight"].indices, book.indices)
    save(path, layer, {"weight": book.plain()}, storage="entropy")
    rewrite(path, lambda _: None, 6)
    with pytest.raises(ArchiveError, match="damaged inside"):
        read(path)


def test_a_model_is_of_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of indices, as a forger may write, is refused."""
    from requant.archive import entropy as storage

    book = rounded()
    layer = nn.Linear(128, 256, bias=False)
    layer.weight.data = torch.from_numpy(book.dense())
    uniform = Model(UNIFORM, np.empty(0, np.float16), np.empty(0, np.uint8))
    none = tuple(np.zeros(size, np.uint8) for size in (256, 128, 1))
    monkeypatch.setattr(storage, "best_model", lambda _: (uniform, none))
    monkeypatch.setattr(Model, "to_bytes", lambda _: bytes([2, *[255] * 63]))
    save(tmp_path / "a.h5", layer, {"weight": book}, storage="entropy")
    with pytest.raises(ArchiveError, match="cut off within a probability model"):
        read(tmp_path / "a.h5")
