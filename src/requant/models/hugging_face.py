"""Hugging Face's networks of images (classes, embeddings, depths): files in a folder, as save_pretrained writes them.

Archives hold the network's configuration: what a folder or the hub has is not needed to load one. Of a configuration
only numbers and names that its class knows are taken, and none that would have code or weights fetched.
"""

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from requant.errors import ConfigError, WeightsError, first_line
from requant.hugging_face import CONFIG, PREPROCESSOR, folder
from requant.models.architecture import Architecture
from requant.models.by_name import checked
from requant.models.family import Family, per_channel, scaled_resize
from requant.preprocessing import Preprocessing
from requant.suggest import some

CLASSIFIERS = ("ForImageClassification", "ForSemanticSegmentation")
OTHERS = ("ForDepthEstimation", "Model", "ModelWithProjection")
INTERPOLATIONS = {0: "bilinear", 1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers; in place of nearest and Lanczos what is nearest of the two that images are resized by here."""
BYTES = 1 / 255
MOST = 1_000_000  # of any number in a configuration, and
MOST_LAYERS = 1_000  # of those that count layers: a file from elsewhere is not to ask for all of the memory
NOT_KEPT = {
    *("_name_or_path", "transformers_version", "auto_map", "trust_remote_code", "kernel_config", "quantization_config"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"),
    *("dtype", "torch_dtype", "return_dict", "output_hidden_states", "output_attentions", "problem_type"),
    *("id2label", "label2id", "backbone", "use_pretrained_backbone", "use_timm_backbone", "backbone_kwargs"),
    "model_args",
}
"""Of a configuration: what is not needed, and what would fetch something or have the network give something else."""


@cache
def described(architecture: Architecture) -> Architecture:
    """With what its folder says: the configuration, and how images are resized and normalised (unless that is given).

    Raises:
        ConfigError: no such folder, no network for images in it, or other classes, channels or sizes than it has.

    """
    config = _configuration(architecture.name)
    processor = _processor(architecture)
    _require_settings(architecture, config, _size(processor or {}) or getattr(config, "image_size", None))
    kept = {"network": _kept(config), **_resizing(processor or {}, architecture.image_size)}
    found = replace(architecture, config=json.dumps(kept, sort_keys=True))
    if architecture.mean is not None and architecture.std is not None:
        return found
    mean, std = _normalisation(architecture, processor)
    return replace(found, mean=mean, std=std)


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"Hugging Face's networks need the package transformers: pip install 'requant[huggingface]' ({error})"
        ) from error


def _configuration(name: str) -> Any:
    """The configuration in the folder, as an object of transformers."""
    transformers, path = _transformers(), folder(name)
    try:
        return transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises this and that
        raise ConfigError(
            f"{name}: transformers cannot read {path / CONFIG} ({first_line(error)}): write it with "
            "save_pretrained; a network of code of its own goes by model=own"
        ) from error


def _require_settings(architecture: Architecture, config: Any, size: Any) -> None:
    """Raise unless classes, channels and image size are the network's, where it has them; say all at once."""
    wanted = {
        "classes": config.num_labels if _classifies(config.to_dict()) else None,
        "channels": getattr(config, "num_channels", None),
        "image_size": size[0] if isinstance(size, list | tuple) else size,
    }
    others = {key: value for key, value in wanted.items() if value not in (None, getattr(architecture, key))}
    if others:
        settings = " ".join(f"model.{key}={value}" for key, value in others.items())
        raise ConfigError(f"{architecture.name} is a network of other settings: set {settings}")


def _kept(config: Any) -> dict[str, Any]:
    """As JSON holds it, with the number of classes in place of their names."""
    return {**_without_excess(config.to_dict()), "architectures": config.architectures, "num_labels": config.num_labels}


def _without_excess(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_excess(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in NOT_KEPT
    }


def _class(config: Mapping[str, Any]) -> Any:
    """The network's class.

    Raises:
        ConfigError: if it is none of transformers' for images.

    """
    transformers, name = _transformers(), _class_name(config)
    found = getattr(transformers, name, None) if _classifies(config) or name.endswith(OTHERS) else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        forms = ", ".join(f"...{form}" for form in (*CLASSIFIERS, *OTHERS))
        raise ConfigError(
            f"its configuration names {name}, where one of transformers' {forms} is needed: other networks go by "
            "model=own, in a module that gives one tensor"
        )
    return found


def _class_name(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or ["none"]
    return str(names[0]) if isinstance(names, list) else str(names)


def _classifies(config: Mapping[str, Any]) -> bool:
    return any(form in _class_name(config) for form in CLASSIFIERS)


def _build(architecture: Architecture) -> nn.Module:
    config = _stored(architecture)["network"]
    network = _class(config)
    known = network.config_class().to_dict().keys() | {"num_labels"}
    settings = {key: value for key, value in _without_excess(config).items() if key in known}
    try:
        model: nn.Module = network(network.config_class(**settings))
    except Exception as error:  # whatever a configuration that does not fit brings about
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"{architecture.name} cannot be made of its configuration ({said})") from error
    return checked(model, architecture)


def _preprocessing(architecture: Architecture) -> Preprocessing:
    stored = _stored(architecture)
    assert architecture.mean is not None  # as `described` leaves none without
    assert architecture.std is not None
    return Preprocessing(
        size=architecture.image_size,
        resize=max(architecture.image_size, stored["resize"]),
        mean=architecture.mean,
        std=architecture.std,
        interpolation=stored["interpolation"],
        whole=stored["whole"],
    )


def _stored(architecture: Architecture) -> dict[str, Any]:
    """What `described` has put together; perhaps from a file from elsewhere."""
    try:
        found = json.loads(architecture.config or "")
        stored = {"network": dict(found["network"]), "resize": int(found["resize"])}
        stored |= {"interpolation": str(found["interpolation"]), "whole": bool(found["whole"])}
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigError(
            f"{architecture.name} has no configuration that can be read: describe it by requant.models.described"
        ) from error
    _require_modest(stored)
    return stored


def _require_modest(value: Any, key: str = "") -> None:
    """Raise ConfigError for numbers that no network has."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _require_modest(inner, str(name))
    elif isinstance(value, list):
        if len(value) > MOST_LAYERS:
            raise ConfigError(f"its configuration has {len(value):,} of {key}")
        for inner in value:
            _require_modest(inner, key)
    elif isinstance(value, int | float):
        most = MOST_LAYERS if any(word in key for word in ("layers", "depth", "blocks")) else MOST
        if not abs(value) <= most:
            raise ConfigError(f"its configuration has {key}={value:g}, beyond {most:,}")


def _processor(architecture: Architecture) -> dict[str, Any] | None:
    """What the folder says of images; None: nothing."""
    path = folder(architecture.name) / PREPROCESSOR
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): write it with save_pretrained") from error


def _resizing(processor: Mapping[str, Any], size: int) -> dict[str, Any]:
    """How images become `size` x `size`: see `Preprocessing`."""
    resize, crop = (_side(processor.get(key)) for key in ("size", "crop_size"))
    found = {"resize": size, "interpolation": INTERPOLATIONS.get(processor.get("resample", 2), "bicubic")}
    if processor.get("crop_pct"):
        return found | {"resize": max(size, int(size / processor["crop_pct"])), "whole": False}
    if processor.get("do_center_crop"):
        proportion = (resize, crop) if resize and crop and resize >= crop else (size, size)
        return found | {"resize": scaled_resize(size, *proportion), "whole": False}
    wanted = processor.get("size")
    return found | {"whole": isinstance(wanted, Mapping) and "height" in wanted and "width" in wanted}


def _size(processor: Mapping[str, Any]) -> int | None:
    """Of the images that it makes."""
    return _side(processor.get("crop_size" if processor.get("do_center_crop") else "size"))


def _side(given: Any) -> int | None:
    """The short side, of a size as processors give it."""
    if isinstance(given, Mapping):
        sides = [given[key] for key in ("shortest_edge", "height", "width") if isinstance(given.get(key), int)]
        return min(sides, default=None)
    return given if isinstance(given, int) else None


def _normalisation(
    architecture: Architecture, processor: Mapping[str, Any] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of images from 0 to 1."""
    by_hand = "say how its training images were normalised: model.mean=[...] model.std=[...], a number for each channel"
    if processor is None:
        raise ConfigError(f"{architecture.name} has no {PREPROCESSOR}: {by_hand}")
    if processor.get("do_flip_channel_order"):
        raise ConfigError(f"{architecture.name} wants blue first: put it in a module that turns RGB round (model=own)")
    if not math.isclose(processor.get("rescale_factor", BYTES), BYTES, rel_tol=1e-3):
        raise ConfigError(f"{architecture.name} scales its images by {processor['rescale_factor']}: {by_hand}")
    if not processor.get("do_normalize", True):
        return (0.0,) * architecture.channels, (1.0,) * architecture.channels
    try:
        mean, std = (tuple(map(float, processor[key])) for key in ("image_mean", "image_std"))
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{architecture.name}: {PREPROCESSOR} lacks image_mean or image_std: {by_hand}") from error
    return per_channel(mean, architecture.channels), per_channel(std, architecture.channels)


def _published(architecture: Architecture) -> Mapping[str, Tensor]:
    """The weights in the folder, of safetensors alone, under the names that the network has for them now."""
    network, path = _class(_stored(architecture)["network"]), folder(architecture.name)
    try:
        model, found = network.from_pretrained(
            path, output_loading_info=True, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises this and that
        raise WeightsError(
            f"{architecture.name}: transformers cannot load the weights in {path} ({first_line(error)}): write "
            "them with save_pretrained, which makes safetensors"
        ) from error
    if lacking := sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]})):
        raise WeightsError(f"{path} lacks weights of {network.__name__}: {some(lacking, 3)}: it is of another network")
    state: Mapping[str, Tensor] = model.state_dict()
    return state


FAMILY = Family(_build, _preprocessing, published=_published, grey=True)
