"""Work that several runs share, done once: kept in the cache under a hash of all that its result depends on.

That includes the code, the versions and the machine, so that a run has the same bits with the cache as without it.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from requant.archive.forms import from_arrays, to_arrays
from requant.clustering import cluster_tensor
from requant.codebook_forms import AnyCodebook
from requant.data.cache import cache_folder
from requant.files import exclusive, replacing
from requant.machine import cpu, gpus
from requant.models.weights import tensors_checksum

Tensors = dict[str, Tensor]

MOST_BYTES = 10 << 30  # of all that is kept; what was not used for longest goes first
_FEWEST = 4096  # values: fewer are clustered sooner than read


@dataclass(frozen=True)
class Shared:
    """Tensors that were computed, now or by another run; `seconds` is what that took whoever did it."""

    tensors: Tensors
    seconds: float
    found: bool


def shared(kind: str, identity: Mapping[str, Any], compute: Callable[[], Tensors]) -> Shared:
    """What `compute` returns, from the cache where a run with this identity left it there.

    `identity` (plain values) must name all that the result depends on but code, versions and machine, which are added.
    Of several processes that ask at once one computes and the others wait. A file that is damaged counts as missing.
    Where the cache cannot be written to, nothing is kept.
    """
    path = _path(kind, identity)
    if found := _read(path):
        return found
    if not _writable(path.parent):
        return _computed(compute)
    with exclusive(path.with_suffix(".lock")):
        if found := _read(path):  # another process has just made it
            return found
        made = _computed(compute)
        _keep(path, made)
        return made


@dataclass
class SharedClusterer:
    """`requant.clustering.cluster_tensor`, done once for all runs that ask for the same of the same values."""

    found: int = 0
    """Tensors whose clusters were kept from an earlier run."""

    def __call__(
        self, values: Tensor, centroids: int, method: str, split: float = 0.0, *, name: str = "values", **options: Any
    ) -> AnyCodebook:
        """As `cluster_tensor`, warnings and errors included."""
        if values.numel() < _FEWEST:
            return cluster_tensor(values, centroids, method, split, name=name, **options)

        def compute() -> Tensors:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", UserWarning)
                made = cluster_tensor(values, centroids, method, split, name=name, **options)
            texts = json.dumps([str(warning.message) for warning in said]).encode()
            parts = {part: torch.from_numpy(array) for part, array in to_arrays(made).items()}
            return parts | {"said": torch.frombuffer(bytearray(texts), dtype=torch.uint8)}

        wanted = {"values": tensors_checksum({"": values}), "centroids": centroids, "method": method, "split": split}
        kept = shared("clusters", {**wanted, "name": name, "options": options}, compute)
        arrays = {part: tensor.numpy() for part, tensor in kept.tensors.items()}
        for text in json.loads(arrays.pop("said").tobytes()):
            warnings.warn(text, stacklevel=2)
        self.found += kept.found
        return from_arrays(arrays)


def _computed(compute: Callable[[], Tensors]) -> Shared:
    started = time.perf_counter()
    return Shared(compute(), time.perf_counter() - started, found=False)


def _folder() -> Path:
    return cache_folder() / "shared"


def _path(kind: str, identity: Mapping[str, Any]) -> Path:
    text = json.dumps({"kind": kind, "identity": identity, "by": _by() | {"threads": torch.get_num_threads()}})
    return _folder() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


@cache
def _by() -> dict[str, Any]:
    """What computes: the bytes of our code, versions of others', and the machine."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"code": code, "cpu": cpu(), "gpus": gpus(), **versions}


def _read(path: Path) -> Shared | None:
    """What is kept there; None where nothing is, or not what was written."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    if about.get("sha256") != tensors_checksum(tensors):
        return None
    with suppress(OSError):
        os.utime(path)
    return Shared(tensors, float(about["seconds"]), found=True)


def _keep(path: Path, made: Shared) -> None:
    about = {"sha256": tensors_checksum(made.tensors), "seconds": repr(made.seconds)}
    contiguous = {name: tensor.contiguous() for name, tensor in made.tensors.items()}
    if sum(tensor.nbytes for tensor in contiguous.values()) > MOST_BYTES:
        return
    try:
        with replacing(path) as unfinished:
            safetensors.torch.save_file(contiguous, unfinished, metadata=about)
        _make_room(but=path)
    except (OSError, safetensors.SafetensorError) as error:
        warnings.warn(f"{path} cannot be kept ({error}): make room; until then each run computes it", stacklevel=2)


def _make_room(but: Path) -> None:
    """Remove what was not used for longest, until no more than MOST_BYTES are kept."""
    found = []
    for path in _folder().rglob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process makes room too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    over = sum(size for _, size, _ in found) - MOST_BYTES
    for _, size, path in sorted(found):
        if over <= 0:
            return
        if path != but:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)  # at worst two processes then compute the same
            over -= size


def _writable(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False
