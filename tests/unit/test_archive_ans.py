"""The interleaved coder: whatever goes in comes out, in about as many bits as the frequencies say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from requant.archive import ans
from requant.archive.ans import PRECISION, Coded, Decoder, Part, encode, lanes_for, states_from, states_to_bytes
from requant.archive.levels import frequencies
from requant.errors import ArchiveError


def cyclic(rows: int) -> ans.Contexts:
    return lambda begin, end: (np.arange(begin, end) % rows).astype(np.uint16)


def part(symbols: list[int], weights: np.ndarray) -> Part:
    """Symbols whose weights are not 0; position i follows row i mod rows."""
    return Part(np.array(symbols, np.uint16), cyclic(len(weights)), frequencies(weights))


@st.composite
def parts(draw: st.DrawFn) -> Part:
    rows, k = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 17, 300, 4096]))
    chance = np.random.default_rng(draw(st.integers(0, 99)))
    weights = chance.random((rows, k)) ** draw(st.sampled_from([1, 9])) + 1e-9
    return part(chance.integers(0, k, draw(st.integers(0, 90))).tolist(), weights)


def taker(data: bytes):
    read = 0

    def take(size: int) -> np.ndarray:
        nonlocal read
        read += size
        return np.frombuffer(data[read - size : read], np.uint8)

    return take


def decoded(coded: Coded, of: list[Part]) -> tuple[list[list[int]], bytes]:
    states = states_from(taker(states_to_bytes(coded.states)), coded.states.size)
    decoder = Decoder(states, coded.words)
    found = [decoder.decode(p.symbols.size, p.contexts, p.frequencies).tolist() for p in of]
    return found, decoder.finish()


@given(st.lists(parts(), max_size=3), st.sampled_from([1, 2, 8, 64]), st.binary(min_size=128, max_size=128))
def test_symbols_and_what_is_carried_come_back(of: list[Part], lanes: int, carried: bytes) -> None:
    coded = encode(of, carried[: 2 * lanes])
    found, back = decoded(coded, of)
    assert found == [p.symbols.tolist() for p in of]
    assert back == carried[: 2 * lanes]
    assert sum(coded.counts) == coded.words.size


def test_many_chunks_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ans, "STEPS", 2)
    of = [part(np.random.default_rng(0).integers(0, 5, 203).tolist(), np.ones((3, 5)))]
    assert decoded(encode(of, bytes(8)), of)[0] == [of[0].symbols.tolist()]


def test_words_take_what_the_frequencies_say() -> None:
    weights = np.array([[0.9, 0.06, 0.03, 0.01], [0.01, 0.02, 0.07, 0.9]])
    symbols = [np.random.default_rng(0).choice(4, p=weights[i % 2]) for i in range(20_000)]
    of = part(symbols, weights)
    wanted = -np.log2(of.frequencies[np.arange(20_000) % 2, symbols] / 2**PRECISION).sum() / 8
    lanes = 8
    coded = encode([of], bytes(2 * lanes))
    taken = 2 * coded.words.size + len(states_to_bytes(coded.states)) - 2 * lanes
    assert wanted - 1 <= taken <= 1.0005 * wanted + lanes


def test_the_bytes_are_the_same_on_every_machine() -> None:
    """Golden: what is written today must be read for ever."""
    of = part([0, 1, 2, 3, 2, 1, 0, 0, 0, 1], np.array([[4.0, 2, 1, 1], [1, 1, 1, 0.5]]))
    coded = encode([of], b"\1\2\3\4")
    assert of.frequencies.tolist() == [[8192, 4096, 2048, 2048], [4681, 4681, 4681, 2341]]
    assert (coded.words.tolist(), coded.states.tolist()) == GOLDEN
    assert states_to_bytes(coded.states).hex() == GOLDEN_STATES


GOLDEN = ([], [33772033, 70410218])
GOLDEN_STATES = "0152ea5fa9018640"


@given(st.lists(st.integers(1 << 16, (1 << 32) - 1), min_size=1, max_size=9))
def test_states_come_back_in_20_to_35_bits(states: list[int]) -> None:
    data = states_to_bytes(np.array(states, np.uint32))
    assert states_from(taker(data), len(states)).tolist() == states
    assert len(data) <= 35 * len(states) / 8 + 2


def test_too_few_or_too_many_words_are_noticed() -> None:
    of = part(np.random.default_rng(0).integers(0, 4, 4000).tolist(), np.ones((1, 4)))
    coded = encode([of], bytes(128))
    for words in (coded.words[:-1], np.append(coded.words, np.uint16(3))):
        decoder = Decoder(coded.states, words)
        with pytest.raises(ArchiveError):
            _ = decoder.decode(4000, of.contexts, of.frequencies), decoder.finish()


@given(st.integers(1, 4096), st.integers(0, 9), st.booleans())
def test_frequencies_sum_and_leave_none_out(k: int, seed: int, zeros: bool) -> None:
    chance = np.random.default_rng(seed)
    weights = np.exp(chance.normal(size=(2, k)) * chance.choice([0.1, 5, 40]))
    if zeros:
        weights[:, chance.random(k) < 0.5] = 0
        weights[:, -1] = 1
    found = frequencies(weights)
    assert (found.sum(1) == 1 << PRECISION).all()
    assert ((found > 0) == (weights > 0)).all()


@given(st.floats(0, 1e9), st.integers(0, 1 << 20))
def test_lanes_cost_two_thousandths_at_most_or_there_are_none(coded: float, carried: int) -> None:
    lanes = lanes_for(coded, carried)
    cost = lanes * ans.LANE + max(0, ans.CARRIED * lanes - carried)
    assert lanes == 0 or (ans.TOO_FEW <= lanes <= ans.MOST_LANES and cost <= 0.00201 * coded)
    assert lanes_for(coded, carried + 1000) >= lanes


def test_how_many_lanes_files_have() -> None:
    """Of 80 kB, 300 kB, 1.5 MB and 80 MB; and where there is nothing to carry."""
    assert [lanes_for(size, 1 << 20) for size in (80e3, 300e3, 1.5e6, 80e6)] == [0, 1200, 2048, 4096]
    assert [lanes_for(size, 0) for size in (80e3, 300e3, 1.5e6, 80e6)] == [0, 0, 1200, 4096]
