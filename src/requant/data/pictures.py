"""Pictures of different sizes that crops are cut from: in memory, or decoded when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from requant.data.decoding import as_tensor, decoded, read_size, verify
from requant.data.files import try_each

Box = Sequence[int]
"""top, left, height, width"""

IN_MEMORY_BYTES = 2**30


class Pictures(Protocol):
    """A sequence of pictures.

    Attributes:
        sizes: (N, 2) heights and widths.
        skipped: files that could not be read.
    """

    sizes: NDArray[np.int64]
    skipped: tuple[str, ...]

    def __len__(self) -> int: ...

    def region(self, item: int, box: Box, wanted: int) -> Tensor:
        """That part of a picture, uint8 (C, H, W); at a lower resolution where that does for `wanted` pixels a side."""
        ...


class MemoryPictures:
    """Pictures in memory: a list of uint8 (C, H, W), or one array (N, C, H, W)."""

    def __init__(self, pictures: Sequence[Tensor] | Tensor, skipped: tuple[str, ...] = ()) -> None:
        self.pictures = pictures
        self.sizes = np.array([picture.shape[1:] for picture in pictures], np.int64)
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.pictures)

    def region(self, item: int, box: Box, wanted: int) -> Tensor:  # noqa: ARG002
        """The box, at full resolution."""
        top, left, height, width = box
        return self.pictures[item][:, top : top + height, left : left + width]


class FilePictures:
    """Pictures in files, decoded each time.

    Args:
        sizes: readable image files, each with its height and width.
        channels: 1 or 3.
        skipped: files that could not be read.
    """

    def __init__(self, sizes: dict[Path, tuple[int, int]], channels: int, skipped: tuple[str, ...] = ()) -> None:
        self.paths = list(sizes)
        self.sizes = np.array(list(sizes.values()), np.int64)
        self.channels = channels
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.paths)

    def region(self, item: int, box: Box, wanted: int) -> Tensor:
        """The box; of a JPEG at the least resolution that keeps it twice as large as `wanted`."""
        height, width = self.sizes[item].tolist()
        enough = 2 * wanted / min(box[2:])
        image = decoded(self.paths[item], self.channels, (int(width * enough), int(height * enough)))
        down, right = image.height / height, image.width / width
        left, top = int(box[1] * right), int(box[0] * down)
        corner = (max(left + 1, round((box[1] + box[3]) * right)), max(top + 1, round((box[0] + box[2]) * down)))
        return as_tensor(image.crop((left, top, *corner)))


def open_pictures(paths: Sequence[Path], channels: int) -> Pictures:
    """Pictures from files, without those that cannot be decoded: in memory when together below 1 GiB.

    Raises:
        DataError: none can be read.
    """
    sizes, skipped = try_each(read_size, paths, "Reading sizes")
    if sum(height * width for height, width in sizes.values()) * channels < IN_MEMORY_BYTES:
        pictures, undecoded = try_each(lambda path: as_tensor(decoded(path, channels)), list(sizes), "Decoding")
        return MemoryPictures(list(pictures.values()), skipped + undecoded)
    whole, undecoded = try_each(verify, list(sizes), "Checking")
    return FilePictures(whole, channels, skipped + undecoded)
