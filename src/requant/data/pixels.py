"""From stored bytes to what a network takes: channels, size, normalisation."""

from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from requant.errors import ConfigError
from requant.preprocessing import Preprocessing

Picture = TypeVar("Picture", Tensor, Image)


def normalised(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bytes (N, C, H, W) as float32: intensities in [0, 1], less the mean, over the standard deviation."""
    mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std).view(-1, 1, 1)
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey as RGB or RGB as grey (ITU-R 601 luma), uint8 (..., C, H, W)."""
    if images.shape[-3] == channels:
        return images
    grey: Tensor = functional.rgb_to_grayscale(images, num_output_channels=1)
    return grey.expand(*grey.shape[:-3], channels, *grey.shape[-2:])


def evaluation_view(images: Picture, preprocessing: Preprocessing) -> Picture:
    """Short side to `preprocessing.resize`, then the central square of `preprocessing.size` (the usual evaluation).

    Or, where `preprocessing.whole` says so, all of it as such a square.
    """
    sides = [preprocessing.size] * 2 if preprocessing.whole else [preprocessing.resize]
    resized = functional.resize(images, sides, interpolation(preprocessing), antialias=True)
    view: Picture = functional.center_crop(resized, [preprocessing.size])
    return view


def resized_square(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """A crop, uint8 (C, H, W), as `preprocessing.size` x `preprocessing.size`, whatever its aspect."""
    size = [preprocessing.size, preprocessing.size]
    square: Tensor = functional.resize(image, size, interpolation(preprocessing), antialias=True)
    return square


def interpolation(preprocessing: Preprocessing) -> InterpolationMode:
    """The torchvision mode of that name.

    Raises:
        ConfigError: neither bilinear nor bicubic, the two that are defined for bytes in memory and for files alike.
    """
    if preprocessing.interpolation not in ("bilinear", "bicubic"):
        raise ConfigError(f"interpolation is {preprocessing.interpolation!r}; set bilinear or bicubic")
    return InterpolationMode(preprocessing.interpolation)
