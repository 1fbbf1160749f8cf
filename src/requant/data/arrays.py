"""Images held in memory as bytes."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from requant.data.pixels import evaluation_view, normalised, with_channels
from requant.data.randomness import Purpose, uniforms
from requant.preprocessing import Preprocessing

AUGMENTATIONS = ("none", "shift", "flip_shift")


class ArrayImages:
    """Images in memory, uint8 (N, C, H, W), converted a batch at a time.

    Args:
        pixels: the images; grey or RGB, of any size.
        preprocessing: what the network expects.
        augment: `none`; `shift`: moved by up to an eighth of the size each way, the border mirrored; `flip_shift`: half
            of them mirrored left to right as well.
        seed: of the shifts and flips.
    """

    skipped: tuple[str, ...] = ()

    def __init__(self, pixels: Tensor, preprocessing: Preprocessing, augment: str = "none", seed: int = 0) -> None:
        self.pixels = pixels
        self.preprocessing = preprocessing
        self.augment = augment
        self.seed = seed
        self.fixed = augment == "none"

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        epochs, items = np.divmod(np.asarray(indices, np.int64), len(self))
        images = with_channels(self.pixels[torch.from_numpy(items)], self.preprocessing.channels)
        images = evaluation_view(images, self.preprocessing)
        if self.augment != "none":
            draws = uniforms(Purpose.SHIFT, self.seed, epochs, items, 3)
            images = shifted(images, draws[:, :2])
            if self.augment == "flip_shift":
                images = flipped(images, draws[:, 2])
        return normalised(images, self.preprocessing)


def shifted(images: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Each image (N, C, H, W) moved by -H // 8 to H // 8 rows and columns, as its two draws (N, 2) in [0, 1) say."""
    height, width = images.shape[2:]
    reach = height // 8
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect").to(images.dtype)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.from_numpy((draws * (2 * reach + 1)).astype(np.int64)).T
    return windows[torch.arange(len(images)), :, down, right]


def flipped(images: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Images (N, C, H, W) whose draw is below a half, mirrored left to right."""
    chosen = torch.from_numpy(draws < 0.5).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)
