"""plan=auto: for every layer the step that its place in the network asks for, at a size of the file.

A weight rounded to steps of d costs the network, to second order, F d^2 / 24 nats of KL, F its Fisher information; a
bit more a weight halves d. One price of a bit for the whole network would mean d ~ F^(-1/2), which leaves one number to
find, by the size that the file shall have (Gray and Neuhoff, "Quantization", 1998, on high resolution).

That holds for rounding each weight alone. Once errors are made up for (`reconstruction`), most where inputs are alike
(early layers, whose F is high), layers differ less: d ~ F^(-1/4) did better (docs/tried.md). So this is where it
begins; then each layer is rounded alone, errors made up for, and what that does to the outputs is measured. With KL =
c d^2 of a layer of n weights, one price of a bit means d ~ (n / c)^(1/2); going half of the way there did best.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from requant.archive.steps import codebook_of, table_of
from requant.clustering.checking import float32_array
from requant.codebook import Codebook, index_dtype
from requant.codebook_forms import AnyCodebook, scalars
from requant.codebook_trellis import TrellisCodebook
from requant.compression import Compressed, place
from requant.errors import UserError
from requant.layers import TensorInfo, describe
from requant.limits import MAX_CENTROIDS
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs
from requant.plan import Assignment
from requant.reconstruction.curvature import fisher
from requant.reconstruction.graph import Layer, idle, layers, trace
from requant.reconstruction.layerwise import batches_of
from requant.reconstruction.rescaling import divide, fold_scales, fold_statistics, fold_weights, shorten
from requant.reconstruction.rotation import turn
from requant.reconstruction.sensitivity import divergences
from requant.reconstruction.streams import streams
from requant.suggest import some

METHOD = "grid"
EXPONENT = -0.25  # of the Fisher information
HALF_WAY = 0.5  # in octaves, from the first steps to those that were measured to be right
MOST_CHANGE = 2.0  # of a layer's step by what was measured: far from there KL does not follow d^2
REACHES = (1, 3, 7, 15, 31, 63)  # steps to each side of 0: few, so that layers of few bits are alike; above, any
MOST_REACH = (MAX_CENTROIDS - 1) // 2
CLOSE = 5e-4  # of the indices' bytes wanted
LEAST_VALUES = 4096  # of a weight that is no layer's as it is used: for fewer a table takes more
BATCH = 32  # images, where layers are measured
LEAST_BITS = 1.5  # a weight, for a trellis
LEAST_DIVERGENCE = 1e-30  # nats; of fine steps float32 may find none, or less than none
START, RANGES = 1e-3, (2.0**16, 2.0**32)  # where outputs hardly move widths are great
HALVINGS = 40
EDGE = 1.01  # of the range: no nearer to it


@dataclass(frozen=True)
class Grids:
    """A network ready to be rounded to grids, for any step.

    Attributes:
        base: the network, its batch norms' statistics taken into scale and shift, and its channels
            turned where they may be.
        layers: those to round.
        widths: of each layer's steps, by its weight's name, in proportion.
        idle: parameters that the network never computes with, by name; 0 everywhere.
        tensors: all of the network's.
        outputs: what its outputs are.

    """

    base: nn.Module
    layers: list[Layer]
    widths: dict[str, float]
    tensors: list[TensorInfo]
    outputs: Outputs = SOFTMAX
    idle: Sequence[str] = ()

    @property
    def original_bytes(self) -> int:
        """Four for each of the network's values."""
        return 4 * sum(tensor.values for tensor in self.tensors)

    def at(self, step: float) -> Compressed:
        """Every layer's weights rounded to its grid; `step` times its width is how far apart its centroids are."""
        model = copy.deepcopy(self.base)
        codebooks = {name: _zeros(self.base.get_parameter(name)) for name in self.idle}
        for layer in self.layers:
            width = step * self.widths[layer.weight]
            codebooks[layer.weight] = on_grid(self.base.get_parameter(layer.weight), width)
        place(model, codebooks)
        return Compressed(model, codebooks, self.assignments(codebooks), self.tensors)

    def for_trellis(self, codebooks: Mapping[str, AnyCodebook]) -> set[str]:
        """Those of its codebooks that a trellis suits: with few bits a weight it has too few zeros to offer.

        It has nearly twice as many values as its table, and they are as limited as any.
        """
        return {name for name, book in codebooks.items() if fits_trellis(book) and book.entropy_bits >= LEAST_BITS}

    def assignments(self, codebooks: Mapping[str, AnyCodebook]) -> list[Assignment]:
        """Which of its tensors have how many centroids."""
        return [Assignment(t, codebooks[t.name].k, METHOD) for t in self.tensors if t.name in codebooks]


