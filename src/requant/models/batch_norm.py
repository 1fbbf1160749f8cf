"""Batch norm for the time of training only: put behind each layer, and folded into its weights at the end.

A network without batch norm (VGG-16) trains faster and better with it; afterwards each one is an affine map of its
layer's output, which the layer's own weights and bias can do (Jacob et al., CVPR 2018, section 3.2). The network that
comes out has the layers, names and sizes of the one that went in.
"""

from collections.abc import Iterable
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def add_batch_norms(model: nn.Module) -> list[str]:
    """Put a batch norm behind every convolution and linear layer, in place; return those layers' names.

    The last layer is left alone, and so are layers without a bias, which a batch norm of their own follows.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][:-1]
    layers = [name for name in layers if model.get_submodule(name).bias is not None]
    for name in layers:
        layer = model.get_submodule(name)
        norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
        model.set_submodule(name, nn.Sequential(layer, norm(len(cast(nn.Parameter, layer.bias)))))
    return layers


def fold_batch_norms(model: nn.Module, layers: Iterable[str]) -> None:
    """Undo `add_batch_norms` in place, for the evaluation mode: the same outputs up to rounding."""
    model.eval()
    for name in layers:
        layer, norm = model.get_submodule(name).children()
        model.set_submodule(name, _folded(layer, cast(_BatchNorm, norm)))


def _folded(layer: nn.Module, norm: _BatchNorm) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return fuse_conv_bn_eval(layer, norm)
    return fuse_linear_bn_eval(cast(nn.Linear, layer), norm)
