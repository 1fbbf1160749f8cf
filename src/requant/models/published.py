"""ImageNet weights and preprocessing that torchvision publishes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from requant.errors import WeightsError
from requant.models.architecture import Architecture
from requant.models.family import scaled_resize
from requant.preprocessing import Preprocessing


def download(weights: WeightsEnum, architecture: Architecture) -> Mapping[str, Tensor]:
    """The state dict of torchvision's `weights`, from torch.hub's cache or else from the network.

    Raises:
        WeightsError: another number of classes, or a failed download.
    """
    classes = len(weights.meta["categories"])
    if architecture.classes != classes:
        raise WeightsError(
            f"the ImageNet weights of {architecture.name} are for {classes} classes, but model.classes is "
            f"{architecture.classes}; set model.classes={classes}, or give the path of other weights"
        )
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(_advice(weights.url, error)) from error
    return state


def _advice(url: str, error: Exception) -> str:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    return f"cannot get {url}: {error}; put the file at {cached}, or give the path of a copy as the weights"


def preprocessing_of(weights: WeightsEnum, image_size: int) -> Preprocessing:
    """The evaluation transform published with `weights`, in proportion at another image size."""
    transform: Any = weights.transforms()
    resize = transform.resize_size[0]
    crop = transform.crop_size[0] if hasattr(transform, "crop_size") else resize  # of segmentation the whole image
    return Preprocessing(
        size=image_size,
        resize=scaled_resize(image_size, resize, crop),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )
