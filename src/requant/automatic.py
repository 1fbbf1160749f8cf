"""From a network and images to a small network in one call: plan=auto at a given size, retrain=reconstruct.

As `run.py plan=auto` does it: a grid for each layer (`auto`), found by the size of the file (`targets`) while the
network is reconstructed layer by layer (`reconstruction`); then, where a recipe is given, trained end to end on its
codebooks without taking more bits (`retraining.codebooks`).
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from requant import archive
from requant.auto import Grids, grids_for, in_units
from requant.compression import Compressed
from requant.errors import UserError
from requant.outputs import meaning
from requant.recipe import Recipe
from requant.reconstruction import at_places, batches_of
from requant.reconstruction import reconstruct as layer_by_layer
from requant.reconstruction.dreams import dreamed
from requant.retraining import Movement, retrain_codebooks
from requant.retraining.harm import compared, moved_away
from requant.retraining.unlabeled import Images, checked
from requant.targets import GRAIN, TRAINED, fit_drop, fit_size

STORAGE = "entropy"
PLANNED = 128
"""Images that say what a layer's weights are worth."""


def compress_to(
    model: nn.Module,
    images: Images | Tensor,
    *,
    size: int | None = None,
    drop: float | None = None,
    held_out: Images | Tensor | None = None,
    reconstruct_on: int = 4096,
    dreams: int = 0,
    batch_size: int = 32,
    damping: float | None = None,
    trellis: bool = True,
    rotate: bool = True,
    balance: bool = True,
    recipe: Recipe | None = None,
    movement: Movement | None = None,
    outputs: str = "softmax",
    architecture: Mapping[str, Any] | None = None,
    seed: int = 0,
    **training: Any,
) -> Compressed:
    """The best network found whose file has `size` bytes, or the smallest whose outputs stay; no label is read.

    `requant.save(path, found.model, found.codebooks, storage="entropy", architecture=architecture)` writes that file.

    Args:
        model: any whose steps can be listed (docs/networks.md), on the CPU; left as it is.
        images: unlabeled, normalised as the model wants them: a float tensor (N, C, H, W), or as
            `requant.data.unlabeled` gives them.
        size: bytes that the file may have; by 1 % fewer at most (2 % where it is trained).
        drop: in its place: the share of the images held out, 0 to 1, that may get another class than before; where
            outputs are no classes, what `requant.outputs.Outputs.lost` says.
        held_out: with `drop`: other images than `images`, a few hundred.
        reconstruct_on: how many of the images reconstruction looks at; 0: weights are rounded to the nearest.
        dreams: how many images more, each changed to what the network takes for a class that is drawn: for a network of
            many classes of which the images show few (`requant.reconstruction.dreams`).
        batch_size: of reconstruction, and of the images held out.
        damping: of reconstruction; None: the best of three, by images held out from it.
        trellis: weights between two grids where layers have bits enough (`requant.codebook_trellis`); not where it is
            trained, as training moves indices.
        rotate: channels turned to where their weights take fewer bits, where they may be
            (`requant.reconstruction.rotation`).
        balance: steps once more by what each layer's rounding costs beside that of all others (`requant.balancing`).
        recipe: of training on all images after that (adam or adamw), worth most at few bits; what it moves away, with a
            warning, is left as it was. None: no training.
        movement: how fast codebooks move in it; their bits are held whatever it says.
        outputs: what the network's outputs are: softmax (scores of classes), sigmoid (of things that are there or not)
            or values (`requant.outputs`); each position of an image may have its own.
        architecture: what `save` will be given, which takes bytes of the file.
        seed: of what is drawn.
        training: goes to `requant.retrain`: test, trainer, folder, label.

    Raises:
        UserError: for no aim or two, one that cannot be met, no images, and networks that cannot be followed.

    """
    if (size is None) == (drop is None):
        raise UserError("compress_to aims at one of two: give it size=<bytes> or drop=<share of the held-out images>")
    if drop is not None and held_out is None:
        raise UserError("drop is counted on images that nothing else looks at: give held_out=<other images>")
    first = next(model.parameters())
    if first.device.type != "cpu":
        raise UserError(f"the network is on {first.device}, and its plan is made on the CPU: give it model.cpu()")
    images = checked(images, first.dtype)
    grids = grids_for(
        model,
        images.__getitems__([0]),
        images,
        PLANNED,
        lambda found: size or found.original_bytes // 10,
        seed,
        meaning(outputs),
        rotate,
    )
    batches = batches_of(images, reconstruct_on, batch_size)
    next_ones = at_places(images, range(reconstruct_on, reconstruct_on + dreams), batch_size)
    more = dreamed(model, next_ones, grids.outputs, seed)
    settings: dict[str, Any] = {
        "batches": batches,
        "damping": damping,
        "grain": GRAIN,
        "dreams": more,
        "balance": balance,
    }
    if recipe is None:
        settings |= {"trellis": trellis}
    if size is not None:
        before = size if recipe is None else round(TRAINED * size)
        found = fit_size(grids, partial(_bytes, grids, architecture), before, **settings)
    else:
        assert drop is not None
        assert held_out is not None
        others = batches_of(checked(held_out, first.dtype), len(held_out), batch_size)
        found = fit_drop(grids, drop, others, lambda made: _in_units(grids, made).model, **settings)
    if recipe is None:
        return _in_units(grids, found)
    trained = _trained(grids, found, images, recipe, movement, {"seed": seed, **training})
    undone = moved_away(grids.outputs, grids.base, found.model, trained.model, compared(images, batch_size))
    return _in_units(grids, found if undone else trained)