def fits_trellis(book: AnyCodebook) -> bool:
    """Whether its table is no longer than that of a trellis may be."""
    return (book.k if isinstance(book, TrellisCodebook) else 2 * book.k - 1) <= MAX_CENTROIDS


def grids(
    model: nn.Module,
    example: Tensor,
    images: Iterable[Tensor],
    seed: int = 0,
    outputs: Outputs = SOFTMAX,
    rotate: bool = True,
) -> Grids:
    """Steps by Fisher information, on images without labels.

    Args:
        model: left as it is.
        example: one input (1, C, H, W).
        images: (1, C, H, W) each; a hundred will do.
        seed: of the classes that the Fisher information draws.
        outputs: what the network's outputs are.
        rotate: turn channels to where their weights take fewer bits (`requant.reconstruction.rotation`).

    Raises:
        UserError: for a network without weights of layers, for weights or outputs that are not finite, and for images
            that reach no weight.

    """
    for name, parameter in model.named_parameters():
        float32_array(parameter, name)
    base = copy.deepcopy(model)
    fold_statistics(base)
    tensors, graph = describe(base, example), trace(base, example)
    unused = _left_out(base, idle(base, graph), example, outputs)
    fold_weights(base, graph)
    fold_scales(base, layers(base, graph))
    if rotate:
        turn(base, streams(base, layers(base, graph)), example, outputs)
    others = [tensor for tensor in tensors if tensor.name not in unused]
    known = _with_others(list(layers(base, graph).values()), others)
    if not known:
        raise UserError("plan=auto found no weights of layers: give plan.rules instead")
    information = fisher(base, images, seed, outputs)
    curvature = {layer.weight: float(information[layer.weight].mean()) for layer in known}
    if not max(curvature.values()) > 0:
        raise UserError("plan=auto found no weight that changes the outputs: are the images and the weights right?")
    least = max(curvature.values()) * torch.finfo(torch.float32).eps
    widths = {name: max(value, least) ** EXPONENT for name, value in curvature.items()}
    return Grids(base, known, widths, tensors, outputs, unused)


@torch.no_grad()
def _left_out(model: nn.Module, names: list[str], example: Tensor, outputs: Outputs) -> list[str]:
    """Set parameters that the network never computes with to 0, and say so; if it does need them, they come back."""
    kept = {name: model.get_parameter(name).clone() for name in names}
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    with evaluating(model):
        before = [outputs.of(model, images.clone()) for images in (example, noise)]
        for name in names:
            model.get_parameter(name).zero_()
        after = [outputs.of(model, images.clone()) for images in (example, noise)]
    if not all(torch.equal(*pair) for pair in zip(before, after, strict=True)):
        for name, values in kept.items():
            model.get_parameter(name).copy_(values)
        return []
    if names:
        count, total = (sum(map(torch.numel, values)) for values in (kept.values(), model.parameters()))
        warnings.warn(
            f"the network never computes with {some(names, 3)}, {count:,} of its {total:,} values: the file holds "
            "zeros there",
            stacklevel=4,
        )
    return names


def _zeros(parameter: Tensor) -> Codebook:
    values = parameter.detach().cpu().numpy()
    return Codebook(np.zeros(1, np.float32), np.zeros(values.shape, index_dtype(1)), values.dtype)


def _with_others(followed: list[Layer], tensors: Sequence[TensorInfo]) -> list[Layer]:
    """Also layers' weights that no step has as they are (scaled before their use, or used twice): these are rounded."""
    names = {layer.weight for layer in followed}
    others = (t for t in tensors if t.layer and t.kind == "weight" and t.name not in names)
    return followed + [Layer(t.name, None, None) for t in others if t.values >= LEAST_VALUES]


