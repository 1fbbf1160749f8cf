"""From a file back to a network."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from requant.archive import envelope
from requant.archive.content import Archive
from requant.archive.datasets import open_dataset
from requant.archive.forms import check_forms, merged, raised
from requant.archive.manifest import MANIFEST, Entry, Manifest, decode
from requant.archive.report import summarize
from requant.archive.storages import BY_NAME, reading, versions
from requant.codebook_forms import AnyCodebook
from requant.errors import ArchiveError, UserError
from requant.finite import count_not_finite
from requant.suggest import did_you_mean, some

ALWAYS_NEEDED = 3  # the first version that no file has which does not use what is new in it


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The network in an archive, in evaluation mode.

    Args:
        path: a file that `save` wrote.
        model: filled and returned; None: built from the architecture that the file describes.

    Raises:
        ArchiveError: for a file that is damaged, truncated, foreign or of a newer format, and for a network that it
            does not fit, which then is as it was.

    """
    archive = read(path)
    model = _build(archive) if model is None else model
    state = model.state_dict()
    tensors: dict[str, AnyCodebook | NDArray[Any]] = {**archive.codebooks, **archive.dense}
    _require_fit(tensors, state, archive.report.path)
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(torch.from_numpy(tensor if isinstance(tensor, np.ndarray) else tensor.dense()))
    return model.eval()


def read(path: str | Path) -> Archive:
    """All that an archive holds, without building the network.

    Raises:
        ArchiveError: for a file that is damaged, truncated, foreign or of a newer format.

    """
    path = Path(path)
    with _open(path) as file, _translated(path):
        version, size = envelope.verify(file, path)
        with h5py.File(file, "r") as content:
            return _read_content(content, path, version, size)


def _read_content(content: h5py.File, path: Path, version: int, size: int) -> Archive:
    manifest = _manifest(content, version)
    stored, sizes = reading(manifest.storage, version).read(content, manifest)
    dense = {e.name: _declared(e, stored[e.name]) for e in manifest.tensors if e.centroids is None}
    tensors = raised(manifest, {**stored, **dense})
    return Archive(
        manifest.storage,
        manifest.architecture,
        manifest.provenance,
        {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, np.ndarray)},
        {name: tensor for name, tensor in tensors.items() if isinstance(tensor, np.ndarray)},
        summarize(path, size, merged(manifest, sizes)),
        version,
    )


def _manifest(content: h5py.File, version: int) -> Manifest:
    manifest = decode(open_dataset(content, MANIFEST, np.dtype(np.uint8))[()].tobytes(), version)
    if manifest.storage not in BY_NAME:
        raise ArchiveError(f"its manifest names an unknown storage {manifest.storage!r}")
    check_forms(manifest)
    known = versions(manifest.storage, manifest.tensors)
    if version not in known and max(version, known[0]) >= ALWAYS_NEEDED:
        raise ArchiveError(f"its format version, {version}, is not that of what it holds")
    return manifest


def _declared(entry: Entry, stored: object) -> NDArray[Any]:
    array = np.asarray(stored).astype(entry.dtype, copy=False)
    if count_not_finite(array):
        raise ArchiveError(f"its tensor {entry.name} has values that are NaN or infinite")
    return array


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        beside = sorted(str(other) for other in path.parent.glob("*.h5") if other.is_file())
        raise ArchiveError(f"cannot open {path} ({error.strerror}){did_you_mean(path, beside)}") from error
    with file:
        yield file


# What the layers below raise for a file that is valid on the outside only.
_INSIDE = (OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, zlib.error)
_AGAIN = "copy or make it again"


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        if str(path) in str(error):
            raise
        raise ArchiveError(f"{path} is damaged inside: {error}; {_AGAIN}") from error
    except MemoryError as error:
        raise ArchiveError(
            f"{path} needs more memory than there is: free some, or, if it is not of your making, take it as damaged"
        ) from error
    except _INSIDE as error:
        raise ArchiveError(f"{path} is damaged inside: {error}; {_AGAIN}") from error


def _build(archive: Archive) -> nn.Module:
    from requant.models import Architecture, build_described
    from requant.models.uninitialised import Uninitialised

    path = archive.report.path
    if archive.architecture is None:
        raise ArchiveError(f"{path} does not say what network it is: build it, and call load(path, model)")
    try:
        with Uninitialised():
            return build_described(Architecture.from_dict(archive.architecture))
    except UserError as error:
        raise ArchiveError(f"{path} describes a network that cannot be built: {error}") from error


def _require_fit(tensors: Mapping[str, AnyCodebook | NDArray[Any]], state: Mapping[str, Tensor], path: Path) -> None:
    missing, unexpected = sorted(set(state) - set(tensors)), sorted(set(tensors) - set(state))
    if missing or unexpected:
        raise ArchiveError(
            f"{path} holds another network: of the model's tensors it lacks {some(missing, 3)}; "
            f"it has {some(unexpected, 3)} beyond them"
        )
    if uninitialised := [name for name, tensor in state.items() if is_lazy(tensor)]:
        raise ArchiveError(f"the model's {some(uninitialised, 3)} have no shape yet: call it once before loading")
    if nowhere := [name for name, tensor in state.items() if tensor.is_meta]:
        raise ArchiveError(
            f"the model's {some(nowhere, 3)} are on the meta device, which holds no values: call "
            "model.to_empty(device='cpu') before loading"
        )
    for name, tensor in tensors.items():
        found = (tensor.shape, tensor.dtype.name)
        expected = (tuple(state[name].shape), str(state[name].dtype).removeprefix("torch."))
        if found != expected:
            raise ArchiveError(f"{path} holds another network: {name} is {found} in it and {expected} in the model")
