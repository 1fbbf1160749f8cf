"""Indices as a stream of few-bit numbers.

Number i takes the stream's bits i x bits to (i + 1) x bits - 1, its least significant bit first; the stream's bit p is
bit p mod 8 of byte p div 8, counted from the least significant. Eight numbers of b bits thus fill b whole bytes.
"""

import numpy as np
from numpy.typing import NDArray

from requant.codebook import index_dtype

CHUNK = 1 << 20  # a multiple of 8: chunks start at whole bytes


def packed_size(values: int, bits: int) -> int:
    """Bytes that so many numbers take; the last byte may be partly unused."""
    return (values * bits + 7) // 8


def pack(values: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """The stream of `values` (n,), each below 2**bits, bits 0 to 15; unused bits of the last byte are 0."""
    packed = np.empty(packed_size(values.size, bits), np.uint8)
    for start in range(0, values.size, CHUNK):
        begin = start * bits // 8
        chunk = _pack_chunk(values[start : start + CHUNK], bits)
        packed[begin : begin + chunk.size] = chunk[: packed.size - begin]
    return packed


def unpack(packed: NDArray[np.uint8], bits: int, size: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The first `size` numbers of the stream: uint8, or uint16 above 8 bits."""
    values = np.zeros(size, index_dtype(1 << bits))
    for start in range(0, size if bits else 0, CHUNK):
        begin = start * bits // 8
        chunk = packed[begin : begin + CHUNK * bits // 8]
        values[start : start + CHUNK] = _unpack_chunk(chunk, bits)[: size - start]
    return values


def _pack_chunk(values: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """Four numbers make 4 x bits bits of a 64-bit word; two such words, joined, are 8 x bits bits: whole bytes."""
    eights = np.pad(values, (0, -values.size % 8)).reshape(-1, 2, 4)
    words = np.zeros((len(eights), 2), "<u8")
    for position in range(4):
        words |= eights[:, :, position].astype("<u8") << np.uint64(position * bits)
    if bits:
        half = np.uint64(4 * bits)
        words[:, 0] |= words[:, 1] << half
        words[:, 1] >>= np.uint64(64) - half
    return words.view(np.uint8)[:, :bits].reshape(-1)


def _unpack_chunk(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    whole = np.zeros(-(-packed.size // bits) * bits, np.uint8)  # numpy.pad would take longer than all of this
    whole[: packed.size] = packed
    rows = np.zeros((whole.size // bits, 16), np.uint8)
    rows[:, :bits] = whole.reshape(-1, bits)
    words = rows.view("<u8")
    half = np.uint64(4 * bits)
    words[:, 1] = words[:, 1] << np.uint64(64) - half | words[:, 0] >> half
    values = np.empty((len(words), 2, 4), index_dtype(1 << bits))
    for position in range(4):
        values[:, :, position] = words >> np.uint64(position * bits) & np.uint64((1 << bits) - 1)
    return values.reshape(-1)
