"""All networks by name."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from requant.errors import ConfigError
from requant.hugging_face import HUGGING_FACE
from requant.models import hugging_face
from requant.models.architecture import Architecture
from requant.models.by_name import TIMM, TORCHVISION
from requant.models.efficientnet import EFFICIENTNET_LITE
from requant.models.family import Family
from requant.models.own import FAMILY
from requant.models.resnet import RESNET50, RESNET50_CIFAR, RESNET50_CIFAR_S2
from requant.models.vgg import VGG16, VGG16_CIFAR, VGG_SMALL
from requant.own_code import OWN, is_own
from requant.preprocessing import Preprocessing
from requant.suggest import did_you_mean

FAMILIES = {
    "vgg16": VGG16,
    "resnet50": RESNET50,
    "vgg16_cifar": VGG16_CIFAR,
    "resnet50_cifar": RESNET50_CIFAR,
    "resnet50_cifar_s2": RESNET50_CIFAR_S2,
    **EFFICIENTNET_LITE,
    "vgg_small": VGG_SMALL,
}
LIBRARIES = {"torchvision": TORCHVISION, "timm": TIMM, HUGGING_FACE: hugging_face.FAMILY, OWN: FAMILY}


def build(architecture: Architecture) -> nn.Module:
    """The network, freshly initialised from torch's global generator, in evaluation mode.

    Raises:
        ConfigError: an unknown name (the message has the nearest), a missing package, or a setting that this
            network does not have.
    """
    return family(architecture).build(architecture).eval()


def build_described(architecture: Architecture) -> nn.Module:
    """As `build`, for a description from a file, which must not say what code runs.

    Raises:
        ConfigError: as `build`, and for a network of somebody's own code.

    """
    if is_own(architecture.name):
        function = architecture.name.rpartition(":")[2]
        raise ConfigError(
            f"it is made by its owner's code ({function}), which a file does not get to run: build it yourself, and "
            "call load(path, model); of commands, with --model <file.py>:<function>"
        )
    return build(architecture)


def preprocessing(architecture: Architecture) -> Preprocessing:
    """What the network expects of its input images.

    Raises:
        ConfigError: as `build`.
    """
    found = family(architecture).preprocessing(architecture)
    if architecture.mean is None or architecture.std is None:
        return found
    return replace(found, mean=architecture.mean, std=architecture.std)


def example_input(architecture: Architecture) -> Tensor:
    """Zeros of the shape of one input image: (1, channels, size, size)."""
    return torch.zeros(1, architecture.channels, architecture.image_size, architecture.image_size)


def family(architecture: Architecture) -> Family:
    """What is known of the network of this name, its settings checked.

    Raises:
        ConfigError: an unknown name, or a width or channel count that this network does not have.
    """
    found = _find(architecture.name)
    if architecture.width != 1 and not found.scalable:
        raise ConfigError(f"{architecture.name} has one width: set model.width=1, not {architecture.width:g}")
    if architecture.channels != 3 and not found.grey:
        raise ConfigError(f"{architecture.name} takes RGB images: set model.channels=3, not {architecture.channels}")
    return found


def _find(name: str) -> Family:
    library, colon, _ = name.partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library]
    if name in FAMILIES:
        return FAMILIES[name]
    others = "torchvision:<name>, timm:<name>, huggingface:<folder>, own:<file.py>:<function>"
    raise ConfigError(f"there is no network {name!r}{did_you_mean(name, FAMILIES)} (others: {others})")
