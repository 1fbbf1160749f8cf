"""Means and deviations of a layer's outputs, channel by channel, and how to give the student's the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_RATIO, MOST_RATIO = 0.5, 2.0  # of deviations: beyond it a channel is as good as constant
SMALLEST = 1e-10  # variance: below it a channel is constant
LEAST_CORRELATION = 0.25


def mean_and_variance(batches: Sequence[Tensor], axis: int = 1) -> tuple[Tensor, Tensor]:
    """Of each channel, in float64: (C,) and (C,), for batches whose channels are along `axis`."""
    rows = [batch.movedim(axis, -1).flatten(0, -2) for batch in batches]
    count = sum(len(part) for part in rows)
    mean = torch.stack([part.mean(0).double() * (len(part) / count) for part in rows]).sum(0)
    squares = torch.stack([(part - mean.float()).square().sum(0).double() for part in rows]).sum(0)
    return mean, squares / count


def correction(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    deviations: bool = True,
    axis: int = 1,
    gain: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that give the student's channels the teacher's means, and deviations where wanted.

    Rounding adds noise to a channel, so that with the teacher's deviation less of it is signal. With r the correlation
    of student and teacher, a scale greater by 1 / r would give the signal the teacher's size again (the regression of
    the student on the teacher then has slope 1); `gain` says how far to go there, r^-gain.
    """
    (mean, variance), (wanted_mean, wanted_variance) = (mean_and_variance(x, axis) for x in (student, teacher))
    ratio = (wanted_variance / variance.clamp_min(SMALLEST)).sqrt().clamp(LEAST_RATIO, MOST_RATIO)
    if gain:
        shared = _covariance(student, teacher, mean, wanted_mean, axis)
        correlation = shared / (variance * wanted_variance).sqrt().clamp_min(SMALLEST)
        ratio = ratio * correlation.clamp(LEAST_CORRELATION, 1) ** -gain
    scale = torch.where((variance > SMALLEST) & deviations, ratio, torch.ones_like(ratio))
    return scale.float(), (wanted_mean - mean * scale).float()


def _covariance(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mean: Tensor, wanted_mean: Tensor, axis: int
) -> Tensor:
    """(C,) in float64."""
    total, count = torch.zeros_like(mean), 0
    for found, wanted in zip(student, teacher, strict=True):
        pair = (x.movedim(axis, -1).flatten(0, -2) - m.float() for x, m in ((found, mean), (wanted, wanted_mean)))
        total += torch.mul(*pair).sum(0).double()
        count += found.numel() // len(mean)
    return total / count
