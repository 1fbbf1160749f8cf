"""Storage `entropy` of format version 1, which is read and no longer written: indices by constriction's range coder.

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

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from requant.archive import coder, frames, payloads
from requant.archive.manifest import Entry, Manifest
from requant.archive.payloads import Reader, check_values, read_tables, shares, tables_bytes, unshuffled
from requant.archive.probabilities import Model, from_bytes
from requant.archive.report import TensorBytes
from requant.codebook import Codebook
from requant.errors import ArchiveError

MOST_SIDE = 1 << 28


@dataclass(frozen=True)
class Side:
    """The side block: what is where in the payload, and the probability models."""

    size: int
    words: list[int]
    tables: list[int]
    blocks: list[int]
    models: list[Model]


def read(file: h5py.File, manifest: Manifest) -> tuple[dict[str, Codebook | NDArray[Any]], dict[str, TensorBytes]]:
    """The tensors of an open file, by name in the manifest's order, and their bytes.

    Raises:
        ArchiveError: naming what is not as the manifest says.

    """
    content = Reader(file)
    side = _side(content, manifest)
    clustered = payloads.clustered(manifest)
    tables = read_tables(content, clustered, side.tables)
    found: dict[str, Codebook | NDArray[Any]] = {}
    for entry, words, centroids, model in zip(clustered, side.words, tables, side.models, strict=True):
        coded = content.take(4 * words).view("<u4").astype(np.uint32)
        found[entry.name] = Codebook(centroids, _indices(coded, model, centroids, entry))
    for group, size in zip(payloads.groups(manifest).values(), side.blocks, strict=True):
        found |= unshuffled(content.take(size).tobytes(), group)
    content.finish()
    return {entry.name: found[entry.name] for entry in manifest.tensors}, _measured(manifest, side)


def _measured(manifest: Manifest, side: Side) -> dict[str, TensorBytes]:
    """Bytes by tensor: shared tables and blocks in proportion to the tensors' own sizes; models count as indices."""
    clustered = payloads.clustered(manifest)
    found = {}
    for entry, words, own in zip(clustered, side.words, tables_bytes(clustered, side.tables), strict=True):
        found[entry.name] = TensorBytes(indices=4 * words, codebooks=own)
    of_side = shares(side.size - 4, [len(model.to_bytes()) for model in side.models])
    for entry, share in zip(clustered, of_side, strict=True):
        size = found[entry.name]
        found[entry.name] = TensorBytes(size.indices + share, size.codebooks)
    for group, size_of_block in zip(payloads.groups(manifest).values(), side.blocks, strict=True):
        for entry, share in zip(group, shares(size_of_block, [e.dense_bytes for e in group]), strict=True):
            found[entry.name] = TensorBytes(dense=share)
    return {entry.name: found[entry.name] for entry in manifest.tensors}


def _side(content: Reader, manifest: Manifest) -> Side:
    size = int(content.take(4).view("<u4")[0])
    data = frames.decompress(content.take(size).tobytes(), MOST_SIDE, "payload's side block")
    clustered, groups = payloads.clustered(manifest), payloads.groups(manifest)
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
    check_values(manifest, content.size)
    return Side(4 + size, words, tables, blocks, models)


def _bounds(clustered: int, count: int) -> list[tuple[int, int]]:
    return [(0, clustered), (clustered, 2 * clustered), (2 * clustered, count)]


def _indices(
    words: NDArray[np.uint32], model: Model, centroids: NDArray[np.float32], entry: Entry
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if len(centroids) == 1:
        return np.zeros(entry.shape, np.uint8)
    return coder.decode(words, model, centroids, entry.shape)
