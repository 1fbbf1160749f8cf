"""ResNet-50 in its ImageNet and its CIFAR form."""

from collections.abc import Mapping
from functools import partial

import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models.resnet import Bottleneck

from requant.models import published
from requant.models.architecture import Architecture
from requant.models.family import Family, cifar_preprocessing, scaled
from requant.preprocessing import Preprocessing

BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)


class CifarResNet50(nn.Module):
    """ResNet-50 for small images: a 3 x 3 stem of stride 1 and no max-pool; torchvision's blocks and parameter names.

    With `first_stride=2` the first stage halves the image in the max-pool's place: the same parameters at a third of
    the computation.

    Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), sections 4.1 and 4.2.

    Args:
        width: factor on the channel counts.
        classes: length of the output vector.
        channels: of the input images.
        first_stride: of the first stage, 1 or 2.
    """

    def __init__(self, width: float, classes: int, channels: int, first_stride: int) -> None:
        super().__init__()
        planes = [scaled(count, width) for count in PLANES]
        outputs = [count * Bottleneck.expansion for count in planes]
        self.conv1 = nn.Conv2d(channels, planes[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(planes[0], planes[0], BLOCKS[0], stride=first_stride)
        self.layer2 = _stage(outputs[0], planes[1], BLOCKS[1], stride=2)
        self.layer3 = _stage(outputs[1], planes[2], BLOCKS[2], stride=2)
        self.layer4 = _stage(outputs[2], planes[3], BLOCKS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(outputs[3], classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to logits (batch, classes)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    out_channels = planes * Bottleneck.expansion
    projection = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
    first = Bottleneck(in_channels, planes, stride, projection)
    return nn.Sequential(first, *(Bottleneck(out_channels, planes) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    """He initialisation; each block starts as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, Bottleneck):
        nn.init.zeros_(module.bn3.weight)


def _build_resnet50(architecture: Architecture) -> nn.Module:
    model: nn.Module = torchvision.models.resnet50(weights=None, num_classes=architecture.classes)
    return model


def _build_resnet50_cifar(first_stride: int, architecture: Architecture) -> nn.Module:
    return CifarResNet50(architecture.width, architecture.classes, architecture.channels, first_stride)


def _resnet50_preprocessing(architecture: Architecture) -> Preprocessing:
    return published.preprocessing_of(ResNet50_Weights.IMAGENET1K_V1, architecture.image_size)


def _resnet50_imagenet(architecture: Architecture) -> Mapping[str, Tensor]:
    return published.download(ResNet50_Weights.IMAGENET1K_V1, architecture)


RESNET50 = Family(_build_resnet50, _resnet50_preprocessing, published=_resnet50_imagenet)
RESNET50_CIFAR = Family(partial(_build_resnet50_cifar, 1), cifar_preprocessing, scalable=True, grey=True)
RESNET50_CIFAR_S2 = Family(partial(_build_resnet50_cifar, 2), cifar_preprocessing, scalable=True, grey=True)