def measured(grids: Grids, step: float, batches: Sequence[Tensor]) -> Grids:
    """Steps by what each layer does to the outputs when it alone is rounded at about the precision it will have.

    Args:
        grids: the first guess.
        step: at which to measure.
        batches: images (N, C, H, W) without labels, two batches at least; a quarter of them is held out, to measure on.

    Raises:
        UserError: for fewer batches.

    """
    if len(batches) < 2:
        raise UserError("plan=auto needs two unlabeled images at least, better a hundred: set plan.images")
    rounded = grids.at(step)
    books = scalars(rounded.codebooks, "plan=auto")
    found = divergences(grids.base, books, batches, held_out=max(1, len(batches) // 4), outputs=grids.outputs)
    if not found:
        return grids
    ratios = {}
    for name, divergence in found.items():
        ratios[name] = (books[name].indices.size / max(divergence, LEAST_DIVERGENCE)) ** 0.5
    middle = float(np.median(list(ratios.values())))
    changes = {name: (ratio / middle) ** HALF_WAY for name, ratio in ratios.items()}
    changes = {name: min(max(change, 1 / MOST_CHANGE), MOST_CHANGE) for name, change in changes.items()}
    return replace(grids, widths={name: width * changes.get(name, 1) for name, width in grids.widths.items()})


def grids_for(
    model: nn.Module,
    example: Tensor,
    images: Any,
    count: int,
    target: Callable[[Grids], int],
    seed: int = 0,
    outputs: Outputs = SOFTMAX,
    rotate: bool = True,
) -> Grids:
    """Both steps in one: by Fisher information, then as measured at about the size that `target` asks for.

    Args:
        model: left as it is.
        example: one input (1, C, H, W).
        images: as `requant.data.unlabeled` gives them; no label is read.
        count: how many of them to look at, two at least.
        target: the bytes that the file shall have.
        seed: of what is drawn.
        outputs: what the network's outputs are.
        rotate: as for `grids`.

    """
    count = min(count, len(images))
    first = grids(model, example, batches_of(images, count, 1), seed, outputs, rotate)
    return measured(first, step_of(first, target(first)), batches_of(images, count, min(BATCH, max(1, count // 4))))


def on_grid(weight: Tensor, width: float) -> Codebook:
    """Weights rounded to multiples of `width`, or of what the most steps to each side of 0 need.

    First layers of few weights ask for hundreds of steps, which cost next to nothing.
    """
    values = weight.detach().cpu().numpy()
    width = max(width, float(np.abs(values).max()) / (MOST_REACH + 0.49), float(np.finfo(np.float32).tiny))
    steps = np.rint(values / width).astype(np.int64)
    needed = int(np.abs(steps).max())
    wide = min(needed + max(1, needed // 8), MOST_REACH)  # making up for errors takes some further out
    reach = next((reach for reach in REACHES if reach >= wide), wide)
    return codebook_of(steps, reach, width, values.dtype)


def in_units(
    grids: Grids, model: nn.Module, codebooks: Mapping[str, AnyCodebook]
) -> tuple[nn.Module, dict[str, AnyCodebook]]:
    """The same function with fewer bytes: layers before a batch norm in units of their step, the rest in short numbers.

    Where a batch norm undoes the factor, centroids become whole numbers, so that all layers of one reach share a table.
    Parameters without a codebook are rounded to the 8 significant bits of bfloat16.
    """
    found, books = copy.deepcopy(model), dict(codebooks)
    for layer in grids.layers:
        if layer.norm is not None:
            book = books[layer.weight]
            assert isinstance(book, Codebook | TrellisCodebook)
            table = book.table if isinstance(book, TrellisCodebook) else book.centroids
            reach = len(table) // 2
            step = float(table[-1]) / reach
            divide(found, layer, step)
            if (scale := books.get(f"{layer.norm}.weight")) is not None:
                assert isinstance(scale, Codebook)
                books[f"{layer.norm}.weight"] = _multiplied(scale, step)
            units = np.arange(-reach, reach + 1, dtype=np.float32)
            if isinstance(book, TrellisCodebook):
                books[layer.weight] = replace(book, table=units)
            else:
                books[layer.weight] = replace(book, centroids=units)
    shorten(parameter for name, parameter in found.named_parameters() if name not in books)
    place(found, books)
    return found, books


def _multiplied(book: Codebook, by: float) -> Codebook:
    """The same with steps of another length."""
    step = float(book.centroids[-1]) / (book.k // 2) * by
    return Codebook(table_of(np.float32(step), book.k), book.indices, book.dtype)


def entropy_bytes(compressed: Compressed) -> float:
    """What ideally coded indices take."""
    return sum(book.entropy_bits * book.indices.size for book in compressed.codebooks.values()) / 8


def step_of(grids: Grids, wanted: float) -> float:
    """The step at which the indices' entropy is so many bytes; where there is none, the nearest to it."""
    for spread in RANGES:
        low, step, high = START / spread, START, START * spread  # narrow steps: more bytes
        for _ in range(HALVINGS):
            found = entropy_bytes(grids.at(step))
            if abs(found - wanted) <= CLOSE * wanted:
                return step
            low, high = (step, high) if found > wanted else (low, step)
            step = (low * high) ** 0.5
        if EDGE * START / spread < step < START * spread / EDGE:
            break  # between two sizes
    return step
