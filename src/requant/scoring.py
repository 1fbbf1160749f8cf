"""Exact counts from outputs: how often they are right, and how far they are from the teacher's."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from requant.errors import DataError
from requant.outputs import SIGMOID, SOFTMAX, VALUES, Outputs, explained, tally

ROWS = 1 << 16  # images, or positions of them, that are looked at together


@dataclass(frozen=True)
class Accuracy:
    """Counts over n images, and fractions of n. Distances from the teacher are None where no teacher was given.

    Where each position of an image has outputs of its own, n counts positions, and of outputs that are yes or no these.
    Of values nothing is counted: `top1` is the share of the goals' variance that they explain, `agreement` that of the
    teacher's.
    """

    n: int
    correct: int | None
    top1: float
    top5: float | None
    """None but where classes are scored."""
    worst_class: dict[str, float] | None
    """The class with the lowest top-1 among those present: {class, correct, n, top1}; None but where classes are."""
    agreement: float | None = None
    """The fraction of images on which student and teacher name the same class."""
    kl: float | None = None
    """Mean KL(teacher || student) of the class probabilities (of yes and no: their sum), nats; None where outputs are
    no numbers, and of values."""

    def to_dict(self) -> dict[str, Any]:
        """As result.json holds it."""
        return asdict(self)


def score(found: Tensor, labels: Tensor, teacher: Tensor | None = None, kind: Outputs = SOFTMAX) -> Accuracy:
    """Counts and distances from outputs (N, C, ...). Ties go to the lower class index, in top-1 as in top-5.

    Images on which the outputs are no numbers (NaN, infinite) count as wrong, with a warning; there is no KL then.

    Raises:
        DataError: for a teacher's outputs that are no numbers, labels of another shape than the outputs ask for, and
            labels that are none of the classes.

    """
    wanted = found.shape if kind is not SOFTMAX else (found.shape[0], *found.shape[2:])
    if labels.shape != wanted:
        raise DataError(
            f"labels have the shape {tuple(labels.shape)}, and outputs of shape {tuple(found.shape)} need "
            f"{tuple(wanted)}: a label for each image, or each position, that has outputs"
        )
    if teacher is not None and (broken := int(_no_numbers(_rows(teacher), kind).sum())):
        raise DataError(f"the teacher's outputs on {broken} of {_things(teacher)} are {_NONE}: check its weights")
    if broken := int(_no_numbers(_rows(found), kind).sum()):
        warnings.warn(f"outputs on {broken} of {_things(found)} are {_NONE}: they count as wrong", stacklevel=2)
    if kind is VALUES:
        return _of_values(found, labels, teacher)
    if kind is SIGMOID:
        return _of_decisions(found, labels, teacher, kind)
    return _of_classes(_rows(found), labels.reshape(-1), None if teacher is None else _rows(teacher))


def _rows(outputs: Tensor) -> Tensor:
    """(N, C), a row for each image or each position of one."""
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1])


def _things(outputs: Tensor) -> str:
    return f"{len(_rows(outputs))} {'images' if outputs.ndim == 2 else 'positions'}"


_NONE = "no numbers (NaN or infinite)"


def _no_numbers(outputs_NC: Tensor, kind: Outputs = SOFTMAX) -> Tensor:
    """(N,) whether they give no shares of the classes, or other outputs are not finite."""
    if kind is not SOFTMAX:
        return ~outputs_NC.isfinite().all(1)
    return torch.cat([part.double().log_softmax(1).isnan().any(1) for part in outputs_NC.split(ROWS)])


def _of_classes(logits_NC: Tensor, labels_N: Tensor, teacher_NC: Tensor | None) -> Accuracy:
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= logits_NC.shape[1]:
        raise DataError(
            f"labels go from {int(labels_N.min())} to {int(labels_N.max())}, and the outputs have classes 0 to "
            f"{logits_NC.shape[1] - 1}: leave images without a class out"
        )
    broken_N = _no_numbers(logits_NC)
    hits_N, top5 = [], 0
    for logits, labels, broken in _chunks(logits_NC, labels_N, broken_N):
        ranks = logits.argsort(dim=1, descending=True, stable=True)
        hits_N.append((ranks[:, 0] == labels) & ~broken)
        top5 += int(((ranks[:, :5] == labels[:, None]).any(1) & ~broken).sum())
    n, hits = len(labels_N), torch.cat(hits_N)
    correct = int(hits.sum())
    agreement, kl = (None, None) if teacher_NC is None else _distances(logits_NC, teacher_NC, broken_N)
    return Accuracy(n, correct, correct / n, top5 / n, _worst_class(hits, labels_N), agreement, kl)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(ROWS) for tensor in tensors), strict=True)


def _distances(logits_NC: Tensor, teacher_NC: Tensor, broken_N: Tensor) -> tuple[float, float | None]:
    n = len(logits_NC)
    same = int(((logits_NC.argmax(1) == teacher_NC.argmax(1)) & ~broken_N).sum())
    if broken_N.any():
        return same / n, None
    kl = torch.zeros((), dtype=torch.float64)
    for logits, wanted in _chunks(logits_NC, teacher_NC):
        student, teacher = logits.double().log_softmax(1), wanted.double().log_softmax(1)
        shares = teacher.exp()
        kl += torch.where(shares > 0, shares * (teacher - student), 0.0).sum(1).sum()  # a class may be ruled out: -inf
    return same / n, float((kl / n).clamp(min=0))


def _of_decisions(found: Tensor, labels: Tensor, teacher: Tensor | None, kind: Outputs) -> Accuracy:
    numbers = found.isfinite()
    n, correct = found.numel(), int(((found > 0) == labels)[numbers].sum())
    if teacher is None:
        return Accuracy(n, correct, correct / n, None, None)
    same = int(((found > 0) == (teacher > 0))[numbers].sum())
    kl = float(kind.divergence(found.double(), teacher.double())) if bool(numbers.all()) else None
    return Accuracy(n, correct, correct / n, None, None, same / n, kl)


def _of_values(found: Tensor, goals: Tensor, teacher: Tensor | None) -> Accuracy:
    agreement = None if teacher is None else _explained(found, teacher)
    return Accuracy(len(_rows(found)), None, _explained(found, goals), None, None, agreement)


def _explained(found: Tensor, wanted: Tensor) -> float:
    """The share of variance explained; 0 where outputs are no numbers."""
    return explained(tally(found, wanted)) if bool(found.isfinite().all()) else 0.0


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
