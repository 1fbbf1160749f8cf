"""Means and deviations of a layer's outputs, channel by channel, and how to give the student's the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_RATIO, MOST_RATIO = 0.5, 2.0  # of deviations: beyond it a channel is as good as constant
SMALLEST = 1e-10  # variance: below it a channel is constant


def mean_and_variance(batches: Sequence[Tensor], axis: int = 1) -> tuple[Tensor, Tensor]:
    """Of each channel, in float64: (C,) and (C,), for batches whose channels are along `axis`."""
    rows = [batch.movedim(axis, -1).flatten(0, -2) for batch in batches]
    count = sum(len(part) for part in rows)
    mean = torch.stack([part.mean(0).double() * (len(part) / count) for part in rows]).sum(0)
    squares = torch.stack([(part - mean.float()).square().sum(0).double() for part in rows]).sum(0)
    return mean, squares / count


def correction(
    student: Sequence[Tensor], teacher: Sequence[Tensor], deviations: bool = True, axis: int = 1
) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that give the student's channels the teacher's means, and deviations where wanted."""
    (mean, variance), (wanted_mean, wanted_variance) = (mean_and_variance(x, axis) for x in (student, teacher))
    ratio = (wanted_variance / variance.clamp_min(SMALLEST)).sqrt().clamp(LEAST_RATIO, MOST_RATIO)
    scale = torch.where((variance > SMALLEST) & deviations, ratio, torch.ones_like(ratio))
    return scale.float(), (wanted_mean - mean * scale).float()
