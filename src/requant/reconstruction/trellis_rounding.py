"""Rounding weights to paths of a trellis so that their errors cancel in the layer's outputs.

As `rounding`, errors of a weight are made up for by those to come; here in the order in which they are stored, as the
trellis runs along it. In each of the trellis's states the best path that ends there is kept, with its own errors and
what they ask of the weights to come (Viterbi's algorithm with a residual for each survivor). A weight is decided when
the paths have gone `DELAY` further, as the best of them has it; those that have it otherwise end.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from requant.reconstruction.rounding import damped_factor
from requant.trellis import parity_of_states, successors

BLOCK = 16  # weights whose errors reach those behind them in one product
DELAY = 128  # weights, a multiple of BLOCK
AT_ONCE = 1 << 14  # survivors
NOWHERE = 1e30  # the cost of a state in which no path ends


def trellis_indices(weight: Tensor, moments: Tensor, table: Tensor, damping: float, states: int) -> Tensor:
    """The index of each weight (see `requant.codebook_trellis`).

    Args:
        weight: (out, ...) of a layer.
        moments: (groups, C, C) of its inputs, C values an output.
        table: (K,) of equal steps; three entries at least, so that every branch has a point.
        damping: of the mean second moment, added to each.
        states: of the trellis.

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
    target = (target - float(table[0])) / step
    points = torch.empty(target.shape, dtype=torch.int64, device=target.device)
    for some in _parts(groups, target.shape[1], states):
        points[some] = _path(target[some], factor[some[0]], 2 * (len(table) - 1), states)
    return (points >> 1).reshape(weight.shape)


def _parts(groups: int, rows: int, states: int) -> Iterator[tuple[slice, slice]]:
    """Groups and rows that are searched at once."""
    across, along = max(1, AT_ONCE // (rows * states)), max(1, AT_ONCE // states)
    for group in range(0, groups, across):
        for row in range(0, rows, along):
            yield slice(group, group + across), slice(row, row + along)


def _path(target: Tensor, factor: Tensor, highest: int, states: int) -> Tensor:
    """(groups, R, C) points, whole numbers from 0 to `highest`, for targets in the same units, which it changes."""
    points, size, decided = torch.empty_like(target, dtype=torch.int64), target.shape[2], 0
    survivors = _Survivors(target.shape[:2], highest, states, target.device)
    for begin in range(0, size, BLOCK):
        end = min(size, begin + BLOCK)
        survivors.enter(target[:, :, begin:end], factor[:, decided:begin, begin:end])
        for place in range(begin, end):
            survivors.extend(factor[:, place, place:end])
        survivors.remember()
        while end - decided > DELAY or (end == size and decided < size):
            until = min(size, decided + BLOCK)
            points[:, :, decided:until], errors = survivors.decide(until - decided)
            target[:, :, end:] -= errors @ factor[:, decided:until, end:]
            decided = until
    return points


class _Survivors:
    """The best path into each state; S states, two branches from each and into each.

    Args:
        shape: (groups, R).
        highest: point.
        states: S.
        device: where it is all computed.

    """

    def __init__(self, shape: torch.Size, highest: int, states: int, device: torch.device) -> None:
        branches = torch.from_numpy(np.argsort(successors(states).reshape(-1), kind="stable")).to(device)
        self._first, self._second = branches[::2], branches[1::2]  # of each state, as 2 x its predecessor + low bit
        parity = torch.from_numpy(parity_of_states(states)).to(device, torch.float32)
        self._residues = torch.stack([parity, parity + 2], dim=1)  # (S, 2) of a branch's points, modulo 4
        self._tops = highest - (highest - self._residues) % 4  # (S, 2) the highest of a branch's points
        self._places = torch.arange(shape.numel(), device=device).reshape(*shape, 1) * states  # each row's first state
        self._costs = torch.full((*shape, states), NOWHERE, device=device)
        self._costs[:, :, 0] = 0
        # Of what is not decided yet, (groups, R, S, L) each.
        self._points = torch.empty(*shape, states, 0, dtype=torch.int16, device=device)
        self._errors = torch.empty(*shape, states, 0, device=device)
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # points, errors and predecessors, (groups, R, S) each
        self._left = torch.empty(*shape, states, 0, device=device)

    def enter(self, targets: Tensor, factor: Tensor) -> None:
        """Turn to the next weights: their targets (groups, R, B), less what the errors that are not decided ask for.

        `factor` (groups, L, B) has those errors' rows at these weights.
        """
        groups, rows, states, _ = self._errors.shape
        asked = self._errors.reshape(groups, rows * states, -1) @ factor
        self._left = targets[:, :, None] - asked.reshape(groups, rows, states, -1)

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
        self._left = self._of(predecessors, self._left[..., 1:]) - errors[..., None] * factor[:, None, None, 1:]

    def _of(self, states: Tensor, values: Tensor) -> Tensor:
        """Of values (groups, R, S, L) those of states (groups, R, S), in their row."""
        flat = values.flatten(0, 2).index_select(0, (self._places + states).flatten())
        return flat.reshape(values.shape)

    def remember(self) -> None:
        """Append the weights that have been rounded to what is not decided yet."""
        state = torch.arange(self._costs.shape[2], device=self._costs.device).expand(self._costs.shape)
        points, errors = [], []
        for of_points, of_errors, predecessors in reversed(self._steps):
            points.append(of_points.gather(2, state).to(torch.int16))
            errors.append(of_errors.gather(2, state))
            state = predecessors.gather(2, state)
        self._points = torch.cat([self._of(state, self._points), torch.stack(points[::-1], 3)], 3)
        self._errors = torch.cat([self._of(state, self._errors), torch.stack(errors[::-1], 3)], 3)
        self._costs -= self._costs.amin(2, keepdim=True)
        self._steps = []

    def decide(self, count: int) -> tuple[Tensor, Tensor]:
        """The first weights that are not decided: their points and errors (groups, R, count) on the best path."""
        best = self._places + self._costs.argmin(2, keepdim=True)
        points, errors = (
            values[..., :count].flatten(0, 2).index_select(0, best.flatten()).reshape(*best.shape, count)
            for values in (self._points, self._errors)
        )
        self._costs.masked_fill_((self._points[..., :count] != points).any(3), NOWHERE)
        self._points, self._errors = self._points[..., count:], self._errors[..., count:]
        return points[:, :, 0].long(), errors[:, :, 0]
