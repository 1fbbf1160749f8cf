"""VGG-16 and the small networks of its form: convolutions and pools, then three fully connected layers."""

from collections.abc import Mapping, Sequence

import torchvision
from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from requant.errors import ConfigError
from requant.models import published
from requant.models.architecture import Architecture
from requant.models.family import Family, cifar_preprocessing, scaled
from requant.preprocessing import Preprocessing

# Output channels of each convolution, one tuple between two max-pools.
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALL_STAGES = ((16, 16), (32, 32), (64, 64))


class Vgg(nn.Module):
    """VGG without batch norm at any size and width, with torchvision's parameter names.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
    (ICLR 2015), configuration D; the stages and the width of the fully connected layers are free here.

    Args:
        stages: output channels of the convolutions of each stage; a 2 x 2 max-pool ends a stage.
        hidden: width of the first two fully connected layers.
        classes: length of the output vector.
        channels: of the input images.
        image_size: height and width of the input images, in pixels.
        dropout: probability after each of the first two fully connected layers.
    """

    def __init__(
        self, stages: Sequence[Sequence[int]], hidden: int, classes: int, channels: int, image_size: int, dropout: float
    ) -> None:
        super().__init__()
        side = image_size // 2 ** len(stages)
        self.features = _features(stages, channels)
        self.classifier = _classifier(stages[-1][-1] * side * side, hidden, classes, dropout)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, size, size) to logits (batch, classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def _features(stages: Sequence[Sequence[int]], channels: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for stage in stages:
        for out_channels in stage:
            modules += [nn.Conv2d(channels, out_channels, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = out_channels
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules)


def _classifier(features: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


def _initialise(module: nn.Module) -> None:
    """He initialisation; the published 0.01 of the fully connected layers starves networks narrower than 4,096."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _build_vgg16(architecture: Architecture) -> nn.Module:
    model: nn.Module = torchvision.models.vgg16(weights=None, num_classes=architecture.classes)
    return model


def _build_vgg16_cifar(architecture: Architecture) -> nn.Module:
    if architecture.image_size % 32:
        raise ConfigError(
            f"vgg16_cifar halves its images five times: image_size {architecture.image_size} is no multiple of 32"
        )
    return _build(architecture, VGG16_STAGES, hidden=4096, dropout=0.5)


def _build_vgg_small(architecture: Architecture) -> nn.Module:
    if architecture.image_size < 16:
        raise ConfigError(f"vgg_small halves its images three times: image_size {architecture.image_size} is below 16")
    return _build(architecture, SMALL_STAGES, hidden=128, dropout=0.2)


def _build(architecture: Architecture, stages: Sequence[Sequence[int]], hidden: int, dropout: float) -> nn.Module:
    return Vgg(
        stages=[[scaled(channels, architecture.width) for channels in stage] for stage in stages],
        hidden=scaled(hidden, architecture.width),
        classes=architecture.classes,
        channels=architecture.channels,
        image_size=architecture.image_size,
        dropout=dropout,
    )


def _vgg16_preprocessing(architecture: Architecture) -> Preprocessing:
    return published.preprocessing_of(VGG16_Weights.IMAGENET1K_V1, architecture.image_size)


def _vgg16_imagenet(architecture: Architecture) -> Mapping[str, Tensor]:
    return published.download(VGG16_Weights.IMAGENET1K_V1, architecture)


def _vgg_small_preprocessing(architecture: Architecture) -> Preprocessing:
    """MNIST's statistics for grey images, else [0, 1] brought to [-1, 1]."""
    grey = architecture.channels == 1
    return Preprocessing(
        size=architecture.image_size,
        resize=architecture.image_size,
        mean=(0.1307,) if grey else (0.5,) * 3,
        std=(0.3081,) if grey else (0.5,) * 3,
    )


VGG16 = Family(_build_vgg16, _vgg16_preprocessing, published=_vgg16_imagenet)
VGG16_CIFAR = Family(_build_vgg16_cifar, cifar_preprocessing, scalable=True, grey=True)
VGG_SMALL = Family(_build_vgg_small, _vgg_small_preprocessing, scalable=True, grey=True)
