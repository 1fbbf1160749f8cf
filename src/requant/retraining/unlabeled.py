"""The proposed retraining: match the teacher's outputs on images without labels."""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant.data import loader
from requant.errors import UserError
from requant.modes import evaluating
from requant.outputs import meaning
from requant.progress import bar
from requant.recipe import Recipe, choice
from requant.retraining.front import OnTail, inputs_of, trainable_tail
from requant.retraining.loop import History, fit
from requant.retraining.losses import loss_of
from requant.retraining.objectives import MatchOutputs, MatchTeacher, Objective
from requant.retraining.trainable import freeze

MOST_BYTES = 2 << 30  # of images or activations kept in memory

Keep = Callable[[Callable[[], Tensor]], tuple[Tensor, float]]
"""Gives the teacher's outputs, by calling what computes them or from where they were kept, and the seconds saved."""


class Images(Protocol):
    """Unlabeled images: indices in, a normalised float batch (N, C, H, W) out.

    The index carries the epoch: epoch * len + item. Where `fixed` is true an item is the same in every epoch.
    """

    fixed: bool

    def __len__(self) -> int:
        """Images an epoch."""

    def __getitems__(self, indices: list[int]) -> Tensor:
        """A batch."""


class TensorImages:
    """Images that are ready: a float tensor (N, C, H, W), normalised as the network wants them (or activations)."""

    fixed = True

    def __init__(self, images_NCHW: Tensor):
        self.images_NCHW = images_NCHW

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def __getitems__(self, indices: list[int]) -> Tensor:
        return self.images_NCHW[torch.tensor(indices) % len(self)]


class WithOutputs:
    """Images beside the teacher's outputs for them: batches of (images, logits)."""

    fixed = True

    def __init__(self, images: Images, outputs_NC: Tensor):
        assert images.fixed, "outputs computed beforehand need images that stay the same"
        self.images = images
        self.outputs_NC = outputs_NC

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.images.__getitems__(indices), self.outputs_NC[torch.tensor(indices) % len(self)]


def retrain(
    student: nn.Module,
    teacher: nn.Module,
    images: Images | Tensor,
    *,
    codebooks: Collection[str] = (),
    only: Collection[str] | None = None,
    recipe: Recipe | None = None,
    loss: str = "kl",
    temperature: float = 1.0,
    outputs: str = "softmax",
    teacher_outputs: str = "once",
    front: str = "once",
    in_memory: bool = True,
    statistics: str = "keep",
    workers: int = 0,
    seed: int = 0,
    keep: Keep = lambda compute: (compute(), 0.0),
    **training: Any,
) -> History:
    """Train what is not quantized until the student's outputs match the teacher's on unlabeled images, in place.

    (Thonglek et al., IJCNN 2020, section III.) `codebooks` names the quantized tensors, which stand still; `only`
    narrows what is trained further. `outputs` says what the network's outputs are (`requant.outputs`): softmax, sigmoid
    or values; `loss` and `temperature` are of the first. `keep` may take the teacher's outputs from an earlier run.
    `training` goes to `requant.retraining.loop.fit`: rates, test, folder, trainer, loggers, label.

    Where the images are the same in every epoch, what would be computed again is computed once, before the first: with
    `teacher_outputs="once"` the teacher's outputs; with `front="once"` the activations of frozen layers at the front,
    where only the network's end is trained; with `in_memory` images are decoded and normalised, up to 2 GiB of them.
    """
    recipe = recipe or Recipe()
    images = checked(images, next(student.parameters()).dtype)
    loss_of(loss, temperature, outputs)
    choice("teacher_outputs", teacher_outputs, ("once", "live"))
    choice("front", front, ("once", "live"))
    freeze(student, codebooks, only)
    started = time.perf_counter()
    with evaluating(teacher):
        if in_memory and images.fixed and _bytes(images) <= MOST_BYTES:
            images = TensorImages(_each(lambda batch: batch, images, recipe.batch_size, workers, "unlabeled images"))
        if teacher_outputs == "once" and images.fixed and _outputs_fit(teacher, images, outputs):
            predicted = partial(predict, teacher, images, recipe.batch_size, workers, outputs)
            outputs_NC, saved = keep(predicted)
            objective: Objective = MatchOutputs(loss, temperature, outputs)
            tail = _fixed_tail(student, images) if front == "once" and statistics == "keep" else None
            if tail is not None:
                images = _inputs(tail, student, images, recipe.batch_size, workers)
                objective = OnTail(objective, tail)
            batches: Images | WithOutputs = WithOutputs(images, outputs_NC)
        else:
            batches, objective, saved = images, MatchTeacher(teacher, loss, temperature, outputs), 0.0
        prepared = time.perf_counter() - started + saved
        train = loader(batches, recipe.batch_size, shuffle=True, seed=seed, workers=workers)
        history = fit(
            student,
            train,
            objective,
            recipe,
            frozen=codebooks,
            statistics=statistics,
            seed=seed,
            outputs=outputs,
            **training,
        )
    return replace(history, teacher_seconds=prepared)


