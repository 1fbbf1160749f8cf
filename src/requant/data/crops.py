"""Random crops of pictures, resized to what a network takes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from requant.data.arrays import flipped
from requant.data.pictures import Box, Pictures
from requant.data.pixels import normalised, resized_square, with_channels
from requant.data.randomness import Purpose, uniforms
from requant.preprocessing import Preprocessing

_ATTEMPTS = 10
_ASPECTS = (3 / 4, 4 / 3)
_DRAWS = 2 * _ATTEMPTS + 3


class RandomCrops:
    """Crops of random place, area and aspect; item i is cut from picture i modulo the number of pictures.

    The distribution is that of torchvision's RandomResizedCrop (Szegedy et al., "Going Deeper with Convolutions",
    2015, section 6).

    Args:
        pictures: what to cut from.
        preprocessing: what the network expects.
        crops: items an epoch.
        scale: least and greatest share of a picture's area.
        flip: mirror half of the crops left to right.
        fresh: new crops each epoch; without it an item is the same crop in every epoch.
        seed: of all choices.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocessing: Preprocessing,
        *,
        crops: int,
        scale: tuple[float, float],
        flip: bool,
        fresh: bool,
        seed: int,
    ) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing
        self.crops = crops
        self.scale = scale
        self.flip = flip
        self.seed = seed
        self.fixed = not fresh
        self.skipped = pictures.skipped

    def __len__(self) -> int:
        return self.crops

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        epochs, items = np.divmod(np.asarray(indices, np.int64), len(self))
        draws = uniforms(Purpose.CROP, self.seed, 0 * epochs if self.fixed else epochs, items, _DRAWS)
        sources = items % len(self.pictures)
        boxes = random_boxes(self.pictures.sizes[sources], self.scale, draws[:, :-1])
        images = torch.stack([self._crop(*pair) for pair in zip(sources.tolist(), boxes.tolist(), strict=True)])
        images = flipped(images, draws[:, -1]) if self.flip else images
        return normalised(images, self.preprocessing)

    def _crop(self, source: int, box: Box) -> Tensor:
        region = self.pictures.region(source, box, self.preprocessing.size)
        return resized_square(with_channels(region, self.preprocessing.channels), self.preprocessing)


def random_boxes(sizes: NDArray[np.int64], scale: tuple[float, float], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """One box for each picture: (N, 4) as top, left, height, width.

    Ten attempts at an area and an aspect, the first that fits, then a place; where none fits, the largest central box
    of an allowed aspect.

    Args:
        sizes: (N, 2) heights and widths.
        scale: least and greatest share of the area.
        draws: (N, 22) numbers in [0, 1).
    """
    boxes = _attempted_boxes(sizes, scale, draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS])
    fits = np.all((boxes >= 1) & (boxes <= sizes[:, None]), axis=2)
    first = np.argmax(fits, axis=1)
    found = fits[np.arange(len(sizes)), first, None]
    shape = np.where(found, boxes[np.arange(len(sizes)), first], _largest_boxes(sizes))
    place = np.where(found, draws[:, -2:] * (sizes - shape + 1), (sizes - shape) // 2)
    return np.concatenate([place.astype(np.int64), shape], axis=1)


def _attempted_boxes(
    sizes: NDArray[np.int64],
    scale: tuple[float, float],
    area_draws: NDArray[np.float64],
    aspect_draws: NDArray[np.float64],
) -> NDArray[np.int64]:
    """(N, attempts, 2) heights and widths."""
    area = np.prod(sizes, axis=1, keepdims=True) * (scale[0] + area_draws * (scale[1] - scale[0]))
    low, high = map(math.log, _ASPECTS)
    aspect = np.exp(low + aspect_draws * (high - low))
    return _rounded(np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=2))


def _largest_boxes(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2) heights and widths of the largest boxes with an allowed aspect."""
    height, width = sizes.T
    shapes = np.stack([np.minimum(height, width / _ASPECTS[0]), np.minimum(width, height * _ASPECTS[1])], axis=1)
    return np.maximum(_rounded(shapes), 1)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)
