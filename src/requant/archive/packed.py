"""Storage `packed`: one data set of bytes, `payload`, in which the tensors follow one another without gaps.

First the clustered tensors in the manifest's order, each as its centroids (float32, or 16 bits each where the manifest
says so) and then its indices (`bitpack`, ceil(log2 k) bits each, from a whole byte on); then the other tensors in the
same order, each as its values in row-major order. All numbers are little-endian.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive.bitpack import pack, unpack
from requant.archive.content import Contents
from requant.archive.manifest import Entry, Manifest
from requant.archive.payloads import PAYLOAD, Reader
from requant.archive.report import TensorBytes
from requant.codebook import Codebook
from requant.errors import ArchiveError


def write(file: h5py.File, manifest: Manifest, contents: Contents) -> dict[str, TensorBytes]:
    """Write the tensors into a new file; returns the bytes by tensor."""
    sizes = _measured(manifest)
    total = sum(size.total for size in sizes.values())
    payload = file.create_dataset(PAYLOAD, (total,), np.uint8, track_times=False)
    begin = 0
    for piece in chain.from_iterable(_pieces(contents[entry.name], entry) for entry in _ordered(manifest)):
        if piece.size:
            payload[begin : begin + piece.size] = piece
        begin += piece.size
    return sizes


def read(file: h5py.File, manifest: Manifest) -> tuple[dict[str, Codebook | NDArray[Any]], dict[str, TensorBytes]]:
    """The tensors of an open file, by name in the manifest's order, and their bytes.

    Raises:
        ArchiveError: naming what is not as the manifest says.

    """
    content = Reader(file)
    sizes = _measured(manifest)
    total = sum(size.total for size in sizes.values())
    if content.size != total:
        raise ArchiveError(f"its payload has {content.size} bytes where the manifest makes it {total}")
    found = {entry.name: _read_entry(content, entry) for entry in _ordered(manifest)}
    return {entry.name: found[entry.name] for entry in manifest.tensors}, sizes


def _measured(manifest: Manifest) -> dict[str, TensorBytes]:
    """Bytes by tensor."""
    return {e.name: TensorBytes(e.index_bytes, e.codebook_bytes, e.dense_bytes) for e in manifest.tensors}


def _ordered(manifest: Manifest) -> list[Entry]:
    return sorted(manifest.tensors, key=lambda entry: entry.centroids is None)


def _pieces(tensor: Codebook | NDArray[Any], entry: Entry) -> Iterator[NDArray[np.uint8]]:
    yield entry.to_held(tensor.centroids if isinstance(tensor, Codebook) else tensor)
    if isinstance(tensor, Codebook):
        yield pack(tensor.indices.reshape(-1), tensor.bits)


def _read_entry(content: Reader, entry: Entry) -> Codebook | NDArray[Any]:
    if entry.centroids is None:
        return entry.from_held(content.take(entry.dense_bytes)).reshape(entry.shape)
    centroids = entry.from_held(content.take(entry.codebook_bytes))
    stream = content.take(entry.index_bytes)
    return Codebook(centroids, unpack(stream, entry.bits, entry.values).reshape(entry.shape))
