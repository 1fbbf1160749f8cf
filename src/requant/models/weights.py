"""Weights: loaded into a network after every check, saved in one piece, identified."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from requant.errors import WeightsError
from requant.files import replacing
from requant.models.architecture import Architecture
from requant.models.registry import family
from requant.models.state import read_state, require_fit

PUBLISHED = ("imagenet", "published")


def load_weights(model: nn.Module, weights: str, architecture: Architecture) -> None:
    """Fill `model` in place; nothing is changed unless all of it fits.

    Args:
        model: the network that `architecture` describes.
        weights: "none" (leave it as it is), "imagenet" or "published" (those that come with the network: torchvision's
            IMAGENET1K_V1 for vgg16 and resnet50), or the path of a state dict (.safetensors, .pt, .pth), at any
            floating-point precision.
        architecture: what the weights are for.

    Raises:
        WeightsError: no such weights, a file that is unreadable or holds more than tensors, missing or unexpected
            tensors, other shapes, values that are not finite in the model's precision, or a file whose checksum is not
            the `sha256` that a .json of the same name beside it records.
    """
    if weights == "none":
        return
    state = _published(architecture) if weights in PUBLISHED else read_state(weights)
    if weights not in PUBLISHED:
        _require_recorded(Path(weights))
    require_fit(state, model, f"{weights} (for {architecture.name})")
    # Not strict: the counters of batch norm may be missing, as in files of old versions of PyTorch.
    model.load_state_dict(dict(state), strict=False)


def _require_recorded(path: Path) -> None:
    """Raise unless the file has the checksum that the record beside it, where there is one, gives."""
    record = path.with_suffix(".json")
    try:
        expected = json.loads(record.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no record of ours
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise WeightsError(f"{path} has sha256 {found}, not the {expected} of {record}: fetch both again, together")


def _published(architecture: Architecture) -> Mapping[str, Tensor]:
    published = family(architecture).published
    if published is None:
        raise WeightsError(f"{architecture.name} has no published weights: set weights to a file's path, or to none")
    return published(architecture)


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> str:
    """Write the state dict as safetensors: whole or not at all, the same bytes for the same weights and metadata.

    Args:
        path: the file to write; its folder is made.
        model: its parameters and buffers are stored under their names.
        metadata: free text under names, stored in the file's header.

    Returns:
        The sha256 of the file, in hexadecimal.
    """
    # Clones, as safetensors refuses tensors that share memory or are not contiguous.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with replacing(path) as unfinished:
        safetensors.torch.save_file(tensors, unfinished, metadata=dict(metadata))
        return _finish(unfinished)


def _finish(path: Path) -> str:
    """Put the header in order and return the file's sha256."""
    with path.open("rb+") as file:
        _sort_header(file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sort_header(file: BinaryIO) -> None:
    """Sort the metadata, which safetensors writes in random order: the same weights are to make the same file."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    ordered = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(ordered) <= length
    file.seek(8)
    file.write(ordered.ljust(length))


def checksum(model: nn.Module) -> str:
    """A network's identity: the sha256, in hexadecimal, over the names, types, shapes and bytes of its state dict."""
    return tensors_checksum(model.state_dict())


def tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    """The sha256, in hexadecimal, over names, types, shapes and bytes, in the names' order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
