"""Storage `entropy`: indices by a range coder, other tensors by byte shuffle and zstd, in one data set of bytes.

`payload` (uint8) holds, without gaps:

1. the length of the side block in bytes (4, unsigned, little-endian);
2. the side block, a zstd frame of: for each clustered tensor in the manifest's order the number of its words and the
   number of its centroid table; for each element type among the other tensors, in the order of their first tensor, the
   length of its block in bytes (all 4 bytes, unsigned, little-endian); then the clustered tensors' probability models
   (`probabilities`);
3. the centroid tables that differ, float32 or the 16 bits that the manifest says, in the order in which tensors first
   name them;
4. for each clustered tensor of more than one centroid, the coder's words (4 bytes, little-endian);
5. for each element type (as the file holds it), a zstd frame of its tensors' values one after another in the
   manifest's order: first the lowest byte of each, then the next, and so on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive import coder, frames
from requant.archive.content import Contents
from requant.archive.datasets import open_dataset
from requant.archive.fitting import best_model
from requant.archive.manifest import Entry, Manifest
from requant.archive.probabilities import Model, from_bytes
from requant.archive.report import TensorBytes
from requant.codebook import Codebook
from requant.errors import ArchiveError

PAYLOAD = "payload"
MOST_VALUES = 1 << 28  # that a payload may stand for, beside this many for each of its bytes:
VALUES_A_BYTE = 1000
MOST_SIDE = 1 << 28


@dataclass(frozen=True)
class Side:
    """The side block: what is where in the payload, and the probability models."""

    size: int
    words: list[int]
    tables: list[int]
    blocks: list[int]
    models: list[Model]


def write(file: h5py.File, manifest: Manifest, contents: Contents) -> None:
    """Write the tensors into a new file."""
    tables, streams, models = _Tables(), list[NDArray[np.uint32]](), list[bytes]()
    for entry in _clustered(manifest):
        codebook = contents[entry.name]
        assert isinstance(codebook, Codebook)
        model = best_model(codebook)
        coded = coder.encode(codebook.indices, model, codebook.centroids) if codebook.k > 1 else np.empty(0, np.uint32)
        tables.add(entry, codebook.centroids)
        streams.append(coded)
        models.append(model.to_bytes())
    blocks = [
        frames.compress(_shuffled([(e, contents[e.name]) for e in group])) for group in _groups(manifest).values()
    ]
    numbers = [*(len(stream) for stream in streams), *tables.numbers, *(len(block) for block in blocks)]
    side = frames.compress(np.array(numbers, "<u4").tobytes() + b"".join(models))
    parts = [
        len(side).to_bytes(4, "little"),
        side,
        *(table for _, table in tables.found),
        *(s.astype("<u4").tobytes() for s in streams),
        *blocks,
    ]
    payload = np.frombuffer(b"".join(parts), np.uint8)
    file.create_dataset(PAYLOAD, data=payload, track_times=False)


class _Tables:
    """The centroid tables that differ, and for each tensor the number of its own."""

    def __init__(self) -> None:
        self.found: dict[tuple[str | None, bytes], int] = {}
        self.numbers: list[int] = []

    def add(self, entry: Entry, centroids: NDArray[np.float32]) -> None:
        self.numbers.append(self.found.setdefault((entry.stored, entry.to_held(centroids).tobytes()), len(self.found)))


def read(file: h5py.File, manifest: Manifest) -> dict[str, Codebook | NDArray[Any]]:
    """The tensors of an open file, by name, in the manifest's order.

    Raises:
        ArchiveError: naming what is not as the manifest says.

    """
    payload = open_dataset(file, PAYLOAD, np.dtype(np.uint8))
    side = _side(payload, manifest)
    content = _Reader(payload, side.size)
    clustered = _clustered(manifest)
    tables = [first.from_held(content.take(first.codebook_bytes)) for first in _tables(clustered, side)]
    found: dict[str, Codebook | NDArray[Any]] = {}
    for entry, words, table, model in zip(clustered, side.words, side.tables, side.models, strict=True):
        coded = content.take(4 * words).view("<u4").astype(np.uint32)
        centroids = tables[table]
        if not np.isfinite(centroids).all():
            raise ArchiveError(f"its centroids of {entry.name} are NaN or infinite")
        found[entry.name] = Codebook(centroids, _indices(coded, model, centroids, entry))
    for group, size in zip(_groups(manifest).values(), side.blocks, strict=True):
        found |= _unshuffled(content.take(size).tobytes(), group)
    content.finish()
    return {entry.name: found[entry.name] for entry in manifest.tensors}


def measure(file: h5py.File, manifest: Manifest) -> dict[str, TensorBytes]:
    """Bytes by tensor: shared tables and blocks in proportion to the tensors' own sizes; models count as indices."""
    payload = open_dataset(file, PAYLOAD, np.dtype(np.uint8))
    side, clustered = _side(payload, manifest), _clustered(manifest)
    first = {table: position for position, table in reversed(list(enumerate(side.tables)))}
    found = {}
    for position, entry in enumerate(clustered):
        own = entry.codebook_bytes if first[side.tables[position]] == position else 0
        found[entry.name] = TensorBytes(indices=4 * side.words[position], codebooks=own)
    shares = _shares(side.size - 4, [len(model.to_bytes()) for model in side.models])
    for entry, share in zip(clustered, shares, strict=True):
        size = found[entry.name]
        found[entry.name] = TensorBytes(size.indices + share, size.codebooks)
    for group, size_of_block in zip(_groups(manifest).values(), side.blocks, strict=True):
        for entry, share in zip(group, _shares(size_of_block, [e.dense_bytes for e in group]), strict=True):
            found[entry.name] = TensorBytes(dense=share)
    return {entry.name: found[entry.name] for entry in manifest.tensors}


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` in whole parts, in proportion to the sizes."""
    ends = [total * end // max(1, sum(sizes)) for end in np.cumsum(np.array(sizes, object)).tolist()]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _clustered(manifest: Manifest) -> list[Entry]:
    return [entry for entry in manifest.tensors if entry.centroids is not None]


def _groups(manifest: Manifest) -> dict[tuple[str, str | None], list[Entry]]:
    """The tensors that are not clustered, by element type, as they are and in the file."""
    groups: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in manifest.tensors:
        if entry.centroids is None:
            groups.setdefault((entry.dtype, entry.stored), []).append(entry)
    return groups


def _side(payload: h5py.Dataset, manifest: Manifest) -> Side:
    content = _Reader(payload, 0)
    size = int(content.take(4).view("<u4")[0])
    data = frames.decompress(content.take(size).tobytes(), MOST_SIDE, "payload's side block")
    clustered, groups = _clustered(manifest), _groups(manifest)
    count = 2 * len(clustered) + len(groups)
    if len(data) < 4 * count:
        raise ArchiveError("its payload's side block is cut off")
    numbers = np.frombuffer(data[: 4 * count], "<u4").tolist()
    words, tables, blocks = (numbers[a:b] for a, b in _bounds(len(clustered), count))
    models, rest = [], data[4 * count :]
    for entry in clustered:
        model, rest = from_bytes(rest, entry.shape, entry.centroids or 1)
        models.append(model)
    if rest:
        raise ArchiveError("its payload's side block is too long")
    _check_values(manifest, payload.size)
    return Side(4 + size, words, tables, blocks, models)


def _bounds(clustered: int, count: int) -> list[tuple[int, int]]:
    return [(0, clustered), (clustered, 2 * clustered), (2 * clustered, count)]


def _check_values(manifest: Manifest, size: int) -> None:
    """A few bytes may stand for any number of improbable-to-be-otherwise indices: bound them before taking memory."""
    values = sum(entry.values for entry in manifest.tensors)
    if values > MOST_VALUES + VALUES_A_BYTE * size:
        raise ArchiveError(f"its {size} bytes of payload stand for {values} values, which is above the limit")


def _tables(clustered: Iterable[Entry], side: Side) -> list[Entry]:
    """For each table the first tensor that has it."""
    firsts: list[Entry] = []
    for entry, table in zip(clustered, side.tables, strict=True):
        if table == len(firsts):
            firsts.append(entry)
        if table >= len(firsts) or (firsts[table].centroids, firsts[table].stored) != (entry.centroids, entry.stored):
            raise ArchiveError(f"its payload gives {entry.name} a centroid table that is not its own")
    return firsts


def _indices(
    words: NDArray[np.uint32], model: Model, centroids: NDArray[np.float32], entry: Entry
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if len(centroids) == 1:
        return np.zeros(entry.shape, np.uint8)
    return coder.decode(words, model, centroids, entry.shape)


class _Reader:
    """Parts of the payload, one after another."""

    def __init__(self, payload: h5py.Dataset, begin: int) -> None:
        self.payload, self.begin = payload, begin

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next bytes."""
        if self.begin + size > self.payload.size:
            raise ArchiveError(f"its payload of {self.payload.size} bytes ends before what it announces")
        part = np.empty(size, np.uint8)
        if size:
            self.payload.read_direct(part, np.s_[self.begin : self.begin + size])
        self.begin += size
        return part

    def finish(self) -> None:
        """Nothing may be left."""
        if self.begin != self.payload.size:
            raise ArchiveError(f"its payload has {self.payload.size - self.begin} bytes too many")


def _shuffled(tensors: Sequence[tuple[Entry, Any]]) -> bytes:
    values = np.concatenate([entry.to_held(array) for entry, array in tensors])
    return values.reshape(-1, tensors[0][0].held.itemsize).T.tobytes()


def _unshuffled(block: bytes, group: Sequence[Entry]) -> dict[str, NDArray[Any]]:
    first, values = group[0], sum(entry.values for entry in group)
    size = values * first.held.itemsize
    data = frames.decompress(block, size, f"block of {first.dtype}")
    if len(data) != size:
        raise ArchiveError(f"its block of {first.dtype} holds {len(data)} bytes, not {size}")
    flat = first.from_held(np.frombuffer(bytearray(data), np.uint8).reshape(first.held.itemsize, values).T.reshape(-1))
    parts = np.split(flat, np.cumsum([entry.values for entry in group])[:-1])
    return {entry.name: part.reshape(entry.shape) for entry, part in zip(group, parts, strict=True)}
