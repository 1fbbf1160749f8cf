"""Rounding weights to paths of a trellis so that their errors cancel in the layer's outputs.

As `rounding`, errors of a weight are made up for by those to come; here in the order in which they are stored, as the
trellis runs along it. In each of the trellis's states the best path that ends there is kept, with its own errors and
what they ask of the weights to come (Viterbi's algorithm with a residual for each survivor). After `BLOCK` weights the
best of the paths is chosen.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from requant.reconstruction.rounding import damped_factor
from requant.trellis import PARITY, STATES, successors

BLOCK = 64
NOWHERE = 1e30  # the cost of a state in which no path ends


def trellis_indices(weight: Tensor, moments: Tensor, table: Tensor, damping: float) -> Tensor:
    """The index of each weight (see `requant.codebook_trellis`).

    Args:
        weight: (out, ...) of a layer.
        moments: (groups, C, C) of its inputs, C values an output.
        table: (K,) of equal steps; three entries at least, so that every branch has a point.
        damping: of the mean second moment, added to each.

    Returns:
        int64, the weight's shape.

    Raises:
        ValueError: for a shorter table.

    """
    if len(table) < 3:
        raise ValueError(f"a trellis needs a table of 3 entries at least, not {len(table)}")
    groups, size = moments.shape[:2]
    target = weight.reshape(groups, -1, size).float().clone()
    factor = damped_factor(moments, damping)
    step = float(table[-1] - table[0]) / (2 * (len(table) - 1))
    points = (target - float(table[0])) / step
    return (_paths(points, factor, 2 * (len(table) - 1)) >> 1).reshape(weight.shape)


def _paths(target: Tensor, factor: Tensor, highest: int) -> Tensor:
    """(groups, R, C) points, whole numbers from 0 to `highest`, for targets in the same units, which it changes."""
    groups, rows, size = target.shape
    points = torch.empty(target.shape, dtype=torch.int64, device=target.device)
    state = torch.zeros(groups, rows, 1, dtype=torch.int64, device=target.device)
    for begin in range(0, size, BLOCK):
        end = min(size, begin + BLOCK)
        survivors = _Survivors(target[:, :, begin:end], state, highest)
        for place in range(begin, end):
            survivors.extend(factor[:, place, place:end])
        state, points[:, :, begin:end], errors = survivors.best()
        target[:, :, end:] -= errors @ factor[:, begin:end, end:]
    return points


class _Survivors:
    """The best path into each state; S states, two branches from each and into each.

    Args:
        targets: (groups, R, B) of a block.
        state: (groups, R, 1) before it.
        highest: point.

    """

    def __init__(self, targets: Tensor, state: Tensor, highest: int) -> None:
        device = targets.device
        branches = torch.from_numpy(np.argsort(successors().reshape(-1), kind="stable")).to(device)
        self._first, self._second = branches[::2], branches[1::2]  # of each state, as 2 x its predecessor + low bit
        parity = torch.from_numpy(PARITY).to(device, torch.float32)
        self._residues = torch.stack([parity, parity + 2], dim=1)  # (S, 2) of a branch's points, modulo 4
        self._tops = highest - (highest - self._residues) % 4  # (S, 2) the highest of a branch's points
        self._left = targets[:, :, None].expand(-1, -1, STATES, -1)  # (groups, R, S, B), what is still to be rounded
        self._costs = torch.full((*state.shape[:2], STATES), NOWHERE, device=device).scatter_(2, state, 0.0)
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # points, errors and predecessors, (groups, R, S) each

    def extend(self, factor: Tensor) -> None:
        """Round the next weight; `factor` (groups, B) is its row from its own place on."""
        targets, own = self._left[..., :1], factor[:, 0, None, None, None]
        points = torch.round((targets - self._residues) / 4) * 4 + self._residues
        points = torch.minimum(torch.maximum(points, self._residues), self._tops)
        errors = (targets - points) / own
        costs = (self._costs[..., None] + errors.square()).flatten(2)
        first, second = costs[..., self._first], costs[..., self._second]
        chosen = torch.where(second < first, self._second, self._first)
        self._costs = torch.minimum(first, second)
        points, errors = (x.flatten(2).gather(2, chosen) for x in (points, errors))
        predecessors = chosen >> 1
        self._steps.append((points, errors, predecessors))
        left = self._left[..., 1:]
        left = left.gather(2, predecessors[..., None].expand(left.shape))
        self._left = left - errors[..., None] * factor[:, None, None, 1:]

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The state (groups, R, 1) in which the best path ends; its points and its errors, (groups, R, B) each."""
        last = state = self._costs.argmin(2, keepdim=True)
        found: list[Any] = []
        for points, errors, predecessors in reversed(self._steps):
            found.append((points.gather(2, state).long(), errors.gather(2, state)))
            state = predecessors.gather(2, state)
        path, wrong = (torch.cat(parts, dim=2) for parts in zip(*reversed(found), strict=True))
        return last, path, wrong
