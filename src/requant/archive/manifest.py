"""The manifest: which tensors an archive holds, of what form, and where the network comes from. JSON in the file.

{"storage": "packed",
 "architecture": {...} or null,
 "provenance": {...} or null,
 "tensors": [{"name": "0.weight", "shape": [8, 4], "dtype": "float32", "centroids": 16},
             {"name": "0.bias", "shape": [8], "dtype": "float32", "centroids": null}, ...]}

`centroids` is null where the tensor is stored as it is. The order of the tensors is that of the network.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from requant.archive.bitpack import packed_size
from requant.errors import ArchiveError

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("<i1"),
    "uint8": np.dtype("<u1"),
    "bool": np.dtype("<u1"),
}
"""Element types by their PyTorch names, and how a file holds them."""

MANIFEST = "manifest"  # the data set's name
MAX_CENTROIDS = 256
MAX_DIMENSIONS = 32
MAX_TEXT = 1 << 26  # bytes of JSON: keeps a small hostile file from filling the memory
MAX_CONSTANT = 1 << 28  # values in tensors of one centroid, which take no bits a value, for the same reason


@dataclass(frozen=True)
class Entry:
    """One tensor: its name, shape, element type, and how many centroids it has (None: not clustered)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    centroids: int | None

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits an index takes when packed."""
        return ((self.centroids or 1) - 1).bit_length()

    @property
    def codebook_bytes(self) -> int:
        """Bytes of its centroids."""
        return 4 * (self.centroids or 0)

    @property
    def index_bytes(self) -> int:
        """Bytes of its packed indices; 0 where it is not clustered."""
        return packed_size(self.values, self.bits) if self.centroids else 0

    @property
    def dense_bytes(self) -> int:
        """Bytes of its values as they are; 0 where it is clustered."""
        return 0 if self.centroids else self.values * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Manifest:
    """What is stored, and how."""

    storage: str
    architecture: dict[str, Any] | None
    provenance: dict[str, Any] | None
    tensors: tuple[Entry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.tensors]
        if len(set(names)) < len(names):
            raise ArchiveError("its manifest names a tensor twice")
        constant = sum(entry.values for entry in self.tensors if entry.centroids == 1)
        if constant > MAX_CONSTANT:
            raise ArchiveError(f"{constant} values lie in tensors of one centroid, above the limit of {MAX_CONSTANT}")


def encode(manifest: Manifest) -> bytes:
    """The bytes that the file holds.

    Raises:
        ArchiveError: for architecture or provenance that JSON cannot hold.

    """
    try:
        text = json.dumps(asdict(manifest), allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchiveError(
            f"architecture and provenance must be plain values that JSON can hold: {error}; "
            "convert them to dicts, lists, text and finite numbers"
        ) from error
    if len(text) > MAX_TEXT:
        raise ArchiveError(f"architecture and provenance take {len(text)} bytes, above the limit of {MAX_TEXT}")
    return zlib.compress(text, 9)


def decode(data: bytes) -> Manifest:
    """The manifest in the bytes that a file holds.

    Raises:
        ArchiveError: for anything but a valid manifest.

    """
    stream = zlib.decompressobj()
    text = stream.decompress(data, MAX_TEXT)
    if not stream.eof or stream.unused_data:
        raise ArchiveError("its manifest is cut off or too long")
    return _manifest(json.loads(text))


def _manifest(data: object) -> Manifest:
    fields = _fields(data, {"storage": str, "architecture": dict | None, "provenance": dict | None, "tensors": list})
    return Manifest(**{**fields, "tensors": tuple(_entry(tensor) for tensor in fields["tensors"])})


def _entry(data: object) -> Entry:
    fields = _fields(data, {"name": str, "shape": list, "dtype": str, "centroids": int | None})
    entry = Entry(**{**fields, "shape": tuple(fields["shape"])})
    if not _is_shape(entry.shape):
        raise ArchiveError(f"its manifest gives {entry.name} the shape {entry.shape}")
    if entry.dtype not in DTYPES:
        raise ArchiveError(f"its manifest gives {entry.name} the unknown type {entry.dtype!r}")
    if entry.centroids is not None and not (1 <= entry.centroids <= MAX_CENTROIDS and entry.dtype == "float32"):
        raise ArchiveError(f"its manifest gives {entry.name} {entry.centroids} centroids of type {entry.dtype}")
    return entry


def _is_shape(shape: Sequence[object]) -> bool:
    whole = all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    return whole and len(shape) <= MAX_DIMENSIONS


def _fields(data: object, types: Mapping[str, Any]) -> dict[str, Any]:
    """`data`, if it is a mapping of exactly these keys to values of these types."""
    if not isinstance(data, dict) or set(data) != set(types):
        raise ArchiveError(f"its manifest should have {', '.join(types)} where it has {_shortened(data)}")
    for key, kind in types.items():
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise ArchiveError(f"its manifest has {_shortened(data[key])} for {key}")
    return data


def _shortened(value: object) -> str:
    text = repr(sorted(value) if isinstance(value, dict) else value)
    return text if len(text) <= 80 else f"{text[:80]}..."