def checked(images: Images | Tensor, dtype: torch.dtype) -> Images:
    """Images as `retrain` takes them; a tensor in the network's precision.

    Raises:
        UserError: for none, and for what they cannot be taken from.

    """
    if isinstance(images, Tensor):
        if not images.is_floating_point():
            raise UserError(f"images are of {images.dtype}: normalise them as the teacher wants them, to floats")
        images = TensorImages(images.to(dtype))
    if not all(hasattr(images, name) for name in ("fixed", "__len__", "__getitems__")):
        raise UserError(
            f"images are a {type(images).__name__}: give a float tensor (N, C, H, W), as torch.stack([...]) makes, "
            "requant.data.unlabeled(...), or an object like requant.retraining.unlabeled.TensorImages"
        )
    if not len(images):
        raise UserError("there are no images to retrain on")
    return images


def predict(teacher: nn.Module, images: Images, batch_size: int, workers: int = 0, outputs: str = "softmax") -> Tensor:
    """The outputs (N, C, ...) of a teacher in eval mode for every image of epoch 0, on the CPU."""
    device, kind = next(teacher.parameters()).device, meaning(outputs)
    return _each(
        lambda batch: kind.of(teacher, batch.to(device)).float().cpu(), images, batch_size, workers, "teacher's outputs"
    )


@torch.no_grad()
def _outputs_fit(teacher: nn.Module, images: Images, outputs: str) -> bool:
    """Whether the teacher's outputs for all images may be kept in memory: those of every pixel are many."""
    device = next(teacher.parameters()).device
    found = meaning(outputs).of(teacher, images.__getitems__([0]).to(device))
    return found[0].numel() * torch.float32.itemsize * len(images) <= MOST_BYTES


def _fixed_tail(student: nn.Module, images: Images) -> nn.Module | None:
    with evaluating(student):
        device = next(student.parameters()).device
        example = images.__getitems__([0]).to(device)
        tail = trainable_tail(student, example)
        fits = tail is not None and inputs_of(tail, student, example).nbytes * len(images) <= MOST_BYTES
    return tail if fits else None


def _inputs(tail: nn.Module, student: nn.Module, images: Images, batch_size: int, workers: int) -> "TensorImages":
    device = next(student.parameters()).device
    with evaluating(student):
        return TensorImages(
            _each(
                lambda batch: inputs_of(tail, student, batch.to(device)).cpu(),
                images,
                batch_size,
                workers,
                "frozen layers",
            )
        )


def _bytes(images: Images) -> int:
    return images.__getitems__([0]).nbytes * len(images)


@torch.no_grad()
def _each(function: Callable[[Tensor], Tensor], images: Images, batch_size: int, workers: int, label: str) -> Tensor:
    """The function's results (N, ...) for the images of epoch 0, in order."""
    order: DataLoader[Any] = loader(images, batch_size, shuffle=False, workers=workers, shard=False)
    with bar() as progress:
        task = progress.add_task(label, total=len(order))
        found = []
        for batch in order:
            found.append(function(batch))
            progress.advance(task)
    return torch.cat(found)
