"""Means and deviations of a layer's outputs, channel by channel, and how to give the student's the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_RATIO, MOST_RATIO = 0.5, 2.0  # of deviations: beyond it a channel is as good as constant
SMALLEST = 1e-10  # variance: below it a channel is constant


def mean_and_variance(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each channel, in float64: (C,) and (C,), for batches of shape (N, C, ...)."""
    count = sum(batch.numel() // batch.shape[1] for batch in batches)
    mean = sum(_rows(batch).mean(0).double() * (batch.numel() // batch.shape[1]) for batch in batches) / count
    assert isinstance(mean, Tensor)
    squares = sum((_rows(batch) - mean.float()).square().sum(0).double() for batch in batches)
    assert isinstance(squares, Tensor)
    return mean, squares / count


def correction(student: Sequence[Tensor], teacher: Sequence[Tensor], deviations: bool = True) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that give the student's channels the teacher's means, and deviations where wanted."""
    (mean, variance), (wanted_mean, wanted_variance) = mean_and_variance(student), mean_and_variance(teacher)
    ratio = (wanted_variance / variance.clamp_min(SMALLEST)).sqrt().clamp(LEAST_RATIO, MOST_RATIO)
    scale = torch.where((variance > SMALLEST) & deviations, ratio, torch.ones_like(ratio))
    return scale.float(), (wanted_mean - mean * scale).float()


def _rows(batch: Tensor) -> Tensor:
    """(rows, C)."""
    return batch.movedim(1, -1).reshape(-1, batch.shape[1])
