"""Image files as pixels."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def decoded(path: Path, channels: int, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The image in grey (1 channel) or RGB (3), its orientation tag ignored as torchvision does.

    Args:
        path: the file.
        channels: 1 or 3.
        at_least: width and height that will do: a JPEG is then decoded at a half, quarter or eighth where possible.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as image:
        if at_least is not None:
            image.draft(mode, (max(at_least[0], 1), max(at_least[1], 1)))
        return _eight_bits(image).convert(mode)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width, from the header."""
    with Image.open(path) as image:
        return image.height, image.width


def verify(path: Path) -> tuple[int, int]:
    """Decode the whole file, a JPEG at an eighth of its size, the cheapest way to see every byte: its size."""
    decoded(path, channels=1, at_least=(1, 1))
    return read_size(path)


def as_tensor(image: Image.Image) -> Tensor:
    """Uint8 (C, H, W)."""
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """What `convert` would clip (16 bits) or warn about (a palette with transparency), in a mode it handles.

    Raises:
        ValueError: for pixels whose range is not known.

    """
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() >= 1 << 16:
            raise ValueError(f"pixels of {pixels.min()} to {pixels.max()}, where 8 or 16 bits are known")
        return Image.fromarray((pixels >> (8 if image.mode != "I" or pixels.max() > 255 else 0)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are fractions, whose range is not known: store 8 or 16 bits")
    return image.convert("RGBA") if image.mode == "P" else image