def reconstruct(
    teacher: nn.Module,
    student: Compressed,
    images: Images | Tensor,
    *,
    count: int = 1024,
    dreams: int = 0,
    batch_size: int = 32,
    damping: float | None = None,
    outputs: str = "softmax",
    seed: int = 0,
) -> Compressed:
    """What `requant.compress` gave, its weights chosen anew among the same centroids so that errors cancel.

    Layer by layer, by least squares; no label, no gradients, minutes (`requant.reconstruction`).

    Args:
        teacher: the network that was compressed; left as it is.
        student: of it; left as it is. Each tensor on one table of centroids.
        images: as for `compress_to`.
        count: how many of them to look at.
        dreams: as for `compress_to`.
        batch_size: images at a time.
        damping: how little the images are trusted; None: the best of three, by images held out.
        outputs: what the network's outputs are: softmax, sigmoid or values.
        seed: of which class is whose, in dreams.

    Raises:
        UserError: for no images, networks that cannot be followed, and codebooks of other forms.

    """
    first, kind = next(teacher.parameters()), meaning(outputs)
    images = checked(images, first.dtype)
    batches = [batch.to(first.device) for batch in batches_of(images, count, batch_size)]
    next_ones = at_places(images, range(count, count + dreams), batch_size)
    more = dreamed(teacher, [batch.to(first.device) for batch in next_ones], kind, seed)
    model, codebooks = layer_by_layer(teacher, student.codebooks, batches, damping, outputs=kind, dreams=more)
    return replace(student, model=model, codebooks=codebooks)


def _trained(
    grids: Grids,
    found: Compressed,
    images: Images,
    recipe: Recipe,
    movement: Movement | None,
    training: Mapping[str, Any],
) -> Compressed:
    student = copy.deepcopy(found.model)
    _, codebooks = retrain_codebooks(
        student,
        grids.base,
        images,
        codebooks=found.codebooks,
        movement=replace(movement or Movement(), together=True, hold_bits=True),
        recipe=recipe,
        outputs=grids.outputs.name,
        **{"label": "train codebooks", **training},
    )
    return replace(found, model=student, codebooks=codebooks)


def _in_units(grids: Grids, made: Compressed) -> Compressed:
    """As the file holds it."""
    model, codebooks = in_units(grids, made.model, made.codebooks)
    return replace(made, model=model, codebooks=codebooks)


def _bytes(grids: Grids, architecture: Mapping[str, Any] | None, made: Compressed) -> int:
    """Of the file."""
    held = _in_units(grids, made)
    return archive.file_size(held.model, held.codebooks, storage=STORAGE, architecture=architecture)
