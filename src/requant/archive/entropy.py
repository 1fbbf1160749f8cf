"""Storage `entropy`: indices in about as few bits as their distribution allows, all in one data set of bytes.

`payload` (uint8) holds, without gaps:

1. the length of the side block in bytes (4, unsigned, little-endian);
2. the side block, a zstd frame of: from format 5 on the number of the coder's lanes (`ans`; 0: it has none,
   `sequential`); the number of its words; for each clustered tensor in the manifest's order
   the number of its centroid table; for each element type among the other tensors, in the order of their first tensor,
   the length of its block in bytes (all 4 bytes, unsigned, little-endian); then the clustered tensors' probability
   models (`levels`);
3. the centroid tables that differ, float32 or the 16 bits that the manifest says, in the order in which tensors first
   name them;
4. the coder's states and words (`ans`) for the clustered tensors of more than one centroid: of each the levels of the
   axes that have any, then the indices; of those on a trellis, from format 6 on, low bits first (`trellised`);
5. for each element type (as the file holds it), a zstd frame of its tensors' values one after another in the
   manifest's order: first the lowest byte of each, then the next, and so on. The first bytes of all these frames are
   carried in the coder's states, as many as those hold; the others follow here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive import ans, frames, payloads, sequential, trellised
from requant.archive.content import Contents
from requant.archive.fitting import best_model
from requant.archive.levels import AXES, Levels, Model, axes_of, contexts, from_bytes, no_contexts
from requant.archive.manifest import Entry, Manifest
from requant.archive.payloads import (
    PAYLOAD,
    Reader,
    Tables,
    check_values,
    read_tables,
    shares,
    shuffled,
    tables_bytes,
    unshuffled,
)
from requant.archive.report import TensorBytes
from requant.codebook import Codebook, index_dtype
from requant.errors import ArchiveError

MOST_SIDE = 1 << 28
SAYS_LANES = 5  # the first format version whose side block does
LOW_BITS_FIRST = 6  # the first in which a trellis is coded in two parts


@dataclass(frozen=True)
class Side:
    """The side block: what is where in the payload, and the probability models."""

    size: int
    lanes: int
    words: int
    tables: list[int]
    blocks: list[int]
    models: list[Model]

    def to_bytes(self) -> bytes:
        """Before compression."""
        numbers = [self.lanes, self.words, *self.tables, *self.blocks]
        return np.array(numbers, "<u4").tobytes() + b"".join(model.to_bytes() for model in self.models)


def write(file: h5py.File, manifest: Manifest, contents: Contents) -> dict[str, TensorBytes]:
    """Write the tensors into a new file; returns the bytes by tensor."""
    entries, groups = payloads.clustered(manifest), payloads.groups(manifest)
    tables, models, parts = Tables(), list[Model](), list[list[ans.Part]]()
    for entry in entries:
        codebook = contents[entry.name]
        assert isinstance(codebook, Codebook)
        tables.add(entry, codebook.centroids)
        coded_book = trellised.with_points(codebook, entry.states) if entry.on_trellis else codebook
        model, levels = best_model(coded_book)
        models.append(model)
        parts.append(list(_parts(coded_book, model, levels, entry.on_trellis)))
    blocks = [frames.compress(shuffled([(e, contents[e.name]) for e in group])) for group in groups.values()]
    dense = b"".join(blocks)
    lanes = ans.lanes_for(_entropy_bytes(contents, entries), len(dense))
    room = ans.CARRIED * lanes
    every = [part for of_tensor in parts for part in of_tensor]
    coded = ans.encode(every, dense[:room].ljust(room, b"\0")) if lanes else sequential.encode(every)
    side = Side(0, lanes, coded.words.size, tables.numbers, list(map(len, blocks)), models)
    packed = frames.compress(side.to_bytes())
    stream = ans.states_to_bytes(coded.states) + coded.words.astype("<u2").tobytes()
    payload = [len(packed).to_bytes(4, "little"), packed, tables.to_bytes(), stream, dense[room:]]
    file.create_dataset(PAYLOAD, data=np.frombuffer(b"".join(payload), np.uint8), track_times=False)
    counts = iter(coded.counts)
    words = [sum(next(counts) for _ in of_tensor) for of_tensor in parts]
    return _measured(manifest, side, words, len(packed) + len(stream) - min(room, len(dense)))


def _parts(codebook: Codebook, model: Model, levels: Levels, on_trellis: bool = False) -> Iterator[ans.Part]:
    """What is coded of a tensor: its levels, then its indices; of one on a trellis the codebook of its points."""
    if codebook.k == 1:
        return
    for axis in range(AXES):
        if model.shares[axis].size:
            yield ans.Part(levels[axis], no_contexts, model.level_frequencies(axis))
    if on_trellis:
        yield from trellised.parts(codebook, model, levels)
    else:
        yield ans.Part(codebook.indices.reshape(-1), contexts(levels), model.frequencies(codebook.centroids))


def _entropy_bytes(contents: Contents, entries: Sequence[Entry]) -> float:
    books = [contents[entry.name] for entry in entries]
    return sum(book.entropy_bits * book.indices.size for book in books if isinstance(book, Codebook)) / 8


def read(file: h5py.File, manifest: Manifest) -> tuple[dict[str, Codebook | NDArray[Any]], dict[str, TensorBytes]]:
    """The tensors of an open file, by name in the manifest's order, and their bytes.

    Raises:
        ArchiveError: naming what is not as the manifest says.

    """
    content = Reader(file)
    side, entries = _side(content, manifest), payloads.clustered(manifest)
    room = ans.CARRIED * side.lanes
    tables = read_tables(content, entries, side.tables)
    before = content.begin
    states = ans.states_from(content.take, side.lanes)
    coded = content.take(2 * side.words).view("<u2")
    decoder = ans.Decoder(states, coded) if side.lanes else sequential.Decoder(coded)
    stream = content.begin - before
    found, words = dict[str, Codebook | NDArray[Any]](), []
    for entry, centroids, model in zip(entries, tables, side.models, strict=True):
        before = decoder.read
        indices = _indices(decoder, model, centroids, entry, in_two_parts=_in_two_parts(entry, manifest))
        found[entry.name] = Codebook(centroids, indices)
        words.append(decoder.read - before)
    dense = decoder.finish()[: sum(side.blocks)] + content.take(max(0, sum(side.blocks) - room)).tobytes()
    content.finish()
    ends = np.cumsum(side.blocks).tolist()
    for group, end, size in zip(payloads.groups(manifest).values(), ends, side.blocks, strict=True):
        found |= unshuffled(dense[end - size : end], group)
    sizes = _measured(manifest, side, words, side.size - 4 + stream - min(room, sum(side.blocks)))
    return {entry.name: found[entry.name] for entry in manifest.tensors}, sizes


def _in_two_parts(entry: Entry, manifest: Manifest) -> bool:
    return entry.on_trellis and manifest.version >= LOW_BITS_FIRST


def _indices(
    decoder: ans.Decoder | sequential.Decoder,
    model: Model,
    centroids: NDArray[np.float32],
    entry: Entry,
    in_two_parts: bool,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if len(centroids) == 1:
        return np.zeros(entry.shape, np.uint8)
    sizes = axes_of(entry.shape)
    levels = tuple(
        decoder.decode(size, no_contexts, model.level_frequencies(axis)).astype(np.uint8)
        if model.shares[axis].size
        else np.zeros(size, np.uint8)
        for axis, size in enumerate(sizes)
    )
    if in_two_parts:
        found = trellised.decoded(decoder, model, levels, centroids, entry)
    else:
        found = decoder.decode(entry.values, contexts(levels), model.frequencies(centroids)).reshape(entry.shape)
    return found if index_dtype(len(centroids)) == np.uint16 else found.astype(np.uint8)


def _measured(manifest: Manifest, side: Side, words: Sequence[int], coded: int) -> dict[str, TensorBytes]:
    """Bytes by tensor: what coding takes in proportion to the tensors' words, blocks in proportion to their values."""
    entries, found = payloads.clustered(manifest), dict[str, TensorBytes]()
    tables = tables_bytes(entries, side.tables)
    for entry, share, table in zip(entries, shares(coded, words), tables, strict=True):
        found[entry.name] = TensorBytes(indices=share, codebooks=table)
    for group, block in zip(payloads.groups(manifest).values(), side.blocks, strict=True):
        for entry, share in zip(group, shares(block, [e.dense_bytes for e in group]), strict=True):
            found[entry.name] = TensorBytes(dense=share)
    return {entry.name: found[entry.name] for entry in manifest.tensors}


