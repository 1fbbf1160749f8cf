"""Each layer of a network in a row: what it computes, and how many values it holds."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from requant.layers import TensorInfo, describe
from requant.machine import provenance
from requant.models import Architecture, build, example_input


def layer_table(architecture: Architecture) -> list[dict[str, Any]]:
    """The convolutions and fully connected layers, in order; nothing is computed and no weights are needed.

    Returns:
        For each: layer (the paper's number), module, block (the residual block around it, else the module itself),
        operation, kernel and stride (0: fully connected), channels in and out, height (of the output, pixels), and the
        number of weights, biases and batch norm's values. A projection shortcut has a row of its own, with the number
        of its block's first layer; batch norm counts to the layer before it.

    """
    with torch.device("meta"):
        model, example = build(architecture), example_input(architecture)
    tensors = describe(model, example)
    heights = _heights(model, example)
    return [_row(name, module, tensors, heights[name]) for name, module in _layers(model, tensors)]


def _layers(model: nn.Module, tensors: list[TensorInfo]) -> Iterator[tuple[str, nn.Module]]:
    for tensor in tensors:
        if tensor.kind == "weight":
            name = tensor.name.rpartition(".")[0]
            yield name, model.get_submodule(name)


def _heights(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Of each module's output; 1 for vectors."""
    heights: dict[str, int] = {}

    def keep(name: str, output: Tensor) -> None:
        heights[name] = output.shape[2] if output.ndim == 4 else 1

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            handle = module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
            hooks.callback(handle.remove)
        model(example)
    return heights


def _row(name: str, module: nn.Module, tensors: list[TensorInfo], height: int) -> dict[str, Any]:
    own = {tensor.name: tensor for tensor in tensors}
    weight = own[f"{name}.weight"]
    convolution = isinstance(module, nn.Conv2d)
    out_channels, in_channels = weight.shape[:2]
    return {
        "layer": weight.layer,
        "module": name,
        "block": _block(name),
        "operation": "shortcut" if "downsample" in name else "convolution" if convolution else "fully connected",
        "kernel": weight.shape[2] if convolution else 0,
        "stride": module.stride[0] if isinstance(module, nn.Conv2d) else 0,
        "channels_in": in_channels,
        "channels_out": out_channels,
        "height": height,
        "weights": weight.values,
        "biases": own[f"{name}.bias"].values if f"{name}.bias" in own else 0,
        "batch_norm": _batch_norm(name, weight.layer, tensors),
    }


def _block(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else name


def _batch_norm(name: str, layer: int, tensors: list[TensorInfo]) -> int:
    """Of the layer's batch norm; a shortcut's is told by its name."""
    shortcut = "downsample" in name
    norms = (t for t in tensors if t.layer == layer and t.kind.startswith("bn_"))
    return sum(t.values for t in norms if ("downsample" in t.name) == shortcut)


_FORMS = {
    "vgg16": {"imagenet": Architecture("vgg16"), "cifar10": Architecture("vgg16_cifar", 10, 3, 32, 0.25)},
    "resnet50": {
        "imagenet": Architecture("resnet50"),
        "cifar10": Architecture("resnet50_cifar_s2", 10, 3, 32, 0.25),
    },
}


def network_table(name: str) -> pd.DataFrame:
    """`layer_table` of the paper's form of `vgg16` or `resnet50`, and of the studies', told apart by `form`."""
    found = provenance()
    origin = {"git": found["git"], "versions": f"requant={found['versions']['requant']} torch={torch.__version__}"}
    rows = ({"form": form} | row | origin for form, a in _FORMS[name].items() for row in layer_table(a))
    return pd.DataFrame(rows)
