"""Exact counts: how often a network is right, and how far it is from its teacher."""

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from requant.errors import DataError
from requant.modes import evaluating
from requant.scores import scores

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Accuracy:
    """Counts over n images, and fractions of n. Distances from the teacher are None where no teacher was given."""

    n: int
    correct: int
    top1: float
    top5: float
    worst_class: dict[str, float]
    """The class with the lowest top-1 among those present: {class, correct, n, top1}."""
    agreement: float | None = None
    """The fraction of images on which student and teacher name the same class."""
    kl: float | None = None
    """Mean KL(teacher || student) of the class probabilities, nats; None where outputs are no numbers."""

    def to_dict(self) -> dict[str, Any]:
        """As result.json holds it."""
        return asdict(self)


def evaluate(model: nn.Module, batches: Batches, teacher: nn.Module | None = None) -> Accuracy:
    """Measure `model` on batches of (images, labels); with a teacher also how well it agrees with it.

    The models are used in eval mode, on the device they are on, and left in the mode they were in.
    """
    (logits_NC, *teachers), labels_N = _outputs([model] if teacher is None else [model, teacher], batches)
    return score(logits_NC, labels_N, *teachers)


def outputs(model: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    """The logits (N, C) of `model` and the labels (N,) over all batches, on the CPU, in float32."""
    (logits_NC,), labels_N = _outputs([model], batches)
    return logits_NC, labels_N


@torch.inference_mode()
def _outputs(models: list[nn.Module], batches: Batches) -> tuple[list[Tensor], Tensor]:
    """The logits of each model, in one pass over the batches, and the labels."""
    logits: list[list[Tensor]] = [[] for _ in models]
    labels: list[Tensor] = []
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(evaluating(model))
        for batch in batches:
            images_NCHW, labels_N = _checked(batch)
            labels.append(labels_N.cpu())
            for model, found in zip(models, logits, strict=True):
                found.append(scores(model, _as_weights(model, images_NCHW)).float().cpu())
    if not sum(map(len, labels)):
        raise DataError("no images to measure on: the test set is empty")
    return [torch.cat(found) for found in logits], torch.cat(labels)


def _checked(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise DataError(
            f"batches must be pairs of tensors (images, labels), and one is a {type(batch).__name__}: "
            "give [(images, labels)] or a DataLoader"
        )
    images_NCHW, labels_N = batch
    if labels_N.shape != images_NCHW.shape[:1] or labels_N.is_floating_point() or labels_N.dtype == torch.bool:
        raise DataError(
            f"labels must be class indices (N,), and for {len(images_NCHW)} images they are {labels_N.dtype} of shape "
            f"{tuple(labels_N.shape)}"
        )
    return images_NCHW, labels_N


def _as_weights(model: nn.Module, images_NCHW: Tensor) -> Tensor:
    """Images on the device of the network's weights, and floats in their precision."""
    first = next(model.parameters(), images_NCHW)
    floats = images_NCHW.is_floating_point() and first.is_floating_point()
    return images_NCHW.to(first.device, first.dtype if floats else None)


def score(logits_NC: Tensor, labels_N: Tensor, teacher_NC: Tensor | None = None) -> Accuracy:
    """Counts and distances from logits. Ties go to the lower class index, in top-1 as in top-5.

    Images on which the outputs are no numbers (NaN, infinite) count as wrong, with a warning; there is no KL then.

    Raises:
        DataError: for a teacher's outputs that are no numbers, and labels that are none of the classes.

    """
    broken_N = _no_numbers(logits_NC)
    if broken_N.any():
        text = f"outputs on {int(broken_N.sum())} of {len(logits_NC)} images are {_NONE}: they count as wrong"
        warnings.warn(text, stacklevel=2)
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= logits_NC.shape[1]:
        raise DataError(
            f"labels go from {int(labels_N.min())} to {int(labels_N.max())}, and the outputs have classes 0 to "
            f"{logits_NC.shape[1] - 1}: leave images without a class out"
        )
    ranks_NC = logits_NC.argsort(dim=1, descending=True, stable=True)
    hits_N = (ranks_NC[:, 0] == labels_N) & ~broken_N
    n, correct = len(labels_N), int(hits_N.sum())
    top5 = int(((ranks_NC[:, :5] == labels_N[:, None]).any(1) & ~broken_N).sum())
    agreement, kl = (None, None) if teacher_NC is None else _distances(logits_NC, teacher_NC, broken_N)
    return Accuracy(n, correct, correct / n, top5 / n, _worst_class(hits_N, labels_N), agreement, kl)


def _distances(logits_NC: Tensor, teacher_NC: Tensor, broken_N: Tensor) -> tuple[float, float | None]:
    if broken := int(_no_numbers(teacher_NC).sum()):
        raise DataError(f"the teacher's outputs on {broken} of {len(teacher_NC)} images are {_NONE}: check its weights")
    same = int(((logits_NC.argmax(1) == teacher_NC.argmax(1)) & ~broken_N).sum())
    if broken_N.any():
        return same / len(logits_NC), None
    student, teacher = logits_NC.double().log_softmax(1), teacher_NC.double().log_softmax(1)
    shares = teacher.exp()
    kl = torch.where(shares > 0, shares * (teacher - student), 0.0).sum(1).mean()  # a class may be ruled out: -inf
    return same / len(logits_NC), float(kl.clamp(min=0))


_NONE = "no numbers (NaN or infinite)"


def _no_numbers(logits_NC: Tensor) -> Tensor:
    """(N,) whether they give no shares of the classes."""
    return logits_NC.double().log_softmax(1).isnan().any(1)


def _worst_class(hits_N: Tensor, labels_N: Tensor) -> dict[str, float]:
    totals = torch.bincount(labels_N)
    correct = torch.bincount(labels_N[hits_N], minlength=len(totals))
    rates = torch.where(totals > 0, correct / totals.clamp(min=1), torch.inf)
    worst = int(rates.argmin())
    return {
        "class": worst,
        "correct": int(correct[worst]),
        "n": int(totals[worst]),
        "top1": int(correct[worst]) / int(totals[worst]),
    }
