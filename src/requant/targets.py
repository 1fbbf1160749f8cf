"""What plan=auto aims at: a size of the file, or how far the outputs may move; found by the step of the grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from requant.auto import Grids, entropy_bytes, step_of
from requant.balancing import Reconstruction, balanced
from requant.compression import Compressed
from requant.errors import UserError
from requant.modes import evaluating
from requant.outputs import Outputs
from requant.progress import console

TOLERANCE = 2e-3  # of the size wanted
RECONSTRUCTED, LOOSE, PATIENCE = 4e-3, 1e-2, 3  # the same where it is reconstructed, from so many networks on looser
ROUNDS, RECONSTRUCTIONS = 16, 10
FAR, LEAST_SHARE = 16.0, 0.05  # of steps between which a size is looked for
FIRST_BITS, MOST_BITS, LEAST_BITS = 3.0, 7.0, 0.5  # a weight, where a drop is aimed at
CLOSE_BITS = 0.1
FEWER_BITS = 0.8  # a weight, that balanced steps may save
GRAIN = 0.2
"""Steps of what is not clustered, in parts of the noise that rounding weights leaves (`reconstruction.coarse`)."""
TRAINED = 0.995
"""Of the size, where training that holds bits follows: what is not on grids may compress worse after it."""


def fit_size(
    grids: Grids,
    size: Callable[[Compressed], int],
    target: int,
    batches: Sequence[Tensor] = (),
    damping: float | None = None,
    trellis: bool = False,
    grain: float = 0.0,
    dreams: Sequence[Tensor] = (),
    balance: bool = True,
) -> Compressed:
    """The network rounded to grids so that its file is no larger than the target, and by 0.2 % smaller at most.

    (By 0.4 % where it is reconstructed, 1 % where three networks have missed that.) The entropy of the indices follows
    the step closely and is quick to compute; the file's true size says, a few times, what comes on top. Where no such
    size was found, it is said how near it came: from below if at all.

    Args:
        grids: of the network.
        size: the bytes of what is made.
        target: bytes that the file may have.
        batches: images (N, C, H, W) without labels; where there are any the network is reconstructed on them.
        damping: of the reconstruction; None: the best of three (`best_damping`), chosen once.
        trellis: reconstruct on trellises, where layers have bits enough (`Grids.for_trellis`).
        grain: of what is not clustered, in reconstruction (`GRAIN`; 0 where training moves that freely).
        dreams: batches for the reconstruction beside those (`requant.reconstruction.dreams`).
        balance: where it is reconstructed, take steps that are in balance (`requant.balancing`).

    Raises:
        UserError: for a size that cannot be had.

    """
    slack = (RECONSTRUCTED if batches else TOLERANCE) * target
    goal = target - slack / 2
    reconstructed = Reconstruction(grids, batches, damping, trellis, grain, dreams)
    asked: float = goal
    if batches and balance:
        grids, asked = balanced(reconstructed, goal)
        reconstructed = replace(reconstructed, grids=grids)
    step = step_of(grids, asked)
    sizes: dict[float, int] = {}
    nearest: tuple[int, Compressed] | None = None
    while len(sizes) < (RECONSTRUCTIONS if batches else ROUNDS) and step not in sizes:
        plain = grids.at(step)
        found = reconstructed(plain)
        sizes[step] = true = size(found)
        if nearest is None or _off(true, target) < _off(nearest[0], target):
            nearest = true, found
        if batches and len(sizes) >= PATIENCE:
            slack = LOOSE * target
            goal = target - slack / 2
        if target - slack <= nearest[0] <= target:
            return nearest[1]
        wanted = max(0.0, goal - (true - entropy_bytes(plain)))  # what is not on grids may be less with wider steps
        step = _between(sizes, goal) or step_of(grids, wanted)
        if not wanted and step in sizes:
            raise UserError(
                f"a file of {target:,} bytes cannot be had: with nothing left on grids it has {min(sizes.values()):,}; "
                "set a greater target.size_mb or a smaller target.reduction"
            )
    assert nearest is not None
    console.print(f"  {nearest[0]:,} bytes are the nearest to {target:,} that was found", highlight=False)
    return nearest[1]


def _off(size: int, target: int) -> tuple[bool, int]:
    """How far from the target, for comparing; any that is above it is further."""
    return size > target, abs(size - target)


def _between(sizes: Mapping[float, int], target: float) -> float | None:
    """A step between the widest that makes too much and the narrowest, wider than it, that does not; None: no such two.

    Where a power of the step would have the size; in the middle while the two are far apart, as sizes may stand still.
    """
    narrow = max((step for step, true in sizes.items() if true > target), default=math.inf)
    wide = min((step for step, true in sizes.items() if true <= target and step > narrow), default=math.inf)
    if math.isinf(wide):
        return None
    share = math.log(sizes[narrow] / target) / math.log(sizes[narrow] / sizes[wide])
    share = min(max(share, LEAST_SHARE), 1 - LEAST_SHARE) if wide / narrow < FAR else 0.5
    return float(narrow * (wide / narrow) ** share)


def fit_drop(
    grids: Grids,
    most: float,
    held_out: Sequence[Tensor],
    stored: Callable[[Compressed], nn.Module],
    batches: Sequence[Tensor] = (),
    damping: float | None = None,
    trellis: bool = False,
    grain: float = 0.0,
    finest: bool = False,
    dreams: Sequence[Tensor] = (),
    balance: bool = True,
) -> Compressed:
    """The smallest network found whose outputs are not the original's by `most` at most, on the held-out images.

    Of classes and yes or no that is the share that is decided otherwise: where accuracy falls, what is named has
    changed; without labels that is what can be counted, and the accuracy of a network that is right more often than not
    falls by less. Of values it is the share of their variance that is lost. The bits a weight are narrowed down to a
    tenth; where it is reconstructed, steps are balanced then, and the bits narrowed down again.

    Args:
        grids: of the network.
        most: the share, 0 to 1.
        held_out: batches (N, C, H, W) without labels, which nothing else looked at.
        stored: what will come back from the file of what is made: that is what is measured.
        batches: images without labels; where there are any the network is reconstructed on them.
        damping: as for `fit_size`.
        trellis: as for `fit_size`.
        grain: as for `fit_size`.
        finest: where even the finest grids differ by more, take those: what is done next may mend it.
        dreams: as for `fit_size`.
        balance: as for `fit_size`.

    Raises:
        UserError: for no held-out images, and where the finest grids differ by more, but for `finest`.

    """
    if not held_out:
        raise UserError("target.max_drop needs unlabeled images that the reconstruction leaves over: supply more")
    kind, wanted = grids.outputs, _goals(grids.outputs, grids.base, held_out)
    values = sum(grids.base.get_parameter(layer.weight).numel() for layer in grids.layers)

    def tried(reconstructed: Reconstruction, bits: float) -> tuple[Compressed, float, str]:
        made = reconstructed(reconstructed.grids.at(step_of(reconstructed.grids, bits * values / 8)))
        dropped = kind.missed(_goals(kind, stored(made), held_out), wanted)
        said = f"{dropped:.2%} {kind.losing} (of {len(wanted)} held-out images)"
        console.print(f"  {bits:.2f} bits a weight: {said}", highlight=False)
        return made, dropped, said

    def narrowed(
        reconstructed: Reconstruction, low: float, bits: float, high: float, found: Compressed | None
    ) -> Compressed:
        while found is None or high - low > CLOSE_BITS:
            made, dropped, said = tried(reconstructed, bits)
            if dropped <= most:
                found, high = made, bits
            else:
                low = bits
            if found is None and bits > MOST_BITS - CLOSE_BITS:
                if finest:
                    return made
                raise UserError(
                    f"target.max_drop={most}: at {MOST_BITS} bits a weight still {said}; set a greater one, or "
                    "unlabeled images that are more like the original's"
                )
            bits = (low + high) / 2
        return found

    reconstructed = Reconstruction(grids, batches, damping, trellis, grain, dreams)
    found = narrowed(reconstructed, LEAST_BITS, FIRST_BITS, MOST_BITS, None)
    if not (batches and balance):
        return found
    better, asked = balanced(reconstructed, entropy_bytes(found))
    high = asked * 8 / values
    low = max(LEAST_BITS, high - FEWER_BITS) if better is not grids else high
    return narrowed(replace(reconstructed, grids=better), low, (low + high) / 2, high, found)


def _goals(kind: Outputs, model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    with evaluating(model), torch.inference_mode():
        return torch.cat([kind.goal(kind.of(model, batch)) for batch in batches])
