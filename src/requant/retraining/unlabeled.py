"""The proposed retraining: match the teacher's outputs on images without labels."""

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant.data import loader
from requant.evaluation import evaluating
from requant.progress import bar
from requant.recipe import Recipe, choice
from requant.retraining.loop import History, fit
from requant.retraining.losses import LOSSES
from requant.retraining.objectives import MatchOutputs, MatchTeacher
from requant.retraining.trainable import freeze


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
    """Images that are ready: a float tensor (N, C, H, W), normalised as the network wants them."""

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
    teacher_outputs: str = "once",
    workers: int = 0,
    seed: int = 0,
    **training: Any,
) -> History:
    """Train what is not quantized until the student's outputs match the teacher's on unlabeled images, in place.

    (Thonglek et al., IJCNN 2020, section III.) `codebooks` names the quantized tensors, which stand still; `only`
    narrows what is trained further. `teacher_outputs="once"` computes the teacher's outputs before the first epoch
    where the images allow it. `training` goes to `requant.retraining.loop.fit`: statistics, test, folder, trainer,
    loggers, label.
    """
    recipe = recipe or Recipe()
    images = TensorImages(images) if isinstance(images, Tensor) else images
    choice("loss", loss, tuple(LOSSES))
    choice("teacher_outputs", teacher_outputs, ("once", "live"))
    freeze(student, codebooks, only)
    objective: MatchOutputs | MatchTeacher = MatchOutputs(loss, temperature)
    batches: Images | WithOutputs = images
    started = time.perf_counter()
    with evaluating(teacher):
        if teacher_outputs == "once" and images.fixed:
            batches = WithOutputs(images, predict(teacher, images, recipe.batch_size, workers))
        else:
            objective = MatchTeacher(teacher, loss, temperature)
        predicted = time.perf_counter() - started
        train = loader(batches, recipe.batch_size, shuffle=True, seed=seed, workers=workers)
        history = fit(student, train, objective, recipe, frozen=codebooks, seed=seed, **training)
    return replace(history, teacher_seconds=predicted)


@torch.no_grad()
def predict(teacher: nn.Module, images: Images, batch_size: int, workers: int = 0) -> Tensor:
    """The logits (N, C) of a teacher in eval mode for every image of epoch 0, on the CPU."""
    device = next(teacher.parameters()).device
    order: DataLoader[Any] = loader(images, batch_size, shuffle=False, workers=workers, shard=False)
    with bar() as progress:
        task = progress.add_task("teacher's outputs", total=len(order))
        logits = []
        for batch in order:
            logits.append(teacher(batch.to(device)).float().cpu())
            progress.advance(task)
    return torch.cat(logits)
