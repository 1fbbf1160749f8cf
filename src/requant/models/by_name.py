"""Any classifier of torchvision or timm, and torchvision's networks that classify each pixel, by their names there."""

import importlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from requant.errors import ConfigError, WeightsError
from requant.models import published
from requant.models.architecture import Architecture
from requant.models.family import Family, per_channel
from requant.outputs import main
from requant.preprocessing import Preprocessing
from requant.suggest import did_you_mean


def _name(architecture: Architecture) -> str:
    """The name without its `torchvision:` or `timm:`."""
    return architecture.name.partition(":")[2]


OF_ONE_SIZE = "vit_"
"""torchvision's networks that are made for images of one size, which can be another than the published."""

TRAINING_ONLY = "aux_classifier."
"""Of published segmentation networks: a second classifier, of use while they are trained."""


def _torchvision_name(architecture: Architecture) -> str:
    name = _name(architecture)
    known = [*torchvision.models.list_models(module=torchvision.models), *_of_pixels()]
    if name not in known:
        raise ConfigError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    return name


def _of_pixels() -> list[str]:
    """Networks that classify each pixel (segmentation)."""
    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


def _build_torchvision(architecture: Architecture) -> nn.Module:
    name = _torchvision_name(architecture)
    settings: dict[str, Any] = {"weights_backbone": None} if name in _of_pixels() else {}  # else it would fetch some
    if name.startswith(OF_ONE_SIZE):
        settings["image_size"] = architecture.image_size
    try:
        model: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=architecture.classes, **settings
        )
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"{architecture.name} cannot be made: {error}; set model.image_size to another") from error
    return checked(model, architecture)


def _torchvision_preprocessing(architecture: Architecture) -> Preprocessing:
    weights = torchvision.models.get_model_weights(_torchvision_name(architecture)).DEFAULT
    return published.preprocessing_of(weights, architecture.image_size)


def _torchvision_imagenet(architecture: Architecture) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(_torchvision_name(architecture)).DEFAULT
    state = published.download(weights, architecture)
    size = architecture.image_size
    if _name(architecture).startswith(OF_ONE_SIZE) and size != weights.meta["min_size"][0]:
        patch = int(_name(architecture).rpartition("_")[2])
        state = interpolate_embeddings(size, patch, OrderedDict(state))  # of positions, as torchvision's recipes do
    return {name: tensor for name, tensor in state.items() if not name.startswith(TRAINING_ONLY)}


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(f"timm:<name> needs the package timm: pip install 'requant[models]' ({error})") from error


def _timm_name(architecture: Architecture) -> str:
    """A name of timm's, with or without the tag of its weights (`<name>.<tag>`)."""
    timm, name = _timm(), _name(architecture)
    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        raise ConfigError(f"timm has no model {plain!r}{did_you_mean(plain, timm.list_models())}")
    tagged = timm.list_pretrained(f"{plain}.*")
    if name != plain and name not in tagged:
        raise ConfigError(f"timm has no weights {name!r}{did_you_mean(name, tagged)}")
    return name


def _build_timm(architecture: Architecture) -> nn.Module:
    try:
        return checked(_made_by_timm(architecture), architecture)
    except ConfigError:
        # Made for images of one size (ViT, Swin, mixers): for another it has to be told. Only then, as some that take
        # any size would have other weights.
        if not _timm().get_pretrained_cfg(_timm_name(architecture)).fixed_input_size:
            raise
        return checked(_made_by_timm(architecture, img_size=architecture.image_size), architecture)


def _made_by_timm(architecture: Architecture, **settings: int) -> nn.Module:
    name, model = _timm_name(architecture), _timm().create_model
    try:
        found: nn.Module = model(name, num_classes=architecture.classes, in_chans=architecture.channels, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{architecture.name} cannot be made for images of {architecture.image_size} x "
            f"{architecture.image_size}: {error}; set model.image_size to what it was made for"
        ) from error
    return found


def _timm_preprocessing(architecture: Architecture) -> Preprocessing:
    timm, name = _timm(), _timm_name(architecture)
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return Preprocessing(
        size=architecture.image_size,
        resize=max(architecture.image_size, math.floor(architecture.image_size / config["crop_pct"])),
        mean=per_channel(tuple(config["mean"]), architecture.channels),
        std=per_channel(tuple(config["std"]), architecture.channels),
        interpolation=config["interpolation"],
    )


def _timm_imagenet(architecture: Architecture) -> Mapping[str, Tensor]:
    timm, name = _timm(), _timm_name(architecture)
    try:
        # With its own number of classes: timm would fill a head of any other with random values.
        model: nn.Module = timm.create_model(name, pretrained=True, in_chans=architecture.channels)
    except Exception as error:  # timm's hub, its cache and its HTTP client each raise their own
        raise WeightsError(f"cannot get the weights of timm:{name}: {error}; give the path of a copy") from error
    return model.state_dict()


def checked(model: nn.Module, architecture: Architecture) -> nn.Module:
    """The model, if it maps images to `classes` numbers, or to so many at each position, in both of its modes."""
    if getattr(model, "aux_logits", False):
        raise ConfigError(f"{architecture.name} puts out auxiliary logits in training: take another network")
    shape = _output_shape(model, architecture)
    if shape[:2] != (1, architecture.classes):
        raise ConfigError(
            f"{architecture.name} puts out {shape or 'no tensor'} for one image, not (1, {architecture.classes}) or "
            f"(1, {architecture.classes}, height, width): set model.classes to how many numbers there are and "
            "model.outputs to what they are; wrap what gives several tensors in a module that gives one"
        )
    return model


def _output_shape(model: nn.Module, architecture: Architecture) -> tuple[int, ...]:
    size = architecture.image_size
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            output = main(model.eval()(torch.zeros(1, architecture.channels, size, size, device=device)))
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{architecture.name} does not take images of {architecture.channels} x {size} x {size}: {error}; "
            "set model.image_size and model.channels to what it was made for"
        ) from error
    return tuple(output.shape) if isinstance(output, Tensor) else ()


TORCHVISION = Family(_build_torchvision, _torchvision_preprocessing, published=_torchvision_imagenet)
TIMM = Family(_build_timm, _timm_preprocessing, published=_timm_imagenet, grey=True)
