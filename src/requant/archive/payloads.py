"""What a payload of bytes is made of: parts one after another, tables that tensors share, blocks of shuffled values."""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive import frames
from requant.archive.datasets import open_dataset
from requant.archive.manifest import Entry, Manifest
from requant.errors import ArchiveError

PAYLOAD = "payload"  # the data set's name
AT_ONCE = 1 << 24  # bytes of a payload that are read in one piece: HDF5 takes long for each


class Reader:
    """Parts of an open file's payload, one after another."""

    def __init__(self, file: h5py.File) -> None:
        self.payload = open_dataset(file, PAYLOAD, np.dtype(np.uint8))
        self.size, self.begin = int(self.payload.size), 0
        self.whole = self._read(0, self.size) if self.size <= AT_ONCE else None

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next bytes.

        Raises:
            ArchiveError: where there are fewer.

        """
        begin, self.begin = self.begin, self.begin + size
        if self.begin > self.size:
            raise ArchiveError(f"its payload of {self.size} bytes ends before what it announces")
        return self._read(begin, size) if self.whole is None else self.whole[begin : self.begin]

    def finish(self) -> None:
        """Nothing may be left."""
        if self.begin != self.size:
            raise ArchiveError(f"its payload has {self.size - self.begin} bytes too many")

    def _read(self, begin: int, size: int) -> NDArray[np.uint8]:
        data = np.empty(size, np.uint8)
        if size:
            self.payload.read_direct(data, np.s_[begin : begin + size])
        return data


def shuffled(tensors: Sequence[tuple[Entry, Any]]) -> bytes:
    """The tensors' values as the file holds them: first the lowest byte of each, then the next, and so on."""
    values = np.concatenate([entry.to_held(array) for entry, array in tensors])
    return values.reshape(-1, tensors[0][0].held.itemsize).T.tobytes()


def unshuffled(block: bytes, group: Sequence[Entry]) -> dict[str, NDArray[Any]]:
    """The tensors of a group (see `groups`) by name, from the zstd frame of `shuffled`.

    Raises:
        ArchiveError: for another number of bytes than theirs.

    """
    first, values = group[0], sum(entry.values for entry in group)
    size = values * first.held.itemsize
    data = frames.decompress(block, size, f"block of {first.dtype}")
    if len(data) != size:
        raise ArchiveError(f"its block of {first.dtype} holds {len(data)} bytes, not {size}")
    flat = first.from_held(np.frombuffer(bytearray(data), np.uint8).reshape(first.held.itemsize, values).T.reshape(-1))
    parts = np.split(flat, np.cumsum([entry.values for entry in group])[:-1])
    return {entry.name: part.reshape(entry.shape) for entry, part in zip(group, parts, strict=True)}


def clustered(manifest: Manifest) -> list[Entry]:
    """The clustered tensors."""
    return [entry for entry in manifest.tensors if entry.centroids is not None]


def groups(manifest: Manifest) -> dict[tuple[str, str | None], list[Entry]]:
    """The tensors that are not clustered, by element type, as they are and in the file."""
    groups: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in manifest.tensors:
        if entry.centroids is None:
            groups.setdefault((entry.dtype, entry.stored), []).append(entry)
    return groups


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` in whole parts, in proportion to the sizes."""
    ends = [total * end // max(1, sum(sizes)) for end in np.cumsum(np.array(sizes, object)).tolist()]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


class Tables:
    """The centroid tables that differ, and for each tensor the number of its own."""

    def __init__(self) -> None:
        self.found: dict[tuple[int | None, str | None, bytes], int] = {}
        self.numbers: list[int] = []

    def add(self, entry: Entry, centroids: NDArray[np.float32]) -> None:
        """The table of the next clustered tensor."""
        key = entry.centroids, entry.stored, entry.to_held(centroids).tobytes()
        self.numbers.append(self.found.setdefault(key, len(self.found)))

    def to_bytes(self) -> bytes:
        """All of them."""
        return b"".join(table for *_, table in self.found)


def read_tables(content: Reader, entries: Sequence[Entry], numbers: Sequence[int]) -> list[NDArray[np.float32]]:
    """For each clustered tensor its centroids, from the tables that come next in the payload.

    Raises:
        ArchiveError: for a table that is not a tensor's own, and for centroids that are not finite.

    """
    firsts: list[Entry] = []
    for entry, table in zip(entries, numbers, strict=True):
        if table == len(firsts):
            firsts.append(entry)
        if table >= len(firsts) or (firsts[table].centroids, firsts[table].stored) != (entry.centroids, entry.stored):
            raise ArchiveError(f"its payload gives {entry.name} a centroid table that is not its own")
    tables = [first.from_held(content.take(first.codebook_bytes)).astype(np.float32) for first in firsts]
    for first, centroids in zip(firsts, tables, strict=True):
        if not np.isfinite(centroids).all():
            raise ArchiveError(f"its centroids of {first.name} are NaN or infinite")
    return [tables[number] for number in numbers]


def tables_bytes(entries: Sequence[Entry], numbers: Sequence[int]) -> list[int]:
    """For each clustered tensor the bytes of its table; 0 where one before it has the same."""
    return [
        e.codebook_bytes if n not in numbers[:i] else 0 for i, (e, n) in enumerate(zip(entries, numbers, strict=True))
    ]


MOST_VALUES = 1 << 28  # that a payload may stand for, beside this many for each of its bytes:
VALUES_A_BYTE = 1000


def check_values(manifest: Manifest, size: int) -> None:
    """Bound the values that a payload of `size` bytes stands for: a few bytes may stand for any number of sure ones."""
    values = sum(entry.values for entry in manifest.tensors)
    if values > MOST_VALUES + VALUES_A_BYTE * size:
        raise ArchiveError(f"its {size} bytes of payload stand for {values} values, which is above the limit")
