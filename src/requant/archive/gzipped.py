"""Storage `gzip`, the paper's: one data set a tensor, `tensors/<name>`, with the quantized float32 values and gzip.

Beside them `centroids`: all codebooks' centroids (float32) in the manifest's order, from which reading recovers each
index. Level 6, gzip's own default: 4 million values spread evenly over 32 centroids take 7.2 bits each, against 8.7 at
level 4 (five times faster) and 7.1 at level 9 (four times slower). Chunks of about 1 MiB are compressed in parallel.
"""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive.content import Contents
from requant.archive.datasets import open_dataset
from requant.archive.manifest import DTYPES, TRELLIS, Entry, Manifest
from requant.archive.report import TensorBytes
from requant.clustering.assign import assign
from requant.codebook import Codebook, index_dtype
from requant.errors import ArchiveError
from requant.machine import worker_threads

LEVEL = 6
CHUNK_BYTES = 1 << 20
CENTROIDS = "centroids"


def write(file: h5py.File, manifest: Manifest, contents: Contents) -> dict[str, TensorBytes]:
    """Write the tensors into a new file; returns the bytes by tensor."""
    codebooks = [tensor for tensor in contents.values() if isinstance(tensor, Codebook)]
    centroids = np.concatenate([np.empty(0, "<f4"), *(codebook.centroids for codebook in codebooks)])
    file.create_dataset(CENTROIDS, data=centroids.astype("<f4"), track_times=False)
    with ThreadPoolExecutor(worker_threads()) as pool:
        for entry in manifest.tensors:
            _write_tensor(file, entry, contents[entry.name], pool)
    return _measured(file, manifest)


def read(file: h5py.File, manifest: Manifest) -> tuple[dict[str, Codebook | NDArray[Any]], dict[str, TensorBytes]]:
    """The tensors of an open file, by name in the manifest's order, and their bytes.

    Raises:
        ArchiveError: naming what is not as the manifest says.

    """
    for entry in manifest.tensors:
        if entry.stored:
            raise ArchiveError(f"its tensor {entry.name} is stored as {entry.stored}, which gzip never is")
    counts = [entry.centroids or 0 for entry in manifest.tensors]
    centroids = open_dataset(file, CENTROIDS, DTYPES["float32"], (sum(counts),))[()]
    books = np.split(centroids, np.cumsum(counts))[:-1]
    found = {entry.name: _read_tensor(file, entry, book) for entry, book in zip(manifest.tensors, books, strict=True)}
    return found, _measured(file, manifest)


def _measured(file: h5py.File, manifest: Manifest) -> dict[str, TensorBytes]:
    """Bytes by tensor; a clustered tensor's compressed values count as its indices."""
    return {entry.name: _measure_tensor(file[_path(entry)].id.get_storage_size(), entry) for entry in manifest.tensors}


def _measure_tensor(stored: int, entry: Entry) -> TensorBytes:
    if entry.centroids is None:
        return TensorBytes(dense=stored)
    return TensorBytes(indices=stored, codebooks=entry.codebook_bytes)


def _path(entry: Entry) -> str:
    return f"tensors/{entry.name}"


def _write_tensor(file: h5py.File, entry: Entry, tensor: Codebook | NDArray[Any], pool: ThreadPoolExecutor) -> None:
    dtype = DTYPES[entry.dtype]
    if entry.codes and entry.codes["kind"] == TRELLIS and _repeats(tensor):
        raise ArchiveError(
            f"the table of {entry.name}'s trellis has equal entries, which storage=gzip cannot tell apart, as it holds "
            "values: use storage=packed or entropy, or leave its centroids float32"
        )
    if not entry.shape or not entry.values:  # HDF5 cannot compress a scalar or nothing
        data = tensor.dense() if isinstance(tensor, Codebook) else tensor
        file.create_dataset(_path(entry), data=np.asarray(data, dtype), track_times=False)
        return
    rows = _rows_a_chunk(entry)
    dataset = file.create_dataset(
        _path(entry),
        entry.shape,
        dtype,
        chunks=(rows, *entry.shape[1:]),
        compression="gzip",
        compression_opts=LEVEL,
        track_times=False,
    )
    starts = range(0, entry.shape[0], rows)
    for start, chunk in zip(
        starts, pool.map(lambda start: _compressed(tensor, start, rows, dtype), starts), strict=True
    ):
        dataset.id.write_direct_chunk((start, *(0 for _ in entry.shape[1:])), chunk)


def _repeats(tensor: Codebook | NDArray[Any]) -> bool:
    return isinstance(tensor, Codebook) and bool((np.diff(tensor.centroids) == 0).any())


def _rows_a_chunk(entry: Entry) -> int:
    row_bytes = prod(entry.shape[1:]) * DTYPES[entry.dtype].itemsize
    return min(entry.shape[0], max(1, CHUNK_BYTES // row_bytes))


def _compressed(tensor: Codebook | NDArray[Any], start: int, rows: int, dtype: np.dtype) -> bytes:
    part = slice(start, start + rows)
    block = tensor.centroids[tensor.indices[part]] if isinstance(tensor, Codebook) else tensor[part]
    missing = rows - len(block)  # HDF5's last chunk is as long as the others
    return zlib.compress(np.ascontiguousarray(block, dtype).tobytes() + bytes(missing * block[:1].nbytes), LEVEL)


def _read_tensor(file: h5py.File, entry: Entry, centroids: NDArray[np.float32]) -> Codebook | NDArray[Any]:
    dataset = open_dataset(file, _path(entry), DTYPES[entry.dtype], entry.shape)
    if entry.centroids is None:
        return np.asarray(dataset[()])
    indices = np.empty(entry.shape, index_dtype(entry.centroids))
    for part in _parts(entry):
        values = np.asarray(dataset[part])
        indices[part] = assign(values.reshape(-1), centroids)[0].reshape(values.shape)
        if not np.array_equal(centroids[indices[part]], values):
            raise ArchiveError(f"its tensor {entry.name} has values that are not on its centroids")
    return Codebook(centroids, indices)


def _parts(entry: Entry) -> Iterator[tuple[slice, ...]]:
    """The whole of a scalar or empty tensor; else rows, a chunk at a time."""
    if not entry.shape or not entry.values:
        yield ()
        return
    rows = _rows_a_chunk(entry)
    for start in range(0, entry.shape[0], rows):
        yield (slice(start, start + rows),)
