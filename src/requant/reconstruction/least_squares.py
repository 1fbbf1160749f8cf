"""Weights with which a layer makes the original's outputs of what now comes in.

Its inputs have moved, as layers before have been quantized; least squares finds the weights that make up for it as far
as a linear layer can: no learning rate, no epochs. (Layer-wise reconstruction by regression goes back to He, Zhang and
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from requant.reconstruction.moments import JointMoments, mean_of

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


def solved(weight: Tensor, folds: Sequence[JointMoments]) -> Tensor:
    """The weight of least error on images that it is not made from: one damping for all `folds`, then all images.

    Args:
        weight: the layer's weight so far, (out, ...).
        folds: moments with this weight, of images apart; of one fold alone the strongest damping is taken.

    Returns:
        The new weight, float32; the old one where no damping helps.

    """
    if len(folds) == 1:
        return damped_solution(weight, folds[0], DAMPINGS[-1])
    pairs = [(fold, mean_of([other for other in folds if other is not fold])) for fold in folds]
    lessened = {damping: sum(_lessened(seen, damping, held_out) for held_out, seen in pairs) for damping in DAMPINGS}
    best = max(lessened, key=lessened.__getitem__)
    return damped_solution(weight, mean_of(folds), best) if lessened[best] > 0 else weight.float()


def damped_solution(weight: Tensor, moments: JointMoments, damping: float) -> Tensor:
    """The weight W' for which E|y - W'x - b|^2 + damping * scale * |W' - W|^2 is least.

    Args:
        weight: W, the layer's weight so far, (out, ...).
        moments: with this weight.
        damping: how little the images are trusted where they say little.

    Returns:
        W', float32.

    """
    groups, size, out = moments.cross.shape
    flat = weight.reshape(groups, out, size)
    return (flat + _change(moments, damping).transpose(1, 2)).float().reshape(weight.shape)


def _change(moments: JointMoments, damping: float) -> Tensor:
    """(groups, C, out / groups)."""
    damped = moments.second.clone()
    damped.diagonal(dim1=1, dim2=2).add_(damping * moments.scale[:, None])
    return torch.cholesky_solve(moments.cross, torch.linalg.cholesky(damped))


def _lessened(seen: JointMoments, damping: float, held_out: JointMoments) -> float:
    """By how much the change that suits some images makes the squared error on others smaller."""
    change = _change(seen, damping)
    return float((change * (2 * held_out.cross - held_out.second @ change)).sum())
