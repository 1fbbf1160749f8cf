"""How often a network is right, and how far it is from its teacher, on batches of images."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from requant.errors import DataError
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs, meaning
from requant.scoring import Accuracy, score

Batches = Iterable[tuple[Tensor, Tensor]]


def evaluate(
    model: nn.Module, batches: Batches, teacher: nn.Module | None = None, outputs: str = "softmax"
) -> Accuracy:
    """Measure `model` on batches of (images, labels); with a teacher also how well it agrees with it.

    The models are used in eval mode, on the device they are on, and left in the mode they were in. `outputs` says what
    they give (`requant.outputs`). Labels are class indices (N,), or (N, ...) where each position has one; of sigmoid
    booleans, and of values floats, of the outputs' shape.
    """
    kind = meaning(outputs)
    (found, *teachers), labels = _outputs([model] if teacher is None else [model, teacher], batches, kind)
    return score(found, labels, teachers[0] if teachers else None, kind)


def outputs(model: nn.Module, batches: Batches, kind: Outputs = SOFTMAX) -> tuple[Tensor, Tensor]:
    """The outputs (N, C, ...) of `model` and the labels over all batches, on the CPU, in float32."""
    (found,), labels = _outputs([model], batches, kind)
    return found, labels


@torch.inference_mode()
def _outputs(models: list[nn.Module], batches: Batches, kind: Outputs) -> tuple[list[Tensor], Tensor]:
    """The outputs of each model, in one pass over the batches, and the labels."""
    outputs: list[list[Tensor]] = [[] for _ in models]
    labels: list[Tensor] = []
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(evaluating(model))
        for batch in batches:
            images_NCHW, labels_N = _checked(batch, kind)
            labels.append(labels_N.cpu())
            for model, found in zip(models, outputs, strict=True):
                found.append(kind.of(model, _as_weights(model, images_NCHW)).float().cpu())
            _check_room(outputs[0], sum(map(len, labels)))
    if not sum(map(len, labels)):
        raise DataError("no images to measure on: the test set is empty")
    return [torch.cat(found) for found in outputs], torch.cat(labels)


MOST_BYTES = 4 << 30  # of one network's outputs: as many again where they are compared with another's


def _check_room(outputs: Sequence[Tensor], images: int) -> None:
    """Raise DataError where outputs, of which those of each pixel are many, would fill the memory."""
    size = sum(found.nbytes for found in outputs)
    if size > MOST_BYTES:
        raise DataError(
            f"the outputs on {images} images take {size / (1 << 30):.1f} GiB, and {MOST_BYTES >> 30} GiB are kept at "
            f"most: measure on {int(images * MOST_BYTES / size)} images at most (data.limit)"
        )


def _checked(batch: Any, kind: Outputs) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise DataError(
            f"batches must be pairs of tensors (images, labels), and one is a {type(batch).__name__}: "
            "give [(images, labels)] or a DataLoader"
        )
    images_NCHW, labels_N = batch
    form, fits = _LABELS[kind.name]
    if len(labels_N) != len(images_NCHW) or not fits(labels_N):
        raise DataError(
            f"labels must be {form}, and for {len(images_NCHW)} images they are {labels_N.dtype} of shape "
            f"{tuple(labels_N.shape)}"
        )
    return images_NCHW, labels_N


_LABELS: dict[str, tuple[str, Callable[[Tensor], bool]]] = {
    "softmax": (
        "class indices (N,), or (N, height, width) where each position has one",
        lambda labels: not labels.is_floating_point() and labels.dtype != torch.bool,
    ),
    "sigmoid": ("booleans (N, C, ...)", lambda labels: labels.dtype == torch.bool),
    "values": ("floats (N, C, ...)", Tensor.is_floating_point),
}


def _as_weights(model: nn.Module, images_NCHW: Tensor) -> Tensor:
    """Images on the device of the network's weights, and floats in their precision."""
    first = next(model.parameters(), images_NCHW)
    floats = images_NCHW.is_floating_point() and first.is_floating_point()
    return images_NCHW.to(first.device, first.dtype if floats else None)
