"""What an archive holds, and how two of them differ, as plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from requant.archive import Archive, read
from requant.codebook_forms import AnyCodebook
from requant.codebook_trellis import TrellisCodebook
from requant.errors import UserError
from requant.layers import TensorInfo, describe
from requant.models import Architecture, build_described, example_input

CHUNK = 1 << 20

Stored = AnyCodebook | NDArray[Any]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an archive.

    Attributes:
        name: its key in the state dict.
        layer: its layer's number (see `requant.layers.describe`); None where that is not known.
        kind: one of `requant.kinds.KINDS`; None where that is not known.
        shape: its size along each dimension.
        dtype: its element type, by PyTorch's name.
        values: how many numbers it holds.
        centroids: how many values its codebook has; None: it is stored as it is.
        method: how it was clustered; None where provenance has no `methods` for it.
        bytes: what it takes in the file, its centroids with it.
        share: of the file's bytes.
        bits_per_weight: 8 x bytes / values; None for a tensor of no values.
        entropy_bits: of its indices, in bits a value; None where it is not clustered.

    """

    name: str
    layer: int | None
    kind: str | None
    shape: tuple[int, ...]
    dtype: str
    values: int
    centroids: int | None
    method: str | None
    bytes: int
    share: float
    bits_per_weight: float | None
    entropy_bits: float | None


@dataclass(frozen=True)
class Inspection:
    """All that an archive says of itself; the attributes are plain values, fit for JSON by `dataclasses.asdict`.

    Attributes:
        file: its path.
        format: the version of its format.
        storage: how the tensors are stored.
        architecture: what network it is, if the file says so.
        provenance: where the network comes from, if the file says so.
        layers_unknown: why layers and kinds are None; empty where they are known.
        bytes: the size on disk.
        parts: bytes by `indices`, `codebooks`, `dense` and `overhead`; they sum to `bytes`.
        tensors: in the network's order.

    """

    file: str
    format: int
    storage: str
    architecture: dict[str, Any] | None
    provenance: dict[str, Any] | None
    layers_unknown: str
    bytes: int
    parts: dict[str, int]
    tensors: tuple[StoredTensor, ...]


@dataclass(frozen=True)
class Form:
    """How a tensor is stored: its shape, its element type, how many centroids it has (None: not clustered)."""

    shape: tuple[int, ...]
    dtype: str
    centroids: int | None

    def like(self, other: "Form") -> bool:
        """Whether the values can be compared one by one."""
        return (self.shape, self.dtype) == (other.shape, other.dtype)


@dataclass(frozen=True)
class TensorDifference:
    """One tensor in two archives.

    Attributes:
        name: its key in the state dict.
        before: its form in the first archive; None: it is not there.
        after: its form in the second; None: it is not there.
        equal: whether forms and values are the same (a zero's sign aside).
        largest: the largest absolute difference of two values; None where shapes or element types differ.
        indices_changed: the share of indices that differ; None but for two codebooks of as many centroids.

    """

    name: str
    before: Form | None
    after: Form | None
    equal: bool
    largest: float | None
    indices_changed: float | None