def _side(content: Reader, manifest: Manifest) -> Side:
    check_values(manifest, content.size)
    size = int(content.take(4).view("<u4")[0])
    data = frames.decompress(content.take(size).tobytes(), MOST_SIDE, "payload's side block")
    entries, groups = payloads.clustered(manifest), payloads.groups(manifest)
    count = (2 if manifest.version >= SAYS_LANES else 1) + len(entries) + len(groups)
    if len(data) < 4 * count:
        raise ArchiveError("its payload's side block is cut off")
    numbers = np.frombuffer(data[: 4 * count], "<u4").tolist()
    lanes = numbers.pop(0) if manifest.version >= SAYS_LANES else _lanes_before_5(entries)
    if lanes > ans.MOST_LANES:
        raise ArchiveError(f"its payload says that its coder has {lanes} lanes")
    words, *numbers = numbers
    models, rest = [], data[4 * count :]
    for entry in entries:
        k = entry.centroids or 1
        model, rest = from_bytes(rest, trellised.point_count(k) if _in_two_parts(entry, manifest) else k)
        models.append(model)
    if rest:
        raise ArchiveError("its payload's side block is too long")
    return Side(4 + size, lanes, words, numbers[: len(entries)], numbers[len(entries) :], models)


def _lanes_before_5(entries: Sequence[Entry]) -> int:
    return ans.lanes_before_5(sum(entry.values for entry in entries if entry.centroids != 1))
