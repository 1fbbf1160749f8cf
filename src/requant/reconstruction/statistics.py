"""Means and deviations of a layer's outputs, channel by channel, and how to give the student's the teacher's.

Of many images' outputs an even grid of places is looked at, the same in the student's as in the teacher's: what both
have in common cancels in their difference, so that it takes few.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from requant.reconstruction.sampling import places

ROWS = 1 << 16  # outputs of a channel that its statistics are of
LEAST_RATIO, MOST_RATIO = 0.5, 2.0  # of deviations: beyond it a channel is as good as constant
SMALLEST = 1e-10  # variance: below it a channel is constant
LEAST_CORRELATION = 0.25


def mean_and_variance(batches: Sequence[Tensor], axis: int = 1) -> tuple[Tensor, Tensor]:
    """Of each channel, in float64: (C,) and (C,), for batches whose channels are along `axis`."""
    return _mean_and_variance(_rows(batches, axis))


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
    found, wanted = _rows(student, axis), _rows(teacher, axis)
    (mean, variance), (wanted_mean, wanted_variance) = _mean_and_variance(found), _mean_and_variance(wanted)
    ratio = (wanted_variance / variance.clamp_min(SMALLEST)).sqrt().clamp(LEAST_RATIO, MOST_RATIO)
    if gain:
        shared = _covariance(found, wanted, mean, wanted_mean)
        correlation = shared / (variance * wanted_variance).sqrt().clamp_min(SMALLEST)
        ratio = ratio * correlation.clamp(LEAST_CORRELATION, 1) ** -gain
    scale = torch.where((variance > SMALLEST) & deviations, ratio, torch.ones_like(ratio))
    return scale.float(), (wanted_mean - mean * scale).float()


def noise(student: Sequence[Tensor], teacher: Sequence[Tensor], axis: int = 1, of_means: bool = False) -> Tensor:
    """(C,) the root mean square of what the student's channels differ by, or of their means over each image.

    Of means over an image's places less is left, as noise is not the same everywhere; in float64.
    """
    if of_means:
        student, teacher, axis = [_means(b, axis) for b in student], [_means(b, axis) for b in teacher], 1
    pairs = list(zip(_rows(student, axis), _rows(teacher, axis), strict=True))
    total = torch.stack([(found - wanted).square().sum(0).double() for found, wanted in pairs]).sum(0)
    return (total / sum(len(found) for found, _ in pairs)).sqrt()


def _means(batch: Tensor, axis: int) -> Tensor:
    """(N, C), over all places."""
    return batch.movedim(axis, 1).flatten(2).mean(2) if batch.ndim > 2 else batch


def _rows(batches: Sequence[Tensor], axis: int) -> list[Tensor]:
    """(rows, C) of each batch; of images (N, C, H, W) about `ROWS` in all, where there are more."""
    wanted = max(1, ROWS // len(batches))
    found = []
    for position, batch in enumerate(batches):
        taken = batch
        if batch.ndim == 4 and axis == 1:
            n, _, height, width = batch.shape
            taken = batch[:, :, *places(n, height, width, wanted, position)]
        found.append(taken.movedim(axis, -1).flatten(0, -2))
    return found


def _mean_and_variance(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    count = sum(len(part) for part in rows)
    mean = torch.stack([part.mean(0).double() * (len(part) / count) for part in rows]).sum(0)
    squares = torch.stack([(part - mean.float()).square().sum(0).double() for part in rows]).sum(0)
    return mean, squares / count


def _covariance(student: Sequence[Tensor], teacher: Sequence[Tensor], mean: Tensor, wanted_mean: Tensor) -> Tensor:
    """(C,) in float64."""
    pairs = zip(student, teacher, strict=True)
    total = torch.stack([((s - mean.float()) * (t - wanted_mean.float())).sum(0).double() for s, t in pairs]).sum(0)
    return total / sum(len(part) for part in student)
