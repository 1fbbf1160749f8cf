"""plan=auto, once more where all layers are rounded: the steps with which one more byte is worth the same in each.

What a layer's rounding does alone (`auto`) is not what it does beside that of others, errors made up for and found on
images that no weight was rounded to suit. So the network is reconstructed, each layer's cost is measured in it
(`reconstruction.costs`), and steps become finer where a byte buys more than elsewhere, wider where less. At the best
steps costs are in proportion to the bytes that a step e times as wide saves (Shoham and Gersho, "Efficient Bit
Allocation for an Arbitrary Set of Quantizers", IEEE Trans. ASSP 1988), so about to the number of weights: at few bits a
wider step saves fewer, but makes fewer errors larger too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from requant.auto import Grids, entropy_bytes, fits_trellis, step_of
from requant.codebook_forms import AnyCodebook
from requant.compression import Compressed
from requant.progress import console
from requant.reconstruction import best_damping, reconstruct
from requant.reconstruction.costs import Cost, Rounding, costs
from requant.reconstruction.layerwise import DAMPINGS, MOST_TRIED

ROUNDS = 5  # networks measured, the first with the steps as they are
LEAST_GAIN = 0.02  # of the divergence, for which another is worth its time
HALF_WAY = 0.5  # in octaves, where steps moved all the way were worse
HELD_OUT = 4  # one image in so many
MOST_CHANGE = 1.5  # of a step in a round
SPREAD = 0.5  # deviation of costs, in parts of what they should be, that is taken for likely beforehand
LEAST_COST, MOST_COST = 0.25, 4.0  # in the same parts: further away it is not proportional to anything
MOST_VALUES = 1 << 28  # of the images looked at: some 1,800 of 224 x 224 pixels
CLOSE, TRIES = 0.03, 3  # of the size at which costs are measured, and networks made for it


@dataclass
class Reconstruction:
    """Makes students of one network, with a given damping or the one that suited the first.

    Attributes:
        grids: of the network.
        batches: images (N, C, H, W) without labels; none: weights are rounded to the nearest.
        damping: None: the best of three (`best_damping`), chosen once.
        trellis: on trellises, where layers have bits enough (`Grids.for_trellis`).
        grain: of what is not clustered.
        dreams: batches beside those.
        on_trellis: which layers are; None: those that suit it, by their bits before reconstruction.

    """

    grids: Grids
    batches: Sequence[Tensor]
    damping: float | None
    trellis: bool
    grain: float
    dreams: Sequence[Tensor]
    on_trellis: Collection[str] | None = None

    def __call__(self, plain: Compressed, roundings: dict[str, Rounding] | None = None) -> Compressed:
        """The student of what is on its grids."""
        if not self.batches:
            return plain
        self.choose(plain)
        trellis = self.grids.for_trellis(plain.codebooks) if self.on_trellis is None else self.on_trellis
        model, codebooks = reconstruct(
            self.grids.base,
            plain.codebooks,
            self.batches,
            self.damping,
            {name for name in trellis if self.trellis and fits_trellis(plain.codebooks[name])},
            grain=self.grain,
            dreams=self.dreams,
            roundings=roundings,
        )
        return replace(plain, model=model, codebooks=codebooks, assignments=self.grids.assignments(codebooks))

    def choose(self, plain: Compressed) -> None:
        """The damping by what suits this, unless there is one."""
        if self.damping is None:
            self.damping = best_damping(self.grids.base, plain.codebooks, self.batches, self.grids.outputs)


@dataclass(frozen=True)
class _Measured:
    """A network, and what the rounding of its layers costs.

    Attributes:
        grids: those it was made of.
        asked: the bytes they were asked for, to have about as many as wanted once it was reconstructed.
        divergence: of its outputs, as if it had just those.
        costs: of each layer's rounding, by its weight's name, in parts of what as many weights cost on the mean.
        codebooks: its own.

    """

    grids: Grids
    asked: float
    divergence: float
    costs: Mapping[str, Cost]
    codebooks: Mapping[str, AnyCodebook]

    def moved(self, way: float) -> Grids:
        """Steps wider where a layer costs less than others do for as many weights, and finer where it costs more."""
        widths = dict(self.grids.widths)
        for name, cost in self.costs.items():
            trust = SPREAD**2 / (SPREAD**2 + cost.error**2)
            share = min(max(1 + trust * (cost.value - 1), LEAST_COST), MOST_COST)
            widths[name] *= min(max(share**-0.5, 1 / MOST_CHANGE), MOST_CHANGE) ** way
        return replace(self.grids, widths=widths)


def balanced(whole: Reconstruction, goal: float) -> tuple[Grids, float]:
    """Grids with steps in balance where indices take about so many bytes, and the bytes to ask them for to have these.

    A quarter of the images, and of the dreams, is held out from the networks made here, and costs are measured on it.
    Grids are what they were where there is but one batch, so that none can be held out, and where rounding costs
    nothing.
    """
    batches = whole.batches[: max(2, MOST_VALUES // whole.batches[0].numel())]
    held_out, dreams = len(batches) // HELD_OUT or 1, len(whole.dreams) // HELD_OUT
    if len(batches) == held_out:
        return whole.grids, goal
    asked = goal
    if whole.damping is None:  # chosen at that size: at few bits weights take others before they are reconstructed
        few = whole.batches[: max(1, MOST_TRIED // len(whole.batches[0]))]
        trial = _of_size(replace(whole, batches=few, dreams=(), damping=DAMPINGS[1]), goal, goal)
        whole.choose(trial.plain)
        asked = trial.asked
    seen = replace(whole, batches=batches[:-held_out], dreams=whole.dreams[: len(whole.dreams) - dreams])
    others = [*batches[-held_out:], *whole.dreams[len(whole.dreams) - dreams :]]
    first = best = _measured(seen, goal, asked, others)
    if not first.costs:
        return whole.grids, goal
    # One choice for all that follow: a layer that comes off its trellis takes some percent less all at once.
    books = {layer.weight: first.codebooks[layer.weight] for layer in whole.grids.layers}
    whole.on_trellis = seen.on_trellis = whole.grids.for_trellis(books)
    way = 1.0
    for _ in range(ROUNDS - 1):
        tried = _measured(replace(seen, grids=best.moved(way)), goal, best.asked, others)
        if tried.divergence < best.divergence:
            gain, best = 1 - tried.divergence / best.divergence, tried
            if gain < LEAST_GAIN:
                break
        elif way == 1.0:
            way = HALF_WAY
        else:
            break
    kind = whole.grids.outputs
    _say(f"steps balanced: on held-out images {kind.distance} is {best.divergence:.3g}, {first.divergence:.3g} before")
    return best.grids, best.asked


def _say(text: str) -> None:
    console.print(f"  {text}", highlight=False)


@dataclass(frozen=True)
class _Made:
    """A network whose indices take `size` bytes, those of what it was made of when asked for `asked`."""

    network: Compressed
    plain: Compressed
    size: float
    asked: float
    roundings: Mapping[str, Rounding]


def _of_size(seen: Reconstruction, goal: float, asked: float) -> _Made:
    """A network of about so many bytes; `asked` is what may have to be asked for."""
    for _ in range(TRIES):
        roundings: dict[str, Rounding] = {}
        plain = seen.grids.at(step_of(seen.grids, asked))
        made = seen(plain, roundings)
        found = _Made(made, plain, entropy_bytes(made), asked, roundings)
        if not found.size or abs(found.size - goal) <= CLOSE * goal:
            break
        asked *= goal / found.size
    return found


def _measured(seen: Reconstruction, goal: float, asked: float, others: Sequence[Tensor]) -> _Measured:
    """Of a network of about `goal` bytes."""
    made = _of_size(seen, goal, asked)
    roundings = made.roundings
    divergence, found = costs(seen.grids.base, made.network.model, roundings, others, seen.grids.outputs)
    weights = sum(rounding.error.numel() for rounding in roundings.values())
    fair = sum(cost.value for cost in found.values()) / max(1, weights)
    at_goal = divergence + fair * math.log(256) * (made.size - goal)  # a step e times as wide takes 1 / log(2) bits off
    shares = {}
    for name, cost in found.items():
        wanted = fair * roundings[name].error.numel()
        if wanted > 0:
            shares[name] = Cost(cost.value / wanted, cost.error / wanted)
    return _Measured(seen.grids, made.asked, at_goal, shares, made.network.codebooks)