@dataclass(frozen=True)
class Difference:
    """Two archives side by side.

    Attributes:
        before: the first.
        after: the second.
        tensors: every tensor of either, in the network's order.

    """

    before: Archive
    after: Archive
    tensors: tuple[TensorDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether both hold the same network; how it is stored and where it comes from does not count."""
        return self.before.architecture == self.after.architecture and all(tensor.equal for tensor in self.tensors)


def inspect(path: str | Path) -> Inspection:
    """Read an archive and say what it holds.

    Raises:
        ArchiveError: for a file that is damaged, truncated, foreign or of a newer format.

    """
    archive = read(path)
    layers, unknown = _layers(archive.architecture)
    tensors = (_stored(name, tensor, archive, layers.get(name)) for name, tensor in _tensors(archive).items())
    return Inspection(
        file=str(path),
        format=archive.format,
        storage=archive.storage,
        architecture=archive.architecture,
        provenance=archive.provenance,
        layers_unknown=unknown,
        bytes=archive.report.bytes,
        parts=archive.report.parts,
        tensors=tuple(tensors),
    )


def diff(before: str | Path, after: str | Path) -> Difference:
    """Compare two archives tensor by tensor.

    Raises:
        ArchiveError: for a file that is damaged, truncated, foreign or of a newer format.

    """
    first, second = read(before), read(after)
    a, b = _tensors(first), _tensors(second)
    compared = (_compare(name, a.get(name), b.get(name)) for name in {**a, **b})
    return Difference(first, second, tuple(compared))


def _layers(architecture: Mapping[str, Any] | None) -> tuple[dict[str, TensorInfo], str]:
    """The network's tensors by name, or why they are not known; no memory is taken for weights."""
    if architecture is None:
        return {}, "the file does not say what network it is"
    try:
        known = Architecture.from_dict(architecture)
        with torch.device("meta"):
            model = build_described(known)
    except UserError as error:
        return {}, str(error)
    return {info.name: info for info in describe(model, example_input(known))}, ""


def _stored(name: str, tensor: Stored, archive: Archive, info: TensorInfo | None) -> StoredTensor:
    form, values, size = _form(tensor), prod(tensor.shape), archive.report.tensors[name]
    return StoredTensor(
        name=name,
        layer=info.layer if info else None,
        kind=info.kind if info else None,
        shape=form.shape,
        dtype=form.dtype,
        values=values,
        centroids=form.centroids,
        method=_method(archive.provenance, name, tensor),
        bytes=size,
        share=size / archive.report.bytes,
        bits_per_weight=8 * size / values if values else None,
        entropy_bits=None if isinstance(tensor, np.ndarray) else tensor.entropy_bits,
    )


def _method(provenance: Mapping[str, Any] | None, name: str, tensor: Stored) -> str | None:
    methods = (provenance or {}).get("methods")
    method = methods.get(name) if isinstance(methods, dict) else None if isinstance(tensor, np.ndarray) else methods
    if not isinstance(method, str):
        return None
    return f"{method}, trellis" if isinstance(tensor, TrellisCodebook) else method


def _tensors(archive: Archive) -> dict[str, Stored]:
    """In the network's order."""
    both: dict[str, Stored] = {**archive.codebooks, **archive.dense}
    return {name: both[name] for name in archive.report.tensors}


def _form(tensor: Stored) -> Form:
    return Form(tensor.shape, tensor.dtype.name, None if isinstance(tensor, np.ndarray) else tensor.k)


def _compare(name: str, a: Stored | None, b: Stored | None) -> TensorDifference:
    before, after = (None if tensor is None else _form(tensor) for tensor in (a, b))
    if a is None or b is None or not _form(a).like(_form(b)):
        return TensorDifference(name, before, after, False, None, None)
    differences = list(_differences(a, b))
    equal = before == after and not differences
    return TensorDifference(name, before, after, equal, max(differences, default=0.0), _indices_changed(a, b))


def _differences(a: Stored, b: Stored) -> Iterator[float]:
    """The largest difference in each part of two tensors of one shape that is not equal in both."""
    for start in range(0, prod(a.shape), CHUNK):
        part = slice(start, min(start + CHUNK, prod(a.shape)))
        x, y = _values(a, part), _values(b, part)
        if not np.array_equal(x, y):
            yield float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max())


def _values(tensor: Stored, part: slice) -> NDArray[Any]:
    return np.asarray(tensor.reshape(-1)[part]) if isinstance(tensor, np.ndarray) else tensor.part(part)


def _indices_changed(a: Stored, b: Stored) -> float | None:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or a.k != b.k or a.indices.shape != b.indices.shape:
        return None
    a, b = (book.plain() if isinstance(book, TrellisCodebook) else book for book in (a, b))
    return float(np.count_nonzero(a.indices != b.indices) / max(1, a.indices.size))
