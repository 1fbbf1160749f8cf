"""What the registry knows of one kind of network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from requant.models.architecture import Architecture
from requant.preprocessing import Preprocessing

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Family:
    """How a network is built, fed and filled.

    Attributes:
        build: the freshly initialised network.
        preprocessing: what its input images must look like.
        published: the weights that come with it, mostly ImageNet's, as a state dict; None where there are none.
        scalable: whether `Architecture.width` may differ from 1.
        grey: whether `Architecture.channels` may be 1.
    """

    build: Callable[[Architecture], nn.Module]
    preprocessing: Callable[[Architecture], Preprocessing]
    published: Callable[[Architecture], Mapping[str, Tensor]] | None = None
    scalable: bool = False
    grey: bool = False


def scaled(channels: int, width: float) -> int:
    """Channel count at this width: the nearest whole number, at least 1."""
    return max(1, round(channels * width))


def scaled_resize(image_size: int, resize: int, crop: int) -> int:
    """The resize, in pixels, that keeps a published `resize` to `crop` proportion at another image size."""
    return max(image_size, round(resize * image_size / crop))


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """RGB statistics as they are, or their mean for grey images."""
    return values if channels == 3 else (sum(values) / len(values),)


def cifar_preprocessing(architecture: Architecture) -> Preprocessing:
    """The whole image, normalised by CIFAR-10's training set."""
    return Preprocessing(
        size=architecture.image_size,
        resize=architecture.image_size,
        mean=per_channel(CIFAR10_MEAN, architecture.channels),
        std=per_channel(CIFAR10_STD, architecture.channels),
    )
