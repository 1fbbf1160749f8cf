"""The manifest: which tensors an archive holds, of what form, and where the network comes from. JSON in the file.

{"storage": "packed",
 "architecture": {...} or null,
 "provenance": {...} or null,
 "tensors": [{"name": "0.weight", "shape": [8, 4], "dtype": "float32", "centroids": 16},
             {"name": "0.bias", "shape": [8], "dtype": "float32", "centroids": null}, ...]}

`centroids` is null where the tensor is stored as it is. The order of the tensors is that of the network.

Version 2 holds the same with little written twice, in a zstd frame:

{"storage": "packed", "architecture": ..., "provenance": ...,
 "names": {"0": {"weight": 0, "bias": 0}},      (a tree, see `naming`; or a list)
 "shapes": [[8, 4], [8]],
 "forms": [{"dtype": "float32", "centroids": 16}, {"dtype": "float32", "centroids": null, "stored": "bfloat16"}],
 "form": [0, 1]}                                (which of the forms each tensor has)

It allows up to 4,096 centroids, and one more key, `stored`: "bfloat16" or "float16" where the centroids, or the values
of a tensor that is not clustered, are float32 numbers held in 16 bits; in version 4 also "steps" where the centroids
are equal steps about 0, of which the step is held (see `steps`). And `codes`, where indices stand for something else
than a value each in one table (see `forms`).
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.archive import frames
from requant.archive.bitpack import packed_size
from requant.archive.halves import HALVES, HELD, from_bits, to_bits
from requant.archive.naming import folded, unfolded
from requant.archive.steps import STEPS, step_of, table_of
from requant.errors import ArchiveError
from requant.limits import MAX_CENTROIDS
from requant.trellis import FEWEST

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

TRELLIS = "trellis"  # a kind of `codes`
STATES = "states"  # a key of such, from version 6 on
MANIFEST = "manifest"  # the data set's name
MAX_CENTROIDS_1 = 256  # in format version 1
MAX_DIMENSIONS = 32
MAX_TEXT = 1 << 26  # bytes of JSON: keeps a small hostile file from filling the memory
MAX_CONSTANT = 1 << 28  # values in tensors of one centroid, which take no bits a value, for the same reason


@dataclass(frozen=True)
class Entry:
    """One tensor.

    Attributes:
        name: its key in the state dict.
        shape: its size along each dimension.
        dtype: its element type, by PyTorch's name.
        centroids: how many it has; None: it is not clustered.
        stored: one of `HALVES`, where its centroids or values are held as that; `STEPS`, where of its centroids the
            step is held; None: as `dtype`.
        codes: what its indices stand for (see `forms`); None: for the values of `shape`.

    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    centroids: int | None
    stored: str | None = None
    codes: dict[str, Any] | None = None

    @property
    def version(self) -> int:
        """The first format version that can hold it."""
        if self.codes and STATES in self.codes:
            return 6
        if self.stored == STEPS:
            return 4
        if self.on_trellis:
            return 3
        return 2 if self.stored or self.codes or (self.centroids or 0) > MAX_CENTROIDS_1 else 1

    @property
    def on_trellis(self) -> bool:
        """Whether what its indices stand for follows from those before them."""
        return self.codes is not None and self.codes["kind"] == TRELLIS

    @property
    def states(self) -> int:
        """Of that trellis."""
        found: int = (self.codes or {}).get(STATES, FEWEST)
        return found

    @property
    def held(self) -> np.dtype[Any]:
        """The numpy type of its centroids or values in the file."""
        return HELD if self.stored in HALVES else DTYPES[self.dtype]

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
        return self.held.itemsize * (1 if self.stored == STEPS else self.centroids or 0)

    @property
    def index_bytes(self) -> int:
        """Bytes of its packed indices; 0 where it is not clustered."""
        return packed_size(self.values, self.bits) if self.centroids else 0

    @property
    def dense_bytes(self) -> int:
        """Bytes of its values as they are; 0 where it is clustered."""
        return 0 if self.centroids else self.values * self.held.itemsize

    def to_held(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """The bytes of centroids or values as the file holds them, in row-major order."""
        flat = np.ascontiguousarray(values).reshape(-1)
        if self.stored == STEPS:
            flat = np.asarray([step_of(flat)], np.float32)
        held = to_bits(flat, self.stored) if self.stored in HALVES else flat.astype(self.held, copy=False)
        return held.view(np.uint8)

    def from_held(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """Centroids or values, flat, from the bytes that the file holds."""
        held = (data if data.flags.owndata else data.copy()).view(self.held)  # a part of a payload may begin anywhere
        if self.stored == STEPS:
            return table_of(held[0], self.centroids or 0)
        return from_bits(held, self.stored) if self.stored in HALVES else held


@dataclass(frozen=True)
class Manifest:
    """What is stored, and how."""

    storage: str
    architecture: dict[str, Any] | None
    provenance: dict[str, Any] | None
    tensors: tuple[Entry, ...]
    version: int

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
    data = _plain(manifest) if manifest.version == 1 else _folded(manifest)
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchiveError(
            f"architecture and provenance must be plain values that JSON can hold: {error}; "
            "convert them to dicts, lists, text and finite numbers"
        ) from error
    if len(text) > MAX_TEXT:
        raise ArchiveError(f"architecture and provenance take {len(text)} bytes, above the limit of {MAX_TEXT}")
    return zlib.compress(text, 9) if manifest.version == 1 else frames.compress(text)


def decode(data: bytes, version: int) -> Manifest:
    """The manifest in the bytes that a file of this format version holds.

    Raises:
        ArchiveError: for anything but a valid manifest.

    """
    if version == 1:
        stream = zlib.decompressobj()
        text = stream.decompress(data, MAX_TEXT)
        if not stream.eof or stream.unused_data:
            raise ArchiveError("its manifest is cut off or too long")
        return _manifest(json.loads(text), version)
    return _manifest(_unfolded(json.loads(frames.decompress(data, MAX_TEXT, "manifest"))), version)


def _plain(manifest: Manifest) -> dict[str, Any]:
    """For JSON; keys of version 2 are left out where they say nothing."""
    data = asdict(manifest)
    del data["version"]
    for tensor in data["tensors"]:
        for key in [key for key in _NEWER if tensor[key] is None]:
            del tensor[key]
    return data


def _folded(manifest: Manifest) -> dict[str, Any]:
    """The columns of version 2."""
    data = _plain(manifest)
    forms: list[dict[str, Any]] = []
    columns: dict[str, Any] = {"names": [], "shapes": [], "forms": forms, "form": []}
    for tensor in data.pop("tensors"):
        columns["names"].append(tensor.pop("name"))
        columns["shapes"].append(tensor.pop("shape"))
        if tensor not in forms:
            forms.append(tensor)
        columns["form"].append(forms.index(tensor))
    columns["names"] = folded(columns["names"])
    return {**data, **columns}


def _unfolded(data: object) -> dict[str, Any]:
    columns = {"names": dict | list, "shapes": list, "forms": list, "form": list}
    fields = dict(_fields(data, {**_HEAD, **columns}))
    names, shapes, forms, form = (fields.pop(key) for key in columns)
    names = unfolded(names)
    if not len(names) == len(shapes) == len(form):
        raise ArchiveError(f"its manifest has {len(names)} names, {len(shapes)} shapes and {len(form)} forms")
    if not all(type(i) is int and 0 <= i < len(forms) for i in form) or not all(isinstance(f, dict) for f in forms):
        raise ArchiveError("its manifest gives a tensor a form that is none")
    rows = zip(names, shapes, form, strict=True)
    return {**fields, "tensors": [{**forms[i], "name": name, "shape": shape} for name, shape, i in rows]}


def _manifest(data: object, version: int) -> Manifest:
    fields = _fields(data, {**_HEAD, "tensors": list})
    tensors = tuple(_entry(tensor, version) for tensor in fields["tensors"])
    return Manifest(**{**fields, "tensors": tensors}, version=version)


def _entry(data: object, version: int) -> Entry:
    newer = {key: kind for key, kind in _NEWER.items() if version > 1 and isinstance(data, dict) and key in data}
    fields = _fields(data, {"name": str, "shape": list, "dtype": str, "centroids": int | None, **newer})
    entry = Entry(**{**fields, "shape": tuple(fields["shape"])})
    if not _is_shape(entry.shape):
        raise ArchiveError(f"its manifest gives {entry.name} the shape {entry.shape}")
    if entry.dtype not in DTYPES:
        raise ArchiveError(f"its manifest gives {entry.name} the unknown type {entry.dtype!r}")
    most = MAX_CENTROIDS if version > 1 else MAX_CENTROIDS_1
    if entry.centroids is not None and not (1 <= entry.centroids <= most and entry.dtype == "float32"):
        raise ArchiveError(f"its manifest gives {entry.name} {entry.centroids} centroids of type {entry.dtype}")
    if entry.stored is not None and not (_holds(entry) and entry.dtype == "float32"):
        raise ArchiveError(f"its manifest has {entry.name} of type {entry.dtype} stored as {_shortened(entry.stored)}")
    if entry.codes is not None and entry.centroids is None:
        raise ArchiveError(f"its manifest gives {entry.name} codes and no centroids")
    return entry


def _holds(entry: Entry) -> bool:
    if entry.stored == STEPS:
        return entry.centroids is not None and entry.centroids >= 3 and entry.centroids % 2 == 1
    return entry.stored in HALVES


_HEAD: dict[str, Any] = {"storage": str, "architecture": dict | None, "provenance": dict | None}
_NEWER: dict[str, Any] = {"stored": str, "codes": dict}
"""Keys of a tensor that version 1 does not have; each may be left out."""


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
