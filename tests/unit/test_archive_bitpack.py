import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requant.archive import bitpack


def plainly_packed(values: list[int], bits: int) -> bytes:
    stream = sum(value << position * bits for position, value in enumerate(values))
    return stream.to_bytes((len(values) * bits + 7) // 8, "little")


@settings(deadline=None)
@given(
    st.integers(0, 15).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=9)))
)
def test_the_stream_is_the_documented_one_and_comes_back(case: tuple[int, list[int]]) -> None:
    bits, values = case
    packed = bitpack.pack(np.array(values, np.uint16), bits)
    assert packed.tobytes() == plainly_packed(values, bits)
    assert bitpack.unpack(packed, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", range(16))
def test_chunks_join(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitpack, "CHUNK", 16)
    values = np.random.default_rng(0).integers(0, 2**bits, 91).astype(np.uint16)
    packed = bitpack.pack(values, bits)
    assert packed.tobytes() == plainly_packed(values.tolist(), bits)
    assert (bitpack.unpack(packed, bits, values.size) == values).all()
