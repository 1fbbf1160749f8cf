"""From a network and its codebooks to a file."""

import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from requant.archive import envelope
from requant.archive.content import Contents
from requant.archive.forms import Form, lowered, merged
from requant.archive.halves import exact_half
from requant.archive.manifest import DTYPES, MANIFEST, Entry, Manifest, encode
from requant.archive.report import ArchiveReport, TensorBytes, summarize
from requant.archive.steps import STEPS, step_of
from requant.archive.storages import BY_NAME, STORAGES, versions
from requant.codebook import Codebook
from requant.codebook_forms import AnyCodebook
from requant.errors import ArchiveError
from requant.files import replacing
from requant.finite import count_not_finite
from requant.limits import MAX_CENTROIDS
from requant.network_names import name_in_file
from requant.suggest import did_you_mean

# The on-disk structures of HDF5 1.10: smaller than the earliest, with checksums, and stable.
LIBVER = ("v110", "v110")

STORED_COSTS = 16  # bytes of the manifest that saying so takes: it has to save more


def save(
    path: str | Path,
    model: nn.Module,
    codebooks: Mapping[str, AnyCodebook],
    *,
    storage: str = "packed",
    architecture: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ArchiveReport:
    """Write a network to one file, its clustered tensors as codebooks.

    The file replaces `path` in one step: a kill or a full disk leaves what was there. The same network gives the same
    bytes.

    Args:
        path: the file, by custom `.h5`; its folder is made.
        model: its state dict is what is stored.
        codebooks: by tensor name; the model's tensors must be equal to their `dense()`.
        storage: `packed` (indices in log2 k bits), `entropy` (indices in as few bits as their distribution allows, by
            asymmetric numeral systems; slower) or `gzip` (the paper's: quantized float32, compressed).
        architecture: from which `load` builds the network again, as `requant.models.Architecture.to_dict` gives it; the
            place of code or of a folder is left out of its name.
        provenance: where the network comes from; any plain values.

    Returns:
        The size of the file by part and by tensor.

    Raises:
        ArchiveError: for tensors that are not on their centroids or not finite, or when writing fails.

    """
    if storage not in STORAGES:
        raise ArchiveError(f"there is no storage {storage!r}{did_you_mean(storage, STORAGES)}")
    contents, forms = _lowered(_contents(model, codebooks))
    entries = tuple(_entry(name, x, storage != "gzip", forms.get(name)) for name, x in contents.items())
    version = versions(storage, entries)[-1]
    manifest = Manifest(storage, _without_place(architecture), _plain(provenance), entries, version)
    image, tensors = _image(manifest, contents)
    _write(Path(path), image)
    return summarize(Path(path), Path(path).stat().st_size, tensors)


def file_size(model: nn.Module, codebooks: Mapping[str, AnyCodebook], **settings: Any) -> int:
    """The bytes of the file that `save` would write; `settings` are its."""
    with TemporaryDirectory() as folder:
        return save(Path(folder) / "network", model, codebooks, **settings).bytes


def _plain(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if data is None else dict(data)


def _without_place(architecture: Mapping[str, Any] | None) -> dict[str, Any] | None:
    found = _plain(architecture)
    if found and isinstance(found.get("name"), str):
        found["name"] = name_in_file(found["name"])
    return found


def _image(manifest: Manifest, contents: Contents) -> tuple[memoryview, dict[str, TensorBytes]]:
    """The file's bytes, and how many each tensor takes.

    The image is made in memory: HDF5 does not survive a full disk in good order, and the checksum needs all bytes.
    """
    backend, buffer = BY_NAME[manifest.storage], io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=envelope.SIZE, libver=LIBVER) as file:
        file.create_dataset(MANIFEST, data=np.frombuffer(encode(manifest), np.uint8), track_times=False)
        tensors = merged(manifest, backend.write(file, manifest, contents))
    image = buffer.getbuffer()
    image[: envelope.SIZE] = envelope.seal(image[envelope.SIZE :], manifest.version)
    return image, tensors


def _lowered(tensors: Mapping[str, AnyCodebook | NDArray[Any]]) -> tuple[Contents, dict[str, Form]]:
    """What the storages see, each tensor followed by what stands beside it, and the forms."""
    contents: dict[str, Codebook | NDArray[Any]] = {}
    forms = {}
    for name, tensor in tensors.items():
        found = lowered(tensor)
        contents[name], forms[name] = found.tensor, found.form
        contents |= {f"{name}:{part}": side for part, side in found.sides.items()}
    return contents, forms


def _contents(model: nn.Module, codebooks: Mapping[str, AnyCodebook]) -> dict[str, AnyCodebook | NDArray[Any]]:
    state = model.state_dict()
    for name in codebooks:
        if name not in state:
            raise ArchiveError(f"the model has no tensor {name!r}{did_you_mean(name, state)}")
    return {
        name: _checked_codebook(name, tensor, codebooks[name]) if name in codebooks else _checked_array(name, tensor)
        for name, tensor in state.items()
    }


def _checked_codebook(name: str, tensor: Tensor, codebook: AnyCodebook) -> AnyCodebook:
    if codebook.k > MAX_CENTROIDS:
        raise ArchiveError(f"{name} has {codebook.k} centroids, and an archive holds up to {MAX_CENTROIDS}")
    if tuple(tensor.shape) != codebook.shape:
        raise ArchiveError(f"{name} has shape {tuple(tensor.shape)}, and its codebook {codebook.shape}")
    if _checked_array(name, tensor).dtype != codebook.dtype:
        raise ArchiveError(f"{name} is {tensor.dtype}, and its codebook of {codebook.dtype}: cluster it again")
    if codebook.squared_error(_checked_array(name, tensor)):
        raise ArchiveError(f"{name} is not on its centroids: set the tensor to codebook.dense(), or cluster it again")
    return codebook


def _checked_array(name: str, tensor: object) -> NDArray[Any]:
    if not isinstance(tensor, Tensor):
        raise ArchiveError(f"{name} is of type {type(tensor).__name__}, and an archive holds tensors only")
    if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        raise ArchiveError(f"{name} is {tensor.dtype}, which an archive cannot hold; convert it, as by model.float()")
    array: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    if count_not_finite(array):
        raise ArchiveError(f"{name} has values that are NaN or infinite; repair it before saving")
    return array


def _entry(name: str, tensor: Codebook | NDArray[Any], halves: bool, form: Form) -> Entry:
    held = tensor.centroids if isinstance(tensor, Codebook) else tensor
    stored = _shorter(held, isinstance(tensor, Codebook)) if halves and held.dtype == np.float32 else None
    if isinstance(tensor, Codebook):
        return Entry(name, tensor.shape, "float32", tensor.k, stored, form)
    return Entry(name, tensor.shape, tensor.dtype.name, None, stored)


def _shorter(held: NDArray[np.float32], centroids: bool) -> str | None:
    """How fewer bytes hold the same, where that saves more than it takes to say so."""
    if centroids and 4 * (held.size - 1) > STORED_COSTS and step_of(held) is not None:
        return STEPS
    return exact_half(held) if 2 * held.size > STORED_COSTS else None


def _write(path: Path, image: memoryview) -> None:
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(image)
    except OSError as error:
        raise ArchiveError(
            f"cannot write {path} ({error.strerror or error}): {len(image)} bytes are needed in {path.parent}"
        ) from error
