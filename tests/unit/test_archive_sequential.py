"""One coder without lanes: whatever goes in comes out, in about as many bits as the frequencies say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_archive_ans import part, parts

from requant.archive import sequential
from requant.archive.ans import PRECISION, Coded, Part
from requant.archive.sequential import Decoder, encode
from requant.errors import ArchiveError


def decoded(coded: Coded, of: list[Part]) -> list[list[int]]:
    decoder = Decoder(coded.words)
    found = []
    for number, p in enumerate(of):
        found.append(decoder.decode(p.symbols.size, p.contexts, p.frequencies).tolist())
        assert decoder.read == sum(coded.counts[: number + 1])
    assert decoder.finish() == b""
    return found


@given(st.lists(parts(), max_size=3))
def test_symbols_come_back(of: list[Part]) -> None:
    coded = encode(of)
    assert decoded(coded, of) == [p.symbols.tolist() for p in of]
    assert sum(coded.counts) == coded.words.size
    assert coded.states.size == 0


def test_many_chunks_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "CHUNK", 7)
    of = [part(np.random.default_rng(0).integers(0, 5, 203).tolist(), np.ones((3, 5)))]
    assert decoded(encode(of), of) == [of[0].symbols.tolist()]


def test_words_take_what_the_frequencies_say() -> None:
    weights = np.array([[0.9, 0.06, 0.03, 0.01], [0.01, 0.02, 0.07, 0.9]])
    symbols = [np.random.default_rng(0).choice(4, p=weights[i % 2]) for i in range(20_000)]
    of = part(symbols, weights)
    wanted = -np.log2(of.frequencies[np.arange(20_000) % 2, symbols] / 2**PRECISION).sum() / 8
    assert wanted - 1 <= 2 * encode([of]).words.size <= 1.0001 * wanted + 8


def test_the_bytes_are_the_same_on_every_machine() -> None:
    """Golden: what is written today must be read for ever."""
    of = part([0, 1, 2, 3, 2, 1, 0, 0, 0, 1] * 4, np.array([[4.0, 2, 1, 1], [1, 1, 1, 0.5]]))
    assert encode([of]).words.astype("<u2").tobytes().hex() == GOLDEN


GOLDEN = "acfc037731fed30e5e64346c01000000"


def test_too_few_or_too_many_words_are_noticed() -> None:
    of = part(np.random.default_rng(0).integers(0, 4, 4000).tolist(), np.ones((1, 4)))
    words = encode([of]).words
    for damaged in (words[:-1], words[2:], np.concatenate([words[:2], words])):
        with pytest.raises(ArchiveError):
            decode_all(damaged, of)


def decode_all(words: np.ndarray, of: Part) -> None:
    decoder = Decoder(words)
    decoder.decode(of.symbols.size, of.contexts, of.frequencies)
    decoder.finish()
