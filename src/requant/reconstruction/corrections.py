"""What is set behind a layer whose weights were rounded: its bias, or the batch norm's scale and shift.

The teacher's and the student's outputs of the same images say to what; the student's outputs move with it.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx
from torch.nn.modules.batchnorm import _BatchNorm

from requant.codebook import Codebook
from requant.codebook_forms import AnyCodebook
from requant.reconstruction.coarse import on_steps, values_of
from requant.reconstruction.graph import Layer, Walk
from requant.reconstruction.statistics import SMALLEST, correction, mean_and_variance, noise

GAIN = 0.4  # of the way from the teacher's deviations to its gain


def is_free(norm: str, codebooks: Mapping[str, AnyCodebook]) -> bool:
    """Whether a batch norm can be set: neither its scale nor its shift has a codebook."""
    return not codebooks.keys() & {f"{norm}.weight", f"{norm}.bias"}


def correct_norm(teacher: Walk, student: Walk, node: fx.Node, name: str, grain: float) -> dict[str, Codebook]:
    """Scale and shift that give the outputs the teacher's statistics; their codebooks, where they are put on grids."""
    norm = cast(_BatchNorm, student.model.get_submodule(name))
    found, wanted = student.values[node], teacher.values[node]
    _rescale(norm, found, *correction(found, wanted, gain=GAIN))
    books: dict[str, Codebook] = {}
    if not grain:
        return books
    deviations = mean_and_variance(wanted)[1].clamp_min(SMALLEST).sqrt()
    differences = noise(found, wanted)
    step = grain * float((differences / deviations).median() * norm.weight.abs().median())
    book = on_steps(norm.weight, step)
    if book is not None and not lost(norm.weight, book, deviations > differences.median()):
        books[f"{name}.weight"] = book
        ratio = torch.where(norm.weight == 0, 1, values_of(book, norm.weight) / norm.weight)
        means = mean_and_variance(found)[0].float()
        _rescale(norm, found, ratio, mean_and_variance(wanted)[0].float() - means * ratio)
        norm.weight.copy_(values_of(book, norm.weight))
    return books | _on_grid(f"{name}.bias", norm.bias, (student, teacher), node, 1, grain)


def lost(scale: Tensor, book: Codebook, signal: Tensor) -> bool:
    """Whether a channel that says something would be multiplied by 0."""
    return bool(((values_of(book, scale) == 0) & (scale != 0) & signal).any())


def _rescale(norm: _BatchNorm, outputs: Sequence[Tensor], scale: Tensor, shift: Tensor) -> None:
    """Of a batch norm, and of its outputs that are there already."""
    norm.weight.copy_(norm.weight * scale)
    norm.bias.copy_(norm.bias * scale + shift)
    for values in outputs:
        shape = (-1, *[1] * (values.ndim - 2))
        values.mul_(scale.reshape(shape)).add_(shift.reshape(shape))


def correct_bias(
    teacher: Walk, student: Walk, node: fx.Node, layer: Layer, codebooks: Mapping[str, AnyCodebook], grain: float
) -> dict[str, Codebook]:
    """A bias that gives the outputs the teacher's means; its codebook, where it is put on a grid."""
    if layer.bias is None or layer.norm is not None or layer.bias in codebooks:
        return {}
    bias = student.model.get_parameter(layer.bias)
    found, wanted = student.values[node], teacher.values[node]
    axis = layer.channel_axis(found[0])
    before, mean = (mean_and_variance(values, axis)[0] for values in (wanted, found))
    _shift(bias, found, axis, (before - mean).float())
    return _on_grid(layer.bias, bias, (student, teacher), node, axis, grain) if grain else {}


def _on_grid(
    name: str, bias: Tensor, walks: tuple[Walk, Walk], node: fx.Node, axis: int, grain: float
) -> dict[str, Codebook]:
    """Put the student's bias, or a batch norm's shift, on a grid, and the outputs with it.

    A bias is wrong by the same in all places of an image, so that it is the noise of its means which counts.
    """
    outputs, wanted = (walk.values[node] for walk in walks)
    book = on_steps(bias, grain * float(noise(outputs, wanted, axis, of_means=True).median()))
    if book is None:
        return {}
    _shift(bias, outputs, axis, values_of(book, bias) - bias)
    bias.copy_(values_of(book, bias))
    return {name: book}


def _shift(bias: Tensor, outputs: Sequence[Tensor], axis: int, by: Tensor) -> None:
    bias.copy_(bias + by)
    for values in outputs:
        values.add_(by.reshape(-1, *[1] * (values.ndim - 1 - axis)))
